"""A graph over a temporary data root."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import create_autospec

import dagster as dg
import pytest

from zip_pipeline.defs import law, stage
from zip_pipeline.workflow.reports import WrittenReport, write_report
from zip_pipeline_tests.defs.graph import Graph


@pytest.fixture
def real_figures() -> None:
    """Ask for this where figures are to be drawn."""


@pytest.fixture(autouse=True)
def _quick_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing unless asked to: matplotlib takes most of the time of a small run."""
    if "real_figures" in request.fixturenames:
        return
    names = ("loss_figure", "relation_figure", "versions_figure")
    for module, name in ((stage, "selection_figure"), *((law, name) for name in names)):
        quick = create_autospec(getattr(module, name), return_value=b"\x89PNG")
        monkeypatch.setattr(module, name, quick)
    paths = [Path("/") / name for name in ("page", "card", "croissant")]
    report = WrittenReport("sft", 1, *paths, verdict="")
    monkeypatch.setattr(law, "write_report", create_autospec(write_report, return_value=report))


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    """Yield the graph with an instance in memory and no drops."""
    (tmp_path / "data").mkdir()
    with dg.DagsterInstance.ephemeral() as instance:
        yield Graph(instance, tmp_path / "data")


@pytest.fixture
def stored_graph(tmp_path: Path) -> Iterator[Graph]:
    """Yield the graph with an instance on disk, which other processes can open, and no drops."""
    (tmp_path / "data").mkdir()
    (tmp_path / "instance").mkdir()
    no_logs = {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    # One database for all runs: making one for each takes most of the time of a small run.
    one_file = {
        "module": "dagster._core.storage.event_log",
        "class": "ConsolidatedSqliteEventLogStorage",
        "config": {"base_dir": str(tmp_path / "instance" / "events")},
    }
    settings = {
        "telemetry": {"enabled": False},
        "compute_logs": no_logs,
        "event_log_storage": one_file,
    }
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance"), overrides=settings) as instance:
        yield Graph(instance, tmp_path / "data")
