"""Which versions have a trained model."""

import json
from typing import Any

from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot


def training_record(root: DataRoot, stage: Stage, number: int) -> dict[str, Any] | None:
    """Return training.json of a version, None where its model is not complete."""
    output = root.models(stage, number)
    try:
        record: dict[str, Any] = json.loads((output / "training.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record if (output / "model" / "config.json").is_file() else None


def trained_versions(root: DataRoot, stage: Stage) -> list[int]:
    """Return the versions of a stage that have a complete model, ascending."""
    return [n for n in root.versions(stage).numbers() if training_record(root, stage, n)]
