"""The selected subset of a stage: one numbered, immutable version per change."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from zip_pipeline.defs.configuration import stage_defaults, tunables
from zip_pipeline.defs.ingestion import OWNERS
from zip_pipeline.defs.metadata import markdown_table, picture, table_metadata
from zip_pipeline.defs.partitions import compression_state_key, raw_pool_key, zip_subset_key
from zip_pipeline.defs.resources import DataRootResource, RayClusterResource
from zip_pipeline.freed_memory import return_freed_memory
from zip_pipeline.pool.held_out import held_out_settings
from zip_pipeline.pool.held_out_set import read_held_out
from zip_pipeline.pool.members import members
from zip_pipeline.pool.selection_pool import open_selection_pool
from zip_pipeline.report.figures import selection_figure
from zip_pipeline.report.tables import num_by_fate, top_sources
from zip_pipeline.samples import Stage, serialised_text
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.progress import Progress
from zip_pipeline.selection.select import HERE, Cluster, select_candidates
from zip_pipeline.storage import DataRoot, fingerprint, remove_leftovers

ZIP_SUBSET_CODE_VERSION = "3"
SECONDS_BETWEEN_PROGRESS = 10.0


@dataclass(frozen=True)
class StoredVersion:
    """A version of a subset, read back from disk."""

    number: int
    path: Path
    subset: pl.DataFrame
    ledger: pl.DataFrame
    manifest: dict[str, Any]


def read_version(root: DataRoot, stage: Stage, number: int) -> StoredVersion:
    """Return version ``number`` of a stage's subset.

    Raises:
        ValueError: there is no such version.
    """
    store = root.versions(stage)
    path = store.path(number)
    return StoredVersion(
        number=number,
        path=path,
        subset=pl.read_parquet(path / "subset.parquet", glob=False, hive_partitioning=False),
        ledger=pl.read_parquet(path / "ledger.parquet", glob=False, hive_partitioning=False),
        manifest=store.manifest(number),
    )


def latest_version(root: DataRoot, stage: Stage) -> StoredVersion:
    """Return the latest version of a stage's subset.

    Raises:
        ValueError: there is none yet.
    """
    number = root.versions(stage).latest()
    if number is None:
        raise ValueError(f"{stage}: no version yet; materialise {stage}/zip_subset first")
    return read_version(root, stage, number)


def current_version(root: DataRoot, stage: Stage, config: SelectionConfig) -> int | None:
    """Return the latest version if pool, held-out set and ``config`` are those it comes from.

    Raises:
        ValueError: a batch is incomplete, or the file of held-out samples is wrong.
    """
    store = root.versions(stage)
    number = store.latest()
    if number is None:
        return None
    manifest: dict[str, Any] = store.manifest(number)
    frozen = read_held_out(root, stage)
    is_current = (
        manifest["inputs"] == pool_inputs(root, stage)
        and (manifest.get("held_out") or {}).get("hash") == (frozen.hash if frozen else None)
        and manifest["config_fingerprint"] == config.fingerprint()
    )
    return number if is_current else None


def pool_inputs(root: DataRoot, stage: Stage) -> dict[str, str]:
    """Return the content fingerprint of every ingested batch, from metadata alone."""
    return {member.batch: member.fingerprint for member in members(root, stage)}


def zip_subset_asset(stage: Stage, data_root_path: Path) -> dg.AssetsDefinition:
    """Return the asset ``<stage>/zip_subset``, with launchpad defaults of that data root."""
    tunables_of_stage = tunables(data_root_path, stage)

    @dg.asset(
        key=zip_subset_key(stage),
        deps=[raw_pool_key(stage), compression_state_key(stage)],
        group_name=stage,
        owners=OWNERS,
        kinds={"polars", "parquet", "zstandard"},
        code_version=ZIP_SUBSET_CODE_VERSION,
        # One selection of a stage at a time: they share the folder of checkpoints.
        pool=f"{stage}_selection",
        description="The most informative samples of the whole pool within one budget, as a "
        "numbered version with ledger and manifest. If nothing changed, the latest version stays.",
    )
    def zip_subset(
        context: dg.AssetExecutionContext,
        config: tunables_of_stage,  # type: ignore[valid-type]
        data_root: DataRootResource,
        ray_cluster: RayClusterResource,
    ) -> dg.MaterializeResult[None]:
        root = data_root.root
        # Whoever wrote a wrong file meant something else than the defaults that stand in for it.
        stage_defaults(root.path, stage)
        wanted = config.selection()  # type: ignore[attr-defined]
        number = current_version(root, stage, wanted) if root.batches(stage) else None
        reused = number is not None
        if number is None:
            number = write_version(
                root, stage, wanted, context.log.info, cluster=ray_cluster.cluster
            )
        context.log.info(f"{stage} version {number}{', unchanged' if reused else ''}")
        return describe_version(read_version(root, stage, number), stage, reused=reused)

    return zip_subset


def write_version(
    root: DataRoot,
    stage: Stage,
    config: SelectionConfig,
    log: Callable[[str], object],
    *,
    cluster: Cluster = HERE,
) -> int:
    """Select from the pool as it is and store the outcome as a new version.

    Raises:
        ValueError: no batch is ingested, one lacks its compression state, or one is gone
            (:func:`.open_selection_pool`); the settings or the file of held-out samples are
            wrong.
    """
    _refuse_none(root, stage, root.batches(stage))
    return_freed_memory()
    remove_leftovers(root)
    with open_selection_pool(root, stage, hold_out=held_out_settings(root)) as pool:
        _refuse_none(root, stage, pool.fingerprints)
        selection = select_candidates(
            Candidates(pool.index, pool.texts, pool.state),
            stage,
            config,
            progress=_ProgressLog(log),
            checkpoint=root.checkpoints(stage) / f"{config.fingerprint()}.npz",
            duplicates=pool.duplicates,
            held_out=pool.held_out,
            inputs=pool.fingerprints,
            counts=pool.counts,
            cluster=cluster,
        )
        subset = pool.picked_rows(selection.picks, selection.ledger)
    frozen = pool.frozen.summary() if pool.frozen else None
    return root.versions(stage).write(
        subset, selection.ledger, selection.manifest | {"held_out": frozen}
    )


def _refuse_none(root: DataRoot, stage: Stage, batches: Collection[str]) -> None:
    if not batches:
        raise ValueError(
            f"{root.raw(stage)}: no batch of stage {stage} is ingested; drop a file there and "
            f"materialise {stage}/raw_pool and {stage}/compression_state for its partition"
        )


def describe_version(
    version: StoredVersion, stage: Stage, *, reused: bool
) -> dg.MaterializeResult[None]:
    """Return a version as what the UI shows: counts, R, sources, plot and data version."""
    return dg.MaterializeResult(
        metadata={"version": version.number, "reused": reused} | _version_metadata(version, stage),
        data_version=dg.DataVersion(_content_fingerprint(version.subset, stage)),
    )


def _version_metadata(version: StoredVersion, stage: Stage) -> dict[str, Any]:
    manifest = version.manifest
    counts = ("num_rows_read", "num_samples", "num_quarantined", "num_duplicates", "num_picked")
    title = f"{stage} version {version.number}: {manifest['strategy']}"
    return {
        "strategy": manifest["strategy"],
        **_ratios("pool", manifest["pool_compression_ratio"]),
        **_ratios("subset", manifest["compression_ratio"]),
        **{name: manifest[name] for name in (*counts, "picked_tokens", "picked_bytes")},
        # Versions from before anything was held out do not tell.
        "num_held_out": manifest.get("num_held_out", 0),
        f"budget_{manifest['budget']['unit']}": manifest["budget"]["value"],
        "unused_budget": manifest["unused_budget"],
        "plot": picture(selection_figure(version.ledger, title), title),
        "top_sources": markdown_table(top_sources(version.ledger)),
        "fates": dg.MetadataValue.json(num_by_fate(version.ledger)),
        "config": dg.MetadataValue.json(manifest["config"]),
        "path": dg.MetadataValue.path(str(version.path)),
        "pool_fingerprint": manifest["pool_fingerprint"],
        **table_metadata(version.subset),
    }


def _ratios(what: str, by_codec: dict[str, float]) -> dict[str, float]:
    return {f"{what}_compression_ratio_{codec}": round(r, 4) for codec, r in by_codec.items()}


def _content_fingerprint(subset: pl.DataFrame, stage: Stage) -> str:
    """Return a hash of the picks in order, so that equal picks keep the data version."""
    texts = subset.select(serialised_text(stage).alias("text"))["text"].to_list()
    return fingerprint([*subset["sample_id"].to_list(), *texts])


class _ProgressLog:
    """Writes how far a selection has come to a log, every few seconds, and estimates at once."""

    def __init__(self, log: Callable[[str], object]) -> None:
        self._log = log
        self._last = -SECONDS_BETWEEN_PROGRESS
        self._phase = ""

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        is_new = progress.is_estimate or progress.phase != self._phase
        if not is_new and now - self._last < SECONDS_BETWEEN_PROGRESS:
            return
        self._last, self._phase = now, progress.phase
        self._log(progress.words())
