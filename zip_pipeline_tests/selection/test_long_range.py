"""Strategy long_range against a slow oracle, and what it is for."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.compression.state import texts_of
from zip_pipeline.samples import Sample, Turn
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import select
from zip_pipeline.selection.strategies.long_range import marginal_ratios
from zip_pipeline_tests.selection.oracles import long_range_oracle
from zip_pipeline_tests.selection.pools import (
    budget_within,
    conversations,
    numbered_pool,
    pool_table,
)
from zip_pipeline_tests.selection.test_zip import shapes

PLAIN = {"strategy": "long_range", "mixture": "none"}


@given(conversations(), shapes, st.integers(0, 600), st.sampled_from([0, 24]))
@settings(max_examples=60, deadline=None)
def test_long_range_equals_oracle(
    samples: list[Sample], k: tuple[int, int, int], budget: int, overhead: int
) -> None:
    """Picks and their order equal those of the greedy written without heap or kept sets."""
    # Ties go to the lowest id, in the oracle to the lowest index.
    table = pool_table(samples).sort("sample_id")
    texts = texts_of(table, "sft")
    budget = budget_within([*map(len, texts)], budget)
    config = SelectionConfig(
        strategy="long_range",
        mixture="none",
        budget_bytes=budget,
        k1=k[0],
        k2=k[1],
        k3=k[2],
        overhead_bytes=overhead,
    )
    expected = long_range_oracle(texts, k, budget, lambda i: len(texts[i]), overhead)
    assert select(table, None, "sft", config, workers=2).picks == expected


@pytest.mark.parametrize("k", [(60, 20, 8), (100, 5, 4)])
def test_long_range_equals_oracle_on_a_larger_pool(k: tuple[int, int, int]) -> None:
    """The same on 150 samples over several rounds, also where a round measures a few only."""
    table = numbered_pool(150).sort("sample_id")
    config = SelectionConfig(
        strategy="long_range",
        mixture="none",
        budget_samples=40,
        k1=k[0],
        k2=k[1],
        k3=k[2],
        overhead_bytes=0,
    )
    expected = long_range_oracle(texts_of(table, "sft"), k, 40, lambda _: 1, overhead_bytes=0)
    picks = select(table, None, "sft", config).picks
    assert len(picks) == 40
    assert picks == expected


def test_candidates_that_cannot_reach_the_shortlist_are_not_measured() -> None:
    """Of 100 candidates a round with a shortlist of 5 measures the 20 nearest where that does."""
    config = SelectionConfig(
        strategy="long_range", mixture="none", budget_samples=1, k1=100, k2=5, k3=1
    )
    ledger = select(numbered_pool(150), None, "sft", config).ledger
    lowest = set(ledger.sort("initial_pi", maintain_order=True).head(20)["sample_id"])
    reached = ledger.filter(pl.col("fate") != "never_reached")
    assert set(reached["sample_id"]) == lowest


def test_a_round_ends_when_its_shortlist_repeats_what_was_just_picked() -> None:
    """Of 30 near-copies with the lowest ratio alone one is picked, not k3 of them."""
    noise = np.random.default_rng(0).bytes(400).hex()
    copies = [Sample((Turn("user", f"{n}"), Turn("assistant", noise))) for n in range(30)]
    others = [
        Sample((Turn("user", f"count to {n}"), Turn("assistant", " ".join(map(str, range(n))))))
        for n in range(30, 60)
    ]
    table = pool_table(copies + others)
    config = SelectionConfig(
        strategy="long_range",
        mixture="none",
        noise_guard=False,
        budget_samples=20,
        k1=60,
        k2=30,
        k3=20,
    )
    picks = select(table, None, "sft", config).picks
    assert len(picks) == 20
    assert sum(i < 30 for i in picks) == 1


def test_marginal_ratio_is_raw_over_marginal_without_overhead() -> None:
    """rho = raw / (marginal - overhead), with at least one byte below the line."""
    rho = marginal_ratios([100, 100, 100], np.array([74, 24, 10]), 24)
    assert rho.tolist() == [2.0, 100.0, 100.0]


def test_long_range_sees_a_repetition_that_deflate_has_forgotten() -> None:
    """Of 40 texts and their 40 near-copies long_range takes one each; zip, blind, takes twins."""
    texts = [np.random.default_rng(row).bytes(1500).hex() for row in range(40)]

    def sample(text: str, mark: str) -> Sample:
        return Sample((Turn("user", f"text {mark}"), Turn("assistant", text)))

    table = pool_table([sample(t, "one") for t in texts] + [sample(t, "two") for t in texts])
    num_twins = {}
    for strategy in ("zip", "long_range"):
        config = SelectionConfig(
            strategy=strategy,
            mixture="none",
            noise_guard=False,
            budget_samples=40,
            k1=80,
            k2=20,
            k3=10,
        )
        picks = select(table, None, "sft", config).picks
        assert len(picks) == 40
        num_twins[strategy] = len(picks) - len({i % 40 for i in picks})
    assert num_twins["long_range"] == 0
    assert num_twins["zip"] > 5
