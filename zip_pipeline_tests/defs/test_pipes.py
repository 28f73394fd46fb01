"""Jobs as processes of their own, through Dagster Pipes."""

import os
import signal
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from zip_pipeline.defs.pipes import run_modules
from zip_pipeline_tests.defs.graph import QUIET

_JOB = """
import json, sys, time
from pathlib import Path
from dagster_pipes import open_dagster_pipes
from zip_pipeline.process import report_error
configs = sys.argv[sys.argv.index("--config") + 1:]
jobs = [json.loads(Path(config).read_text()) for config in configs]
with open_dagster_pipes() as context:
    for job in jobs:
        context.log.info(f"at work on {job['name']}")
        if "fail" in job:
            sys.exit(report_error(ValueError(job["fail"])) if job["fail"] else 7)
        Path(job["output"]).write_text(job["name"])
        time.sleep(job.get("seconds", 0))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that takes job files."""
    (tmp_path / "a_job_module.py").write_text(_JOB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "a_job_module"


def in_a_run(body: object) -> dg.ExecuteInProcessResult:
    """Call ``body(context)`` in an asset's run."""

    @dg.asset
    def something(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        body(context)  # type: ignore[operator]
        return dg.MaterializeResult()

    return dg.materialize([something], run_config=QUIET, raise_on_error=False)


def _error(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_node_events if event.is_step_failure]
    error = event.step_failure_data.error
    assert error is not None
    return error.message


def test_job_files_are_written_and_run_in_one_process(tmp_path: Path, module: str) -> None:
    """Every job finds its file, and its progress is in the run's log."""
    jobs = {
        tmp_path / "jobs" / f"{name}.json": {"name": name, "output": str(tmp_path / name)}
        for name in ("one", "two")
    }
    result = in_a_run(lambda context: run_modules(context, module, jobs))
    assert result.success, _error(result)
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["one", "two"]


def test_reason_of_a_failure_is_the_error(tmp_path: Path, module: str) -> None:
    """What the process gives as the reason is what the UI shows."""
    job = {"name": "one", "fail": "lr is -1; allowed is above 0"}
    result = in_a_run(lambda context: run_modules(context, module, {tmp_path / "job.json": job}))
    assert not result.success
    assert "a_job_module: lr is -1; allowed is above 0" in _error(result)


def test_failure_without_a_reason_tells_the_exit_code(tmp_path: Path, module: str) -> None:
    """A process that crashed is told by its exit code."""
    job = {"name": "one", "fail": ""}
    result = in_a_run(lambda context: run_modules(context, module, {tmp_path / "job.json": job}))
    assert "failed with code 7" in _error(result)


def test_interrupted_run_stops_its_process(tmp_path: Path, module: str) -> None:
    """Ctrl-C and cancel reach the process, which ends at once and not when its work is done."""
    job = {"name": "one", "output": str(tmp_path / "one"), "seconds": 60}

    def interrupt() -> None:
        while not (tmp_path / "one").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    began = time.monotonic()
    result = in_a_run(lambda context: run_modules(context, module, {tmp_path / "job.json": job}))
    thread.join()
    assert not result.success
    assert time.monotonic() - began < 30
