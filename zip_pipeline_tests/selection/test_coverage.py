"""Strategy coverage against a slow greedy, and what it is for."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from zip_pipeline.compression import texts as texts_module
from zip_pipeline.compression.ngrams import NUM_BUCKETS, ngram_counts
from zip_pipeline.compression.state import texts_of
from zip_pipeline.errors import UserError
from zip_pipeline.samples import Sample, Turn
from zip_pipeline.selection.candidates import Indices
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.run import Progress
from zip_pipeline.selection.select import select
from zip_pipeline.selection.strategies import coverage
from zip_pipeline_tests.selection.pools import (
    budget_within,
    conversations,
    numbered_pool,
    pool_table,
)
from zip_pipeline_tests.selection.test_random import select_for


def counts_of(text: bytes) -> dict[int, int]:
    """Return count by bucket."""
    numbers = np.frombuffer(ngram_counts([text])[0], np.uint32).tolist()
    return {number % NUM_BUCKETS: number // NUM_BUCKETS + 1 for number in numbers}


def coverage_oracle(
    texts: Sequence[bytes],
    beta: float,
    budget: int,
    cost: Callable[[int], int],
    weights: Sequence[float] | None = None,
    target: Sequence[bytes] | None = None,
    sources: Sequence[str] = (),
) -> list[int]:
    """Greedy with dictionaries: every gain of every sample anew for each pick."""
    counts = [counts_of(text) for text in texts]
    mass: Counter[int] = Counter()  # of numbers that need not be whole
    if target is not None:
        for own in map(counts_of, target):
            mass.update(own)
    else:
        by_source: dict[str, Counter[int]] = {name: Counter() for name in sorted(set(sources))}
        for own, source in zip(counts, sources, strict=True):
            by_source[source].update(own)
        share = sum(own.total() for own in by_source.values()) / len(by_source)
        for own in by_source.values():
            for u, num in own.items():
                mass[u] += num / own.total()
        mass = Counter({u: weight * share for u, weight in mass.items()})
    covered = dict.fromkeys({u for own in counts for u in own}, 0)

    def gain(index: int) -> float:
        adds = (
            mass[u] ** beta * (np.log1p(covered[u] + num) - np.log1p(covered[u]))
            for u, num in counts[index].items()
            if mass[u]
        )
        total = math.fsum(float(np.float32(add)) for add in adds)
        return total / (max(cost(index), 1) / (weights[index] if weights else 1))

    picks: list[int] = []
    while True:
        left = budget - sum(map(cost, picks))
        fitting = [i for i in range(len(texts)) if i not in picks and cost(i) <= left]
        if not fitting or left == 0:
            return picks
        best = max(fitting, key=lambda i: (gain(i), -i))
        picks.append(best)
        for u, num in counts[best].items():
            covered[u] += num


@given(conversations(), st.integers(0, 900), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=15, deadline=None)
def test_coverage_equals_oracle(samples: list[Sample], budget: int, beta: float) -> None:
    """Picks and their order equal those of the greedy that refreshes everything."""
    # Ties go to the lowest id, in the oracle to the lowest index.
    table = pool_table(samples).sort("sample_id")
    texts = texts_of(table, "sft")
    budget = budget_within([*map(len, texts)], budget)
    config = SelectionConfig(strategy="coverage", budget_bytes=budget, beta=beta, mixture="none")
    expected = coverage_oracle(
        texts, beta, budget, lambda i: len(texts[i]), sources=table["source"].to_list()
    )
    assert select(table, None, "sft", config, workers=3).picks == expected


@given(conversations(), conversations(max_size=3), st.integers(0, 900))
@settings(max_examples=15, deadline=None)
def test_target_coverage_equals_oracle(
    samples: list[Sample], target: list[Sample], budget: int
) -> None:
    """N-grams that the target lacks add nothing, those that it has what they weigh there."""
    table = pool_table(samples).sort("sample_id")
    texts, told = texts_of(table, "sft"), texts_of(pool_table(target), "sft")
    budget = budget_within([*map(len, texts)], budget)
    config = SelectionConfig(strategy="target_coverage", budget_bytes=budget, target="told.jsonl")
    expected = coverage_oracle(texts, 1.0, budget, lambda i: len(texts[i]), target=told)
    assert select_for(table, told, config).picks == expected


def test_coverage_equals_oracle_over_many_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where a head holds 16 samples, 4 are refreshed at a time and a round picks 7.

    So it is where the counts of some samples are read at a time.
    """
    for name, value in (("_HEAD", 16), ("_REFRESHED", 4), ("PICKS_PER_ROUND", 7)):
        monkeypatch.setattr(coverage, name, value)
    monkeypatch.setattr(texts_module, "_PART_BYTES", 500)
    twins = numbered_pool(150).sort("sample_id")
    texts = texts_of(twins, "sft")
    config = SelectionConfig(strategy="coverage", budget_bytes=5000, mixture="none")
    selection = select(twins, None, "sft", config)
    assert selection.picks == coverage_oracle(
        texts, 1.0, 5000, lambda i: len(texts[i]), sources=twins["source"].to_list()
    )
    assert len(selection.picks) > 40
    assert selection.manifest["num_rounds"] > 5


@given(
    st.lists(st.sampled_from([b"a", b"b", b"c", b"a b", b"b c", b"c a", b"a a", b""]), min_size=1),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_the_best_is_offered_first_whatever_ties(texts: list[bytes], draw: st.DataObject) -> None:
    """So it is with heads of a few samples, refused offers, and counts in any order of a file."""
    numbers = range(len(texts))
    places = np.array(draw.draw(st.permutations(numbers)), dtype=np.int64)
    refused = draw.draw(st.sets(st.sampled_from(numbers)))
    stored = [texts[index] for index in np.argsort(places)]
    with (
        pytest.MonkeyPatch.context() as patch,
        coverage.TemporaryTexts.write([ngram_counts(stored)]) as file,
        coverage.ThreadPoolExecutor(2) as executor,
    ):
        for name in ("_HEAD", "_REFRESHED", "_ORDERED_AT_A_TIME"):
            patch.setattr(coverage, name, draw.draw(st.integers(1, 4)))
        counts, weights = coverage.Counts(file, places), np.ones(NUM_BUCKETS)
        slow, offered, expected = coverage.Coverage(counts, weights), [], []
        while left := [index for index in numbers if index not in expected]:
            gains = slow.gains(np.array(left))
            expected.append(left[int(gains.argmax())])
            if expected[-1] not in refused:
                slow.add(expected[-1])

        def offer(index: int) -> bool:
            offered.append(index)
            return index not in refused

        def costs(indices: Indices) -> NDArray[np.float64]:
            return np.ones(len(indices))

        gains_of = coverage.Coverage(counts, weights)
        greedy = coverage.LazyGreedy(gains_of, len(texts), costs, executor, 2)
        among = np.ones(len(texts), dtype=np.bool_)
        while among.any():
            greedy.pick(among, draw.draw(st.integers(1, 5)), offer)
    assert offered == expected


def test_more_ties_than_are_refreshed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that add the same come by their positions, and the greedy ends."""
    monkeypatch.setattr(coverage, "_REFRESHED", 4)
    picks: list[int] = []
    with (
        coverage.TemporaryTexts.write([ngram_counts([b"a b"] * 20)]) as counts,
        coverage.ThreadPoolExecutor(1) as executor,
    ):
        gains = coverage.Coverage(coverage.Counts(counts), np.ones(NUM_BUCKETS))
        greedy = coverage.LazyGreedy(gains, 20, lambda indices: np.ones(len(indices)), executor, 1)
        greedy.pick(np.ones(20, np.bool_), 20, lambda index: picks.append(index) is None)
    assert picks == list(range(20))


def test_samples_without_words_come_last() -> None:
    """A gain of nothing is the lowest, also beside samples that have words."""
    texts = [b"  ", b"a b c", b"\n", b"d"]
    with coverage.TemporaryTexts.write([ngram_counts(texts)]) as counts:
        gains = coverage.Coverage(coverage.Counts(counts), np.ones(NUM_BUCKETS)).gains(np.arange(4))
    assert gains.tolist() == pytest.approx([0, 6 * math.log(2), 0, math.log(2)])


def test_scores_of_the_ledger_only_fall(tmp_path: Path) -> None:
    """A pick has the gain that it was picked for; what is left, one that is no higher."""
    config = SelectionConfig(strategy="coverage", budget_samples=40, mixture="none")
    ledger = select(numbered_pool(200), None, "sft", config).ledger
    picked = ledger.filter(pl.col("fate") == "picked").sort("rank")["score"]
    assert (picked.diff().drop_nulls() <= 0).all()
    assert picked[-1] >= ledger.filter(pl.col("fate") != "picked")["score"].max() > 0


def test_sources_are_held_to_the_mixture() -> None:
    """As by default each source has its share of the pool, here a third of 30 samples."""
    table = numbered_pool(150)
    config = SelectionConfig(strategy="coverage", budget_samples=30)
    picked = table[select(table, None, "sft", config).picks]
    assert sorted(picked["source"].value_counts()["count"].to_list()) == [10, 10, 10]


def test_a_stopped_selection_goes_on_and_picks_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Picks, scores and fates are those of a selection that was not stopped."""
    monkeypatch.setattr(coverage, "PICKS_PER_ROUND", 5)
    config = SelectionConfig(strategy="coverage", budget_samples=40)
    expected = select(numbered_pool(150), None, "sft", config)
    path = tmp_path / "selection.npz"

    def stop(progress: Progress) -> None:
        if progress.round == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select(numbered_pool(150), None, "sft", config, checkpoint=path, progress=stop)
    assert path.exists()
    again = select(numbered_pool(150), None, "sft", config, checkpoint=path)
    assert again.picks == expected.picks
    picked = pl.col("fate") == "picked"
    assert again.ledger.filter(picked).equals(expected.ledger.filter(picked))


@pytest.mark.parametrize("options", [{}, {"strategy": "target_coverage", "target": "told.jsonl"}])
def test_shards_are_refused_with_the_reason(options: dict[str, str]) -> None:
    """A shard does not know the counts of the whole pool."""
    words = "num_shards: got 3; (target_)?coverage covers n-grams of the whole pool"
    with pytest.raises(UserError, match=words):
        SelectionConfig(**options, budget_samples=4, num_shards=3)


def test_target_coverage_wants_a_target() -> None:
    """The message names the option and the remedy."""
    with pytest.raises(UserError, match="target: target_coverage selects by the samples of a file"):
        SelectionConfig(strategy="target_coverage", budget_samples=4)


def test_each_source_has_the_same_say() -> None:
    """What is typical of a source counts as much where the source is a tenth of another."""
    few, many = (
        [
            Sample((Turn("user", f"{word} {n}"), Turn("assistant", f"{word} is told of here")))
            for n in range(num)
        ]
        for word, num in (("rare", 10), ("common", 100))
    )
    table = pool_table([*few, *many]).with_columns(
        source=pl.Series(["few"] * len(few) + ["many"] * len(many))
    )
    with coverage.TemporaryTexts.write([ngram_counts(texts_of(table, "sft"))]) as file:
        mass = coverage.Counts(file).balanced_mass(table["source"])
        shuffled = coverage.Counts(file).balanced_mass(table["source"].shuffle(seed=1))
    rare, common = (next(iter(counts_of(word.encode()))) for word in ("rare", "common"))
    assert mass[rare] == pytest.approx(mass[common])
    assert mass.sum() == pytest.approx(shuffled.sum())


def test_the_order_of_samples_makes_no_difference() -> None:
    """The mass of the average source is the same to the last bit."""
    table = numbered_pool(150)
    masses = []
    for order in (table, table.reverse()):
        with coverage.TemporaryTexts.write([ngram_counts(texts_of(order, "sft"))]) as file:
            masses.append(coverage.Counts(file).balanced_mass(order["source"]))
    assert masses[0].tobytes() == masses[1].tobytes()
