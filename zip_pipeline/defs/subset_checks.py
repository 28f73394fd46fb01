"""What must hold of a selected subset; each check can be run again on its own."""

from typing import Any

import dagster as dg
import polars as pl

from zip_pipeline.compression.codecs import compression_ratio
from zip_pipeline.compression.state import texts_of
from zip_pipeline.defs.partitions import zip_subset_key
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.defs.subsets import StoredVersion, latest_version
from zip_pipeline.pool.selection_pool import SelectionPool, open_selection_pool
from zip_pipeline.samples import Stage

RANDOM_SEED = 0
CODECS = ("deflate", "zstd")


def within_budget_check(stage: Stage) -> dg.AssetChecksDefinition:
    """Return the check that the latest version keeps to its budget."""

    @dg.asset_check(
        asset=zip_subset_key(stage),
        name="within_budget",
        description="The samples, tokens or bytes of the latest version are within its budget, "
        "and the ledger and the subset agree on what was picked.",
    )
    def within_budget(data_root: DataRootResource) -> dg.AssetCheckResult:
        return _within_budget(latest_version(data_root.root, stage))

    return within_budget


def less_redundant_check(stage: Stage) -> dg.AssetChecksDefinition:
    """Return the check that the latest version beats a random subset of the same size."""

    @dg.asset_check(
        asset=zip_subset_key(stage),
        name="less_redundant_than_random",
        description="R of the latest version (raw / compressed bytes, higher = more redundant) is "
        "below that of a seeded random subset of as many samples, by the codec that selected it: "
        "deflate sees 32 KB at a time, zstd the whole subset. The other codec's R is told beside.",
    )
    def less_redundant_than_random(data_root: DataRootResource) -> dg.AssetCheckResult:
        with open_selection_pool(data_root.root, stage) as pool:
            return _less_redundant(latest_version(data_root.root, stage), pool, stage)

    return less_redundant_than_random


def _within_budget(version: StoredVersion) -> dg.AssetCheckResult:
    budget: dict[str, Any] = version.manifest["budget"]
    picked = version.ledger.filter(pl.col("fate") == "picked").sort("rank")
    unit, limit = budget["unit"], budget["value"]
    used = picked.height if unit == "samples" else int(picked[f"num_{unit}"].sum())
    agree = picked["sample_id"].equals(version.subset["sample_id"])
    ending = "" if agree else "; the ledger's picks are not the rows of the subset"
    return dg.AssetCheckResult(
        passed=used <= limit and agree,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"version {version.number}: {used:,} of {limit:,} {unit}{ending}",
        metadata={"version": version.number, "used": used, "budget": limit, "unit": unit},
    )


def _less_redundant(
    version: StoredVersion, pool: SelectionPool, stage: Stage
) -> dg.AssetCheckResult:
    num_picked, num_samples = version.subset.height, pool.index.height
    if not 0 < num_picked < num_samples:
        return dg.AssetCheckResult(
            passed=True,
            description=f"version {version.number}: {num_picked:,} of {num_samples:,} samples "
            "picked, so there was nothing to choose",
            metadata={"version": version.number},
        )
    random = pl.int_range(num_samples, eager=True).sample(
        num_picked, seed=RANDOM_SEED, shuffle=True
    )
    codec = version.manifest["config"]["codec"]
    of_subset, of_random = (_ratios(s, stage) for s in (version.subset, pool.rows(random)))
    return dg.AssetCheckResult(
        passed=of_subset[codec] < of_random[codec],
        severity=dg.AssetCheckSeverity.WARN,
        description=f"version {version.number}: R {of_subset[codec]:.3f}, random subset of as many "
        f"samples {of_random[codec]:.3f} ({codec}, lower is better)",
        metadata={
            "version": version.number,
            **{f"subset_compression_ratio_{name}": r for name, r in of_subset.items()},
            **{f"random_compression_ratio_{name}": r for name, r in of_random.items()},
        },
    )


def _ratios(samples: pl.DataFrame, stage: Stage) -> dict[str, float]:
    joined = b"".join(texts_of(samples, stage))
    return {codec: round(compression_ratio(joined, codec), 4) for codec in CODECS}
