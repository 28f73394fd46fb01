"""The comparison in the graph: each strategy and seed alone, and nothing by itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import dagster as dg
import pytest

from zip_pipeline.defs import comparison as module
from zip_pipeline.defs.comparison import comparison_key
from zip_pipeline.samples import STAGES
from zip_pipeline.workflow import comparison as workflow
from zip_pipeline_tests.defs.graph import QUIET, Graph, error_of, metadata_of
from zip_pipeline_tests.workflow.comparisons import Processes, pair_pool, pool

_BUDGET = "\n[{table}]\nbudget_tokens = 1000\nseeds = 2\nstrategies = ['random']\n"
_NAMES = ("subset", "model", "result")
SUBSET, MODEL, RESULT = (comparison_key("sft", name) for name in _NAMES)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Return what stands for the processes, whatever their context, and draw no figure."""
    found = Processes({"random": 1.5})

    def run(_: object, name: str, jobs: Mapping[Path, Mapping[str, Any]]) -> None:
        found(name, jobs)

    monkeypatch.setattr(module, "run_modules", run)
    for name in ("comparison_figure", "law_figure"):
        quick = create_autospec(getattr(workflow, name), return_value=(b"\x89PNG", b"<svg/>"))
        monkeypatch.setattr(workflow, name, quick)
    return found


@pytest.fixture
def graph_with_pool(tmp_path: Path) -> Graph:
    """Return the graph over an ingested pool."""
    pool(tmp_path / "data")
    with (tmp_path / "data" / "zip_pipeline.toml").open("a") as file:
        file.write(_BUDGET.format(table="comparison"))
    return Graph(dg.DagsterInstance.ephemeral(), tmp_path / "data")


def _run(graph: Graph, *keys: dg.AssetKey, partition: str = "") -> dg.ExecuteInProcessResult:
    strategy, _, seed = partition.partition("|")
    key = dg.MultiPartitionKey({"strategy": strategy, "seed": seed}) if partition else None
    job = graph.repository.get_job("__ASSET_JOB")
    return job.execute_in_process(
        instance=graph.instance,
        run_config=QUIET,
        asset_selection=list(keys),
        partition_key=key,
        raise_on_error=False,
    )


def test_one_partition_is_materialised_alone(graph_with_pool: Graph, processes: Processes) -> None:
    """One strategy and seed is selected and trained, and nothing else; its figures are shown."""
    result = _run(graph_with_pool, SUBSET, MODEL, partition="long_range|1")
    assert metadata_of(result, "comparison", "subset")["picked_tokens"] <= 1_000
    shown = metadata_of(result, "comparison", "model")
    assert (shown["strategy"], shown["seed"], shown["unseen_loss"]) == ("long_range", 1, 3.0)
    assert len(processes.done) == 5
    runs = [path.name for path in graph_with_pool.root.comparisons.glob("*/runs/*")]
    assert runs == ["long_range-1"]
    # Once more, or the model without its subset: what is done is not done again.
    assert _run(graph_with_pool, MODEL, partition="long_range|1").success
    assert len(processes.done) == 5


def test_result_shows_sentence_table_and_figure(
    graph_with_pool: Graph, processes: Processes
) -> None:
    """What has not run is told, and the figure stands in place."""
    failed = _run(graph_with_pool, RESULT)
    assert "Materialise partitions of the comparison's model, or run" in error_of(failed)
    for partition in ("random|0", "random|1", "random+natural|0", "random+natural|1"):
        assert _run(graph_with_pool, MODEL, partition=partition).success
    shown = metadata_of(_run(graph_with_pool, RESULT), "comparison", "result")
    assert shown["conclusion"].startswith("On your pool, random beats source-balanced random by")
    assert list(shown)[:3] == ["conclusion", "losses", "figures"]
    assert shown["settings"].startswith('[sft]\nstrategy = "random"\nbudget_tokens = ')
    assert "| random | 2 |" in shown["losses"]
    assert all("data:image/png;base64," in shown[f"plot_{n}"] for n in ("comparison", "law"))
    assert "| strategy | tokens | targets | samples | mean tokens | Q |" in shown["figures"]
    assert shown["skipped"] == "none"
    assert len(processes.done) == 20


def test_pairs_are_compared_in_assets_of_their_own(tmp_path: Path, processes: Processes) -> None:
    """One partition from the pool of pairs to the result, trained by KTO."""
    pair_pool(tmp_path / "data")
    with (tmp_path / "data" / "zip_pipeline.toml").open("a") as file:
        file.write(_BUDGET.format(table="preference_comparison"))
    graph = Graph(dg.DagsterInstance.ephemeral(), tmp_path / "data")
    subset, model, result = (comparison_key("preference", name) for name in _NAMES)
    assert subset.path == ["comparison", "preference", "subset"]
    materialised = _run(graph, subset, model, partition="random|0")
    assert metadata_of(materialised, *subset.path)["picked_tokens"] <= 1_000
    assert [name for name, _ in processes.done[:2]] == ["kto", "probe"]
    shown = metadata_of(_run(graph, result), *result.path)
    assert "| random | 1 |" in shown["losses"]
    assert "from the SFT model" in shown["notes"]


def test_a_skipped_partition_tells_why(
    graph_with_pool: Graph, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no failure, and nothing is trained."""
    skipped = {"skipped": "it needs a target"}
    monkeypatch.setattr(module, "compare_subset", lambda *_, **__: skipped)
    monkeypatch.setattr(module, "compare_model", lambda *_, **__: skipped)
    result = _run(graph_with_pool, SUBSET, MODEL, partition="zip|0")
    for name in ("subset", "model"):
        assert metadata_of(result, "comparison", name) == skipped
    assert processes.done == []


def test_partitions_are_strategies_by_seeds_and_nothing_runs_by_itself(graph: Graph) -> None:
    """Nightly runs train no more than before."""
    assets = graph.repository.asset_graph
    every = [comparison_key(stage, name) for stage in STAGES for name in _NAMES]
    assert len(set(every)) == 6
    partitions = assets.get(MODEL).partitions_def
    assert isinstance(partitions, dg.MultiPartitionsDefinition)
    keys = {
        each.name: each.partitions_def.get_partition_keys() for each in partitions.partitions_defs
    }
    assert keys["seed"] == ["0", "1", "2", "3", "4"]
    assert keys["strategy"][:2] == ["random+natural", "zip"]
    of_runs = [key for key in every if key.path[-1] != "result"]
    assert all(assets.get(key).partitions_def == partitions for key in of_runs)
    assert all(assets.get(key).automation_condition is None for key in every)
    jobs = [job for job in graph.repository.get_all_jobs() if not job.name.startswith("__")]
    assert len(jobs) == 11
    for job in jobs:
        assert not set(every) & set(job.asset_layer.executable_asset_keys)
