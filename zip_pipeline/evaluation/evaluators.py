"""What gives a trained version its Z: a registry, and what each evaluator declares."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from zip_pipeline.data_root import StageFolder
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
