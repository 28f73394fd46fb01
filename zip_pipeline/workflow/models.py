"""A version to a trained model, by the trainer of its stage."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.entropy_law.table import (
    has_verdict,
    read_versions,
    training_refusal,
    upsert_version,
)
from zip_pipeline.errors import UserError
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
        job["sft_model"] = sft_model or _newest_sft_model(root)
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


def _newest_sft_model(root: DataRoot) -> str:
    trained = trained_versions(root["sft"])
    if not trained:
        raise UserError(
            "preference/model starts from an SFT model, and there is none yet; materialise "
            "sft/model first, or name the folder of one under sft_model"
        )
    return str(root["sft"].models(trained[-1]) / "model")
