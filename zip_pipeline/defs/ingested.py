"""Whether a drop, as it lies in its folder now, is ingested already."""

import dagster as dg

from zip_pipeline.defs.ingestion import (
    COMPRESSION_STATE_CODE_VERSION,
    DROP_FINGERPRINT,
    POOL_FINGERPRINT,
    RAW_POOL_CODE_VERSION,
)
from zip_pipeline.defs.partitions import compression_state_key, raw_pool_key
from zip_pipeline.pool.ingest import batch_metadata
from zip_pipeline.pool.states import is_current
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot

_CODE_VERSION_TAG = "dagster/code_version"


def is_ingested(
    instance: dg.DagsterInstance, root: DataRoot, stage: Stage, batch: str, stat_fingerprint: str
) -> bool:
    """Return whether history and disk agree that this state of the drop is ingested.

    Needed are: the latest materialisation of the batch's pool partition read the drop with
    this stat fingerprint, its compression state followed from it, both by today's code, and
    the tables on disk are those of that materialisation.
    """
    pool = _latest(instance, raw_pool_key(stage), batch)
    state = _latest(instance, compression_state_key(stage), batch)
    if not _is_by(pool, RAW_POOL_CODE_VERSION) or not _is_by(state, COMPRESSION_STATE_CODE_VERSION):
        return False
    ingested = _value(pool, POOL_FINGERPRINT)
    if _value(pool, DROP_FINGERPRINT) != stat_fingerprint:
        return False
    if _value(state, POOL_FINGERPRINT) != ingested:
        return False
    try:
        on_disk = batch_metadata(root, stage, batch)["fingerprint"]
        return on_disk == ingested and is_current(root, stage, batch)
    except (ValueError, OSError):
        # Nothing, or only a part of it, is on disk: to be ingested.
        return False


def _latest(
    instance: dg.DagsterInstance, key: dg.AssetKey, batch: str
) -> dg.AssetMaterialization | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[batch])
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0].asset_materialization if records else None


def _is_by(materialization: dg.AssetMaterialization | None, code_version: str) -> bool:
    tags = materialization.tags if materialization else None
    return bool(tags) and tags.get(_CODE_VERSION_TAG) == code_version  # type: ignore[union-attr]


def _value(materialization: dg.AssetMaterialization | None, name: str) -> object:
    assert materialization is not None
    metadata = materialization.metadata.get(name)
    return metadata.value if metadata is not None else None
