"""Old batches in one partition: what the UI shows, and what is not ingested again."""

import os
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from zip_pipeline.defs.compaction import tidy_partitions
from zip_pipeline.defs.headless import run_graph
from zip_pipeline.ingest.ingest import batch_metadata
from zip_pipeline.pool.compaction import compact
from zip_pipeline.selection.config import stage_selection
from zip_pipeline.stored_batches import is_compacted
from zip_pipeline.workflow.versions import current_version
from zip_pipeline_tests.defs.graph import (
    QUIET,
    SMALL,
    Graph,
    alpaca_rows,
    checks_of,
    data_version_of,
    error_of,
    metadata_of,
)
from zip_pipeline_tests.defs.test_sensors import Ticks

_BATCHES = ["a.jsonl", "b.jsonl", "c.jsonl"]
_SELECTION = "[sft]\nbudget_samples = 5\nk1 = 20\nk2 = 6\nk3 = 3\n"


@pytest.fixture
def filled(graph: Graph) -> Graph:
    """Return the graph with three batches of sft, ingested in the order of their names."""
    return _fill(graph)


@pytest.fixture
def filled_on_disk(stored_graph: Graph) -> Graph:
    """Return the same with an instance on disk."""
    return _fill(stored_graph)


def _fill(graph: Graph) -> Graph:
    for number, batch in enumerate(_BATCHES):
        rows = [*alpaca_rows(5, first=5 * number), {"instruction": "Say it.", "output": ""}]
        graph.drop("sft", batch, rows)
        assert graph.ingest("sft", batch).success
        os.utime(graph.root["sft"].samples(batch), (number, number))
    return graph


def _fold(graph: Graph, keep_latest: int = 1) -> dg.ExecuteInProcessResult:
    """Run the job as the launchpad does."""
    ops = {"fold_batches": {"config": {"stage": "sft", "keep_latest": keep_latest}}}
    job = graph.repository.get_job("compact_batches")
    return job.execute_in_process(
        instance=graph.instance, run_config=QUIET | {"ops": ops}, raise_on_error=False
    )


def _partitions(graph: Graph) -> list[str]:
    return sorted(graph.instance.get_dynamic_partitions("sft_batches"))


def _latest(graph: Graph, name: str, batch: str) -> dg.AssetMaterialization:
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(["sft", name]), asset_partitions=[batch])
    (record,) = graph.instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization is not None
    return record.asset_materialization


def _data_version(graph: Graph, name: str, batch: str) -> str:
    return (_latest(graph, name, batch).tags or {})["dagster/data_version"]


def test_job_leaves_one_partition_for_all_that_it_folds(filled: Graph) -> None:
    """It has the counts, totals and data versions of what it holds; folded ones have none."""
    assert _fold(filled).success
    latest, compacted = _partitions(filled)
    assert (latest, is_compacted(compacted)) == ("c.jsonl", True)
    assert filled.root["sft"].batches() == ["c.jsonl", compacted]
    pool, state = (_latest(filled, n, compacted) for n in ("raw_pool", "compression_state"))
    names = ("num_rows_read", "num_samples", "num_quarantined", "num_duplicates")
    assert [pool.metadata[name].value for name in names] == [12, 10, 2, 0]
    assert pool.metadata["dagster/row_count"].value == 10
    assert "empty_final_assistant" in str(pool.metadata["quarantine_reasons"].value)
    content = batch_metadata(filled.root["sft"], compacted)["fingerprint"]
    assert _data_version(filled, "raw_pool", compacted) == content
    assert pool.metadata["pool_fingerprint"] == state.metadata["pool_fingerprint"]
    parts = [_latest(filled, "compression_state", batch) for batch in _BATCHES[:2]]
    num_bytes = [part.metadata["num_bytes"].value for part in (*parts, state)]
    assert num_bytes[2] == num_bytes[0] + num_bytes[1] > 0


def _status(graph: Graph, name: str, batch: str | None = None) -> StaleStatus:
    """Return what the UI shows of an asset or one of its partitions."""
    context = LoadingContextForTest(graph.instance)
    resolver = CachingStaleStatusResolver(graph.instance, graph.repository.asset_graph, context)
    return resolver.get_status(dg.AssetKey(["sft", name]), batch)


def test_partition_of_a_compacted_batch_is_fresh(filled: Graph) -> None:
    """The UI shows neither of its assets as stale."""
    assert _fold(filled).success
    compacted = _partitions(filled)[1]
    for name in ("raw_pool", "compression_state"):
        assert _status(filled, name, compacted) == StaleStatus.FRESH


def test_no_version_follows_a_compaction(filled: Graph) -> None:
    """The pool counts as unchanged, and a selection that is forced picks the same samples.

    The subset is shown as stale until it is materialised again.
    """
    first = filled.select("sft")
    (filled.path / "zip_pipeline.toml").write_text(_SELECTION)
    assert _fold(filled).success
    assert current_version(filled.root["sft"], stage_selection(filled.path, "sft")) == 1
    assert _status(filled, "zip_subset") == StaleStatus.STALE
    assert metadata_of(filled.select("sft"), "sft", "zip_subset")["reused"] is True
    assert _status(filled, "zip_subset") == StaleStatus.FRESH
    forced = filled.select("sft", SMALL | {"k1": 19})
    assert metadata_of(forced, "sft", "zip_subset")["version"] == 2
    versions = [data_version_of(result, "sft", "zip_subset") for result in (first, forced)]
    assert versions[0] == versions[1]
    assert checks_of(forced)["within_budget"]
    manifests = [filled.root["sft"].versions.manifest(number) for number in (1, 2)]
    assert manifests[0]["inputs"] == manifests[1]["inputs"]


def test_folded_drops_are_not_ingested_again(filled_on_disk: Graph) -> None:
    """A sensor without memory asks for none of them; for one that changed it asks."""
    assert _fold(filled_on_disk, keep_latest=0).success
    ticks = Ticks(filled_on_disk)
    assert [ticks.batches() for _ in range(3)] == [[], [], []]
    filled_on_disk.drop("sft", "b.jsonl", alpaca_rows(7, first=50))
    assert [ticks.batches(), ticks.batches()] == [[], ["b.jsonl"]]
    assert filled_on_disk.ingest("sft", "b.jsonl").success
    compacted = filled_on_disk.root["sft"].batches()[1]
    assert _partitions(filled_on_disk) == ["b.jsonl", compacted]
    assert batch_metadata(filled_on_disk.root["sft"], "b.jsonl")["num_samples"] == "7"
    tidy_partitions(filled_on_disk.instance, filled_on_disk.root, "sft")
    assert _partitions(filled_on_disk) == ["b.jsonl", compacted]


def test_folding_again_replaces_the_earlier_partition(filled: Graph) -> None:
    """The partition of the compacted batch that is stored is left, told once."""
    assert _fold(filled).success
    (first,) = filter(is_compacted, _partitions(filled))
    assert _fold(filled, keep_latest=0).success
    (second,) = _partitions(filled)
    assert first != second
    assert _fold(filled, keep_latest=0).success
    assert _partitions(filled) == [second]
    assert filled.num_materializations("sft", "raw_pool", second) == 1
    result = filled.ingest("sft", first)
    assert not result.success
    assert "in another compacted batch by now, so delete its partition" in error_of(result)
    tidy_partitions(filled.instance, filled.root, "sft")
    assert _partitions(filled) == [second]


def test_partition_of_a_compacted_batch_can_be_materialised_again(filled: Graph) -> None:
    """It describes what is stored and computes the states anew; checks and data versions hold."""
    assert _fold(filled).success
    compacted = _partitions(filled)[1]
    names = ("raw_pool", "compression_state")
    before = [_data_version(filled, name, compacted) for name in names]
    result = filled.ingest("sft", compacted)
    assert [metadata_of(result, "sft", name)["num_samples"] for name in names] == [10, 10]
    assert [data_version_of(result, "sft", name) for name in names] == before
    assert checks_of(result) == {
        "rejected_share": False,
        "duplicate_share": True,
        "covers_every_sample": True,
    }
    assert filled.root["sft"].batches() == ["c.jsonl", compacted]


def test_partition_with_an_unfinished_run_stays(filled: Graph) -> None:
    """A folded batch with a run at work keeps its partition until that has ended."""
    run = filled.instance.create_run_for_job(
        filled.repository.get_job("ingest_sft"),
        tags={"dagster/partition": "b.jsonl"},
        status=dg.DagsterRunStatus.STARTED,
    )
    assert _fold(filled, keep_latest=0).success
    assert _partitions(filled)[0] == "b.jsonl"
    filled.instance.report_run_canceled(run)
    tidy_partitions(filled.instance, filled.root, "sft")
    assert len(_partitions(filled)) == 1


@pytest.mark.slow
def test_headless_run_follows_a_compaction_from_the_command_line(
    filled_on_disk: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Partitions are set right and nothing is ingested or selected again but a changed drop."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "instance"))
    (filled_on_disk.path / "zip_pipeline.toml").write_text(_SELECTION)
    assert run_graph(filled_on_disk.path, tmp_path, until="subset").failures == []
    compact(filled_on_disk.root["sft"], keep_latest=1)
    assert _partitions(filled_on_disk) == _BATCHES
    assert run_graph(filled_on_disk.path, tmp_path, until="subset").failures == []
    compacted = filled_on_disk.root["sft"].batches()[1]
    assert _partitions(filled_on_disk) == ["c.jsonl", compacted]
    assert [filled_on_disk.num_materializations("sft", "raw_pool", b) for b in _BATCHES] == [1] * 3
    assert filled_on_disk.root["sft"].versions.numbers() == [1]
    filled_on_disk.drop("sft", "b.jsonl", alpaca_rows(9, first=70))
    assert run_graph(filled_on_disk.path, tmp_path, until="subset").failures == []
    assert _partitions(filled_on_disk) == ["b.jsonl", "c.jsonl", compacted]
    assert filled_on_disk.num_materializations("sft", "raw_pool", "b.jsonl") == 2
    assert filled_on_disk.root["sft"].versions.numbers() == [1, 2]


def test_headless_run_reports_a_damaged_compacted_batch(
    filled_on_disk: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It goes on with the other stage and says what is wrong."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "instance"))
    result = compact(filled_on_disk.root["sft"], keep_latest=1)
    assert result is not None
    filled_on_disk.root["sft"].quarantine(result.stored).unlink()
    failures = run_graph(filled_on_disk.path, tmp_path, until="subset").failures
    assert any(f"remove what is left of '{result.stored}'" in line for line in failures)


def test_job_needs_no_configuration(graph: Graph) -> None:
    """As the launchpad opens, it folds the batches of both stages but the latest 50."""
    graph.drop("sft", "a.jsonl", alpaca_rows(2))
    assert graph.ingest("sft", "a.jsonl").success
    job = graph.repository.get_job("compact_batches")
    assert job.execute_in_process(instance=graph.instance, run_config=QUIET).success
    assert _partitions(graph) == ["a.jsonl"]


def test_schedule_of_the_job_waits_to_be_switched_on(graph: Graph) -> None:
    """Once a week, but only where somebody wants it."""
    schedule = graph.repository.get_schedule_def("compact_batches")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert (schedule.cron_schedule, schedule.job_name) == ("0 4 * * 0", "compact_batches")
