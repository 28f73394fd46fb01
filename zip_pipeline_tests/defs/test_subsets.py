"""The subset: one immutable version per change of pool or configuration."""

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zip_pipeline.data_root import SECONDS_PER_WEEK, DataRoot
from zip_pipeline.defs.resources import RayClusterResource
from zip_pipeline.pool import pool
from zip_pipeline.pool.pool import SelectionPool
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.run import Progress
from zip_pipeline.selection.select import Cluster
from zip_pipeline.workflow import versions
from zip_pipeline.workflow.sharing import share
from zip_pipeline.workflow.versions import _ProgressLog, read_version, select_version
from zip_pipeline_tests.defs.graph import (
    SMALL,
    Graph,
    alpaca_rows,
    checks_of,
    data_version_of,
    error_of,
    metadata_of,
)
from zip_pipeline_tests.pool.pools import store, store_pool
from zip_pipeline_tests.workflow.writers import differing, drop, new_root, night, rows

NUM_BATCHES = 4


def _files(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _ingest(graph: Graph, name: str, num_rows: int, first: int = 0) -> None:
    graph.drop("sft", name, alpaca_rows(num_rows, first))
    assert graph.ingest("sft", name).success


def test_changing_one_of_many_batches_recomputes_one_partition_of_two_assets(
    graph: Graph,
) -> None:
    """One of four batches changes: its two partitions and the subset follow, nothing else; the
    old version stays byte for byte.
    """
    names = [f"batch{number}.jsonl" for number in range(NUM_BATCHES)]
    for number, name in enumerate(names):
        _ingest(graph, name, 3, first=10 * number)
    first = graph.select("sft")
    old_files = _files(graph.root["sft"].versions.path(1))
    assert len(old_files) == 4

    graph.drop("sft", names[1], alpaca_rows(4, first=10))
    assert graph.ingest("sft", names[1]).success
    second = graph.select("sft")

    for asset in ("raw_pool", "compression_state"):
        counts = [graph.num_materializations("sft", asset, name) for name in names]
        assert counts == [1, 2, 1, 1]
        assert graph.num_materializations("sft", asset) == NUM_BATCHES + 1
    assert metadata_of(first, "sft", "zip_subset")["version"] == 1
    metadata = metadata_of(second, "sft", "zip_subset")
    assert (metadata["version"], metadata["reused"], metadata["num_samples"]) == (2, False, 13)
    assert graph.root["sft"].versions.numbers() == [1, 2]
    assert _files(graph.root["sft"].versions.path(1)) == old_files


def test_unchanged_pool_and_configuration_reuse_the_version(graph: Graph) -> None:
    """Materialising again writes no twin; another configuration writes a new version."""
    _ingest(graph, "a.jsonl", 12)
    first, again = graph.select("sft"), graph.select("sft")
    other = graph.select("sft", {**SMALL, "strategy": "random", "seed": 3})
    described = [metadata_of(result, "sft", "zip_subset") for result in (first, again, other)]
    assert [(m["version"], m["reused"]) for m in described] == [(1, False), (1, True), (2, False)]
    assert graph.root["sft"].versions.numbers() == [1, 2]
    versions = [data_version_of(result, "sft", "zip_subset") for result in (first, again, other)]
    assert versions[0] == versions[1]
    assert versions[1] != versions[2]


def test_equal_picks_keep_the_data_version(graph: Graph) -> None:
    """Another configuration that picks the same samples is a new version of equal content."""
    _ingest(graph, "a.jsonl", 4)
    everything = [
        graph.select("sft", {**SMALL, "budget_samples": budget, "k3": 1}) for budget in (4, 5)
    ]
    assert [metadata_of(r, "sft", "zip_subset")["version"] for r in everything] == [1, 2]
    assert len({data_version_of(result, "sft", "zip_subset") for result in everything}) == 1


@pytest.mark.usefixtures("real_figures")
def test_version_metadata_tells_counts_ratios_sources_and_plot(graph: Graph) -> None:
    """What the UI shows: counts, R before and after, budget, sources, a picture, the schema."""
    _ingest(graph, "a.jsonl", 12)
    _ingest(graph, "b.jsonl", 12, first=8)
    metadata = metadata_of(graph.select("sft"), "sft", "zip_subset")
    counts = ("num_rows_read", "num_samples", "num_quarantined", "num_duplicates", "num_picked")
    assert [metadata[name] for name in counts] == [24, 20, 0, 4, 5]
    names = list(metadata)
    assert names[:3] == ["summary", "version", "reused"]
    assert names[-5:-2] == ["settings", "column_schema", "dagster/row_count"]
    assert metadata["summary"].startswith("Version 1: 5 of 20 samples by zip; R ")
    assert (metadata["budget"], metadata["unused_budget"]) == ("5 samples", 0)
    assert metadata["dagster/row_count"] == 5
    subset = pl.read_parquet(graph.root["sft"].versions.path(1) / "subset.parquet")
    assert subset["rank"].to_list() == [1, 2, 3, 4, 5]
    assert metadata["picked_tokens"] > 0
    assert metadata["picked_bytes"] > 0
    assert metadata["pool_compression_ratio_zstd"] > metadata["subset_compression_ratio_zstd"] > 1
    assert "| source" in metadata["top_sources"]
    assert metadata["plot"].startswith("![sft version 1: zip](data:image/png;base64,iVBOR")
    assert "| duplicate | 4 |" in metadata["fates"]
    assert '"k1": 20' in metadata["settings"]


def test_subset_of_an_empty_pool_fails_with_the_remedy(graph: Graph) -> None:
    """Without any batch the error says where to drop a file."""
    result = graph.select("sft")
    assert not result.success
    assert f"{graph.root['sft'].raw}: no batch of stage sft is ingested; drop" in error_of(result)


MOMENTS = {
    "before the pool is opened": (versions, "remove_leftovers"),
    "before a batch is linked": (pool, "check_table"),
    "after a batch is linked": (pool, "_link"),
    "before the first round": (versions, "select_candidates"),
    "during the rounds": (_ProgressLog, "__call__"),
    "before the version is written": (SelectionPool, "picked_rows"),
}


@pytest.mark.parametrize("what", ["", "d.jsonl.parquet"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_pool_that_goes_while_it_is_selected_from_is_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, what: str
) -> None:
    """Whenever the folder or one table is removed, the error names a batch that is gone."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    place, name = MOMENTS[moment]
    do, path = getattr(place, name), root.path / "pool" / "sft" / what

    def remove_and_do(*arguments: Any, **options: Any) -> Any:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return do(*arguments, **options)

    monkeypatch.setattr(place, name, remove_and_do)
    config = SelectionConfig(strategy="zip", budget_samples=5, k1=20, k2=6, k3=3)
    with pytest.raises(ValueError, match=r"pool/sft.*'.*jsonl'"):
        select_version(root["sft"], config, lambda _: None)
    assert not path.exists()
    assert root["sft"].versions.numbers() == []


def test_data_that_goes_before_the_pool_is_opened_is_no_empty_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a trace of what was there, the error is that of an empty pool."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    monkeypatch.setattr(versions, "remove_leftovers", lambda root: shutil.rmtree(root.path))
    config = SelectionConfig(strategy="zip", budget_samples=5, k1=20, k2=6, k3=3)
    with pytest.raises(ValueError, match="no batch of stage sft is ingested; drop a file there"):
        select_version(root["sft"], config, lambda _: None)


def test_a_drop_that_comes_meanwhile_is_in_the_next_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version is one of the pool as it was opened, and tells so by its inputs."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    before = versions.pool_inputs(root["sft"])
    picked_rows = SelectionPool.picked_rows

    def come_and_pick(*arguments: Any) -> pl.DataFrame:
        store(root["sft"], "d.jsonl", [70, 71])
        store(root["sft"], "late.jsonl", [80, 81])
        return picked_rows(*arguments)

    monkeypatch.setattr(SelectionPool, "picked_rows", come_and_pick)
    config = SelectionConfig(strategy="zip", budget_samples=5, k1=20, k2=6, k3=3)
    number = select_version(root["sft"], config, lambda _: None)
    version = read_version(root["sft"], number)
    assert version.manifest["inputs"] == before
    # 20 samples, and 4 that repeat one of another batch.
    assert version.ledger.height == 24
    after = versions.pool_inputs(root["sft"])
    assert sorted(after) == sorted([*before, "late.jsonl"])
    assert after["d.jsonl"] != before["d.jsonl"]


def test_subset_without_a_compression_state_fails_with_the_remedy(graph: Graph) -> None:
    """A batch that lacks its state is named, with what to materialise."""
    _ingest(graph, "a.jsonl", 5)
    graph.root["sft"].state("a.jsonl").unlink()
    result = graph.select("sft")
    assert not result.success
    assert "materialise sft/compression_state" in error_of(result)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"k1": 0}, "k1: got 0; allowed are whole numbers, 1 and up"),
        ({"num_shards": 1001}, "num_shards: got 1001; allowed are whole numbers, 1 to 1000"),
        ({"budget_bytes": 7}, "budget: got budget_samples, budget_bytes; give exactly one"),
        ({"budget_samples": 0}, "budget_samples: got 0; allowed are whole numbers, 1 to"),
        ({"budget_samples": "0%"}, "budget_samples: got '0%'; allowed are whole numbers, 1 to"),
        (
            {"quotas": {"a": {"max_share": 2}}},
            "quotas: of source 'a': got minimum None and maximum",
        ),
        ({"k3": 9}, "k1, k2, k3: got 20, 6, 9; needed is k1 >= k2 >= k3"),
        ({"level": 12}, "level: got 12; codec 'deflate' allows 1 to 9"),
    ],
)
def test_launchpad_values_out_of_range_fail_with_a_readable_error(
    graph: Graph, config: dict[str, object], message: str
) -> None:
    """A wrong value fails the run before any work, naming the field and what is allowed."""
    _ingest(graph, "a.jsonl", 3)
    result = graph.select("sft", SMALL | config)
    assert not result.success
    (event,) = [event for event in result.all_node_events if event.is_step_failure]
    failure = event.step_failure_data
    # What the UI shows first: no error of the framework, of which this one would be the cause.
    assert failure.user_failure_data.description.startswith(message)
    assert failure.error.message.startswith("dagster._core.definitions.events.Failure: " + message)
    assert failure.error.cause is None
    assert graph.root["sft"].versions.numbers() == []


def test_checkpoints_are_gone_after_a_selection(graph: Graph) -> None:
    """A finished selection leaves no unfinished one behind."""
    _ingest(graph, "a.jsonl", 30)
    config = {**SMALL, "budget_samples": 20, "k3": 1}
    assert checks_of(graph.select("sft", config))["within_budget"]
    assert _files(graph.root["sft"].checkpoints) == {}


def test_a_selection_clears_what_one_left_that_was_killed_long_ago(graph: Graph) -> None:
    """The texts of a large pool are gigabytes; those of a selection at work stay."""
    _ingest(graph, "a.jsonl", 8)
    graph.root.cache.mkdir(exist_ok=True)
    killed, at_work = (graph.root.cache / f".tmp-texts-{name}" for name in ("old", "new"))
    killed.touch()
    at_work.touch()
    long_ago = time.time() - SECONDS_PER_WEEK - 1
    os.utime(killed, (long_ago, long_ago))
    assert graph.select("sft").success
    assert list(graph.root.cache.iterdir()) == [at_work]


def test_progress_is_logged_every_few_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rounds that follow in quick succession only the first is logged, and an estimate."""
    clock = iter([100.0, 101.0, 109.9, 110.0, 111.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    lines: list[str] = []
    log = _ProgressLog(lines.append)
    for number in range(1, 5):
        log(Progress(number, 100 * number, 1000 * number, 9000, "tokens", 1.5))
    assert lines == [
        "Selecting: round 1, 100 picked, 1,000 of 9,000 tokens in 2 s",
        "Selecting: round 4, 400 picked, 4,000 of 9,000 tokens in 2 s",
    ]
    log(Progress(5, 1, 1, 9, "tokens", 2.0, remaining_seconds=70.0, is_estimate=True))
    assert lines[2:] == ["Selecting: estimated time about 70 s"]


def test_a_wrong_selection_file_stops_selections_and_not_ingestion(graph: Graph) -> None:
    """The graph loads and ingests; the subset fails with the file's name until it is mended."""
    file = graph.path / "zip_pipeline.toml"
    file.write_text("[sft]\nbudget_token = 50\n")
    _ingest(graph, "a.jsonl", 12)
    result = graph.select("sft")
    assert not result.success
    assert "zip_pipeline.toml: [sft] budget_token: unknown; allowed are" in error_of(result)
    assert graph.root["sft"].versions.numbers() == []
    file.unlink()
    assert graph.select("sft").success


def test_a_subset_in_shards_has_the_picks_of_its_shards(graph: Graph) -> None:
    """``num_shards`` is a tunable; the version tells the shard of each sample and goes through."""
    _ingest(graph, "batch.jsonl", 60)
    result = graph.select("sft", SMALL | {"num_shards": 3})
    assert metadata_of(result, "sft", "zip_subset")["num_picked"] == 5
    version = read_version(graph.root["sft"], 1)
    assert version.manifest["sharding"] == {"num_shards": 3, "shard_budget": 4}
    assert set(version.ledger["shard"]) == {0, 1, 2}
    assert not [path for path in graph.root["sft"].checkpoints.iterdir() if path.is_dir()]


def test_the_ray_cluster_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address and shared folder of the shards; without them shards are done in the run."""
    monkeypatch.delenv("ZIP_PIPELINE_RAY", raising=False)
    monkeypatch.delenv("ZIP_PIPELINE_SHARDS", raising=False)
    assert RayClusterResource.from_environment().cluster == Cluster(None, None)
    monkeypatch.setenv("ZIP_PIPELINE_RAY", "10.0.0.1:6379")
    monkeypatch.setenv("ZIP_PIPELINE_SHARDS", "/shared/shards")
    cluster = RayClusterResource.from_environment().cluster
    assert cluster == Cluster("10.0.0.1:6379", Path("/shared/shards"))


def test_the_graph_publishes_what_it_makes_and_takes_in_what_others_did(
    graph: Graph, tmp_path: Path
) -> None:
    """A batch once it is measured, a version once it is selected; the same is not selected anew."""
    (tmp_path / "store").mkdir()
    url = f"file://{tmp_path}/store"
    other = new_root(tmp_path / "other", url)
    settings = (other.path / "zip_pipeline.toml").read_text()
    (graph.path / "zip_pipeline.toml").write_text(settings)
    _ingest(graph, "a.jsonl", 12)
    share(other)
    assert other["sft"].batches() == ["a.jsonl"]
    assert graph.select("sft").success
    share(other)
    assert differing(other, graph.root) == []
    drop(other, "b.jsonl", rows(9))
    config = SelectionConfig(**{name: value for name, value in SMALL.items() if value is not None})
    assert night(other, config) == 2
    found = metadata_of(graph.select("sft"), "sft", "zip_subset")
    assert (found["version"], found["reused"]) == (2, True)
    assert differing(other, graph.root) == []
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    failed = graph.select("sft")
    assert not failed.success
    assert f"{url}: there is no such folder; make it, or correct the address" in error_of(failed)


def test_a_conflict_over_a_batch_stops_only_what_rests_on_it(graph: Graph, tmp_path: Path) -> None:
    """Its own ingestion and the selections of its stage; other drops come in, and are shared."""
    (tmp_path / "store").mkdir()
    other = new_root(tmp_path / "other", f"file://{tmp_path}/store")
    settings = (other.path / "zip_pipeline.toml").read_text()
    _ingest(graph, "a.jsonl", 12)
    drop(other, "a.jsonl", rows(9))
    (graph.path / "zip_pipeline.toml").write_text(settings)
    for result in (graph.ingest("sft", "a.jsonl"), graph.select("sft")):
        assert not result.success
        assert "a.jsonl' of sft was given another content" in error_of(result)
    _ingest(graph, "b.jsonl", 5)
    share(other)
    assert other["sft"].batches() == ["a.jsonl", "b.jsonl"]


def test_a_drop_replaces_what_others_have_published_before_it(graph: Graph, tmp_path: Path) -> None:
    """It is newer: the graph takes in what there is before it reads it."""
    (tmp_path / "store").mkdir()
    other = new_root(tmp_path / "other", f"file://{tmp_path}/store")
    (graph.path / "zip_pipeline.toml").write_text((other.path / "zip_pipeline.toml").read_text())
    drop(other, "a.jsonl", rows(9))
    _ingest(graph, "a.jsonl", 12)
    share(other)
    assert differing(other, graph.root) == []
