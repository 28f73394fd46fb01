"""Partition keys of old drops are archived, so that the UI goes on telling what is stale."""

import os
from contextlib import nullcontext
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions import data_version
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.execution.context import data_version_cache
from dagster._core.loader import LoadingContextForTest

from zip_pipeline.defs import drops, headless
from zip_pipeline.defs.drops import keys_to_archive
from zip_pipeline.defs.headless import run_graph
from zip_pipeline_tests.defs.graph import Graph, alpaca_rows
from zip_pipeline_tests.defs.test_sensors import Ticks
from zip_pipeline_tests.folded_batches import fold

pytestmark = pytest.mark.slow

_BATCHES = ["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"]


@pytest.fixture
def filled(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """Return the graph with four batches, where two keys stay and the UI watches at most three."""
    return _fill(graph, monkeypatch)


@pytest.fixture
def stored(stored_graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """Return the same with its instance on disk, as ticks of a sensor need it."""
    return _fill(stored_graph, monkeypatch)


def _fill(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.setattr(drops, "NUM_KEYS", 2)
    for module in (data_version, data_version_cache):
        monkeypatch.setattr(module, "SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD", 4)
    for number, batch in enumerate(_BATCHES):
        graph.drop("sft", batch, alpaca_rows(5, first=5 * number))
        assert graph.ingest("sft", batch).success
        os.utime(graph.root["sft"].samples(batch), (number, number))
    return graph


def _keys(graph: Graph) -> list[str]:
    return sorted(graph.instance.get_dynamic_partitions("sft_batches"))


def _archive(graph: Graph, ticks: Ticks) -> list[str]:
    """Tick once, do what the daemon does with its result; return the drops that are asked for."""
    result = ticks.tick()
    for change in result.dynamic_partitions_requests or []:
        if isinstance(change, dg.DeleteDynamicPartitionsRequest):
            for key in change.partition_keys:
                graph.instance.delete_dynamic_partition("sft_batches", key)
    return [request.partition_key or "" for request in result.run_requests or []]


def _status(graph: Graph) -> StaleStatus:
    """Return what the UI shows of the subset."""
    context = LoadingContextForTest(graph.instance)
    resolver = CachingStaleStatusResolver(graph.instance, graph.repository.asset_graph, context)
    return resolver.get_status(dg.AssetKey(["sft", "zip_subset"]))


def test_subset_is_shown_as_stale_with_any_number_of_drops(stored: Graph) -> None:
    """After a new drop, and after an archived one that comes again; not without such a reason."""
    ticks = Ticks(stored)
    assert stored.select("sft").success
    stored.drop("sft", "e.jsonl", alpaca_rows(5, first=50))
    assert stored.ingest("sft", "e.jsonl").success
    assert _status(stored) == StaleStatus.FRESH, "too many keys: the UI tells nothing"
    assert _archive(stored, ticks) == []
    assert _keys(stored) == ["d.jsonl", "e.jsonl"]
    assert _status(stored) == StaleStatus.STALE
    assert stored.select("sft").success
    assert _status(stored) == StaleStatus.FRESH
    stored.drop("sft", "a.jsonl", alpaca_rows(6, first=70))
    assert [_archive(stored, ticks), _archive(stored, ticks)] == [[], ["a.jsonl"]]
    assert stored.ingest("sft", "a.jsonl").success
    assert _status(stored) == StaleStatus.STALE
    assert stored.select("sft").success
    _archive(stored, ticks)
    assert (_keys(stored), _status(stored)) == (["a.jsonl", "e.jsonl"], StaleStatus.FRESH)


def test_archived_drops_are_not_ingested_again(stored: Graph) -> None:
    """A sensor without memory asks for none of them."""
    assert keys_to_archive(stored.instance, stored.root["sft"]) == ["a.jsonl", "b.jsonl"]
    ticks = Ticks(stored)
    assert [_archive(stored, ticks) for _ in range(3)] == [[], [], []]
    assert _keys(stored) == ["c.jsonl", "d.jsonl"]


def test_unfolded_drops_are_not_ingested_again(stored: Graph) -> None:
    """History knows the batches that an earlier release folded by their names."""
    fold(stored.root["sft"], ["a.jsonl", "b.jsonl"])
    for key in ("a.jsonl", "b.jsonl"):
        stored.instance.delete_dynamic_partition("sft_batches", key)
    ticks = Ticks(stored)
    assert [ticks.batches() for _ in range(3)] == [[], [], []]
    assert stored.root["sft"].batches() == _BATCHES


def test_key_with_work_ahead_stays(filled: Graph) -> None:
    """A run that has not ended keeps its own, a backfill all."""
    run = filled.instance.create_run_for_job(
        filled.repository.get_job("ingest_sft"),
        tags={"dagster/partition": "b.jsonl"},
        status=dg.DagsterRunStatus.STARTED,
    )
    assert keys_to_archive(filled.instance, filled.root["sft"]) == ["a.jsonl"]
    filled.instance.report_run_canceled(run)
    assert keys_to_archive(filled.instance, filled.root["sft"]) == ["a.jsonl", "b.jsonl"]
    filled.instance.add_backfill(
        PartitionBackfill("backfill", BulkActionStatus.REQUESTED, False, {}, 0.0)
    )
    assert keys_to_archive(filled.instance, filled.root["sft"]) == []


def test_key_of_a_drop_that_is_not_ingested_stays(filled: Graph) -> None:
    """Its run is yet to come, or failed and is tried again."""
    filled.instance.add_dynamic_partitions("sft_batches", ["0.jsonl"])
    assert keys_to_archive(filled.instance, filled.root["sft"]) == ["a.jsonl", "b.jsonl"]


def test_headless_run_archives_keys(
    filled: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It ingests no archived drop again, and one that changed gets its key back."""
    monkeypatch.setattr(headless, "open_instance", lambda _: nullcontext(filled.instance))
    selection = "[sft]\nbudget_samples = 5\nk1 = 20\nk2 = 6\nk3 = 3\n"
    (filled.path / "selection.toml").write_text(selection)
    for _ in range(2):
        assert run_graph(filled.path, tmp_path, until="subset").failures == []
        assert _keys(filled) == ["c.jsonl", "d.jsonl"]
    assert [filled.num_materializations("sft", "raw_pool", b) for b in _BATCHES] == [1] * 4
    assert filled.root["sft"].versions.numbers() == [1]
    filled.drop("sft", "b.jsonl", alpaca_rows(9, first=70))
    assert run_graph(filled.path, tmp_path, until="subset").failures == []
    assert _keys(filled) == ["b.jsonl", "d.jsonl"]
    assert filled.num_materializations("sft", "raw_pool", "b.jsonl") == 2
    assert filled.root["sft"].versions.numbers() == [1, 2]


def test_fewer_keys_stay_than_the_ui_watches() -> None:
    """Dagster 1.13.27 skips an edge from 100 keys on."""
    threshold = data_version.SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD
    assert (drops.NUM_KEYS, threshold) == (50, 100), dg.__version__
