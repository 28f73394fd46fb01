"""Tables over a selection's ledger."""

import polars as pl


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
        ValueError: ``limit`` is below 1.
    """
    if limit < 1:
        raise ValueError(f"limit: got {limit}, allowed is 1 or more")
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
