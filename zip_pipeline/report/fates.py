"""A ledger row in words: why a sample is in or out of a selection."""

from collections.abc import Mapping

import polars as pl

from zip_pipeline.errors import UserError
from zip_pipeline.selection.strategies import strategies

Row = Mapping[str, object]
# In place of a fate where a selection's pool does not hold the sample.
NOT_IN_POOL = "not_in_pool"


def explain_fate(row: Row, config: Mapping[str, object]) -> str:
    """Return one sentence: what became of a sample in a selection, and why.

    Args:
        row: one row of a ledger.
        config: the selection's configuration, as its manifest holds it.

    Returns:
        A sentence without a full stop at its end. Ratios are raw / compressed bytes, higher =
        more redundant.

    Raises:
        UserError: a fate that this version does not know.
    """
    fate = str(row["fate"])
    if fate not in _SENTENCES:
        known = ", ".join(sorted(_SENTENCES))
        raise UserError(
            f"ledger of sample {row['sample_id']}: got fate {fate!r}; known are {known}; "
            "read it with the version of zip_pipeline that its manifest names"
        )
    # A version may have been selected by a plug-in that is not installed any more.
    name = config.get("strategy")
    words = strategies[str(name)].words if name in strategies.names() else {}
    if fate in words:
        return words[fate].format(**{**config, **row})
    return _shard(row, config) + _SENTENCES[fate](row, config)


def _shard(row: Row, config: Row) -> str:
    """Return whose rounds a sentence is about: of what no shard picked, those of its shard."""
    if row.get("shard") is None or row["fate"] not in ("candidate", "never_reached"):
        return ""
    return f"in shard {row['shard']} (from 0) of {config.get('num_shards')}: "


def _ratio(row: Row) -> str:
    pi = row["pi"]
    return f"{pi:.3f}" if isinstance(pi, int | float) else "unknown"


def _picked(row: Row, config: Row) -> str:
    return (
        f"picked as number {row['rank']}, in round {row['round']}: the least redundant left on the "
        f"shortlist (last known ratio {_ratio(row)})"
    )


def _shortlisted(row: Row, config: Row) -> str:
    return (
        f"left on the shortlist (the {config.get('k2')} least redundant candidates), last in "
        f"round {row['round']}, with ratio {_ratio(row)}: the round's picks were less redundant "
        "with each other"
    )


def _candidate(row: Row, config: Row) -> str:
    return (
        f"left among the candidates (the {config.get('k1')} lowest known ratios), last in round "
        f"{row['round']}: its ratio {_ratio(row)}, measured with what was selected, was too high "
        f"for the shortlist of {config.get('k2')}"
    )


def _never_reached(row: Row, config: Row) -> str:
    return (
        f"never looked at: its ratio alone, {_ratio(row)}, was not among the "
        f"{config.get('k1')} lowest before the budget was used"
    )


def _over_budget(row: Row, config: Row) -> str:
    unit = next((u for u in ("tokens", "bytes") if config.get(f"budget_{u}") is not None), None)
    size = row.get(f"num_{unit}") if unit else None
    own = f"its {size:,} {unit} did" if isinstance(size, int) else "it did"
    return f"in reach, but {own} not fit what was left of the budget"


def _quota(row: Row, config: Row) -> str:
    quotas = config.get("quotas")
    shares = quotas.get(row["source"]) if isinstance(quotas, Mapping) else None
    if shares and shares[1] is not None:
        return f"in reach, but its source {row['source']} had its maximum of {shares[1]:.1%}"
    return "in reach, but what was left of the budget was reserved for other sources' minimum"


def _duplicate(row: Row, _config: Row) -> str:
    place = f"{row['duplicate_of_file']}, row {row['duplicate_of_row']}"
    batch = row["duplicate_of_batch"]
    inside = f" in batch {batch}" if batch is not None and batch != row["batch"] else ""
    return f"an exact copy of {place}{inside}, which took part in its place"


def _held_out(_row: Row, _config: Row) -> str:
    return "kept for evaluation, so no version may pick it"


_SENTENCES = {
    "picked": _picked,
    "shortlisted": _shortlisted,
    "candidate": _candidate,
    "never_reached": _never_reached,
    "over_budget": _over_budget,
    "quota": _quota,
    "duplicate": _duplicate,
    "held_out": _held_out,
}


def pool_rows(ledger: pl.DataFrame) -> pl.DataFrame:
    """Return the ledger's rows that took part: neither exact duplicates nor held out."""
    return ledger.filter(~pl.col("fate").is_in(["duplicate", "held_out"]))


def top_sources(ledger: pl.DataFrame, limit: int = 10) -> pl.DataFrame:
    """Return the sources with most picks, beside their share of the pool.

    Args:
        ledger: ledger of one selection.
        limit: at most so many sources.

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
