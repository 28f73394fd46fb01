"""Budgets, quotas and orders."""

from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.compression.state import compression_state, texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.errors import UserError
from zip_pipeline.samples import Sample
from zip_pipeline.selection.candidates import Budget, Candidates, Fit, allotments
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import select
from zip_pipeline.tables import PartOfTable
from zip_pipeline_tests.selection.pools import (
    budget_within,
    conversations,
    numbered_pool,
    pool_table,
)


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
    st.integers(1, 300),
    st.floats(0, 0.5),
    st.floats(0.5, 1),
)
@settings(max_examples=80, deadline=None)
def test_no_budget_or_maximum_is_ever_exceeded(
    samples: list[Sample], strategy: str, unit: str, budget: int, low: float, high: float
) -> None:
    """Used + unused = budget, and no source goes beyond its maximum share."""
    table = pool_table(samples)
    costs = compression_state(table, "sft")["num_tokens"].to_list()
    costs = {"samples": [1] * len(samples), "tokens": costs}.get(unit) or [
        *map(len, texts_of(table, "sft"))
    ]
    budget = budget_within(costs, budget)
    config = SelectionConfig(
        strategy=strategy,
        **{f"budget_{unit}": budget},
        k1=8,
        k2=4,
        k3=2,
        quotas={"a": (low, high), "b": (None, high)},
    )
    selection = select(table, None, "sft", config, workers=1)
    picked = selection.ledger.filter(selection.ledger["fate"] == "picked")
    cost = {"samples": None, "tokens": "num_tokens", "bytes": "num_bytes"}[unit]
    used = int(picked[cost].sum()) if cost else len(picked)
    assert used + selection.manifest["unused_budget"] == budget
    for source in ("a", "b"):
        mine = picked.filter(picked["source"] == source)
        assert (int(mine[cost].sum()) if cost else len(mine)) <= high * budget


def _water_filled(
    budget: int, weights: list[int], least: list[int], most: list[int]
) -> list[float]:
    """The allotments by closing one source after another, as exact fractions."""
    granted: dict[int, Fraction] = {}
    while len(granted) < len(weights):
        open_ones = [n for n in range(len(weights)) if n not in granted]
        left = budget - sum(granted.values())
        total = sum(weights[n] for n in open_ones)
        even = {n: Fraction(weights[n] * left, total) if total else Fraction(0) for n in open_ones}
        clipped = {n: min(max(share, least[n]), most[n]) for n, share in even.items()}
        excess = sum(clipped.values()) - sum(even.values())
        # Where clipping takes more than it gives, minima are settled; else maxima.
        closed = [
            n for n in open_ones if (clipped[n] > even[n] if excess > 0 else clipped[n] < even[n])
        ]
        granted |= {n: clipped[n] for n in closed or open_ones}
    return [float(granted[n]) for n in range(len(weights))]


@given(st.data(), st.integers(1, 6), st.integers(1, 1000))
@settings(max_examples=200, deadline=None)
def test_allotments_equal_filling_source_by_source(
    data: st.DataObject, num_sources: int, budget: int
) -> None:
    """Shares by weight, within bounds, rounded to whole units that add up to the budget."""

    def numbers(low: int, high: int) -> list[int]:
        drawn = st.lists(st.integers(low, high), min_size=num_sources, max_size=num_sources)
        return data.draw(drawn)

    weights, most = numbers(1, 9), numbers(0, 600)
    least = [min(low, high) for low, high in zip(numbers(0, 30), most, strict=True)]
    if sum(least) > budget:
        least = [0] * num_sources
    found = allotments(budget, np.array(weights, float), np.array(least), np.array(most))
    exact = _water_filled(budget, weights, least, most)
    assert int(found.sum()) == min(budget, sum(most))
    assert all(abs(mine - wanted) < 1 + 1e-6 for mine, wanted in zip(found, exact, strict=True))
    assert all(low <= mine <= high for low, mine, high in zip(least, found, most, strict=True))


def _picked_by_source(**options: object) -> dict[str, int]:
    """What is picked of a pool with 60 samples of source a, 30 of b and 10 of c."""
    table = numbered_pool(100).with_columns(source=pl.Series(["a"] * 60 + ["b"] * 30 + ["c"] * 10))
    config = SelectionConfig(budget_samples=40, k1=60, k2=20, k3=10, **options)
    selection = select(table, None, "sft", config)
    picked = selection.ledger.filter(fate="picked")["source"].value_counts()
    assert selection.manifest["num_picked"] == 40
    return dict(sorted(picked.iter_rows()))


@pytest.mark.parametrize("strategy", ["zip", "long_range", "random"])
def test_a_natural_mixture_is_that_of_the_pool(strategy: str) -> None:
    """Each source gets its share of the budget, whatever the strategy would rather have."""
    assert _picked_by_source(strategy=strategy, mixture="natural") == {"a": 24, "b": 12, "c": 4}


def test_shares_follow_temperature_weights_and_quotas() -> None:
    """Equal, flattened, weighted and bounded; what source c cannot fill goes to the others."""
    assert _picked_by_source(mixture="equal") == {"a": 15, "b": 15, "c": 10}
    flat = _picked_by_source(mixture="natural", mixture_temperature=2.0)
    assert flat == {"a": 19, "b": 13, "c": 8}
    assert _picked_by_source(mixture="natural", mixture_weights={"b": 2.0}) == {
        "a": 19,
        "b": 18,
        "c": 3,
    }
    bounded = {"a": (None, 0.25), "c": (0.2, None)}
    assert _picked_by_source(mixture="natural", quotas=bounded) == {"a": 10, "b": 22, "c": 8}


def test_a_strategy_has_its_own_mixture_unless_told() -> None:
    """The published strategy takes the pool as it comes, ours keeps its mixture."""
    for strategy, mixture in (("zip", "none"), ("random", "none"), ("long_range", "natural")):
        config = SelectionConfig(strategy=strategy, budget_samples=1)
        assert config.resolved_mixture == config.as_dict().get("mixture", "none") == mixture
    config = SelectionConfig(strategy="long_range", budget_samples=1, mixture="none")
    assert config.weight_of_source is None


def test_what_allotments_leave_is_for_all_sources() -> None:
    """Samples of 40 bytes and more do not fill shares of 10: the budget is used nevertheless."""
    table = numbered_pool(20).with_columns(source=pl.Series([f"s{n}" for n in range(20)]))
    config = SelectionConfig(strategy="long_range", budget_bytes=400)
    selection = select(table, None, "sft", config)
    assert selection.manifest["num_picked"] >= 2
    smallest = selection.ledger.filter(pl.col("fate") != "picked")["num_bytes"].min()
    assert selection.manifest["unused_budget"] < smallest


def test_the_manifest_tells_what_each_source_was_allotted() -> None:
    """Allotments add up to the budget, and what was used to the picks."""
    config = SelectionConfig(strategy="random", budget_samples=9, mixture="natural")
    manifest = select(numbered_pool(90), None, "sft", config).manifest
    figures = manifest["mixture"].values()
    assert sum(source["allotted"] for source in figures) == 9
    assert [source["used"] for source in figures] == [source["allotted"] for source in figures]


@pytest.mark.parametrize(
    "options",
    [
        {"mixture": "even"},
        {"mixture": "natural", "mixture_temperature": 0.0},
        {"mixture": "natural", "mixture_weights": {"a": -1.0}},
        {"strategy": "zip", "mixture_weights": {"a": 2.0}},
        {"strategy": "zip", "mixture": "natural", "reference_compat": True},
    ],
)
def test_a_mixture_that_cannot_be_is_refused(options: dict[str, object]) -> None:
    """Unknown, out of range, without effect, or not of the published code."""
    with pytest.raises(UserError, match="mixture"):
        SelectionConfig(budget_samples=1, **options)


def test_shards_keep_the_mixture_of_the_whole_pool() -> None:
    """In three shards as in one."""
    assert _picked_by_source(strategy="long_range", num_shards=3) == {"a": 24, "b": 12, "c": 4}


@given(
    st.lists(
        st.sampled_from(
            [f"{half:016x}{low:016x}" for half in (0, 7, 2**63) for low in (0, 9)] + ["x"]
        ),
        unique=True,
    ),
    st.data(),
)
def test_positions_by_id_are_those_of_the_sorted_ids(ids: list[str], draw: st.DataObject) -> None:
    """Also where ids begin alike, are no hashes, or are those of a part of an index."""
    part = np.array(draw.draw(st.permutations(range(len(ids)))), dtype=np.int64)
    whole = pl.DataFrame(
        {"sample_id": ids, "source": ids}, schema=dict.fromkeys(("sample_id", "source"), pl.String)
    )
    index = PartOfTable(whole, part)
    with TemporaryTexts.write([[b""] * len(ids)]) as texts:
        found = Candidates(index, texts).by_id()
    assert [ids[part[place]] for place in found] == sorted(ids)
