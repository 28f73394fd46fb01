"""Which runs count as alive."""

import json
import socket
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus

from zip_pipeline.defs import run_launcher
from zip_pipeline.defs.run_launcher import LOCK_TAG, LocalRunLauncher
from zip_pipeline.files import held_lock, is_locked


@dg.job
def nothing() -> None:
    """A job without steps."""


def _health(instance: dg.DagsterInstance, tags: dict[str, str]) -> WorkerStatus:
    launcher = instance.run_launcher
    assert isinstance(launcher, LocalRunLauncher)
    assert launcher.supports_check_run_worker_health
    run = instance.create_run_for_job(nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)
    return launcher.check_run_worker_health(run).status


@pytest.fixture
def instance(tmp_path: Path) -> dg.DagsterInstance:
    """Return an instance with the project's launcher."""
    module = {"module": "zip_pipeline.defs.run_launcher", "class": "LocalRunLauncher"}
    overrides = {"run_launcher": module, "telemetry": {"enabled": False}}
    return dg.DagsterInstance.local_temp(str(tmp_path), overrides=overrides)


def test_lock_is_held_once_and_ends_with_its_block(tmp_path: Path) -> None:
    """A second holder is told so, and after the first the lock is free again."""
    path = tmp_path / "folder" / "lock"
    assert not is_locked(path)
    with held_lock(path) as first, held_lock(path) as second:
        assert (first, second) == (True, False)
        assert is_locked(path)
    assert not is_locked(path)


def test_run_behind_a_lock_lives_as_long_as_its_process(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """A run of the headless command is alive while its lock is held, gone afterwards."""
    tags = {LOCK_TAG: str(tmp_path / "lock")}
    with held_lock(tmp_path / "lock"):
        assert _health(instance, tags) == WorkerStatus.RUNNING
    assert _health(instance, tags) == WorkerStatus.FAILED


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(60.0, WorkerStatus.RUNNING), (0.0, WorkerStatus.FAILED)]
)
def test_run_of_a_vanished_code_server_is_gone_after_a_while(
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    wanted: WorkerStatus,
) -> None:
    """Nobody listens where it was started: its server may come back, or its process is gone."""
    monkeypatch.setattr(run_launcher, "SECONDS_UNTIL_GONE", seconds)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    tags = {".dagster/grpc_info": json.dumps({"host": "127.0.0.1", "port": port})}
    assert _health(instance, tags) == wanted


def test_run_of_unknown_origin_counts_as_alive(instance: dg.DagsterInstance) -> None:
    """Where nothing tells, no run is declared dead."""
    assert _health(instance, {}) == WorkerStatus.RUNNING
