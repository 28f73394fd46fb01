"""The three random baselines: what each holds, and that an order depends on ids and seed alone."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.errors import UserError
from zip_pipeline.samples import Sample, Turn
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import Selection, select, select_candidates
from zip_pipeline.selection.strategies.random import length_classes
from zip_pipeline_tests.selection.pools import numbered_pool, pool_table


def select_for(table: pl.DataFrame, target: Sequence[bytes], config: SelectionConfig) -> Selection:
    """Select from a pool table for a target."""
    with TemporaryTexts.write([texts_of(table, "sft")]) as texts:
        return select_candidates(Candidates(table, texts, target=target), "sft", config)


def uneven_pool() -> pl.DataFrame:
    """Return 300 samples, of which source a has 200, b 80 and c 20."""
    sources = ["a"] * 200 + ["b"] * 80 + ["c"] * 20
    return numbered_pool(300).with_columns(source=pl.Series(sources))


def test_random_balanced_holds_each_source_to_its_share_of_the_pool() -> None:
    """Of 30 samples 20, 8 and 2, whatever the seed; plain random varies."""
    counts = {}
    for strategy in ("random", "random_balanced"):
        picks = [
            uneven_pool()[
                select(
                    uneven_pool(),
                    None,
                    "sft",
                    SelectionConfig(strategy=strategy, budget_samples=30, seed=seed),
                ).picks
            ]
            for seed in range(5)
        ]
        counts[strategy] = [dict(rows["source"].value_counts().iter_rows()) for rows in picks]
    assert counts["random_balanced"] == [{"a": 20, "b": 8, "c": 2}] * 5
    assert counts["random"] != counts["random_balanced"]


def test_random_lengths_draws_the_lengths_of_the_target() -> None:
    """Of a pool of short and long texts as many short ones as the target has, drawn at random."""
    words = [30, 30, 30, 300] * 60
    table = pool_table(
        [
            Sample((Turn("user", f"{row}"), Turn("assistant", "w " * num)))
            for row, num in enumerate(words)
        ]
    )
    sizes = [len(text) for text in texts_of(table, "sft")]
    target = [b"x" * sizes[3]] * 2 + [b"x" * sizes[0]]
    picks = []
    for seed in range(2):
        config = SelectionConfig(
            strategy="random_lengths", budget_samples=30, target="t.jsonl", seed=seed
        )
        picks.append(select_for(table, target, config).picks)
        assert sum(words[pick] == 300 for pick in picks[-1]) == 20
    assert set(picks[0]) != set(picks[1])


def test_what_the_target_lacks_comes_last() -> None:
    """A length of which the target has none fills up what its lengths leave of the budget."""
    table = numbered_pool(60)
    classes = length_classes(np.array([len(text) for text in texts_of(table, "sft")]))
    lengths, counts = np.unique(classes, return_counts=True)
    wanted = lengths[np.argmax(counts)]
    target = [texts_of(table, "sft")[np.flatnonzero(classes == wanted)[0]]]
    config = SelectionConfig(
        strategy="random_lengths", budget_samples=int(counts.max()) + 1, target="t.jsonl"
    )
    picks = select_for(table, target, config).picks
    assert [classes[pick] == wanted for pick in picks] == [True] * counts.max() + [False]


def test_the_draw_does_not_depend_on_the_order_of_the_pool() -> None:
    """Each of the three picks the same samples in the same order from a shuffled pool."""
    table = uneven_pool()
    target = texts_of(table.head(20), "sft")
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=1)
    for strategy in ("random", "random_balanced", "random_lengths"):
        config = SelectionConfig(strategy=strategy, budget_samples=40, target="t.jsonl", seed=3)
        picked = [
            pool["sample_id"][select_for(pool, target, config).picks] for pool in (table, shuffled)
        ]
        assert picked[0].equals(picked[1])
        assert len(picked[0]) == 40


def test_a_strategy_that_needs_a_target_asks_for_one() -> None:
    """It is refused when it is configured, and again where plain texts come with none."""
    with pytest.raises(
        UserError, match="target: random_lengths selects by the samples of a file, and"
    ):
        SelectionConfig(strategy="random_lengths", budget_samples=3)
    config = SelectionConfig(strategy="random_lengths", budget_samples=3, target="t.jsonl")
    with pytest.raises(UserError, match="target: random_lengths needs the samples of a file, with"):
        select(numbered_pool(5), None, "sft", config)


def test_a_target_that_nobody_heeds_changes_no_fingerprint() -> None:
    """A version of another strategy stays the version that it is."""
    plain, other = (
        SelectionConfig(strategy="long_range", budget_samples=3, target=target)
        for target in (None, "t.jsonl")
    )
    assert plain.fingerprint() == other.fingerprint()
    assert "target" not in other.as_dict()
    with_target = SelectionConfig(strategy="random_lengths", budget_samples=3, target="t.jsonl")
    assert with_target.as_dict()["target"] == "t.jsonl"
