"""Quality in the gain of long_range and coverage, against the slow greedy of each."""

import polars as pl
import pytest

from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.errors import UserError
from zip_pipeline.report.fates import explain_fate
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import Selection, select, select_candidates
from zip_pipeline_tests.selection.oracles import long_range_oracle
from zip_pipeline_tests.selection.pools import numbered_pool
from zip_pipeline_tests.selection.test_coverage import coverage_oracle

TABLE = numbered_pool(90)
QUALITY = [(row * 37 % 11) / 2 for row in range(90)]
STRATEGIES = ("long_range", "coverage")


def select_by(quality: list[float], strategy: str, **options: object) -> Selection:
    """Select 25 samples with these qualities."""
    config = SelectionConfig(
        strategy=strategy, k1=60, k2=20, k3=8, quality="q",
        **({"mixture": "none", "budget_samples": 25} | options),
    )  # fmt: skip
    with TemporaryTexts.write([texts_of(TABLE, "sft")]) as texts:
        candidates = Candidates(TABLE, texts, quality=pl.Series(quality))
        return select_candidates(candidates, "sft", config)


@pytest.mark.parametrize("power", [1.0, 2.5])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_picks_equal_those_of_the_weighted_oracle(strategy: str, power: float) -> None:
    """What a sample adds is multiplied by quality^a; nothing else changes."""
    texts = texts_of(TABLE, "sft")
    weights = [max(quality**power, 1e-12) for quality in QUALITY]
    expected = (
        long_range_oracle(texts, (60, 20, 8), 25, lambda _: 1, 24, weights)
        if strategy == "long_range"
        else _by_bytes(texts, weights)
    )
    selection = select_by(QUALITY, strategy, quality_power=power)
    assert selection.picks == expected
    assert len(expected) == 25
    plain = select(TABLE, None, "sft", selection_config(strategy))
    assert selection.picks != plain.picks


def _by_bytes(texts: list[bytes], weights: list[float]) -> list[int]:
    """Of the whole greedy order, in which all fit, the first 25."""
    sizes = [len(text) for text in texts]
    return coverage_oracle(
        texts, 1.0, sum(sizes), lambda i: sizes[i], weights, sources=TABLE["source"].to_list()
    )[:25]


def selection_config(strategy: str) -> SelectionConfig:
    """Return the same configuration without quality."""
    return SelectionConfig(strategy=strategy, budget_samples=25, k1=60, k2=20, k3=8, mixture="none")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equal_qualities_change_nothing(strategy: str) -> None:
    """Twice the gain of everybody is the same order."""
    plain = select(TABLE, None, "sft", selection_config(strategy)).picks
    assert select_by([2.0] * 90, strategy).picks == plain


def test_the_worst_quality_comes_last() -> None:
    """Samples of quality 0 are picked after all others, and break nothing."""
    quality = [0.0 if row % 2 else 1.0 for row in range(90)]
    for strategy in STRATEGIES:
        picks = select_by(quality, strategy, budget_samples=50).picks
        assert [pick % 2 for pick in picks] == [0] * 45 + [1] * 5


def test_the_ledger_tells_quality_and_the_ratio_without_it() -> None:
    """pi stays raw / compressed bytes, and a sentence names both."""
    selection = select_by(QUALITY, "long_range")
    ledger = selection.ledger
    assert ledger["quality"].to_list() == QUALITY
    alone = select(TABLE, None, "sft", selection_config("long_range")).ledger["initial_pi"]
    assert ledger["initial_pi"].to_list() == pytest.approx(alone.to_list())
    row = ledger.row(selection.picks[0], named=True)
    words = explain_fate(row, selection.manifest)
    assert f"(last known ratio {row['pi']:.3f} at quality {row['quality']:g})" in words
    assert "quality" not in select(TABLE, None, "sft", selection_config("zip")).ledger.columns


def test_quality_reaches_the_shards() -> None:
    """Samples of quality 0 are not picked in any of three shards either."""
    quality = [0.0 if row % 2 else 1.0 for row in range(90)]
    picks = select_by(quality, "long_range", num_shards=3).picks
    assert len(picks) == 25
    assert not any(pick % 2 for pick in picks)


def test_a_pool_without_qualities_is_refused() -> None:
    """Plain texts have no scores."""
    config = selection_config("coverage").model_copy(update={"quality": "q"})
    with pytest.raises(UserError, match="quality: plain texts and tables of turns have none"):
        select(TABLE, None, "sft", config)
