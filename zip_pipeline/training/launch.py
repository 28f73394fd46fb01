"""Starts a training module in this process, or once per device and all stopped together."""

import argparse
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from zip_pipeline.job_process import PIPES_VARIABLE, end_with_parent, report_error
from zip_pipeline.training.job import Job, read_job
from zip_pipeline.training.stopping import GRACE_SECONDS, StopRequest

_WORKER_VARIABLE = "LOCAL_RANK"
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
        module: name of the module in this package.
        run: what to do with the job in one process.
        arguments: of the command line; this process's by default.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    parser = argparse.ArgumentParser(prog=f"python -m zip_pipeline.training.{module}")
    parser.add_argument("--config", type=Path, required=True, help="the job as JSON")
    config = parser.parse_args(arguments).config
    is_worker = _WORKER_VARIABLE in os.environ
    if is_worker:
        # The launcher starts workers as sessions of their own, which no signal to its group
        # reaches; they end with it even while they wait for one another.
        end_with_parent(signal.SIGKILL)
    elif PIPES_VARIABLE in os.environ:
        end_with_parent()
    try:
        job = read_job(config)
        if not is_worker:
            if job.num_devices > 1:
                return run_group(group_command(module, config, job.num_devices))
            show_one_device()
        run(job, StopRequest().install())
    except ValueError as error:
        return report_error(error)
    return 0


def show_one_device() -> None:
    """Hide all GPUs but the first from this process: a trainer that sees more wants them all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.partition(",")[0]


def group_command(module: str, config: Path, num_devices: int) -> list[str]:
    """Return the command that starts one process per device of this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    target = [f"zip_pipeline.training.{module}", "--config", str(config)]
    return [*launcher, f"--nproc-per-node={num_devices}", "--module", *target]


def run_group(command: list[str], grace_seconds: float = GRACE_SECONDS) -> int:
    """Run a command with all its children in one process group; return its exit code.

    A signal to this process goes to the whole group; what is left of it after the grace time is
    killed. The group ends also when this process is killed.
    """
    defaults = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    environment = defaults | os.environ
    process = subprocess.Popen(
        command, start_new_session=True, env=environment, preexec_fn=end_with_parent
    )
    stopped_by = 0

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopped_by
        stopped_by = number
        _signal_group(process.pid, signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while process.poll() is None and not stopped_by:
            time.sleep(0.1)
        if stopped_by:
            _wait(process, grace_seconds)
    finally:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + stopped_by if stopped_by else process.returncode


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
