"""The evaluation settings of a data root, and the job files of the evaluating processes."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from zip_pipeline.errors import UserError
from zip_pipeline.evaluation.client import Endpoint, EndpointError
from zip_pipeline.process import PIPES_VARIABLE, Reporter, end_with_parent, report_error, reporter
from zip_pipeline.settings import Settings, read_settings, read_table


class MtBenchSettings(Settings):
    """Where the benchmark's files are, and who judges: the table ``[mt_bench]``."""

    shows_texts = False

    questions: Path = Field(strict=False)
    prompts: Path = Field(strict=False)
    judge: Endpoint
    references: Path | None = Field(default=None, strict=False)
    """reference answers; None where the questions have them"""
    answers: Endpoint | None = None
    """a server of the trained model; None: the model answers in the evaluating process"""
    repetitions: int = Field(default=3, ge=1)
    """how often each answer is judged"""


class QualityAuditSettings(Settings):
    """Who judges how many samples of a version: the table ``[quality_audit]``."""

    shows_texts = False

    judge: Endpoint
    num_samples: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0)
    """of the drawn samples"""
    repetitions: int = Field(default=1, ge=1)
    """how often each sample is judged"""


def mt_bench_settings_of(data_root: Path) -> MtBenchSettings | None:
    """Return what the table [mt_bench] says, None where there is none.

    Paths in the file are relative to the data root.

    Raises:
        UserError: see :func:`.read_settings`.
    """
    if read_table(data_root, "mt_bench") is None:
        return None
    settings = read_settings(data_root, "mt_bench", MtBenchSettings)
    given = settings.model_dump(include={"questions", "prompts", "references"}, exclude_none=True)
    return settings.model_copy(update={name: data_root / path for name, path in given.items()})


def quality_audit_settings_of(data_root: Path) -> QualityAuditSettings | None:
    """Return what the table [quality_audit] says, None where there is none.

    Raises:
        UserError: see :func:`.read_settings`.
    """
    if read_table(data_root, "quality_audit") is None:
        return None
    return read_settings(data_root, "quality_audit", QualityAuditSettings)


def main(
    module: str, run: Callable[[Path, Reporter], None], arguments: Sequence[str] | None = None
) -> int:
    """Run job files one after the other; return the exit code: 0, or 2 where one is at fault.

    Args:
        module: name of the module in this package.
        run: what to do with a file, and where to say how it goes.
        arguments: of the command line; this process's by default.
    """
    parser = argparse.ArgumentParser(prog=f"python -m zip_pipeline.evaluation.{module}")
    parser.add_argument("--config", type=Path, nargs="+", required=True, help="a job as JSON")
    configs = parser.parse_args(arguments).config
    if PIPES_VARIABLE in os.environ:
        end_with_parent()
    try:
        with reporter() as report:
            for config in configs:
                run(config, report)
    except (UserError, EndpointError) as error:
        return report_error(error)
    return 0


def read_job(
    path: Path, required: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """Return the fields of a job file.

    Args:
        path: the file, a JSON object.
        required: type of each field that must be there.
        optional: type of each field that may be.

    Raises:
        UserError: the file cannot be read, or a field is missing, unknown or of another type.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read the job ({error}). Give a JSON file") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a job is a JSON object; got {type(values).__name__}")
    types = {**required, **(optional or {})}
    unknown = [key for key in values if key not in types]
    missing = [key for key in required if key not in values]
    if unknown or missing:
        fault = f"unknown field {unknown[0]!r}" if unknown else f"field {missing[0]!r} is missing"
        raise UserError(f"{path}: {fault}; the fields are {', '.join(types)}. Correct the file")
    for key, value in values.items():
        if not isinstance(value, types[key]) or isinstance(value, bool):
            raise UserError(
                f"{path}: {key} is {value!r}; must be of type {types[key].__name__}. Correct it"
            )
    return values
