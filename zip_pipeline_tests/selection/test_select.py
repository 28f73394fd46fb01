"""Selection as a whole: ledger, manifest, subset, random, checkpoints."""

import logging
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.compression.codecs import compression_ratio
from zip_pipeline.compression.state import compression_state, texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.errors import UserError
from zip_pipeline.report.fates import explain_fate
from zip_pipeline.samples import Sample, Turn
from zip_pipeline.selection import rounds
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.ledger import FATES
from zip_pipeline.selection.reference import select_reference
from zip_pipeline.selection.rounds import Order, first_of, lowest_index_first
from zip_pipeline.selection.run import Checkpoint, Progress, Run
from zip_pipeline.selection.select import Cluster, select, select_candidates
from zip_pipeline.selection.shards import Runner, run_here
from zip_pipeline.selection.strategies.random import random_order
from zip_pipeline.selection.strategies.zip import Zip
from zip_pipeline_tests.selection.pools import numbered_pool, pool_table
from zip_pipeline_tests.selection.test_reference import run_records

SMALL = {"k1": 40, "k2": 12, "k3": 5}


def test_a_budget_that_picks_nothing_is_refused_with_the_least_that_picks() -> None:
    """Below the smallest sample, in every unit, also as a share of the pool."""
    table = numbered_pool(30)
    least = min(len(text) for text in texts_of(table, "sft"))
    for asked, told in ((least - 1, f"{least - 1}"), ("0.1%", "0.1%, which is ")):
        with pytest.raises(UserError) as refused:
            select(table, None, "sft", SelectionConfig(strategy="zip", budget_bytes=asked))
        assert str(refused.value).startswith(f"budget_bytes: got {told}")
        assert str(refused.value).endswith(f"so nothing could be picked; give {least} or more")
    assert len(select(table, None, "sft", SelectionConfig(budget_bytes=least)).picks) == 1


@pytest.mark.parametrize("unit", ["samples", "tokens", "bytes"])
def test_a_share_of_the_pool_picks_as_the_number_does(unit: str) -> None:
    """The manifest holds what was asked for and what that came to; the picks are the same."""
    table = numbered_pool(60)
    options: dict[str, Any] = {"strategy": "zip", **SMALL}
    quotas = {"quotas": {"a": (None, 0.25)}}
    shared = select(
        table, None, "sft", SelectionConfig(**options, **quotas, **{f"budget_{unit}": "25%"})
    )
    budget: Any = shared.manifest["budget"]
    assert (budget["unit"], budget["share"]) == (unit, "25%")
    costs = {"samples": 60, "tokens": shared.ledger["num_tokens"].sum()}
    costs["bytes"] = shared.ledger["num_bytes"].sum()
    assert budget["value"] == costs[unit] // 4
    number = {f"budget_{unit}": budget["value"]}
    same = select(table, None, "sft", SelectionConfig(**options, **quotas, **number))
    assert shared.picks == same.picks != []
    assert shared.manifest["quotas"] == same.manifest["quotas"]
    assert same.manifest["budget"] == {"unit": unit, "value": budget["value"]}


@pytest.mark.parametrize("shards", [1, 3])
def test_a_budget_that_covers_the_pool_selects_at_once(
    shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are picked, the least redundant alone first, without a round of the strategy."""
    table = numbered_pool(40)
    budget = sum(len(text) for text in texts_of(table, "sft"))
    monkeypatch.setattr(Zip, "rounds", lambda *_: pytest.fail("nothing is to be measured"))
    config = SelectionConfig(strategy="zip", budget_bytes=budget, num_shards=shards)
    selection = select(table, None, "sft", config)
    assert sorted(selection.picks) == list(range(40))
    assert selection.ledger[selection.picks]["pi"].is_sorted()
    assert selection.manifest["covers_pool"]
    assert (selection.ledger["shard"].null_count() == 0) == (shards > 1)
    monkeypatch.undo()
    assert (
        "covers_pool"
        not in select(
            table, None, "sft", SelectionConfig(strategy="zip", budget_bytes=budget - 1)
        ).manifest
    )


def test_a_budget_that_covers_the_pool_leaves_quotas_alone() -> None:
    """A source above its share of the budget is not picked as a whole."""
    quotas = {"a": (None, 0.1)}
    config = SelectionConfig(strategy="zip", budget_samples=40, quotas=quotas, **SMALL)
    ledger = select(numbered_pool(40), None, "sft", config).ledger
    assert ledger.filter(fate="picked", source="a").height == 4


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("strategy", ["zip", "long_range", "coverage"])
def test_picks_do_not_depend_on_the_order_of_the_pool(strategy: str, shards: int) -> None:
    """A pool with many ties in another order: the same samples, in the same order."""
    if strategy == "coverage" and shards > 1:
        pytest.skip("coverage has no shards")
    # Words that no two samples share, all of one length: nothing tells the samples apart.
    said = [_samples_of(f"{row:03d}") for row in range(60)]
    table = pool_table([sample for pair in said for sample in pair])
    config = SelectionConfig(strategy=strategy, budget_samples=25, num_shards=shards, **SMALL)
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=4)
    picked = [
        rows["sample_id"][select(rows, None, "sft", config).picks].to_list()
        for rows in (table, table.reverse(), shuffled)
    ]
    assert picked[0] == picked[1] == picked[2]


def _samples_of(number: str) -> tuple[Sample, Sample]:
    """Return two samples that say the same in the same words, of other numbers."""
    turns = Turn("user", f"Say {number}."), Turn("assistant", f"{number} is said.")
    return Sample(turns), Sample((Turn("system", "Be brief."), *turns))


class KilledError(Exception):
    """Stands for a process that ends between two rounds."""


def _fates(ledger: pl.DataFrame) -> dict[str, int]:
    return dict(ledger["fate"].value_counts().iter_rows())


def test_ledger_has_one_row_with_a_fate_for_every_sample() -> None:
    """Every pool sample has one row, in pool order; ranks are the pick order."""
    table = numbered_pool(80)
    selection = select(
        table, None, "sft", SelectionConfig(strategy="zip", budget_samples=10, **SMALL)
    )
    ledger = selection.ledger
    assert ledger["sample_id"].to_list() == table["sample_id"].to_list()
    assert set(ledger["fate"]) <= set(FATES)
    # Two rounds of 40 candidates and shortlists of 12.
    fates = _fates(ledger)
    assert fates["picked"] == 10
    assert 7 <= fates["shortlisted"] <= 14
    assert fates["never_reached"] == 80 - 10 - fates["shortlisted"] - fates["candidate"]
    ranked = ledger.filter(pl.col("rank").is_not_null()).sort("rank")
    assert ranked["sample_id"].to_list() == [table["sample_id"][i] for i in selection.picks]
    assert ranked["round"].to_list() == [1] * 5 + [2] * 5
    untouched = ledger.filter(pl.col("fate") == "never_reached")
    assert untouched["round"].null_count() == len(untouched) > 0
    assert ledger["pi"].null_count() == 0
    alone = compression_state(table, "sft")["pi"].to_list()
    assert ledger["initial_pi"].to_list() == alone
    assert ledger["pi"].to_list() != alone


@pytest.mark.parametrize("codec", ["deflate", "zstd"])
@pytest.mark.parametrize("num_shards", [1, 2])
def test_too_many_workers_are_told_of_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    codec: Literal["deflate", "zstd"],
    num_shards: int,
) -> None:
    """The picks are those of one worker, and the log has one line, however many steps measure."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    config = SelectionConfig(
        strategy="zip", budget_samples=4, codec=codec, num_shards=num_shards, **SMALL
    )
    table = numbered_pool(80)
    expected = select(table, None, "sft", config, workers=1).picks
    with caplog.at_level(logging.WARNING):
        assert select(table, None, "sft", config, workers=100_000).picks == expected
    assert caplog.messages == [
        "workers: 100000 is more than this machine's 1 core can use; 4 are used"
    ]


def test_a_cluster_is_given_the_workers_that_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a number that is too large it hears no more than the rest of the selection."""
    given: list[tuple[str, int]] = []

    def runner(address: str, workers: int) -> Runner:
        given.append((address, workers))
        return run_here

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr("zip_pipeline.selection.select.ray_runner", runner)
    config = SelectionConfig(strategy="zip", budget_samples=4, num_shards=2, **SMALL)
    with TemporaryTexts.write([texts_of(table := numbered_pool(80), "sft")]) as texts:
        candidates = Candidates(table, texts)
        select_candidates(candidates, "sft", config, workers=9, cluster=Cluster("local"))
    assert given == [("local", 4)]


def test_too_many_workers_of_a_reference_selection_are_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As for any other selection, though it measures twice."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    table = numbered_pool(6)
    config = SelectionConfig(strategy="zip", budget_samples=4, reference_compat=True, **SMALL)
    with caplog.at_level(logging.WARNING):
        select_reference(table["raw"].to_list(), config, provenance=table, workers=100_000)
    assert len(caplog.messages) == 1


def test_ledger_says_who_did_not_fit() -> None:
    """A sample larger than the whole budget is over_budget; a source at its maximum is quota."""
    table = numbered_pool(40)
    sizes = [len(text) for text in texts_of(table, "sft")]
    config = SelectionConfig(strategy="zip", budget_bytes=max(sizes) - 1, k1=40, k2=40, k3=40)
    ledger = select(table, None, "sft", config).ledger
    assert ledger["fate"][int(np.argmax(sizes))] == "over_budget"
    config = SelectionConfig(
        strategy="zip", budget_samples=40, quotas={"b": (None, 0.1)}, k1=40, k2=40, k3=40
    )
    fates = _fates(select(table, None, "sft", config).ledger.filter(pl.col("source") == "b"))
    assert fates == {"picked": 4, "quota": 9}


@pytest.mark.parametrize("strategy", ["zip", "coverage"])
def test_manifest_says_where_the_budget_ended_for_all_and_for_each_source(strategy: str) -> None:
    """The last picks are those of the ledger; what was left out is told beside them."""
    options: dict[str, Any] = SMALL if strategy == "zip" else {}
    config = SelectionConfig(
        strategy=strategy, budget_samples=9, quotas={"b": (None, 0.2)}, **options
    )
    selection = select(numbered_pool(40), None, "sft", config)
    last: Any = selection.manifest["last_picks"]
    picked = selection.ledger.filter(fate="picked").sort("rank")
    column = "pi" if strategy == "zip" else "score"
    for figures, rows in (
        (last["of_all"], picked),
        *((last["by_group"][name], picked.filter(source=name)) for name in ("a", "b", "c")),
    ):
        assert figures.keys() >= {"rank", "round", column}
        assert figures.items() <= rows.row(-1, named=True).items()
    left = selection.ledger.filter(pl.col("fate") != "picked", source="b")
    assert last["of_all"]["rank"] == 9
    for row in left.iter_rows(named=True):
        words = explain_fate(row, selection.manifest)
        assert f"number {last['by_group']['b']['rank']}" in words


def test_ledger_records_duplicates_with_what_they_repeat() -> None:
    """A duplicate across batches is a row of its own that names the sample it repeats."""
    table = numbered_pool(6)
    duplicates = pl.DataFrame(
        {
            "sample_id": [table["sample_id"][2]],
            "batch": ["later"],
            "source_file": ["again.jsonl"],
            "source_row": [7],
            "first_batch": ["batch"],
            "first_source_file": ["file.jsonl"],
            "first_source_row": [3],
        }
    )
    config = SelectionConfig(strategy="zip", budget_samples=2)
    selection = select(table, None, "sft", config, duplicates=duplicates)
    assert len(selection.ledger) == 7
    assert selection.manifest["num_samples"] == 6
    last = selection.ledger.row(6, named=True)
    assert last["fate"] == "duplicate"
    assert (last["source_file"], last["source_row"]) == ("again.jsonl", 7)
    assert (last["duplicate_of_batch"], last["duplicate_of_row"]) == ("batch", 3)


def test_ledger_records_what_is_held_out() -> None:
    """A held-out sample is a row of its own with its place; it counts to no pool."""
    table = numbered_pool(8)
    config = SelectionConfig(strategy="zip", budget_samples=6, k1=6, k2=6, k3=6)
    counts = {"num_rows_read": 8, "num_held_out": 2}
    selection = select(table.head(6), None, "sft", config, held_out=table.tail(2), counts=counts)
    assert _fates(selection.ledger) == {"picked": 6, "held_out": 2}
    assert (selection.manifest["num_samples"], selection.manifest["num_held_out"]) == (6, 2)
    columns = ["sample_id", "batch", "source", "source_file", "source_row"]
    assert selection.ledger.tail(2).select(columns).equals(table.tail(2).select(columns))
    assert selection.ledger.tail(2)["num_bytes"].to_list() == [None, None]


def test_manifest_figures_equal_those_of_the_subset() -> None:
    """Counts, bytes, tokens and R in the manifest are those of the picked samples."""
    table = numbered_pool(50)
    config = SelectionConfig(budget_tokens=400, strategy="long_range", **SMALL)
    selection = select(table, None, "sft", config, inputs={"b": "1"}, counts={"num_rows_read": 55})
    texts = texts_of(table, "sft")
    subset = b"".join(texts[i] for i in selection.picks)
    manifest = selection.manifest
    assert manifest["num_picked"] == len(selection.picks) > 0
    assert manifest["picked_bytes"] == len(subset)
    assert manifest["picked_tokens"] + manifest["unused_budget"] == 400
    assert manifest["compression_ratio"]["deflate"] == compression_ratio(subset, "deflate")
    assert manifest["compression_ratio"]["xz"] == compression_ratio(subset, "xz")
    assert manifest["pool_compression_ratio"]["zstd"] == compression_ratio(b"".join(texts), "zstd")
    assert (manifest["num_rows_read"], manifest["inputs"]) == (55, {"b": "1"})
    assert manifest["budget"] == {"unit": "tokens", "value": 400}
    assert set(manifest["seconds"]) == {"prepare", "select", "measure"}
    assert "zlib" in manifest["versions"]
    assert sum(s["num_samples"] for s in manifest["top_sources"]) == len(selection.picks)


def test_subset_is_the_picked_rows_in_pick_order() -> None:
    """The subset table holds rank 1 to n with the same samples as the ledger's ranks."""
    table = numbered_pool(30)
    selection = select(
        table, None, "sft", SelectionConfig(strategy="zip", budget_samples=7, **SMALL)
    )
    subset = selection.subset(table)
    assert subset["rank"].to_list() == [1, 2, 3, 4, 5, 6, 7]
    assert subset["sample_id"].to_list() == [table["sample_id"][i] for i in selection.picks]
    assert subset.columns[-3:] == ["rank", "round", "pi"]


@pytest.mark.parametrize("strategy", ["zip", "long_range", "random"])
@pytest.mark.parametrize("budget", [1, 1000])
def test_budget_of_one_and_more_than_the_pool(strategy: str, budget: int) -> None:
    """One picks one, more than the pool picks every sample once."""
    config = SelectionConfig(strategy=strategy, budget_samples=budget, **SMALL)
    selection = select(numbered_pool(25), None, "sft", config)
    assert len(selection.picks) == min(budget, 25)
    assert len(set(selection.picks)) == len(selection.picks)
    assert selection.manifest["unused_budget"] == budget - min(budget, 25)


@pytest.mark.parametrize("strategy", ["zip", "long_range", "random"])
def test_an_empty_pool_gives_an_empty_version(strategy: str) -> None:
    """No samples, no picks, no error."""
    config = SelectionConfig(strategy=strategy, budget_samples=3)
    selection = select(numbered_pool(0), None, "sft", config)
    assert selection.picks == []
    assert len(selection.ledger) == 0
    assert selection.manifest["num_picked"] == 0


def test_random_depends_on_the_seed_and_not_on_the_order_of_the_pool() -> None:
    """The same seed picks the same samples from a reversed pool; another seed does not."""
    table = numbered_pool(60)
    config = SelectionConfig(strategy="random", budget_samples=20, seed=5)
    picked = select(table, None, "sft", config).subset(table)["sample_id"]
    back = table.reverse()
    again = select(back, None, "sft", config).subset(back)["sample_id"]
    assert picked.to_list() == again.to_list()
    other = SelectionConfig(strategy="random", budget_samples=20, seed=6)
    assert select(table, None, "sft", other).subset(table)["sample_id"].to_list() != again.to_list()


def test_random_order_is_uniform() -> None:
    """Over 2,000 seeds each of four samples comes first about as often as any other."""
    first = [int(random_order(["a", "b", "c", "d"], seed)[0]) for seed in range(2000)]
    counts = np.bincount(first, minlength=4)
    assert counts.sum() == 2000
    # Standard deviation 19.4; five of them.
    assert np.abs(counts - 500).max() < 97


def test_random_marks_those_after_the_last_pick_as_never_reached() -> None:
    """What comes after the last pick was never reached; misfits before it are over budget."""
    table = numbered_pool(50)
    config = SelectionConfig(strategy="random", budget_bytes=700, seed=1)
    selection = select(table, None, "sft", config)
    order = random_order(table["sample_id"].to_list(), 1).tolist()
    fates = [selection.ledger["fate"][i] for i in order]
    last = max(position for position, fate in enumerate(fates) if fate == "picked")
    assert set(fates[: last + 1]) <= {"picked", "over_budget"}
    assert set(fates[last + 1 :]) == {"never_reached"}


@pytest.mark.parametrize("k", [1, 3, 7, 10])
def test_lowest_index_wins_a_tie(k: int) -> None:
    """Lowest values first, ties by position."""
    values = np.array([3.0, 1.0, 2.0, 1.0, 3.0, 2.0, 1.0])
    assert lowest_index_first(values, k).tolist() == [1, 3, 6, 2, 5, 0, 4][:k]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans())), st.integers(1, 9))
def test_first_of_parts_are_the_first_of_all(samples: list[tuple[int, bool]], k: int) -> None:
    """In either order, ties by index, those alone that are asked for."""
    keys = np.array([key for key, _ in samples], np.float64)
    among = np.array([asked for _, asked in samples], np.bool_)
    for order in Order:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rounds, "_LOOKED_AT_AT_A_TIME", 2)
            found = first_of(keys, among, k, order).tolist()
        assert found == sorted(np.flatnonzero(among), key=lambda i: (order * keys[i], i))[:k]


@pytest.mark.parametrize("strategy", ["zip", "long_range"])
@pytest.mark.parametrize("codec", ["deflate", "zstd"])
@pytest.mark.parametrize("stop_after", [1, 3, 5, 8])
def test_an_interrupted_selection_ends_with_the_same_picks(
    tmp_path: Path, strategy: str, codec: str, stop_after: int
) -> None:
    """Stopped after any round, the next run resumes and gives the same picks and ledger."""
    table = numbered_pool(100)
    config = SelectionConfig(strategy=strategy, codec=codec, budget_samples=47, **SMALL)
    whole = select(table, None, "sft", config)
    path = tmp_path / "checkpoint"
    rounds: list[int] = []

    def stop(progress: Progress) -> None:
        if progress.is_estimate or progress.is_resumption:
            return
        rounds.append(progress.round)
        if len(rounds) == stop_after:
            raise KilledError

    with pytest.raises(KilledError):
        select(table, None, "sft", config, checkpoint=path, progress=stop)
    assert path.exists() == (stop_after >= 3)
    resumed = select(table, None, "sft", config, checkpoint=path, progress=stop)
    assert rounds[stop_after] == stop_after // 3 * 3 + 1
    assert resumed.picks == whole.picks
    assert resumed.ledger.equals(whole.ledger)
    assert not path.exists()


def test_a_checkpoint_of_another_pool_or_configuration_is_ignored(tmp_path: Path) -> None:
    """Only the same texts and the same configuration resume; a broken file starts afresh."""
    config = SelectionConfig(strategy="zip", budget_samples=30, **SMALL)
    path = tmp_path / "checkpoint"

    def stop_late(progress: Progress) -> None:
        if progress.round == 4:
            raise KilledError

    with pytest.raises(KilledError):
        select(numbered_pool(60), None, "sft", config, checkpoint=path, progress=stop_late)

    def stored(config: SelectionConfig, num_texts: int = 60) -> Run | None:
        by_id = numbered_pool(60).sort("sample_id")
        with TemporaryTexts.write([texts_of(by_id, "sft")[:num_texts]]) as texts:
            return Checkpoint.of_texts(path, config, texts).load()

    assert stored(config).num_rounds == 3
    assert stored(config, num_texts=59) is None
    assert stored(SelectionConfig(strategy="zip", budget_samples=31, **SMALL)) is None
    path.write_bytes(path.read_bytes()[:100])
    assert stored(config) is None


@pytest.mark.parametrize("num_shards", [1, 2])
def test_a_checkpoint_of_other_token_counts_is_ignored(tmp_path: Path, num_shards: int) -> None:
    """A tokenizer that changed while the selection lay stopped makes no difference to the picks."""
    table, path = numbered_pool(60), tmp_path / "c.npz"
    config = SelectionConfig(
        strategy="zip", budget_tokens=900, num_shards=num_shards, k1=30, k2=6, k3=2
    )
    state = compression_state(table, "sft")
    larger = state.with_columns(pl.col("num_tokens") * 10)

    def stop(progress: Progress) -> None:
        if progress.num_picked >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select(table, state, "sft", config, checkpoint=path, progress=stop)
    resumed = select(table, larger, "sft", config, checkpoint=path)
    assert resumed.picks == select(table, larger, "sft", config).picks
    assert resumed.manifest["picked_tokens"] <= 900


def test_reference_selection_resumes_and_reports(tmp_path: Path) -> None:
    """The published algorithm has the same ledger, manifest and checkpoints."""
    records = [{"id": i, "text": f"{i * i} " * (i % 9 + 1), "source": "s"} for i in range(60)]
    provenance = pl.DataFrame({"sample_id": [f"{i:032x}" for i in range(60)], "source": ["s"] * 60})
    config = SelectionConfig(
        strategy="zip", budget_samples=18, reference_compat=True, k1=30, k2=5, k3=4
    )
    path = tmp_path / "checkpoint"
    expected = run_records(records, config).picks.tolist()

    def stop(progress: Progress) -> None:
        if progress.round == 4:
            raise KilledError

    with pytest.raises(KilledError):
        select_reference(records, config, provenance=provenance, checkpoint=path, progress=stop)
    assert path.exists()
    selection = select_reference(records, config, provenance=provenance, checkpoint=path)
    assert selection.picks == expected
    assert len(expected) == 20
    assert selection.manifest["num_picked"] == 20
    assert selection.manifest["unused_budget"] == 0
    assert selection.manifest["picked_bytes"] == sum(len(repr(records[i])) for i in expected)
    assert selection.ledger["rank"].drop_nulls().sort().to_list() == list(range(1, 21))
