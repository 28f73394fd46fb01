"""What probe and training can be told in the launchpad, and its defaults per data root."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from zip_pipeline.training_file import TRAINING_FILE, read_training_table

TABLE = "training"
_JOB_NAMES = ("preset", "overrides", "num_devices")
_NAMES = (*_JOB_NAMES, "sft_model")
OVERRIDE = Field(
    default="",
    description="To train a version that the entropy law blocks: why, and who says so. It is "
    "recorded with the version for good. Empty: the verdict holds.",
)


class TrainingTunables(dg.Config):
    """How a stage is probed and trained."""

    preset: str = Field(
        default="tiny",
        description="tiny (small, offline), mistral-7b, llama-3-8b, or the path of a TOML file.",
    )
    overrides: dict[str, Any] = Field(
        default={},
        description='Settings of the preset to replace, as {"model": "/models/mine", '
        '"sft.learning_rate": 1e-5}; `zip-pipeline train-plan` shows what they come to.',
    )
    num_devices: int = Field(
        default=1, ge=1, description="GPUs of this machine that train together (1 and up)."
    )
    sft_model: str = Field(
        default="",
        description="preference/model only: folder of an SFT model to start from. Empty: the "
        "newest one of this data root.",
    )
    override: str = OVERRIDE

    def job(self) -> dict[str, Any]:
        """Return the part of a training job that the launchpad decides."""
        return {name: getattr(self, name) for name in _JOB_NAMES}


def training_defaults(data_root: Path) -> dict[str, Any]:
    """Return the launchpad values that the table [training] of ``training.toml`` sets.

    Raises:
        ValueError: the file is wrong (see :func:`.read_training_table`), or a field of the table
            is unknown or out of range.
    """
    path = data_root / TRAINING_FILE
    values = read_training_table(data_root, TABLE) or {}
    unknown = sorted(set(values) - set(_NAMES))
    if unknown:
        raise ValueError(
            f"{path}: [{TABLE}] sets {', '.join(unknown)}; allowed are {', '.join(_NAMES)}"
        )
    try:
        TrainingTunables(**values)
    except ValueError as error:
        raise ValueError(f"{path}: [{TABLE}]: {error}") from error
    return values


def training_tunables(data_root: Path) -> type[TrainingTunables]:
    """Return the launchpad's form with the defaults of a data root.

    A wrong file must not take the whole code location down: the form then shows the built-in
    defaults, and probe and training themselves fail.
    """
    try:
        defaults = training_defaults(data_root)
    except ValueError:
        defaults = {}
    known = TrainingTunables.model_fields
    fields: dict[str, Any] = {
        name: (known[name].annotation, FieldInfo.merge_field_infos(known[name], default=value))
        for name, value in defaults.items()
    }
    return create_model("Training", __base__=TrainingTunables, **fields)


def training_op_config(data_root: Path) -> dict[str, Any]:
    """Return every launchpad value as the file sets it now, whatever it said at load time.

    Raises:
        ValueError: see :func:`training_defaults`.
    """
    return TrainingTunables(**training_defaults(data_root)).model_dump(mode="json")
