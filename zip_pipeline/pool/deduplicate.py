"""Exact duplicates: samples whose normalised turns are the same."""

import polars as pl

_PLACE = ("batch", "source_file", "source_row")

DUPLICATES_SCHEMA = pl.Schema(
    {
        "sample_id": pl.String,
        "batch": pl.String,
        "source_file": pl.String,
        "source_row": pl.Int64,
        "first_batch": pl.String,
        "first_source_file": pl.String,
        "first_source_row": pl.Int64,
    }
)


def split_duplicates(samples: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a pool table into the first sample of each ``sample_id`` and those that repeat it.

    Args:
        samples: a pool table; its row order decides which sample is the first.

    Returns:
        The first samples, and a table with one row per repeated sample that names it and the
        first (:data:`DUPLICATES_SCHEMA`); both in the order of the input.
    """
    is_first = samples.get_column("sample_id").is_first_distinct()
    firsts = samples.filter(is_first)
    repeats = samples.select("sample_id", *_PLACE).filter(~is_first)
    # A join with all first samples would build a table of the whole pool.
    is_repeated = firsts["sample_id"].is_in(repeats["sample_id"].unique().implode())
    places = firsts.select("sample_id", pl.col(_PLACE).name.prefix("first_")).filter(is_repeated)
    duplicates = repeats.join(places, on="sample_id", how="left", maintain_order="left")
    return firsts, duplicates.match_to_schema(DUPLICATES_SCHEMA)
