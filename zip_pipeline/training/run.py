"""One training run from start to model folder: resumed where it was killed, never repeated."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from zip_pipeline.chat_models import model_identity, prepare_environment
from zip_pipeline.errors import UserError
from zip_pipeline.files import hashing, held_lock, write_atomically, write_json
from zip_pipeline.process import Reporter, StopRequest, reporter
from zip_pipeline.training import trainers
from zip_pipeline.training.backend import (
    Backend,
    BatchPlan,
    choose_backend,
    json_fingerprint,
    library_versions,
    time_on_cpu,
)
from zip_pipeline.training.job import Job, finished_training
from zip_pipeline.training.presets import template_text
from zip_pipeline.training.rows import RowCounts

if TYPE_CHECKING:
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )

# A file that says that all other files of a checkpoint are written.
_MARK = "whole"


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def latest_whole(folder: Path) -> Path | None:
    """Return the newest whole checkpoint; those that a killed process left in part are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=step_of)
    whole = [path for path in found if (path / _MARK).exists()]
    for path in found:
        if path not in whole:
            # Another process of the same run may be removing it too.
            shutil.rmtree(path, ignore_errors=True)
    return whole[-1] if whole else None


_Args: TypeAlias = "TrainingArguments"
_State: TypeAlias = "TrainerState"
_Control: TypeAlias = "TrainerControl"
_LINE_SECONDS = 2.0


def progress_callback(metrics: Path, report: Reporter, stop: StopRequest) -> "TrainerCallback":
    """Return a callback for one training run.

    Args:
        metrics: the file of JSON lines, one per optimizer step: step, epoch, loss and the
            trainer's other figures. A resumed run first restores the lines up to its checkpoint,
            so that each step has one line.
        report: told of the loss every few seconds.
        stop: asked after every step.
    """
    from transformers import TrainerCallback

    class Progress(_Progress, TrainerCallback):
        """Transformers calls these methods by name."""

    return Progress(metrics, report, stop)


class _Progress:
    def __init__(self, metrics: Path, report: Reporter, stop: StopRequest) -> None:
        self._metrics, self._report, self._stop = metrics, report, stop
        self._last_line = 0.0

    def on_train_begin(self, args: _Args, state: _State, control: _Control, **_: object) -> None:
        self._stop.in_loop = True
        if state.is_world_process_zero:
            lines = "".join(_json_line(entry) for entry in state.log_history if "loss" in entry)
            write_atomically(self._metrics, lambda path: path.write_text(lines, encoding="utf-8"))

    def on_log(self, args: _Args, state: _State, control: _Control, **_: object) -> None:
        entry = state.log_history[-1]
        if not state.is_world_process_zero or "loss" not in entry:
            return
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(_json_line(entry))
        self._report.record({"kind": "step", **entry})
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS or state.global_step == state.max_steps:
            self._last_line = now
            place = f"step {state.global_step} of {state.max_steps}"
            self._report.line(f"{place}, loss {entry['loss']:.4f}")

    def on_step_end(self, args: _Args, state: _State, control: _Control, **_: object) -> None:
        if self._stop.signal_number:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: _Args, state: _State, control: _Control, **_: object) -> None:
        args.distributed_state.wait_for_everyone()
        if state.is_world_process_zero:
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / _MARK).touch()


def _json_line(entry: Mapping[str, Any]) -> str:
    return json.dumps(dict(entry)) + "\n"


_RUN_FOLDER = re.compile(r"[0-9a-f]{32}-\d+")
# Settings that change how a model is computed, or measured before, not which it is.
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
    note: str = ""
    """what a person should know before it starts"""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """what else training.json tells of the run"""


def train(job: Job, trainer: trainers.Trainer, stop: StopRequest | None = None) -> dict[str, Any]:
    """Train a model, or finish what a killed process began; return the contents of training.json.

    The model folder appears whole, and ``training.json`` after it as the mark of completion. A
    run with the same fingerprint that is complete is returned as it is.

    Args:
        job: what to train on.
        trainer: how to train.
        stop: asked after every step whether to end early.

    Raises:
        UserError: the job cannot be run, or another process runs it.
        SystemExit: the process was told to stop.
    """
    prepare_environment(offline=job.is_local)
    is_first = os.environ.get("RANK", "0") == "0"
    lock = held_lock(job.output / ".lock") if is_first else contextlib.nullcontext(True)
    with lock as is_mine:
        if not is_mine:
            raise UserError(
                f"{job.output}: another process is training here. Wait until it has ended, or "
                "stop it"
            )
        with reporter() as report:
            start = starting_point(job, trainer)
            _refuse_foreign_model(job.output)
            finished = finished_training(job.output, start.fingerprint)
            if finished is not None:
                report.line(f"{job.output}: trained already, nothing to do")
                return finished | {"trained": False}
            return _train(start, trainer, report, stop or StopRequest()) | {"trained": True}


def _refuse_foreign_model(output: Path) -> None:
    """Refuse to train where the model would replace one that no training of ours wrote.

    Raises:
        UserError: there is a model folder, and neither a record nor checkpoints beside it.
    """
    model = output / "model"
    if model.exists() and not any((output / n).exists() for n in ("training.json", "checkpoints")):
        raise UserError(
            f"{model}: was not written by a training of zip-pipeline, and would be replaced; "
            "name another output, or move the folder away"
        )


def starting_point(job: Job, trainer: trainers.Trainer) -> Start:
    """Return what the job starts from.

    Raises:
        UserError: the trainer starts from an SFT model, and the job names none that is there.
    """
    preset = job.preset
    source, revision = preset.source, preset.revision
    if trainer.starts_from_sft:
        if job.sft_model is None or not (job.sft_model / "config.json").is_file():
            raise UserError(
                f"sft_model: {job.sft_model} holds no model; {trainer.name} starts from an SFT "
                "model. Train one first and give its folder"
            )
        source, revision = str(job.sft_model), None
    settings = {k: v for k, v in preset.settings().items() if k not in _WITHOUT_EFFECT}
    for section in {"sft", "kto"} - {trainer.section}:
        del settings[section]
    settings["model"] = model = model_identity(source, revision)
    # Models of before have no name of a trainer in their hash.
    is_default = trainer.name == trainers.DEFAULT_TRAINERS[job.stage]
    method = job.stage if is_default else f"{job.stage} by {trainer.name}"
    template = template_text(preset.template, source, revision)
    described = [method, settings, template, file_hash(job.subset)]
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
        UserError: there is no such file.
    """
    if not path.is_file():
        raise UserError(f"subset: {path} does not exist. Give the subset.parquet of a version")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _train(
    start: Start, trainer: trainers.Trainer, report: Reporter, stop: StopRequest
) -> dict[str, Any]:
    from transformers import PrinterCallback

    job, began = start.job, time.monotonic()
    report.line(f"training {start.source} on {job.subset}")
    with quiet():
        backend = choose_backend(job.preset)
        callback = progress_callback(job.output / "metrics.jsonl", report, stop)
        made = trainer.make(start, backend, callback)
        if hidden := made.counts.not_shown():
            report.line(f"the template does not show: {hidden}")
        if made.note:
            report.line(made.note)
        made.trainer.remove_callback(PrinterCallback)
        _forget_other_runs(start.checkpoints, made.trainer)
        checkpoint = latest_whole(start.checkpoints)
        resumed_at = step_of(checkpoint) if checkpoint else 0
        if checkpoint:
            report.line(f"going on after step {resumed_at}")
        elif words := time_on_cpu(made.trainer, _num_passed(made, job.stage)):
            report.line(words)
        made.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    stop.in_loop = False
    if stop.signal_number and made.trainer.state.global_step < made.trainer.state.max_steps:
        report.line(f"stopped after step {made.trainer.state.global_step}")
        raise SystemExit(stop.exit_code)
    record = _record(start, backend, made) | {
        "trainer": trainer.name,
        "resumed_at_step": resumed_at,
        "seconds": round(time.monotonic() - began, 3),
    }
    _publish(made.trainer, job.output, record)
    report.record({"kind": "trained", **record})
    report.line(f"{job.output / 'model'}: done, mean loss {record['train_loss']:.4f}")
    return record


def _num_passed(made: Made, stage: str) -> float:
    """Return the tokens of a run; KTO passes each about twice as often as SFT does."""
    passes = 1 if stage == "sft" else 2
    return passes * made.counts.num_tokens * made.trainer.args.num_train_epochs


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
        "backend": asdict(backend),
        "batch": asdict(made.plan),
        "rows": made.counts.as_json(),
        **made.facts,
        "num_steps": state.global_step,
        "num_epochs": state.epoch,
        "train_loss": sum(losses) / len(losses),
        "final_loss": sum(losses[-5:]) / len(losses[-5:]),
        "libraries": library_versions(),
    }


def _publish(trainer: "Trainer", output: Path, record: dict[str, Any]) -> None:
    """Put the model folder and then training.json in place; drop the checkpoints.

    The folder holds safetensors, configuration and tokenizer, and no pickles; adapters are
    merged into the weights.
    """
    temporary, model = output / ".tmp-model", output / "model"
    is_first = trainer.is_world_process_zero()
    if is_first:
        shutil.rmtree(temporary, ignore_errors=True)
    unwrapped: Any = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(unwrapped, "merge_and_unload"):
        trainer.save_model(str(temporary))
    elif is_first:
        unwrapped.merge_and_unload().save_pretrained(temporary)
        assert trainer.processing_class is not None
        trainer.processing_class.save_pretrained(temporary)
    if is_first:
        for pickled in temporary.glob("*.bin"):
            pickled.unlink()
        training = output / "training.json"
        with hashing(training):
            training.unlink(missing_ok=True)
            with hashing(model):
                shutil.rmtree(model, ignore_errors=True)
                temporary.rename(model)
            write_json(training, record)
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


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
