"""Raw files to versions: the pool, its compression state, the selected subset and its checks."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import dagster as dg
import polars as pl

from zip_pipeline.compression.codecs import codecs, pool_levels
from zip_pipeline.data_root import StageFolder
from zip_pipeline.defs.keys import (
    AS_WRITTEN_CHECK,
    BATCHES,
    compression_state_key,
    owners,
    raw_pool_key,
    signals_key,
    weekly,
    zip_subset_key,
)
from zip_pipeline.defs.metadata import (
    code_block,
    collapsed,
    column_origins,
    counts_table,
    picture,
    rounded,
    shown_table,
    table_metadata,
)
from zip_pipeline.defs.pipes import mendable
from zip_pipeline.defs.resources import DataRootResource, RayClusterResource, selection_options
from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.ingest.drops import fingerprint_of
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import (
    SIZES_SCHEMA,
    batch_metadata,
    left_out_files,
    read_first_sample,
    scan_batch,
    scan_state,
    state_metadata,
    unread_fields,
    write_state,
)
from zip_pipeline.pool.pool import SelectionPool, open_selection_pool
from zip_pipeline.report.fates import fate_label, num_by_fate, top_sources
from zip_pipeline.report.figures import selection_figure
from zip_pipeline.report.markdown import inert
from zip_pipeline.report.trace import readable
from zip_pipeline.samples import TURN_COLUMNS, Stage, pool_schema, serialised_texts
from zip_pipeline.selection.config import make_default, one_off, stage_selection
from zip_pipeline.training.tokens import configured_tokens
from zip_pipeline.workflow.integrity import verify
from zip_pipeline.workflow.selections import words_of_tokens
from zip_pipeline.workflow.sharing import share
from zip_pipeline.workflow.signals import measure_batch
from zip_pipeline.workflow.versions import (
    StoredVersion,
    current_version,
    latest_version,
    read_version,
    select_version,
)

RAW_POOL_CODE_VERSION = "2"
COMPRESSION_STATE_CODE_VERSION = "1"
SIGNALS_CODE_VERSION = "1"
MAX_REJECTED_SHARE = 0.02
# From here on something is wrong with the file or with how it is read, not with some rows.
NEARLY_ALL = 0.9
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
        owners=owners(),
        kinds={"polars", "parquet"},
        code_version=RAW_POOL_CODE_VERSION,
        description="Validated, normalised samples of one drop without exact duplicates; "
        "rejected rows are in the quarantine with their reason.",
        check_specs=[
            _check_of_each_drop(
                stage,
                key,
                "rejected_share",
                f"At most {MAX_REJECTED_SHARE:.0%} of a drop's rows are rejected; from "
                f"{NEARLY_ALL:.0%} on it is an error. The rows lie in its quarantine.",
            ),
            _check_of_each_drop(
                stage,
                key,
                "duplicate_share",
                f"At most {MAX_DUPLICATE_SHARE:.0%} of a drop's rows repeat others.",
            ),
        ],
    )
    def raw_pool(context: dg.AssetExecutionContext, data_root: DataRootResource) -> Results:
        root, batch = data_root.root, context.partition_key
        # Taken before reading: a drop that changes meanwhile is then seen as changed.
        looks = {DROP_FINGERPRINT: fingerprint_of(root[stage].raw / batch) or ""}
        with mendable():
            # What others published is known then, so that this content is newer, not another one.
            share(root, context.log.info, rests_on=None)
            ingest_drop(root[stage], batch)
            counts = batch_metadata(root[stage], batch)
            described = describe_pool(root[stage], batch)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata=described | looks,
            data_version=dg.DataVersion(counts["fingerprint"]),
        )
        yield _rejected_check(root[stage], batch, counts)
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
        owners=owners(),
        kinds={"polars", "parquet", "zstandard"},
        code_version=COMPRESSION_STATE_CODE_VERSION,
        description="Bytes, tokens and compressed bytes of each sample on its own, and pi, the "
        "initial redundancy state. Tokens are those that the model of [training] reads.",
        check_specs=[
            _check_of_each_drop(
                stage,
                key,
                "covers_every_sample",
                "One row per sample of the batch, in the same order.",
            )
        ],
    )
    def compression_state(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> Results:
        root, batch = data_root.root, context.partition_key
        with mendable():
            write_state(root[stage], batch, tokens=configured_tokens(root.path))
            share(root, context.log.info, rests_on=f"{stage}/{batch}")
            state = scan_state(root[stage], batch)
        stored = state_metadata(root[stage], batch)
        assert stored is not None
        yield dg.MaterializeResult(
            asset_key=key,
            metadata=describe_state(state, stage)
            | {name: stored[name] for name in (POOL_FINGERPRINT, "tokenizer")},
            data_version=dg.DataVersion(stored["fingerprint"]),
        )
        yield _coverage_check(batch, scan_batch(root[stage], batch).select("sample_id"), state)

    return compression_state


def _check_of_each_drop(
    stage: Stage, key: dg.AssetKey, name: str, description: str
) -> dg.AssetCheckSpec:
    """Return a check whose results are kept for each partition."""
    with warnings.catch_warnings():
        # Dagster calls partitions of checks a preview.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name, asset=key, description=description, partitions_def=BATCHES[stage]
        )


def describe_pool(folder: StageFolder, batch: str) -> dict[str, Any]:
    """Return what the pool partition of an ingested batch tells: counts, formats, sources."""
    counts = batch_metadata(folder, batch)
    samples, quarantine = scan_batch(folder, batch), folder.scan(folder.quarantine(batch))
    # Not all at once: each may be megabytes.
    examples = quarantine.with_columns(pl.col("raw").str.slice(0, _NUM_CHARACTERS))
    unread = unread_fields([counts])
    first = read_first_sample(folder, batch)
    first_sample = readable(folder.stage, first)[:_NUM_CHARACTERS] if first.height else "none"
    origin = json.loads(counts.get("origin", "{}"))
    return {
        "summary": _words_of_drop(counts),
        **{name: int(counts[name]) for name in counts if name.startswith("num_")},
        "quarantine_reasons": counts_table(quarantine, "reason"),
        "refused_rows": shown_table(
            examples.unique("reason", keep="first", maintain_order=True).collect(engine="streaming")
        ),
        "quarantine": dg.MetadataValue.path(str(folder.quarantine(batch))),
        "top_sources": counts_table(samples, "source"),
        "formats": counts_table(samples, "format"),
        "fields_not_read": shown_table(
            pl.DataFrame(list(unread.items()), schema=["field", "num_rows"], orient="row")
        ),
        "left_out_files": ", ".join(left_out_files([counts])) or "none",
        "first_sample": code_block(first_sample),
        **{name: origin[name] for name in ("address", "revision") if origin},
        POOL_FINGERPRINT: counts["fingerprint"],
        **table_metadata(pool_schema(folder.stage).to_frame(), int(counts["num_samples"])),
    }


def _words_of_drop(counts: Mapping[str, str]) -> str:
    num_samples, num_rejected, num_duplicates, num_rows = (
        int(counts[f"num_{name}"]) for name in ("samples", "quarantined", "duplicates", "rows_read")
    )
    return (
        f"{num_samples:,} samples of {num_rows:,} rows; {num_rejected:,} rows were rejected, "
        f"{num_duplicates:,} repeat others"
    )


def describe_state(state: pl.LazyFrame, stage: Stage) -> dict[str, Any]:
    """Return what the state partition of a batch tells: totals and the mean ratio."""
    columns = state.collect_schema()
    sizes = [name for name in columns if name != "sample_id"]
    origins = column_origins(
        raw_pool_key(stage), ["sample_id"], dict.fromkeys(sizes, _texts(stage))
    )
    figures = pl.len(), pl.col("pi").mean().fill_null(0.0), pl.col("num_bytes", *SIZES_SCHEMA).sum()
    totals = state.select(*figures).collect(engine="streaming").row(0, named=True)
    num_samples, pi = totals.pop("len"), totals.pop("pi")
    return {
        "summary": f"{num_samples:,} samples of {totals['num_tokens']:,} tokens and "
        f"{totals['num_bytes']:,} bytes; alone each compresses to 1 / {pi:.4g} on average",
        "num_samples": num_samples,
        **totals,
        **rounded({"mean_pi": pi}),
        **table_metadata(columns.to_frame(), num_samples, origins=origins),
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
        description=f"{inert(batch)}: {num_rows:,} of {num_rows_read:,} rows ({share:.2%}), "
        f"allowed are {threshold:.0%}",
        metadata={"batch": batch, **rounded({"share": share}), "allowed": f"{threshold:.0%}"},
    )


def _rejected_check(
    folder: StageFolder, batch: str, counts: Mapping[str, str]
) -> dg.AssetCheckResult:
    """Return the check of rejected rows: it leads to them, and nearly all of them are an error."""
    found = _share_check("rejected_share", batch, counts, "num_quarantined", MAX_REJECTED_SHARE)
    least = NEARLY_ALL * int(counts["num_rows_read"])
    is_error = not found.passed and int(counts["num_quarantined"]) >= least
    command = inert(f"zip-pipeline inspect {folder.raw / batch}")
    remedy = f"; {command} tells why and what to say about it"
    return dg.AssetCheckResult(
        check_name=found.check_name,
        passed=found.passed,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description=f"{found.description}{remedy if is_error else ''}",
        metadata={
            **found.metadata,
            "quarantine": dg.MetadataValue.path(str(folder.quarantine(batch))),
        },
    )


def _coverage_check(batch: str, samples: pl.LazyFrame, state: pl.LazyFrame) -> dg.AssetCheckResult:
    """Return the check that the state's rows are the batch's samples, in order."""
    ids = state.select(stored="sample_id")
    pairs = pl.concat([samples, ids], how="horizontal_extend")
    missing = samples.join(ids, left_on="sample_id", right_on="stored", how="anti")
    num_samples, num_rows, passed = (
        pairs.select(
            pl.col("sample_id", "stored").count(),
            passed=pl.col("sample_id").eq_missing(pl.col("stored")).all(),
        )
        .collect(engine="streaming")
        .row(0)
    )
    # A table of all ids is needed where one is missing, and else not.
    num_missing = 0 if passed else missing.collect().height
    return dg.AssetCheckResult(
        check_name="covers_every_sample",
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{inert(batch)}: {num_rows:,} rows for {num_samples:,} samples, "
        f"{num_missing:,} samples without a row",
        metadata={"batch": batch, "num_missing": num_missing},
    )


def signals_asset(stage: Stage) -> dg.AssetsDefinition:
    """Return the asset ``<stage>/signals``: same partitions as the pool."""

    @dg.asset(
        key=signals_key(stage),
        deps=[raw_pool_key(stage)],
        partitions_def=BATCHES[stage],
        group_name=stage,
        owners=owners(),
        kinds={"polars", "parquet"},
        code_version=SIGNALS_CODE_VERSION,
        description="What the tables [signals.NAME] of zip_pipeline.toml and the strategy ask for "
        "of each sample, as losses or vectors. Each is measured once, until its model changes.",
    )
    def signals(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> dg.MaterializeResult[None]:
        folder, batch = data_root.root[stage], context.partition_key
        with mendable():
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

    class Options(selection_options()):  # type: ignore[misc]
        """What the launchpad gives."""

    @dg.asset(
        key=zip_subset_key(stage),
        deps=[raw_pool_key(stage), compression_state_key(stage), signals_key(stage)],
        group_name=stage,
        owners=owners(),
        kinds={"polars", "parquet", "zstandard"},
        code_version=ZIP_SUBSET_CODE_VERSION,
        freshness_policy=weekly(),
        # One selection of a stage at a time: they share the folder of checkpoints.
        pool=f"{stage}_selection",
        description="The most informative samples of the whole pool within one budget, as a "
        "numbered version with ledger and manifest. If nothing changed, the latest version stays.",
    )
    def zip_subset(
        context: dg.AssetExecutionContext,
        config: Options,
        data_root: DataRootResource,
        ray_cluster: RayClusterResource,
    ) -> dg.MaterializeResult[None]:
        root, given = data_root.root, config.given()
        with mendable():
            share(root, context.log.info, rests_on=f"{stage}/")
            wanted = stage_selection(root.path, stage, given)
            if config.make_default:
                make_default(root.path, stage, given)
            elif words := one_off(root.path, stage, given):
                context.log.warning(words)
                context.add_asset_metadata({"one_off": words})
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
        metadata=_version_metadata(version, reused=reused),
        data_version=dg.DataVersion(_content_fingerprint(version)),
    )


def _version_metadata(version: StoredVersion, *, reused: bool) -> dict[str, Any]:
    stage, manifest = version.stage, version.manifest
    budget = manifest["budget"]
    counts = ("num_rows_read", "num_samples", "num_quarantined", "num_duplicates", "num_picked")
    title = f"{stage} version {version.number}: {manifest['strategy']}"
    fates = [(fate_label(fate), num) for fate, num in num_by_fate(version.ledger).items()]
    return {
        "summary": _words_of_version(version, reused=reused),
        "version": version.number,
        "reused": reused,
        "strategy": manifest["strategy"],
        "budget": f"{budget['value']:,} {budget['unit'].replace('_', ' ')}",
        **_ratios("subset", manifest["compression_ratio"]),
        **_ratios("pool", manifest["pool_compression_ratio"]),
        **{name: manifest[name] for name in (*counts, "picked_tokens", "picked_bytes")},
        "tokens": words_of_tokens(manifest),
        **_cut(manifest),
        # Versions from before anything was held out do not tell.
        "num_held_out": manifest.get("num_held_out", 0),
        "unused_budget": manifest["unused_budget"],
        "fates": shown_table(pl.DataFrame(fates, schema=["fate", "num_samples"], orient="row")),
        "top_sources": shown_table(
            top_sources(version.ledger).select("source", "num_picked", "subset_share", "pool_share")
        ),
        **_losses(manifest),
        "plot": picture(selection_figure(version.ledger, title), title),
        "path": dg.MetadataValue.path(str(version.path)),
        "settings": collapsed(
            {"config": manifest["config"], "pool_fingerprint": manifest["pool_fingerprint"]}
        ),
        **table_metadata(
            version.picks.collect_schema().to_frame(),
            _num_picked(version),
            origins=_origins(stage),
        ),
    }


def _cut(manifest: Mapping[str, Any]) -> dict[str, str]:
    # Of conversations alone, and not of versions of older releases.
    if not (cut := manifest.get("cut")):
        return {}
    words = (
        f"{cut['num_samples']:,} samples are longer than {cut['max_length']:,} tokens and lose "
        f"{cut['num_tokens']:,}"
    )
    return {"cut": words}


def _words_of_version(version: StoredVersion, *, reused: bool) -> str:
    manifest, codec = version.manifest, version.manifest["config"]["codec"]
    of_subset, of_pool = (
        ratios.get(codec)
        for ratios in (manifest["compression_ratio"], manifest["pool_compression_ratio"])
    )
    redundancy = f"; R {of_subset:.4g} of the pool's {of_pool:.4g} ({codec})" if of_pool else ""
    ending = "; neither pool nor configuration changed" if reused else ""
    return (
        f"Version {version.number}: {manifest['num_picked']:,} of {manifest['num_samples']:,} "
        f"samples by {manifest['strategy']}{redundancy}{ending}"
    )


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
    return {name: shown_table(pl.DataFrame(table)) for name, table in tables.items() if table}


def _ratios(what: str, by_codec: dict[str, float]) -> dict[str, float]:
    return rounded({f"{what}_compression_ratio_{codec}": r for codec, r in by_codec.items()})


def _content_fingerprint(version: StoredVersion) -> str:
    """Return a hash of the picks in order, so that equal picks keep the data version."""
    ids = version.picks.select("sample_id").collect().to_series()
    return fingerprint(chain(ids, chain.from_iterable(version.texts())))


def _num_picked(version: StoredVersion) -> int:
    return int(version.picks.select(pl.len()).collect().item())


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
        return _told_in_check(lambda: _within_budget(latest_version(data_root.root[stage])))

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
        def check() -> dg.AssetCheckResult:
            version = latest_version(data_root.root[stage])
            with open_selection_pool(data_root.root[stage]) as pool:
                return _less_redundant(version, pool)

        return _told_in_check(check)

    return less_redundant_than_random


def as_written_check(stage: Stage) -> dg.AssetChecksDefinition:
    """Return the check that all files of a stage have the hashes that they were written with."""

    @dg.asset_check(
        asset=zip_subset_key(stage),
        name=AS_WRITTEN_CHECK,
        description="Versions, batches and models are as they were written: no file was changed, "
        "is missing or was added. This reads them all, every night.",
    )
    def as_written(data_root: DataRootResource) -> dg.AssetCheckResult:
        found = verify(data_root.root, stage)
        return dg.AssetCheckResult(
            passed=not found.damages,
            description="\n".join(found.damages) or f"{found.num_files:,} files are",
            metadata={"num_files": found.num_files, "num_not_hashed": len(found.not_hashed)},
        )

    return as_written


def _told_in_check(check: Callable[[], dg.AssetCheckResult]) -> dg.AssetCheckResult:
    """Return a check's result; what a person can mend is why it failed, in its own words."""
    try:
        return check()
    except UserError as error:
        return dg.AssetCheckResult(passed=False, description=inert(str(error)))


def _within_budget(version: StoredVersion) -> dg.AssetCheckResult:
    budget: dict[str, Any] = version.manifest["budget"]
    picked = version.ledger.filter(pl.col("fate") == "picked").sort("rank")
    unit, limit = budget["unit"], budget["value"]
    used = picked.height if unit == "samples" else int(picked[f"num_{unit}"].sum())
    words = unit.replace("_", " ")
    ids = version.picks.select("sample_id").collect().to_series()
    agree = picked["sample_id"].equals(ids)
    ending = "" if agree else "; the ledger's picks are not the rows of the subset"
    return dg.AssetCheckResult(
        passed=used <= limit and agree,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"version {version.number}: {used:,} of {limit:,} {words}{ending}",
        metadata={"version": version.number, "used": used, "budget": limit, "unit": unit},
    )


def _less_redundant(version: StoredVersion, pool: SelectionPool) -> dg.AssetCheckResult:
    num_picked, num_samples = _num_picked(version), pool.num_samples
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
    of_subset = _ratios_by_codec(version.texts, codec)
    ranks = pl.DataFrame({"rank": pl.int_range(num_picked, eager=True)})
    rows, stage = pool.picked_rows(random.to_numpy(), ranks), version.stage
    of_random = _ratios_by_codec(
        lambda: (serialised_texts(part, stage) for part in rows.each()), codec
    )
    return dg.AssetCheckResult(
        passed=of_subset[codec] < of_random[codec],
        severity=dg.AssetCheckSeverity.WARN,
        description=f"version {version.number}: R {of_subset[codec]:.3f}, random subset of as many "
        f"samples {of_random[codec]:.3f} ({codec}, lower is better)",
        metadata={
            "version": version.number,
            **_ratios("subset", of_subset),
            **_ratios("random", of_random),
        },
    )


def _ratios_by_codec(texts: Callable[[], Iterator[pl.Series]], codec: str) -> dict[str, float]:
    """Return R of texts by the codec that selected them, and by those of every pool."""

    def chunks() -> Iterator[bytes]:
        return ("".join(part).encode() for part in texts())

    num_bytes = sum(map(len, chunks()))
    names = dict.fromkeys([*pool_levels(), codec])
    return {name: num_bytes / codecs[name].streamed_size(chunks(), num_bytes) for name in names}
