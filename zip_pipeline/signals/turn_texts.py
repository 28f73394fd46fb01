"""The texts of samples' turns, one by one, and where in them something was found."""

from typing import Any

import polars as pl

from zip_pipeline.samples import TURN_COLUMNS, Stage

PLACE: dict[str, Any] = {
    "column": pl.String,
    "turn": pl.Int64,
    "field": pl.String,
    "start": pl.Int64,
    "end": pl.Int64,
}
"""Where a span stands: the column of turns, the turn from 1, the field of the turn, and the
characters from ``start`` to before ``end``, counted from 0. In tools column and field are ``tools``
and the turn is 0."""
FIELDS = ("content", "reasoning", "tool_calls")
"""The fields of a turn in which somebody says something."""


def turn_texts(samples: pl.DataFrame, stage: Stage) -> pl.DataFrame:
    """Return each text of each turn that is not empty, in the order of samples and turns.

    Args:
        samples: rows of a pool table.
        stage: what they are.

    Returns:
        ``sample``, the place in the table from 0, ``column``, ``turn`` from 1, ``role``, ``field``
        and ``text``.
    """
    parts = []
    for place, column in enumerate(TURN_COLUMNS[stage]):
        turns = (
            samples.lazy()
            .select(turns=column)
            .with_row_index("sample")
            .with_columns(turn=pl.int_ranges(1, pl.col("turns").list.len() + 1))
            .explode("turns", "turn", empty_as_null=False)
            .unnest("turns")
        )
        parts += [
            turns.select(
                pl.col("sample").cast(pl.Int64),
                pl.lit(column).alias("column"),
                "turn",
                "role",
                pl.lit(field).alias("field"),
                pl.col(field).alias("text"),
                pl.lit(place).alias("place"),
            )
            for field in FIELDS
        ]
    texts = pl.concat(parts).filter(pl.col("text") != "")
    return texts.sort("sample", "place", "turn", maintain_order=True).drop("place").collect()


def tool_texts(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the tools that may be called in samples, as :func:`turn_texts`; their turn is 0."""
    return samples.select(
        pl.int_range(pl.len()).alias("sample"),
        pl.lit("tools").alias("column"),
        pl.lit(0, pl.Int64).alias("turn"),
        pl.lit("").alias("role"),
        pl.lit("tools").alias("field"),
        pl.col("tools").alias("text"),
    ).filter(pl.col("text") != "")


def gathered(spans: pl.DataFrame, num_samples: int, fields: pl.Schema) -> pl.Series:
    """Return the spans of each sample as a list of structs, shape (samples,); empty without any.

    Args:
        spans: one row each, with ``sample`` and the fields.
        num_samples: how many lists there shall be.
        fields: of a span.
    """
    lists = spans.group_by("sample", maintain_order=True).agg(pl.struct(*fields).alias("spans"))
    every = pl.DataFrame({"sample": pl.int_range(num_samples, eager=True)})
    dtype = pl.List(pl.Struct(fields))
    joined = every.join(lists, on="sample", how="left", maintain_order="left")["spans"].cast(dtype)
    return joined.fill_null(pl.Series([[]], dtype=dtype))
