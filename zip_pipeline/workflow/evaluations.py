"""Trained versions to Z, by the evaluator that the settings ask for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import upsert_version
from zip_pipeline.evaluation.evaluators import Evaluator, TrainedVersion, configured_evaluator
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.workflow.models import RunJobs, trained_versions, training_record


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
        return bool(json.loads(self.job_file.read_text(encoding="utf-8")) == self.job)

    def found(self) -> dict[str, Any]:
        """Return what the process wrote."""
        values: dict[str, Any] = json.loads(self.result_file.read_text(encoding="utf-8"))
        return values

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
