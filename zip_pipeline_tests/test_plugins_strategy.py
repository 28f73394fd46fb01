"""A strategy in one file: declared here, and run by everything that selects."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import dagster as dg
import numpy as np
import polars as pl
import pytest

import zip_pipeline
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.report.fates import explain_fate
from zip_pipeline.samples import contents_text
from zip_pipeline.selection.candidates import Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import OrderStrategy
from zip_pipeline.selection.strategies import strategies
from zip_pipeline.workflow.comparison import compare_subset
from zip_pipeline.workflow.versions import read_version, select_version
from zip_pipeline_tests.defs.graph import SMALL, Graph, alpaca_rows, metadata_of
from zip_pipeline_tests.defs.trained_roots import ingested
from zip_pipeline_tests.workflow.comparisons import pool


class Longest(OrderStrategy):
    """The longest samples first, ties by id, in whose order a strategy gets the pool."""

    name = "longest"
    description = "the longest samples first"
    parameters = ()
    words: ClassVar[Mapping[str, str]] = {"picked": "place {rank} among the longest"}

    def order(self, pool: Measured, config: SelectionConfig) -> Indices:
        """Return the positions by falling size."""
        return np.argsort(-pool.num_bytes, kind="stable")


TOY = Longest()


@pytest.fixture
def toy() -> Iterator[None]:
    """Register the strategy for one test."""
    strategies.register(TOY)
    yield
    strategies.unregister("longest")


def test_an_unregistered_strategy_is_refused_with_what_there_is() -> None:
    """The fixtures of other tests leave nothing behind."""
    with pytest.raises(UserError, match="strategy: got 'longest'; allowed are zip, "):
        SelectionConfig(strategy="longest", budget_samples=2)


@pytest.mark.usefixtures("toy")
def test_a_version_is_selected_and_explained(tmp_path: Path) -> None:
    """Of rows 1 to 40 the longest are 40 and 36; the ledger says so in the strategy's words."""
    root = DataRoot(tmp_path)
    ingested(root, "a.jsonl", 40)
    config = SelectionConfig(strategy="longest", budget_samples=2, num_shards=2)
    version = read_version(root["sft"], select_version(root["sft"], config, print))
    picked = version.ledger.filter(version.ledger["fate"] == "picked").sort("rank")
    assert picked["source_row"].to_list() == [40, 36]
    # It has nothing to do with shards or codecs, so they change nothing.
    assert version.manifest["sharding"] is None
    assert version.manifest["config"]["codec"] == "deflate"
    rows = picked.to_dicts()
    words = [explain_fate(row, version.manifest) for row in rows]
    assert words == ["place 1 among the longest", "place 2 among the longest"]


@pytest.mark.usefixtures("toy")
def test_the_interface_and_the_comparison_run_it(tmp_path: Path) -> None:
    """Both pick the longest samples, the comparison up to its budget."""
    chosen = zip_pipeline.select(alpaca_rows(40), strategy="longest", budget_samples=2)
    assert chosen.subset["source_row"].to_list() == [40, 36]
    root = pool(tmp_path / "data")
    manifest = compare_subset(root, "longest", 0, {"budget_tokens": 1_000})
    assert manifest["config"]["strategy"] == "longest"
    (subset,) = root.path.glob("comparison/*/runs/longest-0/subset.parquet")
    sizes = pl.read_parquet(subset).select(contents_text("sft").str.len_bytes())[:, 0].to_list()
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


@pytest.mark.slow
def test_the_command_line_runs_it_as_its_own(tmp_path: Path) -> None:
    """--strategy takes the name, and the summary shows no rounds, which it does not have."""
    rows = "".join(json.dumps(row) + "\n" for row in alpaca_rows(40))
    (tmp_path / "in.jsonl").write_text(rows)
    program = (
        "from zip_pipeline.selection.strategies import strategies;"
        f"from {__name__} import TOY; strategies.register(TOY);"
        "from zip_pipeline.cli import main; main()"
    )
    options = ["--strategy", "longest", "--budget-samples", "2"]
    command = [sys.executable, "-c", program, "select", "in.jsonl", "-o", str(tmp_path / "o.jsonl")]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, env=with_this_package()
    )
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stdout.splitlines() if "Strategy" in line]
    assert said.split() == ["Strategy", "longest"]
    picked = (tmp_path / "o.jsonl").read_text().splitlines()
    assert [json.loads(line)["instruction"].split()[2] for line in picked] == ["39", "35"]


def with_this_package() -> dict[str, str]:
    """Return the environment in which a process finds the package that is tested."""
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.mark.usefixtures("toy")
def test_the_graph_materialises_its_subset(tmp_path: Path) -> None:
    """The launchpad takes the name, and the subset is what the strategy orders."""
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(instance, tmp_path)
        graph.drop("sft", "a.jsonl", alpaca_rows(40))
        assert graph.ingest("sft", "a.jsonl").success
        result = graph.select("sft", {**SMALL, "strategy": "longest", "budget_samples": 2})
        assert metadata_of(result, "sft", "zip_subset")["strategy"] == "longest"
    assert read_version(graph.root["sft"], 1).subset["source_row"].to_list() == [40, 36]
