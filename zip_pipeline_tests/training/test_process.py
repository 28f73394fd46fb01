"""One process per device: started, stopped and ended together, and closed to the network."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zip_pipeline.process import ERROR_FILE_VARIABLE, FAULT
from zip_pipeline.training.job import Job
from zip_pipeline.training.process import run_group, show_one_device
from zip_pipeline.training.trainers.sft import TRAINER as SFT
from zip_pipeline_tests.processes import is_loopback, listeners, process_tree
from zip_pipeline_tests.training.conftest import job_values

_RUN = """
import sys; from zip_pipeline.training.process import run_group
sys.exit(run_group([sys.executable, "-c", sys.argv[1]], 2, grace_seconds=0.5))
"""
# Deaf to the signal that asks, in a group of processes with a child.
_STUCK = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"])
"""


def _wait(what: str, ask: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < until, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def _has_ended(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _start_stuck_group() -> "tuple[subprocess.Popen[bytes], list[int]]":
    """Return a process that runs a group, and the two processes of the group with their child."""
    process = subprocess.Popen([sys.executable, "-c", _RUN, _STUCK])
    _wait("two processes with a child each", lambda: len(process_tree(process.pid)) == 5)
    return process, process_tree(process.pid)[1:]


def test_a_group_is_stopped_with_its_children() -> None:
    """On SIGTERM all end, those that do not listen to it after the grace time."""
    process, started = _start_stuck_group()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    for process_id in started:
        _wait("the end of all", lambda one=process_id: _has_ended(one))


def test_a_group_ends_with_a_starter_that_is_killed() -> None:
    """Its processes do not train on for nobody."""
    process, started = _start_stuck_group()
    process.kill()
    process.wait()
    for process_id in started[:2]:
        _wait("the end of both", lambda one=process_id: _has_ended(one))
    for child in started[2:]:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    ("end", "exit_code"),
    [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 128 + 9), ("sys.exit(0)", 0)],
)
def test_a_group_hands_on_the_exit_code_of_the_first_that_fails(end: str, exit_code: int) -> None:
    """The others, which wait for it, are ended; without a failure all come to their end."""
    program = f"import os, sys, time\nif os.environ['RANK'] == '1': {end}\n"
    program += "time.sleep(60)" if exit_code else ""
    began = time.monotonic()
    assert run_group([sys.executable, "-c", program], 2) == exit_code
    assert time.monotonic() - began < 30


def test_processes_of_a_group_know_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a number, and talks on loopback whatever the environment says."""
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth0")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    program = (
        "import json, os, sys\n"
        f"with open({str(tmp_path)!r} + '/' + os.environ['LOCAL_RANK'], 'w') as file:\n"
        "    json.dump(dict(os.environ), file)\n"
    )
    assert run_group([sys.executable, "-c", program], 3) == 0
    found = [json.loads((tmp_path / name).read_text()) for name in "012"]
    assert [(one["RANK"], one["WORLD_SIZE"], one["LOCAL_WORLD_SIZE"]) for one in found] == [
        ("0", "3", "3"),
        ("1", "3", "3"),
        ("2", "3", "3"),
    ]
    assert {(one["NCCL_SOCKET_IFNAME"], one["GLOO_SOCKET_IFNAME"]) for one in found} == {
        ("=lo", "lo")
    }
    assert {(one["OMP_NUM_THREADS"], one["OMP_WAIT_POLICY"]) for one in found} == {("2", "PASSIVE")}


@pytest.mark.parametrize(("before", "after"), [(None, "0"), ("3,5", "3"), ("", "")])
def test_a_single_process_sees_one_gpu(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    """Of the GPUs that are shown to it, a job for one device keeps the first."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    show_one_device()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after


def _command(job: Job, config: Path) -> list[str]:
    config.write_text(json.dumps(job_values(job)))
    return [sys.executable, "-m", "zip_pipeline.training.trainers.sft", "--config", str(config)]


@pytest.mark.slow
def test_processes_that_train_together_listen_on_loopback_only(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    """Nobody on the network can send them anything while they train, nor once they are stopped."""
    endless = job(num_devices=2, per_device_batch_size=1, **{"sft.epochs": 500})
    # As on a cluster, where it would have them talk over the network, or fail.
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "nowhere0", "HOSTNAME": "nowhere"}
    process = subprocess.Popen(_command(endless, tmp_path / "job.json"), env=environment)
    metrics = tmp_path / "out" / "metrics.jsonl"

    def steps() -> int:
        assert process.poll() is None
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    _wait("the third step", lambda: steps() >= 3, seconds=120)
    found = listeners(started := process_tree(process.pid))
    before = steps()
    _wait("another step", lambda: steps() > before)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert len(started) >= 3
    # Each of the two listens for the other, so there was something to see.
    assert len(found) >= 2
    assert [address for address in found if not is_loopback(address)] == []
    assert all(map(_has_ended, started))


@pytest.mark.slow
def test_a_group_tells_why_its_job_cannot_be_done(job: Callable[..., Job], tmp_path: Path) -> None:
    """The exit code and the reason are those of a single process."""
    reason = tmp_path / "reason"
    wrong = job(num_devices=2, per_device_batch_size=1, subset=tmp_path / "none.parquet")
    environment = os.environ | {ERROR_FILE_VARIABLE: str(reason)}
    command = _command(wrong, tmp_path / "job.json")
    assert subprocess.run(command, env=environment, timeout=120, check=False).returncode == FAULT
    assert f"{tmp_path / 'none.parquet'} does not exist" in reason.read_text()


@pytest.mark.slow
def test_two_processes_train_one_model(job: Callable[..., Job], tmp_path: Path) -> None:
    """Two devices take steps of the same rows as one does, and end in the same weights."""
    jobs = [
        job(output=str(tmp_path / f"{num}"), num_devices=num, per_device_batch_size=1)
        for num in (1, 2)
    ]
    SFT.train(jobs[0])
    command = _command(jobs[1], tmp_path / "two.json")
    assert subprocess.run(command, timeout=300, check=False).returncode == 0
    one, two = (json.loads((tmp_path / n / "training.json").read_text()) for n in "12")
    assert (one["batch"]["effective"], two["batch"]["effective"]) == (4, 4)
    assert two["batch"]["num_devices"] == 2
    assert one["num_steps"] == two["num_steps"]
    assert one["fingerprint"] == two["fingerprint"]
    weights = [load_file(tmp_path / n / "model" / "model.safetensors") for n in "12"]
    assert all(torch.allclose(weights[0][k], weights[1][k], atol=1e-5) for k in weights[0])
