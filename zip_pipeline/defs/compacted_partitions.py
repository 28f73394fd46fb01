"""The partitions of compacted batches, and of those that went into them."""

from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG

from zip_pipeline.defs.ingestion import POOL_FINGERPRINT, describe_pool, describe_state
from zip_pipeline.defs.partitions import compression_state_key, partitions_name, raw_pool_key
from zip_pipeline.pool.states import read_state, state_metadata
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot
from zip_pipeline.stored_batches import batches_stay, is_compacted, stored_members


def tidy_partitions(instance: dg.DagsterInstance, root: DataRoot, stage: Stage) -> None:
    """Give each compacted batch a partition, and take those of what is folded away.

    The history of folded batches stays, by which an unchanged drop is known to be ingested. A
    partition with an unfinished run stays until the next time, for a changed drop may be on its
    way. Stopped at any moment, the next call does the rest.

    Raises:
        ValueError: a compacted batch is damaged.
    """
    name = partitions_name(stage)
    with batches_stay(root, stage):
        keys, stored = set(instance.get_dynamic_partitions(name)), set(root.batches(stage))
        folded = {member.batch for member in stored_members(root, stage)} - stored
        for batch in sorted(filter(is_compacted, stored - keys)):
            for materialization in _materializations(root, stage, batch):
                instance.report_runless_asset_event(materialization)
            instance.add_dynamic_partitions(name, [batch])
    gone = {key for key in keys - stored if key in folded or is_compacted(key)}
    for batch in sorted(gone - _at_work(instance)):
        instance.delete_dynamic_partition(name, batch)


def _at_work(instance: dg.DagsterInstance) -> set[str]:
    """Return the partitions that some unfinished run is about."""
    runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return {run.tags[PARTITION_NAME_TAG] for run in runs if PARTITION_NAME_TAG in run.tags}


def _materializations(
    root: DataRoot, stage: Stage, batch: str
) -> Iterator[dg.AssetMaterialization]:
    """Yield what the two assets would tell of a batch, the pool first, as the state needs it."""
    pool, state = describe_pool(root, stage, batch), state_metadata(root, stage, batch)
    yield dg.AssetMaterialization(
        raw_pool_key(stage),
        metadata=pool,
        partition=batch,
        tags={DATA_VERSION_TAG: pool[POOL_FINGERPRINT]},
    )
    if state is not None:
        yield dg.AssetMaterialization(
            compression_state_key(stage),
            metadata=describe_state(read_state(root, stage, batch))
            | {POOL_FINGERPRINT: state["pool_fingerprint"]},
            partition=batch,
            tags={DATA_VERSION_TAG: state["fingerprint"]},
        )
