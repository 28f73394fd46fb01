"""Trained versions to Z: the held-out loss, or MT-bench where it is configured."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.entropy_law.table import upsert_version
from zip_pipeline.evaluation.settings import mt_bench_settings_of
from zip_pipeline.files import fingerprint
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.workflow.models import RunJobs, trained_versions, training_record

NUM_VERSIONS = 10
"""How many of the latest trained versions of a stage are measured on the same samples."""
_HELD_OUT = "zip_pipeline.evaluation.held_out"
_MT_BENCH = "zip_pipeline.evaluation.mt_bench_job"


@dataclass(frozen=True)
class EvaluationJob:
    """One evaluation of one trained version: what the process is told, and where it writes."""

    stage: Stage
    version: int
    start_model: str
    """identity of the model that training started from"""
    module: str
    job: Mapping[str, Any]
    job_file: Path
    result_file: Path

    def is_done(self) -> bool:
        """Return whether this very job was done, with the model as it is now."""
        if not (self.job_file.exists() and self.result_file.exists()):
            return False
        return bool(json.loads(self.job_file.read_text(encoding="utf-8")) == self.job)

    def found(self) -> dict[str, Any]:
        """Return what the process wrote."""
        values: dict[str, Any] = json.loads(self.result_file.read_text(encoding="utf-8"))
        return values

    @property
    def is_held_out_loss(self) -> bool:
        """Whether Z is the loss on held-out samples."""
        return self.module == _HELD_OUT

    def row(self) -> dict[str, Any]:
        """Return Z as the table of versions keeps it, higher = better."""
        found = self.found()
        row: dict[str, Any] = {"stage": self.stage, "version": self.version}
        if self.module == _MT_BENCH:
            return row | {name: found[name] for name in ("Z", "Z_spread", "Z_name")}
        # Models of another start, or measured on other samples, cannot be compared.
        start, samples = self.start_model[:6], found["held_out"][:6]
        name = f"minus held-out loss, start {start}, samples {samples}"
        return row | {"Z": -found["loss"], "Z_spread": found["loss_spread"], "Z_name": name}


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
    for module in (_HELD_OUT, _MT_BENCH):
        waiting = {j.job_file: j.job for j in jobs if j.module == module and not j.is_done()}
        if waiting:
            run_jobs(module, waiting)
    for job in jobs:
        upsert_version(root, job.row())
    return jobs


def evaluation_jobs(root: DataRoot) -> list[EvaluationJob]:
    """Return the evaluations that give the trained versions their Z, done before or not.

    Without a benchmark the latest versions of a stage are all measured on the held-out samples
    as they are now, so that their Z can be compared; one that picked any of them is left out. A
    judge is asked about the latest only.

    Raises:
        UserError: ``zip_pipeline.toml`` is wrong.
    """
    if mt_bench_settings_of(root.path) is None:
        return [
            _held_out_job(root[stage], number)
            for stage in STAGES
            if root[stage].held_out.exists()
            for number in trained_versions(root[stage])[-NUM_VERSIONS:]
            if not has_seen(root[stage], number)
        ]
    return [
        _mt_bench_job(root[stage], number)
        for stage in STAGES
        for number in trained_versions(root[stage])[-1:]
    ]


def has_seen(folder: StageFolder, number: int) -> bool:
    """Return whether a version picked samples that are held out now, so that it has no Z."""
    held_out = _ids(folder.held_out)
    subset = _ids(folder.versions.path(number) / "subset.parquet")
    return bool(subset.is_in(held_out.to_list()).any())


def _held_out_job(folder: StageFolder, number: int) -> EvaluationJob:
    record, output = training_record(folder, number), folder.models(number)
    assert record is not None
    samples, place = folder.held_out, output / "evaluation"
    job = {
        "model": str(output / "model"),
        "samples": str(samples),
        "stage": folder.stage,
        "output": str(place / "held_out.json"),
        "max_length": record["settings"]["max_length"],
        "fingerprint": fingerprint([record["fingerprint"], *_ids(samples)]),
    }
    files = place / "held_out_job.json", place / "held_out.json"
    return EvaluationJob(folder.stage, number, record["model"]["identity"], _HELD_OUT, job, *files)


def _ids(path: Path) -> pl.Series:
    return pl.read_parquet(path, columns=["sample_id"], glob=False)["sample_id"]


def _mt_bench_job(folder: StageFolder, number: int) -> EvaluationJob:
    record, output = training_record(folder, number), folder.models(number)
    assert record is not None
    place = output / "evaluation" / "mt_bench"
    job = {
        "model": str(output / "model"),
        "model_name": f"{folder.stage} version {number}",
        "data_root": str(folder.root.path),
        "output": str(place),
        "fingerprint": fingerprint(
            [record["fingerprint"], repr(mt_bench_settings_of(folder.root.path))]
        ),
    }
    files = place / "job.json", place / "result.json"
    return EvaluationJob(folder.stage, number, record["model"]["identity"], _MT_BENCH, job, *files)
