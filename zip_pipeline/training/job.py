"""What a training process is told: one JSON file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zip_pipeline.errors import UserError
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.training.presets import Preset, load_preset, preset_from

_PATHS = ("subset", "output")
_KEYS = ("stage", *_PATHS, "preset", "overrides", "num_devices", "sft_model")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One subset to train on, or to probe."""

    stage: Stage
    subset: Path
    """``subset.parquet`` of a version"""
    output: Path
    """folder of the version's models"""
    preset: Preset
    num_devices: int = 1
    sft_model: Path | None = None
    """folder of the SFT model that the trainer starts from, where it does"""

    @property
    def is_local(self) -> bool:
        """Whether the base model is at hand, so that the hub need not be asked."""
        return Path(self.preset.source).is_dir()


def job_from(values: Mapping[str, Any]) -> Job:
    """Return a job from plain values.

    Args:
        values: the fields of :class:`Job`; ``preset`` is a name, a TOML file or all settings, and
            ``overrides`` are settings that replace the preset's.

    Raises:
        UserError: a field is missing, unknown or out of range.
    """
    unknown = [key for key in values if key not in _KEYS]
    missing = [key for key in ("stage", *_PATHS, "preset") if key not in values]
    if unknown or missing:
        fault = f"unknown field {unknown[0]!r}" if unknown else f"field {missing[0]!r} is missing"
        raise UserError(f"job: {fault}; the fields are {', '.join(_KEYS)}. Correct the file")
    if values["stage"] not in STAGES:
        raise UserError(f"job: stage is {values['stage']!r}; allowed are {', '.join(STAGES)}")
    num_devices = values.get("num_devices", 1)
    if not isinstance(num_devices, int) or num_devices < 1:
        raise UserError(f"job: num_devices is {num_devices!r}; it must be 1 or more")
    preset, overrides = values["preset"], values.get("overrides")
    if not isinstance(preset, str | Mapping):
        raise UserError(f"job: preset is {preset!r}; it must be a name, a file or settings")
    return Job(
        stage=values["stage"],
        **{name: Path(values[name]) for name in _PATHS},
        preset=load_preset(preset, overrides)
        if isinstance(preset, str)
        else preset_from(preset, overrides),
        num_devices=num_devices,
        sft_model=Path(values["sft_model"]) if values.get("sft_model") else None,
    )


def read_job(path: Path) -> Job:
    """Return the job of a JSON file.

    Raises:
        UserError: the file is missing, no JSON object, or no job.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot read the job ({error}). Give a JSON file") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a job is a JSON object; got {type(values).__name__}")
    return job_from(values)


def finished_training(output: Path, fingerprint: str | None = None) -> dict[str, Any] | None:
    """Return training.json where the model is complete (and of that fingerprint), else None."""
    try:
        record = json.loads((output / "training.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not (output / "model" / "config.json").is_file():
        return None
    return record if fingerprint in (None, record.get("fingerprint")) else None
