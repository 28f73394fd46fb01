"""A server that is killed in the middle of a selection finishes it after its restart."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zip_pipeline_tests.defs.graph import alpaca_rows
from zip_pipeline_tests.end_to_end.dev_server import DevServer, dev_server, make_project

NUM_ROWS = 1500
# Rounds of one pick each: long enough to be killed in between, with a checkpoint behind.
SELECTION = "[sft]\nstrategy = 'zip'\nbudget_samples = 120\nk2 = 100\nk3 = 1\n"
INGEST = """
from pathlib import Path
from zip_pipeline.defs.headless import HeadlessRun
from zip_pipeline.defs.headless import open_instance
with open_instance(Path.cwd()) as instance:
    run = HeadlessRun(instance, Path("data"))
    run.ingest("sft")
    assert not run.failures, run.failures
"""
RUNS = """
{ runsOrError(filter: {pipelineName: "nightly_reselection"}) {
    ... on Runs { results { runId status parentRunId } } } }
"""


def _prepare(folder: Path) -> None:
    make_project(folder, {"poll_interval_seconds: 30": "poll_interval_seconds: 2"})
    (folder / "data" / "zip_pipeline.toml").write_text(SELECTION)
    rows = "".join(json.dumps(row) + "\n" for row in alpaca_rows(NUM_ROWS))
    (folder / "data" / "raw" / "sft" / "questions.jsonl").write_text(rows)
    subprocess.run([sys.executable, "-c", INGEST], cwd=folder, check=True, timeout=120)


def _runs(server: DevServer) -> list[dict[str, Any]]:
    return list(server.query(RUNS)["runsOrError"]["results"])


@pytest.mark.server
@pytest.mark.slow
def test_killed_selection_is_noticed_retried_and_finished(tmp_path: Path) -> None:
    """The run of a killed server is marked as failed, retried from its checkpoint, and ends in
    one version; a drop ingested without the server is not ingested again.
    """
    _prepare(tmp_path)
    checkpoints = tmp_path / "data" / "checkpoints" / "sft"
    with dev_server(tmp_path) as server:
        first = server.launch("nightly_reselection", "sft/zip_subset")
        server.wait("a checkpoint", lambda: list(checkpoints.glob("[!.]*.npz")), 90)
        assert server.run_status(first) == "STARTED"
        # The page; code server, daemon and run listen on no port.
        assert server.listeners() == ["127.0.0.1"]
        server.kill()
    versions = tmp_path / "data" / "versions" / "sft"
    assert not list(versions.glob("v*"))
    with dev_server(tmp_path) as server:
        server.wait("the dead run", lambda: server.run_status(first) == "FAILURE", 90)
        again = server.wait("its retry", lambda: [r for r in _runs(server) if r["parentRunId"]], 90)
        (retry,) = again
        assert retry["parentRunId"] == first
        server.wait("its end", lambda: server.run_status(retry["runId"]) == "SUCCESS", 120)
        assert len(server.materializations("sft", "raw_pool")) == 1
    assert [path.name for path in versions.iterdir()] == ["v000001"]
    manifest = json.loads((versions / "v000001" / "manifest.json").read_text())
    assert (manifest["num_picked"], manifest["num_rounds"]) == (120, 120)
    assert not list(checkpoints.glob("[!.]*"))
