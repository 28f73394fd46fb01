"""Strategies that rank by what is known of each sample, against slow oracles."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.errors import UserError
from zip_pipeline.report.fates import explain_fate
from zip_pipeline.selection.candidates import Candidates, Measured, SignalTables
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import Selection, select_candidates
from zip_pipeline.selection.strategies import instag
from zip_pipeline.selection.strategies.deita import kept
from zip_pipeline.selection.strategies.instag import passes, tags_of
from zip_pipeline.selection.strategies.random import random_order
from zip_pipeline.signals.selective_ifd import THRESHOLDS, SelectiveIfd, figures
from zip_pipeline.signals.tags import plain
from zip_pipeline_tests.selection.pools import numbered_pool

TABLE = numbered_pool(60)
IDS = TABLE["sample_id"].to_list()


def select_by(
    config: SelectionConfig,
    signals: Mapping[str, pl.DataFrame] | None = None,
    quality: Sequence[float] | None = None,
) -> Selection:
    """Select from 60 samples of which this is known."""
    tables = None if signals is None else SignalTables(dict.fromkeys(signals, "x"), signals, {})
    known = None if quality is None else pl.Series(quality)
    with TemporaryTexts.write([texts_of(TABLE, "sft")]) as texts:
        candidates = Candidates(TABLE, texts, quality=known, signals=tables)
        return select_candidates(candidates, "sft", config)


def words_of(selection: Selection, index: int) -> str:
    """Return what trace says of a sample."""
    return explain_fate(selection.ledger.row(index, named=True), selection.manifest)


def within(budget: int, sizes: Sequence[int], order: Sequence[int]) -> list[int]:
    """Return what fits of an order, passing over what does not."""
    picks, left = [], budget
    for index in order:
        if sizes[index] <= left:
            picks.append(index)
            left -= sizes[index]
    return picks


@pytest.mark.parametrize("unit", ["samples", "bytes", "tokens"])
@pytest.mark.parametrize("strategy", ["perplexity", "superfiltering"])
def test_highest_loss_first(strategy: str, unit: str) -> None:
    """An ifd of 1 and more comes after all below, what has none at the end; ties by id."""
    values = [None if row % 10 == 3 else (row * 7 % 20) / 10 for row in range(60)]

    def key(row: int) -> tuple[float, str]:
        value = values[row]
        if value is None:
            return np.inf, IDS[row]
        is_high = strategy == "superfiltering" and value >= 1
        return value if is_high else -value, IDS[row]

    config = SelectionConfig(
        strategy=strategy, **{f"budget_{unit}": 60 if unit == "samples" else 900}
    )
    table = pl.DataFrame({"loss": values, "ifd": values})
    selection = select_by(config, {"loss": table})
    sizes = selection.ledger["num_bytes"].to_list() if unit == "bytes" else [1] * 60
    if unit == "tokens":
        whole = SelectionConfig(strategy="random", budget_tokens=10**9)
        sizes = select_by(whole).ledger["num_tokens"].to_list()
    budget = 60 if unit == "samples" else 900
    assert selection.picks == within(budget, sizes, sorted(range(60), key=key))
    assert "loss of its" in words_of(selection, selection.picks[0]) or strategy != "perplexity"


def by_quality(quality: Sequence[float], seed: int) -> list[int]:
    """Return the highest quality first, ties as random draws them."""
    place = {index: n for n, index in enumerate(random_order(IDS, seed).tolist())}
    return sorted(range(60), key=lambda row: (-quality[row], place[row]))


def test_score_takes_the_highest_quality_and_draws_among_equals() -> None:
    """The seed decides ties and nothing else; the ledger tells quality and score."""
    quality = [float(row % 4) for row in range(60)]
    picks = []
    for seed in range(2):
        config = SelectionConfig(strategy="score", quality="q", budget_samples=20, seed=seed)
        selection = select_by(config, quality=quality)
        assert selection.picks == by_quality(quality, seed)[:20]
        picks.append(selection.picks)
    assert set(picks[0][:15]) == set(picks[1][:15])
    assert picks[0] != picks[1]
    assert selection.ledger["score"].to_list() == selection.ledger["quality"].to_list() == quality
    assert words_of(selection, picks[1][0]) == "picked as number 1: its quality is 3"


@pytest.mark.parametrize("strategy", ["score", "alpagasus", "deita"])
def test_a_quality_is_asked_for(strategy: str) -> None:
    """With what to give."""
    with pytest.raises(UserError, match=f"quality: {strategy} selects by the quality .*; name"):
        SelectionConfig(strategy=strategy, budget_samples=3)


@pytest.mark.parametrize("budget", [5, 60])
def test_alpagasus_never_picks_below_the_threshold(budget: int) -> None:
    """Of 60 with 4.5 and up only 20, whatever is left; trace tells why."""
    quality = [(4.4999, 4.5, 3)[row % 3] + (row % 2) * (row % 3 == 1) / 2 for row in range(60)]
    config = SelectionConfig(
        strategy="alpagasus", quality="q", budget_samples=budget, seed=4,
        quotas={"a": (0.5, None)},
    )  # fmt: skip
    selection = select_by(config, quality=quality)
    good = [row for row in by_quality(quality, 4) if quality[row] >= 4.5]
    assert len(good) == 20
    assert selection.picks == good[:budget]
    assert "is below 4.5, so it is never picked" in words_of(selection, 0)
    if budget == 5:
        assert words_of(selection, good[-1]).startswith("its quality, 4.5, was too low before")


def deita_oracle(scores: Sequence[float], vectors: np.ndarray) -> tuple[list[int], list[int]]:
    """Return who is kept and who is passed over, comparing each with every kept one."""
    chosen: list[int] = []
    passed: list[int] = []
    for row in sorted(range(len(scores)), key=lambda row: (-scores[row], IDS[row])):
        near = any(float(np.dot(vectors[row], vectors[other])) > 0.9 for other in chosen)
        (passed if near else chosen).append(row)
    return chosen, passed


def unit_vectors(num: int, seed: int = 0) -> np.ndarray:
    """Return vectors in a few directions, one in ten of length 0."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(num // 5, 1), 8))
    vectors = centres[rng.integers(len(centres), size=num)] + 0.2 * rng.normal(size=(num, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[::10] = 0
    return vectors.astype(np.float32)


def test_deita_passes_over_what_is_close_to_a_better_one() -> None:
    """Kept ones in order, then the others in order; trace tells them apart."""
    quality = [float(row * 13 % 9) for row in range(60)]
    vectors = unit_vectors(60)
    rows = [row.tolist() if row.any() else None for row in vectors]
    table = pl.DataFrame({"vector": pl.Series(rows, dtype=pl.List(pl.Float32))})
    chosen, passed = deita_oracle(quality, vectors)
    assert len(passed) > 10
    for budget in (10, 50):
        config = SelectionConfig(strategy="deita", quality="q * c", budget_samples=budget)
        selection = select_by(config, {"embedding": table}, quality)
        assert selection.picks == [*chosen, *passed][:budget]
        assert "cosine to a better sample is above 0.9" in words_of(selection, passed[-1])
    few = select_by(config.model_copy(update={"budget_samples": 3}), {"embedding": table}, quality)
    assert "was too low before the budget" in words_of(few, chosen[-1])


def test_kept_is_the_same_across_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 1,500 samples, three blocks of 512, against blocks of 100."""
    monkeypatch.setattr("zip_pipeline.selection.strategies.deita._KEPT_AT_A_TIME", 100)
    vectors = unit_vectors(1500, seed=1)
    order = np.random.default_rng(2).permutation(1500)
    expected: list[int] = []
    for row in order:
        if not expected or (vectors[expected] @ vectors[row]).max() <= 0.9:
            expected.append(row)
    assert order[kept(vectors, order, 0.9, tmp_path)].tolist() == expected


_TAGS = pl.List(pl.String)


def test_tags_are_read_in_parts() -> None:
    """As numbers, of a whole pool or of some of its samples in any order; forms are one tag."""
    rng = random.Random(5)
    given = [rng.sample(["Maths", "maths", "code", "Law", "art"], k=n % 4) for n in range(40_000)]
    table = pl.DataFrame({"tags": pl.Series([own or None for own in given], dtype=_TAGS)})
    positions = np.array(rng.sample(range(40_000), k=9_000))
    config = SelectionConfig(strategy="instag", budget_samples=1)
    with TemporaryTexts.write([[b"x"] * 40_000]) as texts:
        whole = Candidates(table, texts, signals=SignalTables({}, {"tags": table}, {}))
        for rows in (np.arange(40_000), positions):
            own = replace(whole, signals=whole.signals and whole.signals.part(rows))
            pool = Measured(own, None, np.ones(1), np.ones(1, np.int64))
            tags, plain_tags = tags_of(pool, config), tags_of(pool, config, plain)
            said = [given[row] for row in rows]
            assert [[tags.names[n] for n in tags.of(m)] for m in range(len(rows))] == said
            assert tags.counts.tolist() == [len(own) for own in said]
            assert sorted(plain_tags.names) == ["art", "code", "law", "maths"]
            assert plain_tags.counts.tolist() == [len({tag.lower() for tag in own}) for own in said]


def test_too_many_different_tags_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the field and the remedy."""
    tags = pl.DataFrame({"tags": pl.Series([[f"tag {n}"] for n in range(60)], dtype=_TAGS)})
    monkeypatch.setattr(instag, "MOST_TAGS", 59)
    with pytest.raises(UserError, match="more than 59 different tags in 'tags'; name a field of"):
        select_by(SelectionConfig(strategy="instag", budget_samples=9), {"tags": tags}, None)


def instag_oracle(tags: Sequence[Sequence[str]]) -> list[int]:
    """Return the pass that takes each, by going through what is left again and again."""
    left, found = [row for row, own in enumerate(tags) if own], [2**63 - 1] * len(tags)
    number = 0
    while left:
        seen: set[str] = set()
        for row in list(left):
            if not set(tags[row]) <= seen:
                seen |= set(tags[row])
                found[row] = number
                left.remove(row)
        number += 1
    return found


@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=4, unique=True), max_size=40))
def test_passes_equal_the_oracle(tags: list[list[str]]) -> None:
    """One run over the order gives the passes of the published loop."""
    assert passes(tags).tolist() == instag_oracle(tags)


def test_instag_takes_most_tags_first_and_every_tag_in_turn() -> None:
    """Pass by pass, in a pass by number of tags, then by id; samples without tags last."""
    rng = random.Random(3)
    tags = [rng.sample("abcdefghij", row % 5) or None for row in range(60)]
    table = pl.DataFrame({"tags": pl.Series(tags, dtype=pl.List(pl.String))})
    selection = select_by(SelectionConfig(strategy="instag", budget_samples=55), {"tags": table})
    order = sorted(range(60), key=lambda row: (-len(tags[row] or ()), IDS[row]))
    number = dict(zip(order, instag_oracle([tags[row] or [] for row in order]), strict=True))
    assert selection.picks == sorted(order, key=number.__getitem__)[:55]
    assert "it has 4 tags" in words_of(selection, selection.picks[0])
    none = pl.DataFrame({"tags": pl.Series([None] * 60, dtype=pl.List(pl.String))})
    with pytest.raises(UserError, match="signals: tags: field: none of 60 samples has tags in 'ta"):
        select_by(SelectionConfig(strategy="instag", budget_samples=3), {"tags": none})


def test_reward_gap_takes_the_smallest_first() -> None:
    """Negative gaps before all, what has none last, ties by id."""
    gaps = [None if row % 7 == 2 else (row * 11 % 20 - 10) / 4 for row in range(60)]
    selection = select_by(
        SelectionConfig(strategy="reward_gap", budget_samples=58),
        {"reward_gap": pl.DataFrame({"gap": gaps})},
    )
    order = sorted(range(60), key=lambda r: (np.inf if gaps[r] is None else gaps[r], IDS[r]))
    assert selection.picks == order[:58]
    assert gaps[order[0]] < 0
    assert "minus its implicit reward gap is 2.5" in words_of(selection, order[0])


def shirt_oracle(differences: Sequence[np.ndarray | None], budget: int) -> list[int]:
    """Return the order of the published code, by differences of shape (neighbours, tokens)."""
    sizes = np.concatenate([np.abs(each).ravel() for each in differences if each is not None])
    # Of the thresholds that there are the one nearest to the median by its share.
    threshold = min(THRESHOLDS, key=lambda t: abs((sizes > t).mean() - 0.5))
    mean, deviation, ifd = {}, {}, {}
    for row, each in enumerate(differences):
        if each is None:
            continue
        values = []
        for own in each:
            informative = [d for d in own if abs(d) > threshold]
            values.append(np.exp(sum(informative) / max(len(informative), 1)))
        mean[row], deviation[row] = np.mean(values), np.std(values)
        ifd[row] = np.mean(np.exp(each.mean(axis=1)))
    good = sorted((r for r in ifd if ifd[r] < 1), key=lambda r: (-mean[r], IDS[r]))
    listed = sorted(good[: 2 * budget], key=lambda r: (deviation[r], IDS[r]))
    bad = sorted((r for r in ifd if ifd[r] >= 1), key=lambda r: (ifd[r], IDS[r]))
    none = sorted((r for r in range(60) if r not in ifd), key=IDS.__getitem__)
    return [*listed, *good[2 * budget :], *bad, *none]


@pytest.mark.parametrize("budget", [5, 55])
def test_t_shirt_equals_the_published_order(budget: int) -> None:
    """Twice the budget by the mean, of these the least deviation; IFD of 1 and more at the end."""
    rng = np.random.default_rng(5)
    differences = [
        None if row % 15 == 4 else rng.normal(rng.normal(-0.3, 0.4), 0.5, (30, 2 + row % 7))
        for row in range(60)
    ]
    rows = [figures(np.zeros((30, 0)) if each is None else each) for each in differences]
    table = pl.DataFrame(rows, schema=SelectiveIfd.columns, orient="row")
    config = SelectionConfig(strategy="t_shirt", budget_samples=budget)
    selection = select_by(config, {"selective_ifd": table})
    order = shirt_oracle(differences, budget)
    assert selection.picks == order[:budget]
    if budget == 5:
        assert "left on the shortlist of twice the budget" in words_of(selection, order[9])
        assert "was too low for the shortlist" in words_of(selection, order[10])
