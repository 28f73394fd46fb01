"""One training run from start to model folder: resumed where it was killed, never repeated."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zip_pipeline.chat_models import prepare_environment
from zip_pipeline.locks import held_lock
from zip_pipeline.progress_reports import Reporter, reporter
from zip_pipeline.training.backend import (
    Backend,
    choose_backend,
    json_fingerprint,
    library_versions,
    model_identity,
)
from zip_pipeline.training.base_model import base_model
from zip_pipeline.training.batches import BatchPlan
from zip_pipeline.training.checkpoints import latest_whole, step_of
from zip_pipeline.training.job import Job
from zip_pipeline.training.model_folder import finished_training, publish
from zip_pipeline.training.progress import progress_callback
from zip_pipeline.training.rows import RowCounts
from zip_pipeline.training.stopping import StopRequest
from zip_pipeline.training.templates import TEMPLATES

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

# Settings that change how a model is computed, or measured before, not which it is.
_RUN_FOLDER = re.compile(r"[0-9a-f]{32}-\d+")
_WITHOUT_EFFECT = ("checkpoint_steps", "architecture", "sharding", "probe")


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run starts from."""

    job: Job
    source: str
    """folder or hub id of the model to train"""
    revision: str | None
    model: str
    """what tells it from any other: commit on the hub, or hash of the folder's content"""
    fingerprint: str
    """hash of all that the trained model depends on"""
    checkpoints: Path


@dataclass(frozen=True, kw_only=True)
class Made:
    """A trainer, ready to go, and what it will train on."""

    trainer: "Trainer"
    plan: BatchPlan
    counts: RowCounts


Maker = Callable[[Start, Backend, "TrainerCallback"], Made]


def train(job: Job, make: Maker, stop: StopRequest | None = None) -> dict[str, Any]:
    """Train a model, or finish what a killed process began; return the contents of training.json.

    The model folder appears whole, and ``training.json`` after it as the mark of completion. A
    run with the same fingerprint that is complete is returned as it is.

    Args:
        job: what to train on.
        make: builds the trainer.
        stop: asked after every step whether to end early.

    Raises:
        ValueError: the job cannot be run, or another process runs it.
        SystemExit: the process was told to stop.
    """
    prepare_environment(offline=job.is_local)
    is_first = os.environ.get("RANK", "0") == "0"
    lock = _alone(job.output) if is_first else contextlib.nullcontext()
    with lock, reporter() as report:
        start = starting_point(job)
        finished = finished_training(job.output, start.fingerprint)
        if finished is not None:
            report.line(f"{job.output}: trained already, nothing to do")
            return finished | {"trained": False}
        return _train(start, make, report, stop or StopRequest()) | {"trained": True}


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keep other processes from training in a folder for as long as the block lasts."""
    with held_lock(output / ".lock") as is_mine:
        if not is_mine:
            raise ValueError(
                f"{output}: another process is training here. Wait until it has ended, or stop it"
            )
        yield


def starting_point(job: Job) -> Start:
    """Return what the job starts from; the tiny base model is made where it is missing.

    Raises:
        ValueError: a preference job names no SFT model, or one that is not there.
    """
    preset = job.preset
    source, revision = preset.model, preset.revision
    if job.stage == "preference":
        if job.sft_model is None or not (job.sft_model / "config.json").is_file():
            raise ValueError(
                f"sft_model: {job.sft_model} holds no model; KTO starts from an SFT model. Train "
                "one first and give its folder"
            )
        source, revision = str(job.sft_model), None
    elif preset.model == "tiny":
        source, revision = str(base_model(job.cache)), None
    settings = {k: v for k, v in preset.settings().items() if k not in _WITHOUT_EFFECT}
    settings.pop("kto" if job.stage == "sft" else "sft")
    settings["model"] = model = model_identity(source, revision)
    described = [job.stage, settings, TEMPLATES[preset.template].text, file_hash(job.subset)]
    identity = json_fingerprint(described)
    # Resuming needs the same split of the rows over the devices.
    folder = job.output / "checkpoints" / f"{identity}-{job.num_devices}"
    return Start(
        job=job,
        source=source,
        revision=revision,
        model=model,
        fingerprint=identity,
        checkpoints=folder,
    )


def file_hash(path: Path) -> str:
    """Return a hash of a file's content.

    Raises:
        ValueError: there is no such file.
    """
    import hashlib

    if not path.is_file():
        raise ValueError(f"subset: {path} does not exist. Give the subset.parquet of a version")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _train(start: Start, make: Maker, report: Reporter, stop: StopRequest) -> dict[str, Any]:
    from transformers import PrinterCallback

    job, began = start.job, time.monotonic()
    report.line(f"training {start.source} on {job.subset}")
    with quiet():
        backend = choose_backend(job.preset)
        callback = progress_callback(job.output / "metrics.jsonl", report, stop)
        made = make(start, backend, callback)
        made.trainer.remove_callback(PrinterCallback)
        _forget_other_runs(start.checkpoints, made.trainer)
        checkpoint = latest_whole(start.checkpoints)
        resumed_at = step_of(checkpoint) if checkpoint else 0
        if checkpoint:
            report.line(f"going on after step {resumed_at}")
        made.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    stop.in_loop = False
    if stop.signal_number and made.trainer.state.global_step < made.trainer.state.max_steps:
        report.line(f"stopped after step {made.trainer.state.global_step}")
        raise SystemExit(stop.exit_code)
    record = _record(start, backend, made) | {
        "resumed_at_step": resumed_at,
        "seconds": round(time.monotonic() - began, 3),
    }
    publish(made.trainer, job.output, record)
    report.record({"kind": "trained", **record})
    report.line(f"{job.output / 'model'}: done, mean loss {record['train_loss']:.4f}")
    return record


def _forget_other_runs(checkpoints: Path, trainer: "Trainer") -> None:
    """Remove checkpoints of other settings or subsets; a version has one model."""
    if trainer.is_world_process_zero():
        for folder in checkpoints.parent.glob("*"):
            is_ours = _RUN_FOLDER.fullmatch(folder.name) and not folder.is_symlink()
            if is_ours and folder != checkpoints:
                shutil.rmtree(folder)


def _record(start: Start, backend: Backend, made: Made) -> dict[str, Any]:
    job, state = start.job, made.trainer.state
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return {
        "fingerprint": start.fingerprint,
        "stage": job.stage,
        "preset": job.preset.name,
        "settings": job.preset.settings(),
        "model": {
            "source": start.source,
            "revision": start.revision,
            "identity": start.model,
        },
        "subset": str(job.subset),
        "backend": backend.as_json(),
        "batch": made.plan.as_json(),
        "rows": made.counts.as_json(),
        "num_steps": state.global_step,
        "num_epochs": state.epoch,
        "train_loss": sum(losses) / len(losses),
        "final_loss": sum(losses[-5:]) / len(losses[-5:]),
        "libraries": library_versions(),
    }


def num_rows(trainer: "Trainer") -> int:
    """Return how many rows (packs) the trainer will go through in an epoch."""
    dataset: Any = trainer.train_dataset
    return len(dataset)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and the libraries' notes on deprecation off the terminal."""
    import warnings

    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
