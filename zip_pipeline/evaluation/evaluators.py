"""What gives a trained version its Z: a registry, what each evaluator declares, its process."""

import argparse
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from zip_pipeline.data_root import StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.judge.client import EndpointError
from zip_pipeline.process import PIPES_VARIABLE, Reporter, end_with_parent, report_error, reporter
from zip_pipeline.registry import Registry


@dataclass(frozen=True)
class TrainedVersion:
    """A version whose model is complete."""

    folder: StageFolder
    number: int
    record: Mapping[str, Any]
    """the contents of training.json"""

    @property
    def output(self) -> Path:
        """The folder of its models."""
        return self.folder.models(self.number)


class Evaluator(ABC):
    """A way to measure trained versions, each by a job in a process of its own."""

    name: ClassVar[str]
    module: ClassVar[str]
    """the process, as in ``python -m MODULE --config JOB_FILE ...``"""
    job_file: ClassVar[str]
    """under ``evaluation`` in the output of the version"""
    result_file: ClassVar[str]
    """the JSON object that the process writes, under the same folder"""
    num_versions: ClassVar[int] = 1
    """how many of the latest trained versions of a stage are measured"""

    @abstractmethod
    def is_configured(self, data_root: Path) -> bool:
        """Return whether the settings of a data root ask for this evaluator.

        Raises:
            UserError: they are wrong.
        """

    def can_measure(self, version: TrainedVersion) -> bool:
        """Return whether this version can have a Z."""
        return True

    @abstractmethod
    def job(self, version: TrainedVersion) -> dict[str, Any]:
        """Return what the process is told; an equal job with a result is not run again."""

    def z(self, version: TrainedVersion, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``Z`` (higher = better), ``Z_spread`` and ``Z_name`` (equal: comparable)."""
        return {name: found[name] for name in ("Z", "Z_spread", "Z_name")}


evaluators: Registry[Evaluator] = Registry(
    "evaluator", "zip_pipeline.evaluators", "zip_pipeline.evaluation", default="held_out"
)


def configured_evaluator(data_root: Path) -> Evaluator:
    """Return the first evaluator that is configured, the default where none is.

    Raises:
        UserError: the settings of the data root are wrong.
    """
    others = (each for each in evaluators if each.name != evaluators.default)
    configured = (each for each in others if each.is_configured(data_root))
    return next(configured, evaluators[evaluators.default])


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


def read_job(path: Path, texts: Sequence[str], **optional: type) -> dict[str, Any]:
    """Return the fields of a job file, a JSON object.

    Args:
        path: the file.
        texts: fields that must be there, all of them texts.
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
    types = dict.fromkeys(texts, str) | optional
    unknown = [key for key in values if key not in types]
    missing = [key for key in texts if key not in values]
    if unknown or missing:
        fault = f"unknown field {unknown[0]!r}" if unknown else f"field {missing[0]!r} is missing"
        raise UserError(f"{path}: {fault}; the fields are {', '.join(types)}. Correct the file")
    for key, value in values.items():
        if not isinstance(value, types[key]) or isinstance(value, bool):
            raise UserError(
                f"{path}: {key} is {value!r}; must be of type {types[key].__name__}. Correct it"
            )
    return values
