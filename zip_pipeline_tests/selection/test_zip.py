"""Strategy zip against a slow oracle that recompresses everything."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.compression.sets import DeflateSet, Sizes
from zip_pipeline.compression.state import compression_state, texts_of
from zip_pipeline.samples import Sample
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import select
from zip_pipeline_tests.selection.oracles import zip_oracle
from zip_pipeline_tests.selection.pools import (
    budget_within,
    conversations,
    numbered_pool,
    pool_table,
)

shapes = st.tuples(st.integers(1, 16), st.integers(1, 8), st.integers(1, 8)).map(
    lambda k: tuple(sorted(k, reverse=True))
)


@given(conversations(), shapes, st.integers(0, 20), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_zip_equals_oracle_with_a_sample_budget(
    samples: list[Sample], k: tuple[int, int, int], budget: int, workers: int
) -> None:
    """Picks and their order equal the oracle's, for any k, budget and number of workers."""
    # Ties go to the lowest id, in the oracle to the lowest index.
    table = pool_table(samples).sort("sample_id")
    budget = budget_within([1] * len(samples), budget)
    config = SelectionConfig(strategy="zip", budget_samples=budget, k1=k[0], k2=k[1], k3=k[2])
    selection = select(table, None, "sft", config, workers=workers)
    expected = zip_oracle(texts_of(table, "sft"), k, budget, lambda _: 1)
    assert selection.picks == expected
    assert len(expected) == min(budget, len(samples))


@given(conversations(), shapes, st.integers(0, 600))
@settings(max_examples=60, deadline=None)
def test_zip_equals_oracle_with_a_byte_budget(
    samples: list[Sample], k: tuple[int, int, int], budget: int
) -> None:
    """Samples that do not fit the rest of the budget are passed over, as in the oracle."""
    table = pool_table(samples).sort("sample_id")
    texts = texts_of(table, "sft")
    budget = budget_within([*map(len, texts)], budget)
    config = SelectionConfig(strategy="zip", budget_bytes=budget, k1=k[0], k2=k[1], k3=k[2])
    selection = select(table, None, "sft", config, workers=1)
    assert selection.picks == zip_oracle(texts, k, budget, lambda i: len(texts[i]))
    used = sum(len(texts[i]) for i in selection.picks)
    assert used + selection.manifest["unused_budget"] == budget
    left = [len(text) for i, text in enumerate(texts) if i not in selection.picks]
    assert used == budget or all(size > budget - used for size in left)


def test_zip_asks_nothing_of_empty_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ratios alone are known from the state: first rounds and first picks cost no measurement."""
    asked: list[int] = []
    measure = DeflateSet.sizes_with

    def sizes_with(self: DeflateSet, texts: Iterable[bytes]) -> Sizes:
        sizes = measure(self, texts)
        asked.append(len(sizes))
        return sizes

    monkeypatch.setattr(DeflateSet, "sizes_with", sizes_with)
    table = numbered_pool(60)
    state = compression_state(table, "sft")
    for num_picks, expected in ((1, [9]), (2, [9, 8]), (5, [9, 8, 7, 30, 9])):
        asked.clear()
        config = SelectionConfig(strategy="zip", budget_samples=num_picks, k1=30, k2=10, k3=4)
        select(table, state, "sft", config, workers=1)
        assert asked == expected


def test_zip_picks_differ_from_the_order_of_single_ratios() -> None:
    """The stages matter: the picks are not just the samples of lowest ratio alone."""
    table = numbered_pool(60)
    config = SelectionConfig(strategy="zip", budget_samples=12, k1=30, k2=10, k3=4)
    picks = select(table, None, "sft", config).picks
    alone = compression_state(table, "sft")["pi"].arg_sort().to_list()[:12]
    assert len(picks) == 12
    assert set(picks) != set(alone)


@pytest.mark.parametrize("strategy", ["zip", "long_range"])
@pytest.mark.parametrize("codec", ["deflate", "zstd"])
def test_every_codec_gives_the_same_picks_for_any_number_of_workers(
    strategy: str, codec: str
) -> None:
    """Determinism: one, two and three workers pick the same samples in the same order."""
    table = numbered_pool(120)
    config = SelectionConfig(strategy=strategy, codec=codec, budget_samples=30, k1=80, k2=40, k3=10)
    picks = [select(table, None, "sft", config, workers=n).picks for n in (1, 2, 3)]
    assert len(picks[0]) == 30
    assert picks[0] == picks[1] == picks[2]


@pytest.mark.parametrize("strategy", ["zip", "long_range"])
@pytest.mark.parametrize("codec", ["deflate", "zstd"])
def test_a_given_state_changes_no_pick(strategy: str, codec: str) -> None:
    """The stored compression state is a shortcut: without it the picks are the same."""
    table = numbered_pool(60)
    state = compression_state(table, "sft").reverse()
    config = SelectionConfig(strategy=strategy, codec=codec, budget_samples=20, k1=40, k2=20, k3=7)
    with_state = select(table, state, "sft", config)
    without = select(table, None, "sft", config)
    assert with_state.picks == without.picks
    np.testing.assert_array_equal(with_state.ledger["pi"], without.ledger["pi"])


def test_a_state_that_misses_samples_is_refused() -> None:
    """A state that does not cover the pool is an error with a remedy."""
    table = numbered_pool(5)
    state = compression_state(table[:3], "sft")
    with pytest.raises(ValueError, match="2 of 5 samples have none; materialise"):
        select(table, state, "sft", SelectionConfig(strategy="zip", budget_samples=2))
