"""What runs come to: intervals by hand, and the sentence of every outcome."""

import re

import polars as pl
import pytest

from zip_pipeline.report.comparison import (
    YARDSTICK,
    Measure,
    beside_second,
    comparison_figure,
    conclusion,
    difference,
    law_figure,
    law_relations,
    law_table,
    overlap,
    overlap_table,
    picked_alone,
    shown_tables,
    summary,
    winner,
    words_of_skips,
)
from zip_pipeline.report.markdown import markdown

_OTHER = {
    **dict.fromkeys(("seen_loss", "R", "L", "vendi", "novelsum"), 2.0),
    **dict.fromkeys(("distinct_1", "distinct_2", "distinct_3"), 0.5),
    **dict.fromkeys(("num_samples", "num_tokens", "num_target_tokens"), 1_000),
    **{"mean_tokens": 1.0, "Q": None},
}


def _runs(
    losses: dict[str, list[float]],
    choice: dict[str, list[float]] | None = None,
    seconds: dict[str, float] | None = None,
    measure: Measure = "unseen",
) -> pl.DataFrame:
    """Return runs with these losses by seed; those to choose by are the same if not given."""
    rows = [
        {
            "strategy": name,
            "seed": seed,
            f"{measure}_choice_loss": (choice or losses)[name][seed],
            **_OTHER,
            f"{measure}_loss": loss,
            "selection_seconds": (seconds or {}).get(name, 1.0),
            "Z": -loss,
        }
        for name, of_seeds in losses.items()
        for seed, loss in enumerate(of_seeds)
    ]
    return pl.DataFrame(rows)


def test_difference_is_paired_by_seed():
    """Of -0.1, -0.2 and -0.3 the mean is -0.2, s 0.1, and the half width 4.303 s / root 3."""
    runs = _runs({YARDSTICK: [1.0, 2.0, 3.0], "zip": [0.9, 1.8, 2.7]})
    found = difference(runs, "zip", YARDSTICK, "unseen_loss")
    assert found is not None
    assert found.mean == pytest.approx(-0.2)
    assert found.low == pytest.approx(-0.2 - 0.248414, abs=1e-6)
    assert found.high == pytest.approx(-0.2 + 0.248414, abs=1e-6)


def test_difference_takes_the_seeds_that_both_have():
    """A third seed of one alone counts for nothing, and one seed in common has no interval."""
    runs = _runs({YARDSTICK: [1.0, 2.0], "zip": [0.9, 1.8, 9.0], "long_range": [1.0]})
    found = difference(runs, "zip", YARDSTICK, "unseen_loss")
    assert found is not None
    assert found.mean == pytest.approx(-0.15)
    assert found.high - found.mean == pytest.approx(12.7062 * 0.05, abs=1e-6)
    assert difference(runs, "long_range", YARDSTICK, "unseen_loss") is None


@pytest.mark.parametrize("num_seeds", [2, 3, 4, 5])
def test_quantiles_are_student_s(num_seeds: int):
    """The table of t has what scipy computes."""
    special = pytest.importorskip("scipy.special")
    values = [0.1 * seed for seed in range(num_seeds)]
    runs = _runs({YARDSTICK: [0.0] * num_seeds, "zip": values})
    found = difference(runs, "zip", YARDSTICK, "unseen_loss")
    assert found is not None
    error = float(pl.Series(values).std() or 0) / num_seeds**0.5
    assert (found.high - found.mean) / error == pytest.approx(
        special.stdtrit(num_seeds - 1, 0.975), abs=1e-4
    )


def test_summary_has_means_and_intervals_the_yardstick_first():
    """The yardstick has no difference to itself."""
    table = summary(_runs({"zip": [0.9, 1.8], YARDSTICK: [1.0, 2.0]}))
    assert table["strategy"].to_list() == [YARDSTICK, "zip"]
    assert table["num_seeds"].to_list() == [2, 2]
    assert table["unseen_loss"].to_list() == pytest.approx([1.5, 1.35])
    assert table["unseen_loss_difference"][0] is None
    assert table["unseen_loss_difference"][1] == pytest.approx(-0.15)


def test_sentence_names_the_winner_and_its_interval():
    """The interval lies below 0."""
    runs = _runs({YARDSTICK: [1.0, 2.0, 3.0], "zip": [0.80, 1.81, 2.79], "random": [1, 2, 3.1]})
    assert conclusion(runs, "unseen") == (
        "On your pool, zip beats source-balanced random by 0.200 nats (95% 0.175 to 0.225) "
        "on unseen sources."
    )


def test_sentence_names_what_is_cheaper_and_as_good():
    """Half the time of selecting, and an interval against the best that holds 0."""
    losses = {YARDSTICK: [1.0, 2.0, 3.0], "zip": [0.80, 1.81, 2.79], "random": [0.83, 1.8, 2.8]}
    runs = _runs(losses, seconds={"zip": 1.0, "random": 0.1}, measure="target")
    assert conclusion(runs, "target") == (
        "On your pool and target, zip beats source-balanced random by 0.200 nats (95% 0.175 to "
        "0.225) on the part of the target that no strategy was told of; random is cheaper and "
        "within noise of it."
    )
    runs = _runs(losses, seconds={"zip": 1.0, "random": 0.6}, measure="target")
    assert "cheaper" not in conclusion(runs, "target")


def test_what_is_best_by_chance_on_one_half_is_judged_on_the_other():
    """zip wins on the samples to choose by alone, so nothing beats random."""
    judged = {YARDSTICK: [1.0, 2.0, 3.0], "zip": [1.1, 1.9, 3.0], "random": [0.5, 1.5, 2.5]}
    choice = judged | {"zip": [0.1, 1.1, 2.1]}
    assert conclusion(_runs(judged, choice), "unseen") == (
        "Nothing beats source-balanced random here: zip, which did best on the samples to choose "
        "by, differs by +0.000 nats (95% -0.248 to +0.248), as noise may, on unseen sources."
    )


def test_sentence_says_where_the_best_is_worse():
    """The interval lies above 0."""
    runs = _runs({YARDSTICK: [1.0, 2.0], "zip": [1.1, 2.1]}, measure="seen")
    assert conclusion(runs, "seen") == (
        "Nothing beats source-balanced random here: zip, which did best on the samples to choose "
        "by, is 0.100 nats worse (95% 0.100 to 0.100) on held-out samples of the sources that "
        "are trained on."
    )


@pytest.mark.parametrize(
    "losses", [{YARDSTICK: [1.0], "zip": [0.5]}, {YARDSTICK: [1.0, 2.0]}, {"zip": [1.0, 2.0]}]
)
def test_too_little_says_nothing(losses: dict[str, list[float]]):
    """One seed has no interval, and a comparison takes two strategies."""
    assert conclusion(_runs(losses), "unseen") == (
        "Nothing can be said yet: that takes two seeds each of random+natural and of another "
        "strategy."
    )


def test_the_winner_stands_beside_the_second() -> None:
    """Beyond its interval or within it; the yardstick wins where nothing beats it."""
    losses = {YARDSTICK: [1.0, 2.0, 3.0], "zip": [0.80, 1.81, 2.79], "random": [0.83, 1.8, 2.8]}
    runs = _runs(losses)
    assert winner(runs, "unseen") == "zip"
    assert beside_second(runs, "unseen") == (
        "random came second: zip differs from it by -0.010 nats (95% -0.060 to +0.040), as noise "
        "may; more seeds or evaluation samples would tell."
    )
    far = _runs(losses | {"random": [0.90, 1.91, 2.89]})
    assert beside_second(far, "unseen") == (
        "random came second: zip differs from it by -0.100 nats (95% -0.100 to -0.100), beyond "
        "noise."
    )
    nothing = _runs(losses | {"zip": [1.1, 2.1, 3.2], "random": [1.2, 2.2, 3.4]})
    assert winner(nothing, "unseen") == YARDSTICK
    assert beside_second(nothing, "unseen") is None
    assert winner(_runs({YARDSTICK: [1.0], "zip": [0.5]}), "unseen") is None
    assert beside_second(_runs({n: losses[n] for n in (YARDSTICK, "zip")}), "unseen") is None


def test_a_skip_is_said_once_for_all_seeds() -> None:
    """Seeds of the same strategy and reason share a line."""
    skipped = {"dsir-0": "no target", "dsir-1": "no target", "zip+equal-1": "not run yet"}
    assert words_of_skips(skipped) == [
        "dsir, seeds 0, 1: no target",
        "zip+equal, seed 1: not run yet",
    ]


def test_tables_for_people_show_what_decides_first():
    """Every row has a cell for every column, and names end no cell."""
    table = summary(_runs({YARDSTICK: [1.0, 2.0], "zip": [0.9, 1.8]}))
    losses, of_paper, of_subset = shown_tables(table, "unseen")
    assert losses == (
        [
            *("strategy", "seeds", "unseen loss", "difference ± 95%"),
            *("seen loss", "difference ± 95%"),
        ],
        [
            [YARDSTICK, "2", "1.500", "", "2.000", ""],
            ["zip", "2", "1.350", "-0.150 ± 0.635", "2.000", "+0.000 ± 0.000"],
        ],
    )
    assert of_paper == (
        ["strategy", "tokens", "targets", "samples", "mean tokens", "Q", "seconds", "Z"],
        [
            [YARDSTICK, "1,000", "1,000", "1,000", "1", "unknown", "1.00", "-1.500"],
            ["zip", "1,000", "1,000", "1,000", "1", "unknown", "1.00", "-1.350"],
        ],
    )
    assert of_subset[0][:4] == ["strategy", "R", "L", "distinct 3"]
    assert of_subset[1][1] == ["zip", "2.000", "2.000", "0.500", "2.0", "2.000"]
    lines = markdown([losses, (["a"], [["b|c"]])]).splitlines()
    assert lines[:2] == [f"| {' | '.join(losses[0])} |", "| --- | --- | --- | --- | --- | --- |"]
    assert lines[4:] == ["", "| a |", "| --- |", "| b¦c |"]


def test_law_is_read_from_all_runs_as_they_come():
    """Here Z falls as R rises, and L says nothing: every run is a point."""
    runs = _runs({YARDSTICK: [1.0, 1.1, 1.2], "zip": [1.3, 1.4, 1.5]})
    relations = law_relations(runs.with_columns(R=pl.col("unseen_loss") ** 2))
    header, rows = law_table(relations, "unseen")
    assert header == ["entropy law (Z: unseen loss, negated)", "over all runs"]
    assert rows[0][0] == "Z over R"
    assert rows[0][1].startswith("6 points, Spearman -1.00 (p 0.00")
    assert rows[1] == ["Z over L", "L did not vary over 6 points"]


def test_figure_is_the_same_twice():
    """PNG and SVG have no date and no random ids."""
    runs = _runs({YARDSTICK: [1.0, 2.0], "zip": [0.9, 1.8], "$x$": [1.0]})
    drawn = [comparison_figure(runs, summary(runs), "title") for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] is not None
    png, svg = drawn[0]
    assert png.startswith(b"\x89PNG")
    assert b"<svg" in svg
    only = _runs({YARDSTICK: [1.0]})
    assert comparison_figure(only, summary(only), "title") is None


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_law_has_a_point_per_run_and_a_curve_where_it_was_fitted(num_seeds: int):
    """Four points are too few for a curve, and where L does not vary there is none."""
    losses = {YARDSTICK: [1.0, 1.1, 1.2], "$z$": [1.3, 1.4, 1.5]}
    runs = _runs({name: found[:num_seeds] for name, found in losses.items()})
    relations = law_relations(runs.with_columns(R=pl.col("unseen_loss") ** 2))
    drawn = [law_figure(relations, "unseen", "title") for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] is not None
    png, svg = drawn[0]
    assert png.startswith(b"\x89PNG")
    # Glyphs are drawn; what they say stands in comments.
    words = re.findall("<!-- (.*) -->", svg.decode())
    assert {YARDSTICK, "$z$", "Z, unseen loss negated, nats"} <= set(words)
    num_curves = 1 if num_seeds == 3 else 0
    assert sum("with its 95% interval" in each for each in words) == num_curves
    assert svg.count(b'id="FillBetweenPolyCollection') == num_curves


def test_overlap_and_what_one_alone_picks() -> None:
    """Common picks over all picks of two strategies, seed by seed; ten examples of the first."""
    sets = {
        (YARDSTICK, 0): "abcd",
        (YARDSTICK, 1): "ab",
        ("zip", 0): "cdef",
        ("zip", 1): "ab",
        ("dsir", 2): "a",
    }
    picks = pl.DataFrame(
        [(name, seed, one, f"text {one}") for (name, seed), ids in sets.items() for one in ids],
        schema=["strategy", "seed", "sample_id", "text"],
        orient="row",
    )
    shares = overlap(picks)
    assert shares.columns == ["strategy", YARDSTICK, "dsir", "zip"]
    assert shares[YARDSTICK].to_list() == [1, None, pytest.approx((2 / 6 + 1) / 2)]
    assert overlap_table(shares)[1][0] == [YARDSTICK, "100%", "", "67%"]
    alone = picked_alone(picks)
    assert alone["strategy"].to_list() == [YARDSTICK] * 2 + ["zip"] * 2
    assert alone["text"].to_list() == ["text a", "text b", "text e", "text f"]
    many = pl.DataFrame(
        {"strategy": "zip", "seed": 0, "sample_id": [str(n) for n in range(12)], "text": ""}
    )
    assert picked_alone(many)["sample_id"].to_list() == [str(n) for n in range(10)]
