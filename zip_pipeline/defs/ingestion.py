"""The partitioned assets: samples of a drop, and their compression state."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import polars as pl

from zip_pipeline.defs.drops import fingerprint_of
from zip_pipeline.defs.metadata import counts_table, table_metadata
from zip_pipeline.defs.partitions import BATCHES, compression_state_key, raw_pool_key
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.pool.batches import batch_metadata, read_batch, read_quarantine
from zip_pipeline.pool.ingest import ingest_drop
from zip_pipeline.pool.states import read_state, state_metadata, write_state
from zip_pipeline.samples import Stage, pool_schema
from zip_pipeline.storage import DataRoot
from zip_pipeline.stored_batches import is_compacted

OWNERS = ["team:data"]
RAW_POOL_CODE_VERSION = "2"
COMPRESSION_STATE_CODE_VERSION = "1"
MAX_REJECTED_SHARE = 0.02
MAX_DUPLICATE_SHARE = 0.25

DROP_FINGERPRINT = "drop_fingerprint"
POOL_FINGERPRINT = "pool_fingerprint"

Results = Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]


def raw_pool_asset(stage: Stage) -> dg.AssetsDefinition:
    """Return the asset ``<stage>/raw_pool``: one partition per drop."""
    key = raw_pool_key(stage)

    @dg.asset(
        key=key,
        partitions_def=BATCHES[stage],
        group_name=stage,
        owners=OWNERS,
        kinds={"polars", "parquet"},
        code_version=RAW_POOL_CODE_VERSION,
        description="Validated, normalised samples of one drop without exact duplicates; "
        "rejected rows are in the quarantine with their reason.",
        check_specs=[
            dg.AssetCheckSpec(
                "rejected_share",
                asset=key,
                description=f"At most {MAX_REJECTED_SHARE:.0%} of a drop's rows are rejected.",
            ),
            dg.AssetCheckSpec(
                "duplicate_share",
                asset=key,
                description=f"At most {MAX_DUPLICATE_SHARE:.0%} of a drop's rows repeat others.",
            ),
        ],
    )
    def raw_pool(context: dg.AssetExecutionContext, data_root: DataRootResource) -> Results:
        root, batch = data_root.root, context.partition_key
        looks: dict[str, Any] = {}
        # A compacted batch has no drop: it is described as it is stored.
        if not is_compacted(batch):
            # Taken before reading: a drop that changes meanwhile is then seen as changed.
            looks = {DROP_FINGERPRINT: fingerprint_of(root.raw(stage) / batch) or ""}
            ingest_drop(root, stage, batch)
        counts = batch_metadata(root, stage, batch)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata=describe_pool(root, stage, batch) | looks,
            data_version=dg.DataVersion(counts["fingerprint"]),
        )
        yield _share_check("rejected_share", batch, counts, "num_quarantined", MAX_REJECTED_SHARE)
        yield _share_check("duplicate_share", batch, counts, "num_duplicates", MAX_DUPLICATE_SHARE)

    return raw_pool


def compression_state_asset(stage: Stage) -> dg.AssetsDefinition:
    """Return the asset ``<stage>/compression_state``: same partitions as the pool."""
    key = compression_state_key(stage)

    @dg.asset(
        key=key,
        deps=[raw_pool_key(stage)],
        partitions_def=BATCHES[stage],
        group_name=stage,
        owners=OWNERS,
        kinds={"polars", "parquet", "zstandard"},
        code_version=COMPRESSION_STATE_CODE_VERSION,
        description="Bytes, tokens and compressed bytes of each sample on its own, and pi, the "
        "initial redundancy state.",
        check_specs=[
            dg.AssetCheckSpec(
                "covers_every_sample",
                asset=key,
                description="One row per sample of the batch, in the same order.",
            )
        ],
    )
    def compression_state(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> Results:
        root, batch = data_root.root, context.partition_key
        write_state(root, stage, batch)
        state = read_state(root, stage, batch)
        stored = state_metadata(root, stage, batch)
        assert stored is not None
        yield dg.MaterializeResult(
            asset_key=key,
            metadata=describe_state(state) | {POOL_FINGERPRINT: stored["pool_fingerprint"]},
            data_version=dg.DataVersion(stored["fingerprint"]),
        )
        yield _coverage_check(batch, read_batch(root, stage, batch, ["sample_id"]), state)

    return compression_state


def describe_pool(root: DataRoot, stage: Stage, batch: str) -> dict[str, Any]:
    """Return what the pool partition of an ingested batch tells: counts, formats, sources."""
    counts = batch_metadata(root, stage, batch)
    samples = read_batch(root, stage, batch, ["format", "source"])
    quarantine = read_quarantine(root, stage, batch, ["reason"])
    return {
        **{name: int(counts[name]) for name in counts if name.startswith("num_")},
        "formats": counts_table(samples, "format"),
        "top_sources": counts_table(samples, "source"),
        "quarantine_reasons": counts_table(quarantine, "reason"),
        POOL_FINGERPRINT: counts["fingerprint"],
        **table_metadata(pool_schema(stage).to_frame(), samples.height),
    }


def describe_state(state: pl.DataFrame) -> dict[str, Any]:
    """Return what the state partition of a batch tells: totals and the mean ratio."""
    totals = state.select(pl.col("num_bytes", "num_tokens", "deflate_bytes", "zstd_bytes").sum())
    return {
        "num_samples": state.height,
        **totals.row(0, named=True),
        "mean_pi": state.select(pl.col("pi").mean().fill_null(0.0)).item(),
        **table_metadata(state),
    }


def _share_check(
    name: str, batch: str, counts: Mapping[str, str], counted: str, threshold: float
) -> dg.AssetCheckResult:
    """Return the check that at most ``threshold`` of the rows read are those ``counted``."""
    num_rows, num_rows_read = int(counts[counted]), int(counts["num_rows_read"])
    share = num_rows / max(num_rows_read, 1)
    return dg.AssetCheckResult(
        check_name=name,
        passed=share <= threshold,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{batch}: {num_rows:,} of {num_rows_read:,} rows ({share:.2%}), "
        f"allowed are {threshold:.0%}",
        metadata={"batch": batch, "share": share, "threshold": threshold},
    )


def _coverage_check(batch: str, samples: pl.DataFrame, state: pl.DataFrame) -> dg.AssetCheckResult:
    """Return the check that the state's rows are the batch's samples, in order."""
    missing = samples.join(state, on="sample_id", how="anti").height
    passed = samples["sample_id"].equals(state["sample_id"])
    return dg.AssetCheckResult(
        check_name="covers_every_sample",
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{batch}: {state.height:,} rows for {samples.height:,} samples, "
        f"{missing:,} samples without a row",
        metadata={"batch": batch, "num_missing": missing},
    )
