"""What the law says about a new version."""

import polars as pl
import pytest

from zip_pipeline.entropy_law.verdict import judge
from zip_pipeline_tests.entropy_law.tables import series_of, version_row, versions

SCATTER = series_of([3.0, 3.1, 2.9, 3.0], [1.50, 1.55, 1.45, 1.50])


@pytest.mark.parametrize(
    ("ratio", "loss", "kind"),
    [
        (4.0, 2.0, "risk"),
        (4.0, 1.5, "redundancy_warning"),
        (4.0, 1.0, "redundancy_warning"),
        (3.0, 2.0, "consistency_warning"),
        (3.0, 1.5, "no_change"),
        (3.0, 1.0, "expected_gain"),
        (2.0, 2.0, "expected_gain"),
        (2.0, 1.5, "expected_gain"),
        (2.0, 1.0, "expected_gain"),
    ],
)
def test_verdict_follows_the_directions_of_redundancy_and_loss(
    ratio: float, loss: float, kind: str
):
    """Each of the nine pairs of directions has its verdict, and only the risk blocks."""
    verdict = judge(version_row(5, R=ratio, L=loss), SCATTER)
    assert verdict.kind == kind
    assert verdict.blocks is (kind == "risk")
    assert verdict.compared == [1, 2, 3, 4]


def test_verdict_says_the_numbers_in_plain_words():
    """The reason holds values, references, bounds and the versions compared."""
    table = series_of([4.4, 4.2, 4.0, 3.9], [1.50, 1.55, 1.45, 1.50])
    verdict = judge(version_row(5, R=5.0, L=1.7, Q=0.9, Q_name="x"), table)
    assert verdict.reason == (
        "Version 5: more redundant and harder to fit: expect a worse model: "
        "R rose to 5, +1.1 against 3.9 (the latest, as they drift) where 0.408 is usual; "
        "L rose to 1.7, +0.2 against 1.5 (the mean) where 0.107 is usual. Compared with "
        "versions 1, 2, 3 and 4; usual is up to their one-sided 95% prediction bound, at least "
        "2 times the measuring error."
    )
    assert {name: round(number, 4) for name, number in verdict.numbers.items()} == {
        "num_compared": 4,
        "R": 5.0,
        "R_reference": 3.9,
        "R_change": 1.1,
        "R_bound": 0.4076,
        "L": 1.7,
        "L_reference": 1.5,
        "L_change": 0.2,
        "L_bound": 0.1074,
        "Q": 0.9,
    }


def test_verdict_with_few_versions_takes_the_spread_of_re_draws():
    """With one or two earlier versions twice the measuring error decides."""
    table = series_of([3.0, 3.2], [1.5, 1.5])
    flat = judge(version_row(3, R=3.14, L=1.51), table)
    assert flat.kind == "no_change"
    verdict = judge(version_row(3, R=3.16, L=1.53), table)
    assert verdict.kind == "risk"
    assert "2 times the measuring error, known from seeded re-draws" in verdict.reason
    assert verdict.numbers["R_bound"] == pytest.approx(2 * 0.02 * 1.5**0.5)
    assert judge(version_row(2, R=3.16, L=1.53), table.head(1)).compared == [1]


@pytest.mark.parametrize("missing", ["R_spread", "L_spread"])
def test_verdict_with_few_versions_and_no_spread_is_withheld(missing: str):
    """Nothing is blocked where there is nothing to take a threshold from."""
    table = series_of([3.0, 3.2], [1.5, 1.5])
    verdict = judge(version_row(3, R=9.0, L=9.0, **{missing: None}), table)
    assert (verdict.kind, verdict.blocks, verdict.compared) == ("not_comparable", False, [])
    assert "only versions 1 and 2 can be compared, and the spread" in verdict.reason
    unknown = series_of([3.0, 3.2, 3.1], [1.5, 1.5, 1.4], **{missing: None})
    assert judge(version_row(4, R=9.0, L=9.0, **{missing: None}), unknown).kind == "risk"


def test_verdict_on_the_first_version_lets_it_pass():
    """The first version of a stage is not judged, whatever the other stage or the future has."""
    later = versions(version_row(7), version_row(1, stage="preference"))
    for table in (versions(), later):
        verdict = judge(version_row(6), table)
        assert (verdict.kind, verdict.blocks, verdict.compared) == ("first", False, [])
    assert verdict.reason == (
        "Version 6 was not judged: there is no earlier version to compare with."
    )


def test_verdict_on_other_probe_settings_starts_a_new_series():
    """A version probed with other settings is not compared, and says so."""
    verdict = judge(version_row(5, R=9.0, L=9.0, series="t"), SCATTER)
    assert (verdict.kind, verdict.blocks, verdict.compared) == ("not_comparable", False, [])
    assert "no earlier version has its budget and probe settings (series 't')" in verdict.reason
    assert "it starts a new series" in verdict.reason
    mixed = pl.concat([SCATTER, versions(version_row(5, series="t"))])
    assert judge(version_row(6, R=9.0, L=9.0, series="t"), mixed).compared == [5]
    assert judge(version_row(6, R=9.0, L=9.0), mixed).compared == [1, 2, 3, 4]


def test_blocked_versions_do_not_become_the_measure():
    """A risk is left out of the next comparison, also one that a person let through."""
    bad = {"R": 9.0, "L": 9.0, "verdict": "risk"}
    blocked = pl.concat([SCATTER, versions(version_row(5, **bad))])
    verdict = judge(version_row(6, R=9.0, L=9.0), blocked)
    assert (verdict.kind, verdict.compared) == ("risk", [1, 2, 3, 4])
    through = pl.concat([SCATTER, versions(version_row(5, **bad, override="Ada"))])
    assert judge(version_row(6, R=9.0, L=9.0), through).compared == [1, 2, 3, 4]
    only = judge(version_row(6), versions(version_row(5, **bad), version_row(4, L=None)))
    assert only.kind == "not_comparable"
    assert "is blocked or unmeasured" in only.reason


def test_version_let_through_counts_once_its_model_proves_the_law_wrong():
    """Not below the lowest Z of the others, measured in the same way: it becomes a measure."""
    others = SCATTER.with_columns(Z=-pl.col("version") / 10, Z_name=pl.lit("loss"))
    bad = {"R": 9.0, "L": 9.0, "verdict": "risk", "override": "Ada"}

    def compared(**measured: object) -> list[int]:
        table = pl.concat([others, versions(version_row(5, **bad, **measured))])
        return judge(version_row(6, R=9.0, L=9.0), table).compared

    assert compared(Z=-0.4, Z_name="loss") == [1, 2, 3, 4, 5]
    assert compared(Z=-0.5, Z_name="loss") == [1, 2, 3, 4]
    assert compared(Z=9.0, Z_name="MT-bench") == [1, 2, 3, 4]
    assert compared() == [1, 2, 3, 4]


def test_verdict_looks_back_ten_versions():
    """Only the latest ten comparable versions count, so old times do not."""
    table = series_of([9.0] * 5 + [3.0 + 0.01 * (i % 3) for i in range(10)], [1.5] * 15)
    verdict = judge(version_row(16, R=4.0), table)
    assert verdict.compared == list(range(6, 16))
    assert verdict.kind == "redundancy_warning"


def test_law_does_not_apply_when_quality_changed():
    """Q beyond twice its spread suspends the law, which says so and what R and L did."""
    table = series_of([3.0, 3.1, 2.9], [1.5] * 3, Q=4.0, Q_spread=0.03, Q_name="judge")
    same = {"R": 4.0, "L": 2.0, "Q_spread": 0.04, "Q_name": "judge"}
    assert judge(version_row(4, Q=4.099, **same), table).kind == "risk"
    for changed in (4.11, 3.89):
        verdict = judge(version_row(4, Q=changed, **same), table)
        assert (verdict.kind, verdict.blocks) == ("law_not_applicable", False)
        assert f"Q is {changed:.4g}, for version 3 4: it changed beyond" in verdict.reason
        assert "Regardless of Q: R rose to 4" in verdict.reason
        assert verdict.compared == [1, 2, 3]


def test_versions_of_the_same_quality_are_compared_after_it_changed():
    """Once Q has a new level, the versions of that level are compared with each other."""
    old = [version_row(n, Q=4.0, Q_spread=0.03) for n in range(1, 5)]
    new = [version_row(n, Q=3.0, Q_spread=0.03) for n in (5, 6)]
    assert judge(version_row(7, Q=3.02, Q_spread=0.03), versions(*old, *new)).compared == [5, 6]


def test_quality_that_always_varies_does_not_suspend_the_law():
    """With four or more values of Q, their usual step from version to version is its spread."""
    rates = enumerate([0.90, 0.92, 0.90, 0.91], start=1)
    table = versions(*(version_row(n, Q=q, Q_spread=0.0) for n, q in rates))

    def compared(quality: float, table: pl.DataFrame) -> tuple[str, list[int]]:
        verdict = judge(version_row(9, Q=quality, Q_spread=0.0), table)
        return verdict.kind, verdict.compared

    # The median step is 0.02, so up to 2 * 1.4826 * 0.02 = 0.059 is no change.
    assert compared(0.94, table) == ("no_change", [1, 2, 3, 4])
    assert compared(0.97, table) == ("no_change", [2])
    assert compared(0.99, table) == ("law_not_applicable", [1, 2, 3, 4])
    assert compared(0.94, table.head(3)) == ("law_not_applicable", [1, 2, 3])


def test_unknown_quality_does_not_suspend_the_law():
    """A version without Q is compared with all; one with Q also with those without."""
    table = versions(
        version_row(1, Q=4.0, Q_spread=0.1), version_row(2), version_row(3, Q=2.0, Q_spread=0.1)
    )
    assert judge(version_row(4), table).compared == [1, 2, 3]
    assert judge(version_row(4, Q=4.1, Q_spread=0.1), table).compared == [1, 2]


def test_quality_measured_in_another_way_suspends_the_law():
    """A pass rate and a judge's rating are not the same Q."""
    table = series_of([3.0] * 3, [1.5] * 3, Q=0.99, Q_spread=0.1, Q_name="pass rate")
    verdict = judge(version_row(4, Q=0.99, Q_spread=0.1, Q_name="judge"), table)
    assert verdict.kind == "law_not_applicable"
    assert "Q was measured as 'judge', for version 3 as 'pass rate'" in verdict.reason


@pytest.mark.parametrize("missing", ["stage", "version", "R", "L"])
def test_verdict_needs_a_measured_version(missing: str):
    """A row without R or L cannot be judged, and the error names what is missing."""
    with pytest.raises(ValueError, match=f"no verdict without {missing} of the new version"):
        judge(version_row(5) | {missing: None}, SCATTER)
