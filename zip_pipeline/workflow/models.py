"""A version to a trained model, and trained models to measures of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.entropy_law.table import (
    has_verdict,
    read_versions,
    training_refusal,
    upsert_version,
)
from zip_pipeline.errors import UserError
from zip_pipeline.evaluation.evaluators import Evaluator, TrainedVersion, configured_evaluator
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.training.job import finished_training
from zip_pipeline.training.trainers import trainer_for
from zip_pipeline.workflow.versions import StoredVersion

RunJobs: TypeAlias = Callable[[str, Mapping[Path, Mapping[str, Any]]], object]
"""Writes job files and runs ``python -m MODULE --config FILE ...`` over them to its end."""


def train_version(
    root: DataRoot,
    version: StoredVersion,
    training: Mapping[str, Any],
    run_jobs: RunJobs,
    *,
    override: str = "",
    sft_model: str = "",
) -> dict[str, Any]:
    """Train the model of a version, unless it is trained already; return its record.

    Args:
        root: the data root.
        version: the version.
        training: preset, overrides, number of devices, and ``trainer`` where one of the two stages
            is not trained by its default.
        run_jobs: runs the training process.
        override: why the version may be trained whatever the law says; empty for no such reason.
        sft_model: folder of the SFT model that the trainer starts from, where it starts from one;
            empty for the newest.

    Raises:
        UserError: the law blocks the version or has not judged it, or there is no such trainer, or
            no SFT model.
    """
    stage = version.stage
    _require_allowed(root, version, override)
    trainer = trainer_for(stage, training.get("trainer", ""))
    job = training_job(root, version, training)
    if trainer.starts_from_sft:
        job["sft_model"] = starting_model(root, sft_model)
    run_jobs(trainer.module, {root[stage].models(version.number) / "job.json": job})
    record = training_record(root[stage], version.number)
    assert record is not None
    return record


def training_job(
    root: DataRoot, version: StoredVersion, training: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the job that probes a version, or trains it from the preset's model."""
    return {
        "stage": version.stage,
        "subset": str(version.path / "subset.parquet"),
        "output": str(root[version.stage].models(version.number)),
        **{name: value for name, value in training.items() if name != "trainer"},
    }


def training_record(folder: StageFolder, number: int) -> dict[str, Any] | None:
    """Return training.json of a version, None where its model is not complete."""
    return finished_training(folder.models(number))


def training_losses(folder: StageFolder, number: int) -> tuple[list[float], float]:
    """Return the loss of each optimizer step of a trained version, and its mean as recorded."""
    record = training_record(folder, number)
    assert record is not None
    path = folder.models(number) / "metrics.jsonl"
    losses: list[float] = pl.read_ndjson(path, infer_schema_length=None)["loss"].to_list()
    return losses, record["train_loss"]


def trained_versions(folder: StageFolder) -> list[int]:
    """Return the versions of a stage that have a complete model, ascending."""
    return [n for n in folder.versions.numbers() if training_record(folder, n)]


def _require_allowed(root: DataRoot, version: StoredVersion, override: str) -> None:
    """Refuse a version that the law blocks or has not judged; record an override first."""
    stage, number = version.stage, version.number
    table = read_versions(root)
    if override and has_verdict(table, stage, number):
        table = upsert_version(root, {"stage": stage, "version": number, "override": override})
    if refusal := training_refusal(table, stage, number):
        raise UserError(refusal)


def starting_model(root: DataRoot, named: str = "") -> str:
    """Return the folder of the SFT model that preference training starts from.

    Args:
        root: the data root.
        named: the folder that a person gave; empty for that of the newest version with a model.

    Raises:
        UserError: none is given, and no version has a model.
    """
    if named:
        return named
    trained = trained_versions(root["sft"])
    if not trained:
        raise UserError(
            "the preference stage starts from an SFT model, and there is none yet; materialise "
            "sft/model first, or name the folder of one under sft_model"
        )
    return str(root["sft"].models(trained[-1]) / "model")


@dataclass(frozen=True)
class EvaluationJob:
    """One evaluation of one trained version: what the process is told, and where it writes."""

    evaluator: Evaluator
    trained: TrainedVersion
    job: Mapping[str, Any]

    @property
    def stage(self) -> Stage:
        """The stage of the version."""
        return self.trained.folder.stage

    @property
    def version(self) -> int:
        """The number of the version."""
        return self.trained.number

    @property
    def job_file(self) -> Path:
        """Where the process is told."""
        return self.trained.output / "evaluation" / self.evaluator.job_file

    @property
    def result_file(self) -> Path:
        """Where the process writes."""
        return self.trained.output / "evaluation" / self.evaluator.result_file

    def is_done(self) -> bool:
        """Return whether this very job was done, with the model as it is now."""
        if not (self.job_file.exists() and self.result_file.exists()):
            return False
        return self.trained.folder.read_json(self.job_file) == self.job

    def found(self) -> dict[str, Any]:
        """Return what the process wrote."""
        return self.trained.folder.read_json(self.result_file)

    def row(self) -> dict[str, Any]:
        """Return Z as the table of versions keeps it, higher = better."""
        z = self.evaluator.z(self.trained, self.found())
        return {"stage": self.stage, "version": self.version, **z}


def evaluate_versions(root: DataRoot, run_jobs: RunJobs) -> list[EvaluationJob]:
    """Give the trained versions their Z in the table of versions; return the evaluations.

    What was evaluated before is not evaluated again.

    Args:
        root: the data root.
        run_jobs: runs the processes that evaluate.

    Raises:
        UserError: ``zip_pipeline.toml`` is wrong.
    """
    jobs = evaluation_jobs(root)
    waiting = {job.job_file: job.job for job in jobs if not job.is_done()}
    if waiting:
        run_jobs(jobs[0].evaluator.module, waiting)
    for job in jobs:
        upsert_version(root, job.row())
    return jobs


def evaluation_jobs(root: DataRoot) -> list[EvaluationJob]:
    """Return the evaluations that give the trained versions their Z, done before or not.

    Raises:
        UserError: ``zip_pipeline.toml`` is wrong.
    """
    evaluator = configured_evaluator(root.path)
    latest = [
        _trained(root, stage, number)
        for stage in STAGES
        for number in trained_versions(root[stage])[-evaluator.num_versions :]
    ]
    able = [version for version in latest if evaluator.can_measure(version)]
    return [EvaluationJob(evaluator, version, evaluator.job(version)) for version in able]


def _trained(root: DataRoot, stage: Stage, number: int) -> TrainedVersion:
    record = training_record(root[stage], number)
    assert record is not None
    return TrainedVersion(root[stage], number, record)
