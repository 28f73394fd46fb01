"""Tables over ledgers."""

import polars as pl
import pytest

from zip_pipeline.report.fates import num_by_fate, top_sources


def _ledger(*rows: tuple[str, str, int]) -> pl.DataFrame:
    schema = {"source": pl.String, "fate": pl.String, "num_bytes": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_top_sources_rank_by_picks_then_pool_then_name():
    """Most picks come first, then most pool samples, then the name."""
    table = top_sources(
        _ledger(
            ("few", "picked", 5),
            ("many", "picked", 10),
            ("many", "picked", 20),
            ("many", "candidate", 40),
            ("b_none", "never_reached", 1),
            ("a_none", "over_budget", 1),
        )
    )
    assert table.rows() == [
        ("many", 3, 2, 30, 3 / 6, 2 / 3),
        ("few", 1, 1, 5, 1 / 6, 1 / 3),
        ("a_none", 1, 0, 0, 1 / 6, 0.0),
        ("b_none", 1, 0, 0, 1 / 6, 0.0),
    ]


@pytest.mark.parametrize("fate", ["duplicate", "held_out"])
def test_top_sources_leave_out_what_took_no_part(fate: str):
    """Exact duplicates and held-out samples took no part, so they count in no share."""
    table = top_sources(_ledger(("a", "picked", 1), ("a", fate, 1), ("b", fate, 1)))
    assert table.select("source", "num_pool", "pool_share").rows() == [("a", 1, 1.0)]


def test_top_sources_of_nothing_picked_have_zero_shares():
    """A subset without picks has shares of zero, no NaN."""
    table = top_sources(_ledger(("a", "candidate", 1)))
    assert table["subset_share"].to_list() == [0.0]
    assert top_sources(_ledger()).is_empty()


def test_top_sources_limit_keeps_shares_of_the_whole():
    """Shares are of the whole pool, not of the listed sources."""
    table = top_sources(_ledger(("a", "picked", 1), ("b", "picked", 1), ("b", "picked", 1)), 1)
    assert table.select("source", "subset_share").rows() == [("b", 2 / 3)]


def test_top_sources_refuse_a_limit_of_zero():
    """A limit below 1 is an error that says what is allowed."""
    with pytest.raises(ValueError, match=r"^limit: got 0, allowed is 1 or more$"):
        top_sources(_ledger(), 0)


def test_num_by_fate_counts_every_row():
    """Fates are counted, most frequent first."""
    ledger = _ledger(("a", "picked", 1), ("a", "candidate", 1), ("b", "candidate", 1))
    assert list(num_by_fate(ledger).items()) == [("candidate", 2), ("picked", 1)]
