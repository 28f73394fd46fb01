"""The fate of every pool sample in a version."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.selection.progress import Fate, Run

FATES = {
    "never_reached": "its known ratio was never among the k1 lowest before the budget was used",
    "candidate": "it was measured against the selected set; k2 others had lower ratios",
    "shortlisted": "it was on the shortlist; k3 others were picked before it",
    "over_budget": "it was in reach, but larger than what was left of the budget",
    "quota": "it was in reach, but the quotas of its source or of others left no room",
    "picked": "it is in the subset",
    "duplicate": "it repeats another sample turn by turn; the other one took part",
    "held_out": "it is kept for evaluation, so no version may pick it",
}
_PROVENANCE = ("sample_id", "batch", "source", "source_file", "source_row")
_SCHEMA = {
    **dict.fromkeys(("sample_id", "batch", "source", "source_file"), pl.String),
    **dict.fromkeys(("source_row", "num_bytes", "num_tokens"), pl.Int64),
    "fate": pl.String,
    "round": pl.Int64,
    "rank": pl.Int64,
    "pi": pl.Float64,
    "initial_pi": pl.Float64,
    **dict.fromkeys(("duplicate_of_batch", "duplicate_of_file"), pl.String),
    "duplicate_of_row": pl.Int64,
    "shard": pl.Int64,
}


def build_ledger(
    samples: pl.DataFrame,
    run: Run,
    initial_pi: NDArray[np.floating[Any]],
    num_bytes: pl.Series,
    num_tokens: pl.Series,
    duplicates: pl.DataFrame | None,
    held_out: pl.DataFrame | None = None,
    *,
    shards: NDArray[np.int64] | None = None,
) -> pl.DataFrame:
    """Return one row per pool sample in pool order, then one per exact duplicate, then
    one per sample that is kept for evaluation.

    ``fate`` is a key of :data:`FATES`; ``round`` the last round in which the sample reached
    that stage (null: none); ``rank`` the place in pick order from 1 (null: not picked);
    ``pi`` the last known ratio, raw / compressed bytes, and ``initial_pi`` that of the sample
    alone.

    Args:
        samples: pool table; missing provenance columns are null.
        run: the finished selection.
        initial_pi: ratio of each sample alone, shape (samples,).
        num_bytes: size of each sample, shape (samples,).
        num_tokens: tokens of each sample, null where they were not counted.
        duplicates: duplicates across batches, as the pool's assembly reports them.
        held_out: pool table of the samples kept for evaluation.
        shards: shard of each sample, None where there are none. ``round`` and ``pi`` of a sample
            that its shard did not pick are those in its shard.
    """
    names = np.array([fate.name.lower() for fate in Fate])
    rank = np.zeros(len(run.fate), dtype=np.int64)
    rank[run.picks] = np.arange(1, len(run.picks) + 1)
    ledger = samples.select(c for c in _PROVENANCE if c in samples.columns).with_columns(
        num_bytes=num_bytes,
        num_tokens=num_tokens,
        fate=pl.Series(names[run.fate].tolist(), dtype=pl.String),
        round=_null_where_zero(run.round_of.astype(np.int64)),
        rank=_null_where_zero(rank),
        pi=pl.Series(run.pi.astype(np.float64)),
        initial_pi=pl.Series(initial_pi.astype(np.float64)),
    )
    if shards is not None:
        ledger = ledger.with_columns(shard=pl.Series(shards))
    parts = [_complete(ledger)]
    if duplicates is not None and len(duplicates):
        parts.append(_complete(_duplicate_rows(duplicates)))
    if held_out is not None and len(held_out):
        parts.append(_complete(held_out.select(_PROVENANCE).with_columns(fate=pl.lit("held_out"))))
    return pl.concat(parts)


def _null_where_zero(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pl.Series:
    return pl.Series(values).replace(0, None)


def _duplicate_rows(duplicates: pl.DataFrame) -> pl.DataFrame:
    return duplicates.rename(
        {
            "first_batch": "duplicate_of_batch",
            "first_source_file": "duplicate_of_file",
            "first_source_row": "duplicate_of_row",
        }
    ).with_columns(fate=pl.lit("duplicate"))


def _complete(rows: pl.DataFrame) -> pl.DataFrame:
    missing = [pl.lit(None, kind).alias(c) for c, kind in _SCHEMA.items() if c not in rows.columns]
    return rows.with_columns(missing).select(pl.col(c).cast(kind) for c, kind in _SCHEMA.items())
