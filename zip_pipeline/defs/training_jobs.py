"""What the processes of probe and training are told."""

from collections.abc import Mapping
from typing import Any

from zip_pipeline.defs.resources import cache_folder
from zip_pipeline.defs.subsets import StoredVersion
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot


def training_job(
    root: DataRoot, stage: Stage, version: StoredVersion, training: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the job that probes a version, or trains it from the preset's model."""
    return {
        "stage": stage,
        "subset": str(version.path / "subset.parquet"),
        "output": str(root.models(stage, version.number)),
        "cache": str(cache_folder(root)),
        **training,
    }
