"""Sharded greedy against selections written out one by one."""

from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.selection import shards
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.run import Checkpoint, Progress
from zip_pipeline.selection.select import Cluster, Selection, select, select_candidates
from zip_pipeline.selection.shards import ShardOutcome, ShardTask, select_shard, shard_of
from zip_pipeline_tests.selection.pools import numbered_pool

K = {"mixture": "none", "k1": 60, "k2": 20, "k3": 5}
CONFIG = SelectionConfig(strategy="long_range", budget_samples=30, num_shards=3, **K)


def select_sharded(pool: pl.DataFrame, config: SelectionConfig = CONFIG, **options) -> Selection:
    """Select from a pool table as from one that is on disk."""
    with TemporaryTexts.write([texts_of(pool, "sft")]) as texts:
        return select_candidates(Candidates(pool, texts), "sft", config, **options)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zip", "long_range"])
@pytest.mark.parametrize("unit", ["samples", "bytes", "tokens"])
def test_sharded_selection_is_greedy_in_shards_then_over_their_picks(
    strategy: str, unit: str
) -> None:
    """Each of three shards picks two thirds of the budget; the union is selected from anew.

    What is then left of the budget goes to whatever sample of the pool still fits.
    """
    pool = numbered_pool(200)
    budget = {"samples": 30, "bytes": 3000, "tokens": 900}[unit]
    share = {"samples": 20, "bytes": 2000, "tokens": 600}[unit]
    whole = SelectionConfig(strategy=strategy, num_shards=3, **K, **{f"budget_{unit}": budget})
    part = SelectionConfig(strategy=strategy, **K, **{f"budget_{unit}": share})
    shards = shard_of(pool["sample_id"], 3)
    union = []
    for number in range(3):
        rows = [row for row in range(200) if shards[row] == number]
        union += [rows[pick] for pick in select(pool[rows], None, "sft", part).picks]
    union.sort()
    merged = SelectionConfig(strategy=strategy, **K, **{f"budget_{unit}": budget})
    expected = [union[pick] for pick in select(pool[union], None, "sft", merged).picks]
    selection = select_sharded(pool, whole)
    assert len(expected) > 5
    assert selection.picks[: len(expected)] == expected
    assert len(selection.picks) - len(expected) <= (0 if unit == "samples" else 2)
    unused = selection.manifest["unused_budget"]
    left = selection.ledger.filter(pl.col("fate") != "picked")
    cost = {"samples": pl.lit(1), "bytes": pl.col("num_bytes"), "tokens": pl.col("num_tokens")}
    assert left.filter(cost[unit] <= unused).is_empty() or unused == 0


def test_shards_depend_on_the_ids_alone() -> None:
    """The order of the pool moves no sample to another shard, and shards are about equal."""
    ids = numbered_pool(3000)["sample_id"]
    shards = shard_of(ids, 4)
    assert shard_of(ids.reverse(), 4).tolist() == shards[::-1].tolist()
    sizes = [int((shards == number).sum()) for number in range(4)]
    assert sum(sizes) == 3000
    assert min(sizes) > 650


def test_ledger_of_a_sharded_selection_tells_shard_and_fate_of_every_sample() -> None:
    """What a shard picked and the merge did not was shortlisted; the rest has its shard's fate."""
    pool = numbered_pool(200)
    ledger = select_sharded(pool).ledger
    shards = shard_of(pool["sample_id"], 3)
    assert ledger["shard"].to_list() == shards.tolist()
    assert ledger.filter(pl.col("fate") == "picked").height == 30
    part = SelectionConfig(strategy="long_range", budget_samples=20, **K)
    rows = [row for row in range(200) if shards[row] == 1]
    alone = select(pool[rows], None, "sft", part).ledger
    inside = ledger.filter(pl.col("shard") == 1)
    in_union = alone["fate"] == "picked"
    assert set(inside.filter(in_union)["fate"]) == {"picked", "shortlisted"}
    same = ["sample_id", "fate", "round", "pi", "initial_pi"]
    assert inside.filter(~in_union).select(same).equals(alone.filter(~in_union).select(same))


def test_ledger_without_shards_has_none() -> None:
    """The column is there and empty."""
    config = SelectionConfig(budget_samples=3, **K)
    assert select_sharded(numbered_pool(50), config).ledger["shard"].null_count() == 50


def test_quotas_hold_over_all_shards() -> None:
    """A source's largest and least share are those of the whole budget."""
    quotas = {"a": (None, 0.1), "b": (0.6, None)}
    config = SelectionConfig(
        strategy="long_range", budget_samples=30, num_shards=3, quotas=quotas, **K
    )
    pool = numbered_pool(200)
    picked = pool[select_sharded(pool, config).picks]["source"].value_counts()
    counts = dict(picked.iter_rows())
    assert sum(counts.values()) == 30
    assert counts.get("a", 0) <= 3
    assert counts["b"] >= 18


@pytest.mark.parametrize("num_samples", [0, 1, 5])
def test_more_shards_than_samples_select_the_same_budget(num_samples: int) -> None:
    """Empty shards are no error, and a budget beyond the pool takes it whole."""
    config = SelectionConfig(strategy="long_range", budget_samples=8, num_shards=20, **K)
    assert len(select_sharded(numbered_pool(num_samples), config).picks) == num_samples


def test_random_pays_no_heed_to_shards() -> None:
    """Its order is that of the whole pool in any case."""
    pool = numbered_pool(60)
    configs = [SelectionConfig(strategy="random", budget_samples=9, num_shards=n) for n in (1, 4)]
    assert select_sharded(pool, configs[0]).picks == select_sharded(pool, configs[1]).picks


def test_a_killed_sharded_selection_goes_on_and_picks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished shards are not selected again; afterwards no file of the shards is left."""
    pool = numbered_pool(200)
    expected = select_sharded(pool).picks
    rounds: list[int] = []
    original = shards.run_selection

    def counting(*arguments, **options):
        run = original(*arguments, **options | {"progress": lambda p: rounds.append(p.round)})
        if len(rounds) > 6:
            raise KeyboardInterrupt
        return run

    path = tmp_path / "selection.npz"
    monkeypatch.setattr(shards, "run_selection", counting)
    with pytest.raises(KeyboardInterrupt):
        select_sharded(pool, checkpoint=path)
    assert [path.name[:4] for path in tmp_path.glob("*.shards")] == ["sft-"]
    first = len(rounds)
    monkeypatch.setattr(shards, "run_selection", original)
    seen: list[Progress] = []
    monkeypatch.setattr(
        shards, "_progress_writer", lambda _: lambda p: seen.append(p) if p.round else None
    )
    assert select_sharded(pool, checkpoint=path).picks == expected
    fresh: list[Progress] = []
    monkeypatch.setattr(shards, "_progress_writer", lambda _: fresh.append)
    select_sharded(pool)
    assert first > 6
    assert 0 < len(seen) < len(fresh)
    assert not list(tmp_path.iterdir())


def test_the_folder_of_the_shards_is_never_removed(tmp_path: Path) -> None:
    """What lies in the folder that a person names stays, and so does the folder itself."""
    mine = tmp_path / "shards" / "shard-0000" / "part-00000.parquet"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    select_sharded(numbered_pool(150), cluster=Cluster(folder=tmp_path / "shards"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "mine"


def test_selections_with_one_shard_folder_do_not_mix(tmp_path: Path) -> None:
    """Each of two selections that run at one time has shards of its own there."""
    cluster = Cluster(folder=tmp_path)
    expected = [select_sharded(numbered_pool(size)).picks for size in (150, 200)]
    inner: list[list[int]] = []

    def start_another(progress: Progress) -> None:
        if not inner:
            inner.append([])
            inner[0] = select_sharded(numbered_pool(200), cluster=cluster).picks

    outer = select_sharded(numbered_pool(150), cluster=cluster, progress=start_another).picks
    assert [outer, inner[0]] == expected
    assert not list(tmp_path.iterdir())


def test_a_selection_that_is_running_already_is_refused(tmp_path: Path) -> None:
    """The same selection twice at one time would write the same shards."""
    cluster = Cluster(folder=tmp_path)
    refused: list[str] = []

    def start_again(progress: Progress) -> None:
        if not refused:
            with pytest.raises(ValueError, match="running already; wait for its end") as caught:
                select_sharded(numbered_pool(150), cluster=cluster)
            refused.append(str(caught.value))

    select_sharded(numbered_pool(150), cluster=cluster, progress=start_again)
    assert len(refused) == 1


@pytest.mark.parametrize("damage", ["lost", "another's", "fewer"])
def test_shards_are_checked_when_they_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    """Files that are not those of the selection are an error, not other picks."""
    monkeypatch.setattr("zip_pipeline.compression.texts._PART_TEXTS", 20)

    def damaged(task: ShardTask) -> ShardOutcome:
        parts = sorted(task.folder.glob("part-*.parquet"))
        if damage == "another's":
            pl.read_parquet(parts[0]).write_parquet(parts[0])
        for path in {"lost": parts, "another's": [], "fewer": parts[1:2]}[damage]:
            path.unlink()
        return select_shard(task)

    monkeypatch.setattr(shards, "select_shard", damaged)
    with pytest.raises(ValueError, match=r"shard-0000: the files of this shard are lost, or an"):
        select_sharded(numbered_pool(150), cluster=Cluster(folder=tmp_path))


def test_progress_of_shards_is_told_in_budget_units() -> None:
    """The shards' phase counts up to what they may pick together, then the merge has its own."""
    seen: list[Progress] = []
    select_sharded(numbered_pool(200), progress=seen.append)
    phases = list(dict.fromkeys(progress.phase for progress in seen))
    assert phases[:2] == ["3 shards", "Merging"]
    assert {p.budget for p in seen if p.phase == "3 shards"} == {60}
    assert {p.budget for p in seen if p.phase == "Merging"} == {30}
    assert seen[-1].used == 30


def test_a_node_with_other_codecs_is_refused(tmp_path: Path) -> None:
    """Sizes from another build would make the picks depend on where they were measured."""
    task = ShardTask(2, tmp_path, CONFIG, "key", 1, (("zlib", "0.9"),))
    with pytest.raises(ValueError, match=r"shard 2: the codec libraries there .*'0.9'.*same vers"):
        select_shard(task)


def test_manifest_names_the_shards() -> None:
    """Number of shards and their budget are told; without shards nothing is."""
    manifest = select_sharded(numbered_pool(200)).manifest
    assert manifest["sharding"] == {"num_shards": 3, "shard_budget": 20}
    config = SelectionConfig(strategy="long_range", budget_samples=3, **K)
    assert select_sharded(numbered_pool(50), config).manifest["sharding"] is None


def test_checkpoint_of_a_merge_is_not_that_of_the_pool(tmp_path: Path) -> None:
    """A merge that was stopped goes on, though its arrays are shorter than the pool."""
    pool = numbered_pool(200)
    expected = select_sharded(pool).picks
    path = tmp_path / "selection.npz"

    def stop(progress: Progress) -> None:
        if progress.phase == "Merging" and progress.round == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select_sharded(pool, checkpoint=path, progress=stop)
    with TemporaryTexts.write([texts_of(pool.sort("sample_id"), "sft")]) as texts:
        stored = Checkpoint.of_texts(path, CONFIG, texts).load()
    assert stored is not None
    assert len(stored.pi) == 60
    assert select_sharded(pool, checkpoint=path).picks == expected
