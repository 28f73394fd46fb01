"""Runs that are killed, stopped and started again, as processes."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from zip_pipeline.training.job import Job
from zip_pipeline.training.process import main
from zip_pipeline.training.trainers import trainers
from zip_pipeline_tests.training.conftest import job_values, read_metrics

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["trl.trainer.sft_trainer", "trl.trainer.kto_trainer"])


def run_module(module: str, config: str) -> None:
    """Run a training module as its command line does; the process ends with its exit code."""
    trainer = trainers[module]
    sys.exit(main(trainer.module, trainer.train, ["--config", config]))


def start(module: str, config: Path) -> Any:
    """Start a training process."""
    process = SERVER.Process(target=run_module, args=(module, str(config)))
    process.start()
    return process


def wait_for_step(output: Path, step: int, process: Any) -> None:
    """Wait until the process has written the line of a step."""
    metrics = output / "metrics.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and process.is_alive():
        if metrics.exists() and len(metrics.read_text().splitlines()) >= step:
            return
        time.sleep(0.002)
    pytest.fail(f"no step {step}; exit code {process.exitcode}")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["sft", "kto"])
def test_a_run_killed_three_times_ends_in_the_same_weights(
    job: Callable[..., Job], tmp_path: Path, small_base: Path, pairs_subset: Path, module: str
) -> None:
    """Killed at three random steps, training goes on from its checkpoints to the same model."""

    def made(name: str) -> tuple[Path, Path]:
        settings = {"output": str(tmp_path / name), "kto.epochs": 3, "sft.epochs": 2}
        if module == "kto":
            one = job("preference", pairs_subset, sft_model=str(small_base), **settings)
        else:
            one = job(packing=True, lora={"rank": 2, "dropout": 0.1}, **settings)
        config = tmp_path / f"{name}.json"
        config.write_text(json.dumps(job_values(one)))
        return tmp_path / name, config

    whole, config = made("whole")
    process = start(module, config)
    process.join(90)
    assert process.exitcode == 0
    num_steps = json.loads((whole / "training.json").read_text())["num_steps"]
    assert num_steps >= 18

    output, config = made("killed")
    rng = random.Random(5)
    done = 0
    for _ in range(3):
        process = start(module, config)
        done = rng.randint(done + 2, min(done + 5, num_steps - 2))
        wait_for_step(output, done, process)
        process.kill()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
        assert not (output / "model").exists()
    process = start(module, config)
    process.join(90)
    assert process.exitcode == 0
    record = json.loads((output / "training.json").read_text())
    assert record["resumed_at_step"] >= done - 2
    assert record["num_steps"] == num_steps
    assert read_metrics(output)["step"].to_list() == list(range(1, num_steps + 1))
    expected = load_file(whole / "model" / "model.safetensors")
    found = load_file(output / "model" / "model.safetensors")
    assert expected.keys() == found.keys()
    for name, weights in expected.items():
        assert torch.allclose(weights, found[name], atol=1e-6), name


@pytest.mark.slow
def test_cancelling_ends_the_process_with_a_checkpoint(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    """On SIGINT, which Dagster sends, the process ends soon and says so in its exit code."""
    config = tmp_path / "job.json"
    config.write_text(json.dumps(job_values(job(**{"sft.epochs": 4, "checkpoint_steps": 1000}))))
    process = start("sft", config)
    wait_for_step(tmp_path / "out", 2, process)
    os.kill(process.pid, signal.SIGINT)
    process.join(10)
    assert process.exitcode == 128 + signal.SIGINT
    assert len(list((tmp_path / "out" / "checkpoints").glob("*/checkpoint-*/whole"))) == 1


def test_a_wrong_job_ends_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of the user goes to stderr as one line, with exit code 2."""
    config = tmp_path / "job.json"
    config.write_text('{"stage": "sft"}')
    assert main("sft", lambda job, stop: {}, ["--config", str(config)]) == 2
    assert capsys.readouterr().err.startswith("Error: job: field 'subset' is missing")
