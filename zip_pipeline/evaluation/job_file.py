"""Evaluations as processes: one JSON file says what to do, faults are one line."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zip_pipeline.evaluation.endpoint import EndpointError
from zip_pipeline.job_process import PIPES_VARIABLE, end_with_parent, report_error
from zip_pipeline.progress_reports import Reporter, reporter


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
    except (ValueError, EndpointError) as error:
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
        ValueError: the file cannot be read, or a field is missing, unknown or of another type.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot read the job ({error}). Give a JSON file") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a job is a JSON object; got {type(values).__name__}")
    types = {**required, **(optional or {})}
    unknown = [key for key in values if key not in types]
    missing = [key for key in required if key not in values]
    if unknown or missing:
        fault = f"unknown field {unknown[0]!r}" if unknown else f"field {missing[0]!r} is missing"
        raise ValueError(f"{path}: {fault}; the fields are {', '.join(types)}. Correct the file")
    for key, value in values.items():
        if not isinstance(value, types[key]) or isinstance(value, bool):
            raise ValueError(
                f"{path}: {key} is {value!r}; must be of type {types[key].__name__}. Correct it"
            )
    return values
