"""Starts a training module in this process, or once per device and all stopped together."""

import argparse
import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

from zip_pipeline.errors import UserError
from zip_pipeline.process import (
    GRACE_SECONDS,
    PIPES_VARIABLE,
    StopRequest,
    end_with_parent,
    report_error,
)
from zip_pipeline.training.job import Job, read_job

_Process: TypeAlias = "subprocess.Popen[bytes]"
# Names the file in which the processes of a group find one another.
_STORE_VARIABLE = "ZIP_PIPELINE_GROUP_STORE"
_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
# What the processes of a group say to one another is not for the network, even where the
# environment names an interface for jobs of several machines.
_LOOPBACK_ONLY = {"GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": f"={_LOOPBACK}"}
# As long as the first process may take to make or load what the others wait for.
_GROUP_TIMEOUT = timedelta(minutes=30)
# Importing torch, transformers and TRL makes objects that stay; looking through them again and
# again takes time (*measured*: 5.1 s of processor time, 4.6 s with this threshold).
_OBJECTS_BETWEEN_COLLECTIONS = 20_000


def main(
    module: str,
    run: Callable[[Job, StopRequest], dict[str, Any]],
    arguments: list[str] | None = None,
) -> int:
    """Run a job file; return the exit code.

    Args:
        module: name of the module that runs, for others of its kind.
        run: what to do with the job in one process.
        arguments: of the command line; this process's by default.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--config", type=Path, required=True, help="the job as JSON")
    config = parser.parse_args(arguments).config
    is_one_of_many = _STORE_VARIABLE in os.environ
    if PIPES_VARIABLE in os.environ and not is_one_of_many:
        end_with_parent()
    try:
        job = read_job(config)
        if is_one_of_many:
            _join_group()
        elif job.num_devices > 1:
            command = [sys.executable, "-m", module, "--config", str(config)]
            return run_group(command, job.num_devices)
        else:
            show_one_device()
        run(job, StopRequest().install())
    except UserError as error:
        return report_error(error)
    return 0


def show_one_device() -> None:
    """Hide all GPUs but the first from this process: a trainer that sees more wants them all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.partition(",")[0]


def run_group(
    command: Sequence[str], num_processes: int, grace_seconds: float = GRACE_SECONDS
) -> int:
    """Run a command once per device of this machine; return an exit code.

    The processes train together (:func:`_join_group`). The first one that fails ends the others,
    and its exit code is returned. A signal to this process goes to all of them, each with its
    children; what is left after the grace time is killed. They end also when this process is
    killed.

    Args:
        command: what each process runs.
        num_processes: how many there are.
        grace_seconds: for saving a checkpoint after a signal.
    """
    processes: list[_Process] = []
    stopped_by = 0
    exit_code: int | None = None

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopped_by
        stopped_by = number
        _signal_groups(processes, signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # The folder is this user's alone: whoever writes there takes part.
    with tempfile.TemporaryDirectory() as folder:
        try:
            for rank in range(num_processes):
                processes.append(_start(command, Path(folder), rank, num_processes))
            while exit_code is None:
                time.sleep(0.1)
                exit_code = 128 + stopped_by if stopped_by else _exit_code(processes)
            if stopped_by:
                _wait(processes, grace_seconds)
        finally:
            _signal_groups(processes, signal.SIGKILL)
            for process in processes:
                process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
    return exit_code


def _start(command: Sequence[str], folder: Path, rank: int, num_processes: int) -> _Process:
    defaults = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    place = {
        _STORE_VARIABLE: str(folder / "store"),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
    }
    return subprocess.Popen(
        command,
        start_new_session=True,
        env=defaults | os.environ | place | _LOOPBACK_ONLY,
        # Also while they wait for one another, which no handler of a signal interrupts.
        preexec_fn=partial(end_with_parent, signal.SIGKILL),
    )


def _exit_code(processes: Sequence[_Process]) -> int | None:
    """Return the exit code of a process that failed, 0 when all are done, None before."""
    found = [process.poll() for process in processes]
    failed = next((code for code in found if code), None)
    if failed is not None:
        return failed if failed > 0 else 128 - failed
    return None if None in found else 0


def _wait(processes: Sequence[_Process], seconds: float) -> None:
    until = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))


def _signal_groups(processes: Sequence[_Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _join_group() -> None:
    """Let this process train with the others that :func:`run_group` started.

    They find one another in a file. The store that torch would open listens on all interfaces,
    whatever address it is given, and asks nobody for a password.
    """
    import torch
    from torch import distributed

    rank, num_processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    path = os.environ[_STORE_VARIABLE]
    store = distributed.FileStore(path, num_processes)  # type: ignore[attr-defined]
    store.set_timeout(_GROUP_TIMEOUT)
    distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=store,
        rank=rank,
        world_size=num_processes,
        timeout=_GROUP_TIMEOUT,
    )
