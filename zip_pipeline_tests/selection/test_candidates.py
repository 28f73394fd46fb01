"""Budgets and quotas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.samples import Sample
from zip_pipeline.selection.candidates import Budget, Fit
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import select
from zip_pipeline_tests.selection.pools import conversations, numbered_pool, pool_table


def test_budget_tells_over_budget_from_quota() -> None:
    """A sample too large for the rest is over budget; one beyond its source's share is quota."""
    budget = Budget(10, np.array([4, 4, 4, 11]), ["a", "a", "b", "b"], {"a": (None, 0.5)})
    budget.open_round(np.ones(4, dtype=bool))
    assert budget.fits(np.arange(4)).tolist() == [Fit.YES, Fit.YES, Fit.YES, Fit.OVER_BUDGET]
    budget.take(0)
    assert budget.fits(np.arange(1, 4)).tolist() == [Fit.QUOTA, Fit.YES, Fit.OVER_BUDGET]
    budget.take(2)
    assert (budget.used, budget.unused) == (8, 2)


def test_budget_reserves_a_minimum_only_as_far_as_its_source_can_supply() -> None:
    """Source b is promised 6 of 10, but has 4: the others may use 6."""
    budget = Budget(10, np.array([6, 7, 4]), ["a", "a", "b"], {"b": (0.6, None)})
    budget.open_round(np.ones(3, dtype=bool))
    assert budget.fits(np.arange(3)).tolist() == [Fit.YES, Fit.QUOTA, Fit.YES]


@pytest.mark.parametrize("strategy", ["zip", "long_range", "random"])
def test_quotas_hold_for_every_strategy(strategy: str) -> None:
    """At most 10% of source a and at least 60% of source b, of 30 picks."""
    config = SelectionConfig(
        strategy=strategy,
        budget_samples=30,
        quotas={"a": (None, 0.1), "b": (0.6, None)},
        k1=60,
        k2=20,
        k3=10,
    )
    selection = select(numbered_pool(90), None, "sft", config)
    ledger = selection.ledger
    picked = ledger.filter(ledger["fate"] == "picked")["source"].value_counts()
    shares = dict(picked.iter_rows())
    assert sum(shares.values()) == 30
    assert shares.get("a", 0) <= 3
    assert shares["b"] >= 18
    assert selection.manifest["quotas"] == {
        "a": {"minimum": 0, "maximum": 3, "used": shares.get("a", 0)},
        "b": {"minimum": 18, "maximum": 30, "used": shares["b"]},
    }


@given(
    conversations(),
    st.sampled_from(["zip", "long_range", "random"]),
    st.sampled_from(["samples", "tokens", "bytes"]),
    st.integers(0, 300),
    st.floats(0, 0.5),
    st.floats(0.5, 1),
)
@settings(max_examples=80, deadline=None)
def test_no_budget_or_maximum_is_ever_exceeded(
    samples: list[Sample], strategy: str, unit: str, budget: int, low: float, high: float
) -> None:
    """Used + unused = budget, and no source goes beyond its maximum share."""
    config = SelectionConfig(
        strategy=strategy,
        **{f"budget_{unit}": budget},
        k1=8,
        k2=4,
        k3=2,
        quotas={"a": (low, high), "b": (None, high)},
    )
    selection = select(pool_table(samples), None, "sft", config, workers=1)
    picked = selection.ledger.filter(selection.ledger["fate"] == "picked")
    cost = {"samples": None, "tokens": "num_tokens", "bytes": "num_bytes"}[unit]
    used = int(picked[cost].sum()) if cost else len(picked)
    assert used + selection.manifest["unused_budget"] == budget
    for source in ("a", "b"):
        mine = picked.filter(picked["source"] == source)
        assert (int(mine[cost].sum()) if cost else len(mine)) <= high * budget
