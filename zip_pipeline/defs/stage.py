"""Raw files to versions: the pool, its compression state, the selected subset and its checks."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import polars as pl

from zip_pipeline.compression.codecs import compression_ratio, pool_levels
from zip_pipeline.compression.state import texts_of
from zip_pipeline.data_root import StageFolder
from zip_pipeline.defs.keys import (
    BATCHES,
    compression_state_key,
    raw_pool_key,
    signals_key,
    zip_subset_key,
)
from zip_pipeline.defs.metadata import (
    code_block,
    column_origins,
    counts_table,
    markdown_table,
    picture,
    table_metadata,
)
from zip_pipeline.defs.resources import DataRootResource, RayClusterResource, SelectionOptions
from zip_pipeline.files import fingerprint
from zip_pipeline.ingest.drops import fingerprint_of
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import (
    SIZES_SCHEMA,
    batch_metadata,
    left_out_files,
    read_batch,
    read_first_sample,
    read_quarantine,
    read_state,
    state_metadata,
    unread_fields,
    write_state,
)
from zip_pipeline.pool.pool import SelectionPool, open_selection_pool
from zip_pipeline.report.fates import num_by_fate, top_sources
from zip_pipeline.report.figures import selection_figure
from zip_pipeline.report.trace import readable
from zip_pipeline.samples import TURN_COLUMNS, Stage, pool_schema, serialised_texts
from zip_pipeline.selection.config import stage_selection
from zip_pipeline.training.tokens import configured_tokens
from zip_pipeline.workflow.selections import words_of_tokens
from zip_pipeline.workflow.signals import measure_batch
from zip_pipeline.workflow.versions import (
    StoredVersion,
    current_version,
    latest_version,
    read_version,
    select_version,
)

OWNERS = ["team:data"]
RAW_POOL_CODE_VERSION = "2"
COMPRESSION_STATE_CODE_VERSION = "1"
SIGNALS_CODE_VERSION = "1"
MAX_REJECTED_SHARE = 0.02
MAX_DUPLICATE_SHARE = 0.25
_NUM_CHARACTERS = 1_000

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
        # Taken before reading: a drop that changes meanwhile is then seen as changed.
        looks = {DROP_FINGERPRINT: fingerprint_of(root[stage].raw / batch) or ""}
        ingest_drop(root[stage], batch)
        counts = batch_metadata(root[stage], batch)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata=describe_pool(root[stage], batch) | looks,
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
        "initial redundancy state. Tokens are those that the model of [training] reads.",
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
        write_state(root[stage], batch, tokens=configured_tokens(root.path))
        state = read_state(root[stage], batch)
        stored = state_metadata(root[stage], batch)
        assert stored is not None
        yield dg.MaterializeResult(
            asset_key=key,
            metadata=describe_state(state, stage)
            | {name: stored[name] for name in (POOL_FINGERPRINT, "tokenizer")},
            data_version=dg.DataVersion(stored["fingerprint"]),
        )
        yield _coverage_check(batch, read_batch(root[stage], batch, ["sample_id"]), state)

    return compression_state


def describe_pool(folder: StageFolder, batch: str) -> dict[str, Any]:
    """Return what the pool partition of an ingested batch tells: counts, formats, sources."""
    counts = batch_metadata(folder, batch)
    samples = read_batch(folder, batch, ["format", "source"])
    quarantine = read_quarantine(folder, batch)
    unread = unread_fields([counts])
    first = read_first_sample(folder, batch)
    first_sample = readable(folder.stage, first)[:_NUM_CHARACTERS] if first.height else "none"
    origin = json.loads(counts.get("origin", "{}"))
    return {
        **{name: int(counts[name]) for name in counts if name.startswith("num_")},
        **{name: origin[name] for name in ("address", "revision") if origin},
        "formats": counts_table(samples, "format"),
        "top_sources": counts_table(samples, "source"),
        "quarantine_reasons": counts_table(quarantine, "reason"),
        "refused_rows": markdown_table(
            quarantine.unique("reason", keep="first", maintain_order=True).with_columns(
                pl.col("raw").str.slice(0, _NUM_CHARACTERS)
            )
        ),
        "first_sample": code_block(first_sample),
        "fields_not_read": markdown_table(
            pl.DataFrame(list(unread.items()), schema=["field", "num_rows"], orient="row")
        ),
        "left_out_files": ", ".join(left_out_files([counts])) or "none",
        POOL_FINGERPRINT: counts["fingerprint"],
        **table_metadata(pool_schema(folder.stage).to_frame(), samples.height),
    }


def describe_state(state: pl.DataFrame, stage: Stage) -> dict[str, Any]:
    """Return what the state partition of a batch tells: totals and the mean ratio."""
    sizes = [name for name in state.columns if name != "sample_id"]
    origins = column_origins(
        raw_pool_key(stage), ["sample_id"], dict.fromkeys(sizes, _texts(stage))
    )
    totals = state.select(pl.col("num_bytes", *SIZES_SCHEMA).sum())
    return {
        "num_samples": state.height,
        **totals.row(0, named=True),
        "mean_pi": state.select(pl.col("pi").mean().fill_null(0.0)).item(),
        **table_metadata(state, origins=origins),
    }


def _texts(stage: Stage) -> list[str]:
    """Return the columns of the pool of which a sample's text is made."""
    return [*TURN_COLUMNS[stage], "tools"]


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


def signals_asset(stage: Stage) -> dg.AssetsDefinition:
    """Return the asset ``<stage>/signals``: same partitions as the pool."""

    @dg.asset(
        key=signals_key(stage),
        deps=[raw_pool_key(stage)],
        partitions_def=BATCHES[stage],
        group_name=stage,
        owners=OWNERS,
        kinds={"polars", "parquet"},
        code_version=SIGNALS_CODE_VERSION,
        description="What the tables [signals.NAME] of zip_pipeline.toml and the strategy ask for "
        "of each sample, as losses or vectors. Each is measured once, until its model changes.",
    )
    def signals(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> dg.MaterializeResult[None]:
        folder, batch = data_root.root[stage], context.partition_key
        measured = measure_batch(folder, batch, context.log.info)
        known = {POOL_FINGERPRINT: batch_metadata(folder, batch)["fingerprint"]}
        known |= {f"{name}_measured_by": found.identity for name, found in measured.items()}
        return dg.MaterializeResult(
            metadata={
                "signals": ", ".join(measured) or "none asked for",
                **{f"{name}_num_unknown": found.num_unknown for name, found in measured.items()},
                **known,
            },
            data_version=dg.DataVersion(fingerprint([str(sorted(known.items()))])),
        )

    return signals


ZIP_SUBSET_CODE_VERSION = "3"


def zip_subset_asset(stage: Stage) -> dg.AssetsDefinition:
    """Return the asset ``<stage>/zip_subset``."""

    @dg.asset(
        key=zip_subset_key(stage),
        deps=[raw_pool_key(stage), compression_state_key(stage), signals_key(stage)],
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
        config: SelectionOptions,
        data_root: DataRootResource,
        ray_cluster: RayClusterResource,
    ) -> dg.MaterializeResult[None]:
        root = data_root.root
        wanted = stage_selection(root.path, stage, config.given())
        number = current_version(root[stage], wanted) if root[stage].batches() else None
        reused = number is not None
        if number is None:
            number = select_version(
                root[stage], wanted, context.log.info, cluster=ray_cluster.cluster
            )
        context.log.info(f"{stage} version {number}{', unchanged' if reused else ''}")
        return describe_version(read_version(root[stage], number), reused=reused)

    return zip_subset


def describe_version(version: StoredVersion, *, reused: bool) -> dg.MaterializeResult[None]:
    """Return a version as what the UI shows: counts, R, sources, plot and data version."""
    return dg.MaterializeResult(
        metadata={"version": version.number, "reused": reused} | _version_metadata(version),
        data_version=dg.DataVersion(_content_fingerprint(version.subset, version.stage)),
    )


def _version_metadata(version: StoredVersion) -> dict[str, Any]:
    stage, manifest = version.stage, version.manifest
    counts = ("num_rows_read", "num_samples", "num_quarantined", "num_duplicates", "num_picked")
    title = f"{stage} version {version.number}: {manifest['strategy']}"
    return {
        "strategy": manifest["strategy"],
        **_ratios("pool", manifest["pool_compression_ratio"]),
        **_ratios("subset", manifest["compression_ratio"]),
        **{name: manifest[name] for name in (*counts, "picked_tokens", "picked_bytes")},
        "tokens": words_of_tokens(manifest),
        # Of conversations alone, and not of versions of older releases.
        **{f"cut_{name}": num for name, num in (manifest.get("cut") or {}).items()},
        # Versions from before anything was held out do not tell.
        "num_held_out": manifest.get("num_held_out", 0),
        f"budget_{manifest['budget']['unit']}": manifest["budget"]["value"],
        "unused_budget": manifest["unused_budget"],
        "plot": picture(selection_figure(version.ledger, title), title),
        "top_sources": markdown_table(top_sources(version.ledger)),
        "fates": dg.MetadataValue.json(num_by_fate(version.ledger)),
        **_losses(manifest),
        "config": dg.MetadataValue.json(manifest["config"]),
        "path": dg.MetadataValue.path(str(version.path)),
        "pool_fingerprint": manifest["pool_fingerprint"],
        **table_metadata(version.subset, origins=_origins(stage)),
    }


def _origins(stage: Stage) -> dict[str, list[dg.TableColumnDep]]:
    """Return the columns that a subset's are taken or computed from.

    What is masked is of the same column; place, round and ratio are of texts and their sizes.
    """
    computed = ("rank", "round", "pi")
    origins = column_origins(
        raw_pool_key(stage), pool_schema(stage), dict.fromkeys(computed, _texts(stage))
    )
    sizes = ["num_bytes", "num_tokens", "pi"]
    of_state = column_origins(compression_state_key(stage), (), dict.fromkeys(computed, sizes))
    return origins | {name: origins[name] + of_state[name] for name in computed}


def _losses(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each source loses to the fates of marked samples, and what signals count."""
    rows = [
        {"fate": fate, "source": source, "marked": marked, "of": of, "share": marked / of}
        for fate, found in (manifest.get("marked") or {}).get("fates", {}).items()
        for source, (marked, of) in found["sources"].items()
    ]
    tables = {"marked": rows, **(manifest.get("marked") or {}).get("by_source", {})}
    return {name: markdown_table(pl.DataFrame(table)) for name, table in tables.items() if table}


def _ratios(what: str, by_codec: dict[str, float]) -> dict[str, float]:
    return {f"{what}_compression_ratio_{codec}": round(r, 4) for codec, r in by_codec.items()}


def _content_fingerprint(subset: pl.DataFrame, stage: Stage) -> str:
    """Return a hash of the picks in order, so that equal picks keep the data version."""
    texts = serialised_texts(subset, stage).to_list()
    return fingerprint([*subset["sample_id"].to_list(), *texts])


RANDOM_SEED = 0


def within_budget_check(stage: Stage) -> dg.AssetChecksDefinition:
    """Return the check that the latest version keeps to its budget."""

    @dg.asset_check(
        asset=zip_subset_key(stage),
        name="within_budget",
        description="The samples, tokens or bytes of the latest version are within its budget, "
        "and the ledger and the subset agree on what was picked.",
    )
    def within_budget(data_root: DataRootResource) -> dg.AssetCheckResult:
        return _within_budget(latest_version(data_root.root[stage]))

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
        with open_selection_pool(data_root.root[stage]) as pool:
            return _less_redundant(latest_version(data_root.root[stage]), pool, stage)

    return less_redundant_than_random


def _within_budget(version: StoredVersion) -> dg.AssetCheckResult:
    budget: dict[str, Any] = version.manifest["budget"]
    picked = version.ledger.filter(pl.col("fate") == "picked").sort("rank")
    unit, limit = budget["unit"], budget["value"]
    used = picked.height if unit == "samples" else int(picked[f"num_{unit}"].sum())
    words = unit.replace("_", " ")
    agree = picked["sample_id"].equals(version.subset["sample_id"])
    ending = "" if agree else "; the ledger's picks are not the rows of the subset"
    return dg.AssetCheckResult(
        passed=used <= limit and agree,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"version {version.number}: {used:,} of {limit:,} {words}{ending}",
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
    of_subset, of_random = (
        _ratios_by_codec(samples, stage, codec) for samples in (version.subset, pool.rows(random))
    )
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


def _ratios_by_codec(samples: pl.DataFrame, stage: Stage, codec: str) -> dict[str, float]:
    """Return R by the codec that selected the samples, and by those of every pool."""
    joined = b"".join(texts_of(samples, stage))
    names = dict.fromkeys([*pool_levels(), codec])
    return {name: round(compression_ratio(joined, name), 4) for name in names}
