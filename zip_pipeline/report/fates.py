"""What ledgers say: why a sample is in or out, the sources, what changed between two versions."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import polars as pl

from zip_pipeline.data_root import VersionStore
from zip_pipeline.errors import UserError
from zip_pipeline.selection.strategies import Strategy, strategies
from zip_pipeline.terminal_text import counted

Row = Mapping[str, Any]
# In place of a fate where a selection's pool does not hold the sample.
NOT_IN_POOL = "not_in_pool"


# Where a fate's name alone would be misread: nothing is wrong with the sample's size or source.
FATE_LABELS = {"over_budget": "no budget left", "quota": "no share left"}


def fate_label(fate: str) -> str:
    """Return what a fate, or another name such as a reason, is called in tables for people."""
    return FATE_LABELS.get(fate, fate.replace("_", " "))


def explain_fate(row: Row, manifest: Mapping[str, Any]) -> str:
    """Return one sentence: what became of a sample in a selection, and why.

    Args:
        row: one row of a ledger, or a fate alone where the pool does not hold the sample.
        manifest: of the selection: its configuration, and where the budget ended.

    Returns:
        A sentence without a full stop at its end. Ratios are raw / compressed bytes, higher =
        more redundant.

    Raises:
        UserError: a fate that this version does not know.
    """
    if row["fate"] == NOT_IN_POOL:
        return "no batch of that version's pool held it"
    if row["fate"] == "picked" and manifest.get("covers_pool"):
        return "picked, as the budget covers all that could be picked"
    # A version may have been selected by a plug-in that is not installed any more.
    name = (manifest.get("config") or {}).get("strategy")
    strategy = strategies[str(name)] if name in strategies else None
    words = _explained(row, manifest, strategy) + _beside_last_picks(row, manifest, strategy)
    cluster = row.get("competed_in")
    return f"{words}; it competed in {cluster}" if cluster is not None else words


def _explained(row: Row, manifest: Row, strategy: Strategy | None) -> str:
    fate, config = str(row["fate"]), manifest.get("config") or {}
    if row.get("evidence") is not None and fate not in _SENTENCES:
        return f"marked as {fate.replace('_', ' ')}: {row['evidence']}"
    if fate not in _SENTENCES and fate not in _TOLD_BY:
        known = ", ".join(sorted([*_SENTENCES, *_TOLD_BY]))
        raise UserError(
            f"ledger of sample {row['sample_id']}: got fate {fate!r}; known are {known}; "
            "read it with the version of zip_pipeline that its manifest names"
        )
    if strategy is not None and fate in strategy.words:
        return strategy.words[fate].format(**{**config, **row})
    if fate in _TOLD_BY:
        return _TOLD_BY[fate](row, manifest)
    facts: Row = defaultdict(lambda: None, {**config, **row, "ratio": _figure(row, "pi")})
    # Of what no shard picked the rounds are those of its shard.
    is_of_shard = row.get("shard") is not None and fate in ("candidate", "never_reached")
    shard = "in shard {shard} (from 0) of {num_shards}: " if is_of_shard else ""
    return (shard + _SENTENCES[fate]).format_map(facts)


def _figure(figures: Row, column: str) -> str:
    """Return a ratio with the quality that it is weighed by, or a score, in words."""
    value = figures.get(column)
    if not isinstance(value, int | float) or not isfinite(value):
        return "unknown"
    if column != "pi":
        return f"{value:.4g}"
    quality = figures.get("quality")
    return f"{value:.3f}" if quality is None else f"{value:.3f} at quality {quality:g}"


_NO_ROOM = ("over_budget", "quota")
_LEFT = (*_NO_ROOM, "never_reached", "candidate", "shortlisted")


def _beside_last_picks(row: Row, manifest: Row, strategy: Strategy | None) -> str:
    """Return how near a sample that was left out came to the last picks, or why none can tell."""
    if strategy is None or row["fate"] not in _LEFT:
        return ""
    last, measure = manifest.get("last_picks") or {}, strategy.measure
    column = "pi" if measure == "ratio" else "score"
    if not measure:
        return f"; {strategy.unmeasured}" if strategy.unmeasured else ""
    if column not in last.get("of_all", {}):
        return ""
    if row.get("shard") is not None:
        return (
            "; each shard is picked from by itself first, so what was measured in one does not "
            "compare with the last pick of all"
        )
    words = (
        f"; the last pick, number {last['of_all']['rank']:,}, had {_figure(last['of_all'], column)}"
    )
    if row["fate"] in _NO_ROOM:
        has_rounds = manifest.get("num_rounds", 0) > 1 and row.get("round") is not None
        when = f"it was passed over in round {row['round']:,}, " if has_rounds else ""
        words = f"; {when}its last known {measure} was {_figure(row, column)}{words}"
    group = row.get("competed_in") or row["source"]
    of_group, whose = last["by_group"].get(str(group)), _whose(row, manifest.get("config") or {})
    if of_group is None:
        words += f", and none of its {whose} was picked"
    elif of_group["rank"] != last["of_all"]["rank"]:
        words += f", and the last of its {whose}, number {of_group['rank']:,}, "
        words += _figure(of_group, column)
    return f"{words} ({'lowest' if column == 'pi' else 'highest'} first)"


def _whose(row: Row, config: Row) -> str:
    """Return in words what a sample shared the budget with."""
    group = row.get("competed_in")
    if group is None:
        return f"source {row['source']}"
    return f"group {group}" if config.get("shares_by") is not None else "cluster"


_SENTENCES = {
    "picked": "picked as number {rank}, in round {round}: the least redundant left on the "
    "shortlist (last known ratio {ratio})",
    "shortlisted": "left on the shortlist (the {k2} least redundant candidates), last in round "
    "{round}, with ratio {ratio}: the round's picks were less redundant with each other",
    "candidate": "left among the candidates (the {k1} lowest known ratios), last in round {round}: "
    "its ratio {ratio}, measured with what was selected, was too high for the shortlist of {k2}",
    "never_reached": "never looked at: its ratio alone, {ratio}, was not among the {k1} lowest "
    "before the budget was used",
    "noise": "marked as noise: {noise}",
    "near_duplicate": "marked as a near-duplicate: {evidence}",
    "contaminated": "marked as contaminated: {evidence}",
    "personal_data": "marked for personal data: {evidence}",
    "language": "marked for its language: {evidence}",
}


def _held_out(row: Row, _manifest: Row) -> str:
    evidence = row.get("evidence")
    words = "kept for evaluation, so no version may pick it"
    return words if evidence is None else f"{words}; it is {evidence}"


def _over_budget(row: Row, manifest: Row) -> str:
    config = manifest.get("config") or {}
    unit = next(
        (u for u in ("tokens", "target_tokens", "bytes") if config.get(f"budget_{u}") is not None),
        None,
    )
    size = row.get(f"num_{unit}") if unit else None
    words = str(unit).replace("_", " ")
    own = f"its {size:,} {words} did" if isinstance(size, int) else "it did"
    unused = manifest.get("unused_budget")
    end = "" if unused is None else f" ({unused:,} in the end)"
    return f"others went before it, and {own} not fit what was left of the budget{end}"


def _quota(row: Row, manifest: Row) -> str:
    config = manifest.get("config") or {}
    quotas = config.get("quotas")
    group, whose = row.get("competed_in"), _whose(row, config)
    shares = quotas.get(group or row["source"]) if isinstance(quotas, Mapping) else None
    if shares and shares[1] is not None:
        return f"others went before it, and its {whose} had its maximum of {shares[1]:.1%}"
    if (mixture := config.get("mixture") or "none") != "none":
        return f"others went before it, and its {whose} had its share in the {mixture} mixture"
    return "others went before it, and what was left was reserved for other sources' minimum"


def _duplicate(row: Row, _manifest: Row) -> str:
    place = f"{row['duplicate_of_file']}, row {row['duplicate_of_row']}"
    batch = row["duplicate_of_batch"]
    inside = f" in batch {batch}" if batch is not None and batch != row["batch"] else ""
    return f"an exact copy of {place}{inside}, which took part in its place"


_TOLD_BY = {
    "over_budget": _over_budget,
    "quota": _quota,
    "duplicate": _duplicate,
    "held_out": _held_out,
}


def words_of_rows(counts: Mapping[str, Any]) -> str:
    """Return the sum that must always hold."""
    num_held_out = counts.get("num_held_out", 0)
    held_out = f" + {num_held_out:,} held out" if num_held_out else ""
    samples = counted(counts["num_samples"], "sample")
    duplicates = counted(counts["num_duplicates"], "duplicate")
    return (
        f"{counts['num_rows_read']:,} = {samples} + {counts['num_quarantined']:,} quarantined + "
        f"{duplicates}{held_out}"
    )


def pool_rows(ledger: pl.DataFrame) -> pl.DataFrame:
    """Return the ledger's rows that took part: neither exact duplicates nor held out."""
    return ledger.filter(~pl.col("fate").is_in(["duplicate", "held_out"]))


def top_sources(ledger: pl.DataFrame, limit: int = 10) -> pl.DataFrame:
    """Return at most ``limit`` sources with most picks, beside their share of the pool.

    Returns:
        source, num_pool, num_picked, picked_bytes, pool_share, subset_share (both shares of
        samples, 0 to 1); most picks first, then most pool samples, then by name.

    Raises:
        UserError: ``limit`` is below 1.
    """
    if limit < 1:
        raise UserError(f"limit: got {limit}, allowed is 1 or more")
    picked = pl.col("fate") == "picked"
    return (
        pool_rows(ledger)
        .group_by("source")
        .agg(
            num_pool=pl.len().cast(pl.Int64),
            num_picked=picked.sum().cast(pl.Int64),
            picked_bytes=pl.col("num_bytes").filter(picked).sum().cast(pl.Int64),
        )
        .with_columns(
            pool_share=pl.col("num_pool") / pl.col("num_pool").sum(),
            # A subset without picks has no shares; zero reads better than NaN.
            subset_share=(pl.col("num_picked") / pl.col("num_picked").sum()).fill_nan(0.0),
        )
        .sort("num_picked", "num_pool", "source", descending=[True, True, False])
        .head(limit)
    )


def num_by_fate(ledger: pl.DataFrame) -> dict[str, int]:
    """Return how many ledger rows met each fate, most frequent first, then by name."""
    counts = ledger.group_by("fate").agg(num=pl.len()).sort("num", "fate", descending=[True, False])
    return dict(counts.iter_rows())


@dataclass(frozen=True)
class VersionDiff:
    """Samples and sources in, out and stayed between two versions.

    ``samples``: one row per sample picked in either version (sample_id, source, batch,
    source_file, source_row, num_bytes, change, source_before, fate_before, fate_after, why);
    ``change`` is ``in``, ``out`` or ``stayed``, a fate ``not_in_pool`` where that version's
    pool lacks the sample; ``why`` says why it was not picked before, or is not now, null of what
    stayed.
    ``sources``: one row per source (source, change, num_before, num_after, num_in, num_out,
    num_stayed), most moved first. ``batches``: one row per input batch that was added,
    removed or changed (batch, change).
    """

    before: dict[str, Any]
    after: dict[str, Any]
    samples: pl.DataFrame
    sources: pl.DataFrame
    batches: pl.DataFrame

    @property
    def settings(self) -> list[tuple[str, str, str]]:
        """The settings that are not the same: name, before and after."""
        before, after = (
            {**found["config"], "tokenizer": found.get("tokenizer")}
            for found in (self.before, self.after)
        )
        return [
            (name, *("not set" if value is None else str(value) for value in values))
            for name in dict.fromkeys([*before, *after])
            if (values := (before.get(name), after.get(name)))[0] != values[1]
        ]

    def reasons(self) -> pl.DataFrame:
        """Return what moved by its fate in the version that did not pick it, most first.

        Returns:
            change, fate, num_samples, num_bytes, and of the first of them sample_id and why.
        """
        moved = self.samples.filter(pl.col("change") != "stayed").with_columns(
            fate=pl.when(change="in").then("fate_before").otherwise("fate_after")
        )
        return (
            moved.group_by("change", "fate", maintain_order=True)
            .agg(
                pl.len().alias("num_samples"),
                pl.col("num_bytes").sum(),
                pl.col("sample_id", "why").first(),
            )
            .sort("change", "num_samples", "fate", descending=[False, True, False])
        )


def diff_versions(store: VersionStore, before: int, after: int) -> VersionDiff:
    """Compare two versions of one stage, given by their numbers.

    A sample is the same sample when its content is, wherever it lies.

    Raises:
        UserError: there is no such version.
    """
    manifests = store.manifest(before), store.manifest(after)
    ledgers = _ledger(store, before), _ledger(store, after)
    samples = _samples(*ledgers)
    whys = pl.concat(
        _whys(samples.filter(change=change), ledger, manifest)
        for change, ledger, manifest in zip(("in", "out"), ledgers, manifests, strict=True)
    )
    samples = samples.join(whys, on="sample_id", how="left", maintain_order="left")
    return VersionDiff(*manifests, samples, _sources(samples), _batches(*manifests))


def _whys(moved: pl.DataFrame, ledger: pl.DataFrame, manifest: Mapping[str, Any]) -> pl.DataFrame:
    """Return ``sample_id`` and ``why`` of what moved, as the ledger that did not pick it says."""
    known = moved.select("sample_id", "change", came_in="batch").join(
        ledger, on="sample_id", how="left", maintain_order="left"
    )
    words = [
        explain_fate({**row, "fate": row["fate"] or NOT_IN_POOL}, manifest)
        + (f"; it {_BATCH_WORDS[row['change']]} {row['came_in']}" if row["fate"] is None else "")
        for row in known.iter_rows(named=True)
    ]
    return moved.select("sample_id", why=pl.Series(words, dtype=pl.String))


_BATCH_WORDS = {"in": "came with", "out": "stood in"}


def _ledger(store: VersionStore, number: int) -> pl.DataFrame:
    ledger = store.ledger(number).collect()
    samples = ledger.filter(pl.col("fate") != "duplicate")
    picked_first = samples.sort(pl.col("fate") != "picked", maintain_order=True)
    # Only a pool that was taken as it comes can hold a sample twice.
    return picked_first.unique("sample_id", keep="first", maintain_order=True)


def _samples(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    carried = ["source", "batch", "source_file", "source_row", "num_bytes"]
    columns = ["sample_id", *carried, "fate"]
    both = after.select(columns).join(
        before.select(columns), on="sample_id", how="full", coalesce=True, suffix="_before"
    )
    picked_before = pl.col("fate_before").eq_missing(pl.lit("picked"))
    picked_after = pl.col("fate").eq_missing(pl.lit("picked"))
    return (
        both.filter(picked_before | picked_after)
        .select(
            "sample_id",
            *(pl.coalesce(name, f"{name}_before").alias(name) for name in carried),
            change=_change(picked_before, picked_after),
            source_before=pl.coalesce("source_before", "source"),
            fate_before=pl.col("fate_before").fill_null(NOT_IN_POOL),
            fate_after=pl.col("fate").fill_null(NOT_IN_POOL),
        )
        .sort("change", "source", "sample_id")
    )


def _change(is_before: pl.Expr, is_after: pl.Expr) -> pl.Expr:
    """Return the expression of what became of something that is before, after or both."""
    stayed_or_in = pl.when(is_before).then(pl.lit("stayed")).otherwise(pl.lit("in"))
    return pl.when(is_after).then(stayed_or_in).otherwise(pl.lit("out"))


def _sources(samples: pl.DataFrame) -> pl.DataFrame:
    # A sample whose source has another name now has left the one and come to the other.
    before = samples.filter(pl.col("change") != "in").select(source="source_before")
    after = samples.filter(pl.col("change") != "out").select("source")
    same = samples.filter(pl.col("change") == "stayed", pl.col("source") == pl.col("source_before"))
    table = pl.concat([before, after]).unique()
    for name, rows in (("before", before), ("after", after), ("stayed", same.select("source"))):
        counted = rows.group_by("source").agg(pl.len().cast(pl.Int64).alias(f"num_{name}"))
        table = table.join(counted, on="source", how="left")
    table = table.fill_null(0).with_columns(
        num_in=pl.col("num_after") - pl.col("num_stayed"),
        num_out=pl.col("num_before") - pl.col("num_stayed"),
    )
    numbers = ("num_before", "num_after", "num_in", "num_out", "num_stayed")
    change = _change(pl.col("num_before") > 0, pl.col("num_after") > 0)
    return table.select("source", change.alias("change"), *numbers).sort(
        pl.col("num_in") + pl.col("num_out"), "source", descending=[True, False]
    )


def _batches(*manifests: Mapping[str, Any]) -> pl.DataFrame:
    before, after = (manifest.get("inputs", {}) for manifest in manifests)
    rows = [
        (batch, "added" if batch not in before else "removed" if batch not in after else "changed")
        for batch in sorted(before.keys() | after.keys())
        if before.get(batch) != after.get(batch)
    ]
    return pl.DataFrame(rows, schema={"batch": pl.String, "change": pl.String}, orient="row")
