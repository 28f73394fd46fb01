"""Correlations over versions, and what must be said where there are too few."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.entropy_law.fit import (
    comparable_points,
    relation,
    relations,
    relations_table,
)
from zip_pipeline_tests.entropy_law.tables import series_of, version_row, versions

RATIOS = [3.0, 3.4, 3.2, 3.1, 3.6, 3.3]
LOSSES = [1.0, 1.4, 1.3, 1.1, 1.5, 1.2]


def _lawful() -> pl.DataFrame:
    """Return six versions whose Z falls with R."""
    table = series_of(RATIOS, LOSSES)
    return table.with_columns(Z=7 - pl.col("R"), Z_name=pl.lit("held-out"))


def test_relations_find_the_law():
    """Z falls with R and L, R rises with L, each with interval, p-value, curve and note."""
    found = {(r.x, r.y): r for r in relations(_lawful(), "sft")}
    assert list(found) == [("R", "Z"), ("L", "Z"), ("L", "R")]
    of_ratio = found["R", "Z"]
    assert of_ratio.spearman == pytest.approx(-1.0)
    assert of_ratio.curve is not None
    assert of_ratio.curve.mean == pytest.approx(7 - of_ratio.curve.grid)
    of_loss = found["L", "R"]
    # Ranks of L (1, 5, 4, 2, 6, 3) against those of R (1, 5, 3, 2, 6, 4): 1 - 6 * 2 / 210.
    assert of_loss.spearman == pytest.approx(1 - 12 / 210)
    assert of_loss.note.startswith("6 points, Spearman +0.94 (p 0.0")


def test_interval_takes_ten_points_and_a_width():
    """Five points in perfect order would have one of +1.00 to +1.00."""
    ratios, losses = [*RATIOS, 2.5, 3.6, 2.8, 3.7], [*LOSSES, 1.0, 1.9, 1.3, 1.2]
    nine = relation(series_of(ratios[:9], losses[:9]), "L", "R")
    assert (nine.interval, "95%" in nine.note) == (None, False)
    ten = relation(series_of(ratios, losses), "L", "R")
    assert ten.interval is not None
    assert ten.spearman is not None
    assert -1 <= ten.interval[0] < ten.spearman < ten.interval[1] <= 1
    assert f"(95% {ten.interval[0]:+.2f} to {ten.interval[1]:+.2f}, p " in ten.note
    rising = [1.0 + n for n in range(10)]
    perfect = relation(series_of(rising, rising), "L", "R")
    assert (perfect.spearman, perfect.interval) == (pytest.approx(1.0), None)


def test_p_value_is_that_of_all_permutations():
    """The p-value agrees with the exact one, from all 720 orders, within sampling error."""
    values = np.arange(6)
    ranks = np.argsort(np.argsort(LOSSES))
    strength = abs(np.corrcoef(np.argsort(np.argsort(RATIOS)), ranks)[0, 1])
    orders = list(itertools.permutations(values))
    exact = np.mean([abs(np.corrcoef(o, values)[0, 1]) >= strength - 1e-9 for o in orders])
    p_value = relation(series_of(RATIOS, LOSSES), "L", "R").p_value
    assert p_value == pytest.approx(exact, abs=0.005)
    assert p_value != pytest.approx(0.0, abs=1e-6)


def test_relations_are_the_same_under_a_seed():
    """The same seed gives the same interval; another gives another."""
    table = series_of([*RATIOS, 2.9, 3.5, 2.4, 2.2], [*LOSSES, 1.2, 1.1, 1.4, 1.3])
    seeds = [relation(table, "L", "R", seed=seed) for seed in (1, 1, 2)]
    assert seeds[0].interval == seeds[1].interval
    assert seeds[0].p_value == seeds[1].p_value
    assert (seeds[0].interval, seeds[0].p_value) != (seeds[2].interval, seeds[2].p_value)


@pytest.mark.parametrize("num", range(5))
def test_relation_of_few_points_says_so(num: int):
    """Below five points there is no correlation and no curve, but a note with the count."""
    few = relation(series_of(RATIOS[:num], LOSSES[:num]), "L", "R")
    assert few.note == f"insufficient points: {num} of at least 5"
    assert (few.spearman, few.interval, few.p_value, few.curve) == (None, None, None, None)
    assert few.points.height == num


def test_relation_of_a_constant_says_so():
    """A column that does not vary has no correlation."""
    still = relation(series_of([3.0] * 6, LOSSES), "L", "R")
    assert still.note == "R did not vary over 6 points"
    assert still.curve is None


def test_relation_keeps_versions_without_y_apart():
    """Versions that were probed but not trained are no points, and are kept for the figure."""
    table = pl.concat([_lawful(), versions(version_row(7, R=4.0, L=2.0, verdict="risk"))])
    of_quality, _, of_ratio = relations(table, "sft")
    assert of_quality.points["version"].to_list() == [1, 2, 3, 4, 5, 6]
    assert of_quality.without_y["version"].to_list() == [7]
    assert of_ratio.points["version"].to_list() == [1, 2, 3, 4, 5, 6, 7]


def test_points_are_those_comparable_with_the_latest_version():
    """Other stages, other series, other Q and unmeasured versions are no points."""
    rows = [
        version_row(1, stage="preference"),
        version_row(2, series="old"),
        version_row(3, Q=3.0, Q_spread=0.01),
        version_row(4, Q=4.0, Q_spread=0.01),
        version_row(5, L=None, Q=4.0),
        version_row(6, Q=4.01, Q_spread=0.01),
    ]
    assert comparable_points(versions(*rows), "sft")["version"].to_list() == [4, 6]
    assert comparable_points(versions(), "sft").is_empty()


def test_relations_do_not_mix_measures_of_quality():
    """Only the Z that is measured like the latest one counts."""
    table = _lawful().with_columns(
        Z_name=pl.when(pl.col("version") <= 2).then(pl.lit("MT-bench")).otherwise("Z_name")
    )
    found = relations(table, "sft")[0]
    assert found.points["version"].to_list() == [3, 4, 5, 6]
    assert found.note == "insufficient points: 4 of at least 5"


def test_relations_table_is_one_row_per_relation():
    """The table says what the figures say, with nulls where there are too few points."""
    table = relations_table(relations(_lawful(), "sft"))
    assert table["relation"].to_list() == ["Z over R", "Z over L", "R over L"]
    assert table["num_points"].to_list() == [6, 6, 6]
    assert table["shape"][0] == "line"
    few = relations_table(relations(_lawful().head(2), "sft"))
    assert few["spearman"].to_list() == [None, None, None]
    assert few["note"][0] == "insufficient points: 2 of at least 5"
    assert few.schema == table.schema
    assert relations_table([]).schema == table.schema


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=5, max_size=14))
def test_spearman_is_the_correlation_of_ranks(pairs: list[tuple[int, int]]):
    """The rank correlation agrees with polars' own, ties included."""
    xs, ys = [1.0 + x for x, _ in pairs], [1.0 + y for _, y in pairs]
    found = relation(series_of(xs, ys), "R", "L")
    expected = pl.DataFrame({"x": xs, "y": ys}).select(pl.corr("x", "y", method="spearman")).item()
    if len(set(xs)) == 1 or len(set(ys)) == 1:
        assert found.spearman is None
    else:
        assert found.spearman == pytest.approx(expected)
        low, high = found.interval or (-1.0, 1.0)
        assert -1.0 - 1e-9 <= low < high <= 1.0 + 1e-9
