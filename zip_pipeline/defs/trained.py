"""Which versions have a trained model."""

from typing import Any

from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot
from zip_pipeline.training.model_folder import finished_training


def training_record(root: DataRoot, stage: Stage, number: int) -> dict[str, Any] | None:
    """Return training.json of a version, None where its model is not complete."""
    return finished_training(root.models(stage, number))


def trained_versions(root: DataRoot, stage: Stage) -> list[int]:
    """Return the versions of a stage that have a complete model, ascending."""
    return [n for n in root.versions(stage).numbers() if training_record(root, stage, n)]
