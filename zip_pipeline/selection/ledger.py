"""The fate of every pool sample in a version."""

import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from math import isfinite
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from zip_pipeline.compression.codecs import codec_versions, codecs, pool_levels
from zip_pipeline.compression.sets import MAX_WINDOW_BYTES
from zip_pipeline.compression.texts import TextFile
from zip_pipeline.files import fingerprint
from zip_pipeline.selection.candidates import Marks
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.run import Fate, Run
from zip_pipeline.tables import Table, WholeTable, lazy_rows

FATES = {
    "never_reached": "its known ratio was never among the k1 lowest before the budget was used",
    "candidate": "it was measured against the selected set; k2 others had lower ratios",
    "shortlisted": "it was on the shortlist; k3 others were picked before it",
    "over_budget": "others went before it, and it was larger than what was left of the budget",
    "quota": "others went before it, and shares and quotas of sources or clusters left no room",
    "picked": "it is in the subset",
    "duplicate": "it repeats another sample turn by turn; the other one took part",
    "noise": "a turn of it is neither language nor code nor data, so it took no part",
    "near_duplicate": "it says what another sample says but for a few words; that one took part",
    "contaminated": "it holds questions or answers of a benchmark",
    "personal_data": "it holds personal data or secrets",
    "language": "it is in a language that is not wanted",
    "shape": "it has more turns, characters, refusals or stock phrases than are wanted",
    "held_out": "it is kept for evaluation, so no version may pick it",
}
_PROVENANCE = ("sample_id", "batch", "source", "source_file", "source_row")
_SCHEMA = {
    **dict.fromkeys(("sample_id", "batch", "source", "competed_in", "source_file"), pl.String),
    **dict.fromkeys(("source_row", "num_bytes", "num_tokens", "num_target_tokens"), pl.Int64),
    "fate": pl.String,
    "round": pl.Int64,
    "rank": pl.Int64,
    "pi": pl.Float64,
    "initial_pi": pl.Float64,
    **dict.fromkeys(("duplicate_of_batch", "duplicate_of_file"), pl.String),
    "duplicate_of_row": pl.Int64,
    "shard": pl.Int64,
    "score": pl.Float64,
    "quality": pl.Float64,
    "noise": pl.String,
    "evidence": pl.String,
    "other": pl.String,
}
# Columns that a ledger lacks where nothing is known of them.
_OPTIONAL = (
    "competed_in", "num_target_tokens", "score", "quality", "noise", "evidence", "other"
)  # fmt: skip


def known_before(
    samples: WholeTable,
    initial_pi: NDArray[np.floating[Any]],
    num_bytes: NDArray[np.int64],
    tokens: pl.DataFrame | None = None,
    *,
    marks: Table | None = None,
    quality: pl.Series | None = None,
    weights: NDArray[np.float64] | None = None,
) -> pl.LazyFrame:
    """Return what a ledger tells of each pool sample that is known before any is picked.

    Args:
        samples: pool table; missing provenance columns are null.
        initial_pi: ratio of each sample alone, shape (samples,).
        num_bytes: size of each sample, shape (samples,).
        tokens: ``num_tokens`` of each sample, and ``num_target_tokens`` where they are known; None
            where only those of the picks will be counted.
        marks: which samples signals left out (``MARKS_SCHEMA``): the fate, why (``evidence``), and
            the id of the sample that took part in its place (``other``).
        quality: of each sample, where the strategy asks for it.
        weights: what ratios were divided by for it; the ledger has the ratios themselves.
    """
    columns = [pl.Series("initial_pi", initial_pi), pl.Series("num_bytes", num_bytes)]
    columns += [] if tokens is None else tokens.get_columns()
    if quality is not None:
        columns.append(quality.alias("quality"))
    if weights is not None:
        columns.append(pl.Series("weight", weights))
    provenance = samples.lazy().select(cs.by_name(_PROVENANCE, require_all=False))
    tables = [provenance, pl.LazyFrame(columns)]
    if marks is not None:
        tables.append(lazy_rows(marks).rename({"fate": "marked"}))
    return pl.concat(tables, how="horizontal")


def build_ledger(
    known: pl.LazyFrame,
    run: Run,
    tokens: pl.DataFrame | None,
    duplicates: pl.DataFrame | None,
    held_out: pl.DataFrame | None = None,
    *,
    shards: pl.Series | None = None,
    clusters: pl.Series | None = None,
) -> list[pl.LazyFrame]:
    """Return one row per pool sample in pool order, one per exact duplicate, and one per sample
    that is kept for evaluation: a ledger in parts.

    It is made as it is read: whole, with all its texts and nulls, it takes some 0.2 kB a sample.

    ``fate`` is a key of :data:`FATES`; ``round`` the last round in which the sample reached
    that stage (null: none); ``rank`` the place in pick order from 1 (null: not picked);
    ``pi`` the last known ratio, raw / compressed bytes, and ``initial_pi`` that of the sample
    alone. Where the strategy scores samples, ``score`` is the last known score, higher = better.

    Args:
        known: what :func:`known_before` returns, and perhaps ``noise``: why each sample is noise.
        run: the finished selection.
        tokens: where ``known`` has none: ``num_tokens`` of each sample, null where they were not
            counted.
        duplicates: duplicates across batches, as the pool's assembly reports them.
        held_out: pool table of the samples kept for evaluation.
        shards: shard of each sample, None where there are none. ``round`` and ``pi`` of a sample
            that its shard did not pick are those in its shard.
        clusters: the cluster in which each sample competed for the budget, null for noise; None
            where samples competed in their sources, then the ledger has no column ``competed_in``.
    """
    rank = np.zeros(len(run.fate), dtype=np.int32)
    rank[run.picks] = np.arange(1, len(run.picks) + 1)
    columns = [
        pl.Series("fate", run.fate),
        pl.Series("round", run.round_of),
        pl.Series("rank", rank),
        pl.Series("pi", run.pi),
    ]
    columns += [] if tokens is None else tokens.get_columns()
    if shards is not None:
        columns.append(shards.alias("shard"))
    if clusters is not None:
        columns.append(clusters.alias("competed_in"))
    if run.scores is not None:
        columns.append(pl.Series("score", run.scores, nan_to_null=True))
    rows = pl.concat([known, pl.LazyFrame(columns)], how="horizontal")
    names = rows.collect_schema().names()
    unknown = [name for name in _OPTIONAL if name not in names]
    # Not by replace, for which polars holds the whole table (*measured*: 50 bytes a row).
    fate = pl.coalesce(
        pl.when(pl.col("fate") == fate.value).then(pl.lit(fate.name.lower())) for fate in Fate
    )
    told = [pl.when(pl.col(name) > 0).then(name).alias(name) for name in ("round", "rank")]
    # Of noise nobody asked for another ratio.
    is_noise = pl.col("fate") == Fate.NOISE.value
    pi = pl.when(is_noise).then("initial_pi").otherwise("pi").alias("pi")
    ratios = [pi, pl.col("initial_pi")]
    if "weight" in names:
        ratios = [ratio.cast(pl.Float64) * pl.col("weight") for ratio in ratios]
    rows = rows.with_columns(
        *ratios,
        *told,
        fate=pl.coalesce("marked", fate) if "marked" in names else fate,
    )
    parts = [_complete(rows)]
    if duplicates is not None and len(duplicates):
        parts.append(_complete(_duplicate_rows(duplicates).lazy()))
    if held_out is not None and len(held_out):
        kept = held_out.lazy().select(_PROVENANCE).with_columns(fate=pl.lit("held_out"))
        parts.append(_complete(kept))
    return [part.drop(unknown) for part in parts]


def _duplicate_rows(duplicates: pl.DataFrame) -> pl.DataFrame:
    return duplicates.rename(
        {
            "first_batch": "duplicate_of_batch",
            "first_source_file": "duplicate_of_file",
            "first_source_row": "duplicate_of_row",
        }
    ).with_columns(fate=pl.lit("duplicate"))


def _complete(rows: pl.LazyFrame) -> pl.LazyFrame:
    known = rows.collect_schema()
    missing = [pl.lit(None, kind).alias(c) for c, kind in _SCHEMA.items() if c not in known]
    return rows.with_columns(missing).select(pl.col(c).cast(kind) for c, kind in _SCHEMA.items())


# What a manifest tells of picks.
_OF_PICKS = (
    "source", "competed_in", "num_bytes", "num_tokens", "num_target_tokens", "round",
    "rank", "pi", "score", "quality",
)  # fmt: skip
COUNTS = ("num_rows_read", "num_quarantined", "num_duplicates", "num_held_out")


_IDS_AT_A_TIME = 1 << 14


def picked_ids(ledger: pl.LazyFrame, num_picks: int) -> Iterator[str]:
    """Yield the ids of the picks in pick order, of which a few are Python objects at a time."""
    picked = ledger.filter(pl.col("rank").is_not_null()).select("rank", "sample_id")
    most = picked.select(pl.col("sample_id").str.len_bytes().max()).collect(engine="streaming")
    found = np.zeros(num_picks, f"S{most.item() or 1}")
    for part in picked.collect_batches(chunk_size=_IDS_AT_A_TIME):
        found[part["rank"].to_numpy() - 1] = [one.encode() for one in part["sample_id"]]
    return (one.decode() for one in found)


def library_versions(codec: str) -> dict[str, str]:
    """Return the versions of everything that picks by a codec and files depend on."""
    packages = {name: version(name) for name in ("zip-pipeline", "polars", "numpy")}
    return {"python": platform.python_version(), **packages, **codec_versions(codec)}


def _subset_codecs() -> list[str]:
    """Return the codecs by which picks are measured, those of the pool first."""
    of_subset = [codec.name for codec in codecs if codec.measures_subset]
    return sorted(of_subset, key=lambda name: name not in pool_levels())


def measure_ratios(picks: NDArray[np.int64], pool: TextFile) -> dict[str, dict[str, float]]:
    """Return R of the texts at ``picks`` and of all, by codec, at the codec's default level."""
    picked_bytes, num_bytes = int(pool.num_bytes_of(picks).sum()), int(pool.offsets[-1])

    def of_subset(codec: str) -> float:
        pieces = map(b"".join, pool.parts(picks))
        return picked_bytes / codecs[codec].streamed_size(pieces, picked_bytes)

    def of_pool(codec: str) -> float:
        return num_bytes / codecs[codec].streamed_size(pool.chunks(), num_bytes)

    # A codec sees far back, which is most of the memory here; the slowest one comes first.
    with ThreadPoolExecutor(max_workers=2) as executor:
        ratios = {c: executor.submit(of_subset, c) for c in reversed(_subset_codecs())}
        pool_ratios = {c: executor.submit(of_pool, c) for c in pool_levels()}
        return {
            "compression_ratio": {c: ratios[c].result() for c in _subset_codecs()},
            "pool_compression_ratio": {c: ratio.result() for c, ratio in pool_ratios.items()},
        }


def fingerprint_of_inputs(inputs: Mapping[str, str]) -> str:
    """Return a hash of all input batches and their fingerprints."""
    return fingerprint([json.dumps(dict(sorted(inputs.items())))])


def noise_report(noise: pl.Series) -> dict[str, object]:
    """Return how many samples are marked as noise, their share, and how many for each reason.

    A reason is counted without what was measured, which stands in parentheses at its end.
    """
    words = noise.drop_nulls().rename("noise").cast(pl.String)
    marked = words.str.replace(r" \([^()]*\)$", "")
    reasons = marked.value_counts().sort("count", "noise", descending=[True, False])
    return {
        "num_marked": len(marked),
        "share": len(marked) / max(len(noise), 1),
        "reasons": dict(reasons.iter_rows()),
    }


_MOST_SOURCES = 20
_MOST_ROWS = 200


def marks_report(ledger: pl.LazyFrame, marks: Marks) -> dict[str, Any]:
    """Return what the manifest says of marked samples.

    Args:
        ledger: the finished one.
        marks: what signals told.

    Returns:
        ``by``: what measured; ``fates``: by fate the number, and by source, those that lose the
        largest share first, how many of how many; ``by_source``: what signals count by source,
        whatever their policies.
    """
    told = lazy_rows(marks.table, "fate")
    num_samples = told.select(pl.len()).collect().item()
    pool = ledger.head(num_samples).select("source", "fate")
    fates = {}
    for fate in told.unique().collect(engine="streaming").to_series().drop_nulls().sort():
        is_marked = pl.col("fate") == fate
        by_source = pool.group_by("source").agg(marked=is_marked.sum(), of=pl.len())
        lost = (
            by_source.filter(pl.col("marked") > 0)
            .sort(pl.col("marked") / pl.col("of"), "source", descending=[True, False])
            .collect(engine="streaming")
        )
        of_sources = {row["source"]: row for row in lost.head(_MOST_SOURCES).to_dicts()}
        fates[fate] = {
            "num": int(lost["marked"].sum()),
            "sources": {name: [row["marked"], row["of"]] for name, row in of_sources.items()},
        }
    counts = {n: table.head(_MOST_ROWS).to_dicts() for n, table in marks.by_source.items()}
    return {"by": dict(marks.identities), "fates": fates, "by_source": counts}


def target_facts(target: Sequence[bytes]) -> dict[str, object]:
    """Return what a manifest tells of the samples of a target file, or a trusted one."""
    return {
        "num_samples": len(target),
        "fingerprint": fingerprint([text.decode() for text in target]),
    }


def build_manifest(
    stage: str,
    config: SelectionConfig,
    ledger: pl.LazyFrame,
    picked_ids: Iterable[str],
    *,
    tokenizer: str,
    inputs: Mapping[str, str],
    counts: Mapping[str, int],
    num_rounds: int,
    used: int,
    budget: int,
) -> dict[str, object]:
    """Return the manifest without the figures that cost time (ratios, seconds).

    Args:
        stage: ``sft`` or ``preference``.
        config: what was asked.
        ledger: the fate of every sample; no more of it than sums is held.
        picked_ids: of the picks, in pick order.
        tokenizer: whose tokens were counted.
        inputs: fingerprint of each input by name.
        counts: :data:`COUNTS` of the inputs; what is left out is 0.
        num_rounds: rounds played.
        used: what was used of the budget, in its unit.
        budget: what ``config`` asks for, in its unit, where that is a share of the pool, too.
    """
    settled = config.model_copy(update={f"budget_{config.unit}": budget})
    asked = {} if settled == config else {"share": config.asked_budget}
    of_picks = [name for name in ledger.collect_schema() if name in _OF_PICKS]
    picked = ledger.filter(fate="picked").select(of_picks)
    sums = [name for name in of_picks if name.startswith("num_")]
    totals = _collected(picked.select(pl.len().alias("num"), pl.col(sums).sum())).row(0, named=True)
    targets = totals.get("num_target_tokens")
    by_fate = ledger.group_by("fate").agg(num=pl.len(), num_bytes=pl.col("num_bytes").sum())
    fates = _collected(by_fate.sort("fate"))
    in_pool = fates.filter(~pl.col("fate").is_in(["duplicate", "held_out"]))
    return {
        "stage": stage,
        "strategy": config.strategy,
        "config": config.as_dict(),
        "config_fingerprint": config.fingerprint(),
        "seed": config.seed,
        "tokenizer": tokenizer,
        "tokens_of": tokens_of({"picked_target_tokens": targets}),
        **{name: counts.get(name, 0) for name in COUNTS},
        "num_samples": int(in_pool["num"].sum()),
        "num_picked": totals["num"],
        "picked_bytes": totals["num_bytes"],
        "picked_tokens": totals["num_tokens"],
        "picked_target_tokens": targets,
        "pool_bytes": int(in_pool["num_bytes"].sum()),
        "budget": {"unit": config.unit, "value": budget, **asked},
        "unused_budget": max(0, budget - used),
        "quotas": _quota_report(settled, picked),
        "num_rounds": num_rounds,
        "sharding": _sharding(settled),
        "fates": dict(fates.select("fate", "num").iter_rows()),
        "top_sources": _top_sources(picked),
        "last_picks": _last_picks(picked),
        "inputs": dict(sorted(inputs.items())),
        "pool_fingerprint": fingerprint_of_inputs(inputs),
        "subset_fingerprint": fingerprint(picked_ids),
        "ratio_levels": {codec: codecs[codec].level for codec in _subset_codecs()},
        "max_window_bytes": MAX_WINDOW_BYTES,
        "versions": library_versions(config.resolved_codec),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def tokens_of(manifest: Mapping[str, Any]) -> str:
    """Return whose tokens a selection counts: of the ``chat template``, or of the ``plain text``.

    In plain texts nobody knows which tokens the loss falls on.
    """
    return "plain text" if manifest.get("picked_target_tokens") is None else "chat template"


def _sharding(config: SelectionConfig) -> dict[str, int] | None:
    """Return what each shard was to pick, None without shards; rounds are then the merge's."""
    if not config.is_sharded:
        return None
    return {"num_shards": config.num_shards, "shard_budget": config.for_a_shard().budget}


def _quota_report(config: SelectionConfig, picked: pl.LazyFrame) -> dict[str, dict[str, int]]:
    """Return what each group with a quota was promised, allowed and used, in budget units."""
    cost = pl.len() if config.unit == "samples" else pl.col(f"num_{config.unit}").sum()
    used = dict(_collected(picked.group_by(_group_of(picked)).agg(cost)).iter_rows())
    return {
        source: {
            "minimum": int((least or 0) * config.budget),
            "maximum": config.budget if largest is None else int(largest * config.budget),
            "used": int(used.get(source, 0)),
        }
        for source, (least, largest) in sorted(config.quotas.items())
    }


def _group_of(picked: pl.LazyFrame) -> str:
    """Return the column of the groups that share a budget."""
    return "competed_in" if "competed_in" in picked.collect_schema() else "source"


def _last_picks(picked: pl.LazyFrame) -> dict[str, object]:
    """Return what was known of the last pick of all and of each group: where the budget ended."""
    group, known = _group_of(picked), picked.collect_schema()
    names = [n for n in ("rank", "round", "pi", "score", "quality") if n in known]
    ranks = _collected(picked.group_by(group).agg(pl.col("rank").max()))["rank"]
    last = picked.filter(pl.col("rank").is_in(ranks.implode())).select(group, *names)
    told = {
        str(row[group]): {n: row[n] for n in names if row[n] is not None and isfinite(row[n])}
        for row in _collected(last.sort("rank")).iter_rows(named=True)
    }
    return {"of_all": next(reversed(told.values()), {}), "by_group": dict(sorted(told.items()))}


def _top_sources(picked: pl.LazyFrame, limit: int = 10) -> list[dict[str, object]]:
    grouped = picked.group_by("source").agg(
        num_samples=pl.len(), num_bytes=pl.col("num_bytes").sum()
    )
    top = _collected(grouped).sort(["num_bytes", "source"], descending=[True, False])
    return top.head(limit).to_dicts()


def _collected(rows: pl.LazyFrame) -> pl.DataFrame:
    """Return rows of which few are in memory at a time before they are these."""
    return rows.collect(engine="streaming")
