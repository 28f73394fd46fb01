"""The ways to train: a registry, and what each of them declares."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from zip_pipeline.registry import Registry
from zip_pipeline.samples import Stage

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from zip_pipeline.process import StopRequest
    from zip_pipeline.training.backend import Backend
    from zip_pipeline.training.job import Job
    from zip_pipeline.training.run import Made, Start


class Trainer(ABC):
    """A way to train the model of a version, in a process of its own."""

    name: ClassVar[str]
    """what people write to choose it"""
    stage: ClassVar[Stage]
    """the stage of the versions that it trains on"""
    module: ClassVar[str]
    """the process, as in ``python -m MODULE --config JOB_FILE``"""
    starts_from_sft: ClassVar[bool] = False
    """whether it starts from an SFT model, not from the model of the preset"""
    section: ClassVar[str]
    """the section of a preset with its epochs and learning rate, ``sft`` or ``kto``"""

    @abstractmethod
    def make(self, start: "Start", backend: "Backend", callback: "TrainerCallback") -> "Made":
        """Return a trainer, ready to go.

        Args:
            start: the job and the model that it starts from.
            backend: device and precision.
            callback: reports progress and stops the run; it must be given to the trainer.
        """

    def train(self, job: "Job", stop: "StopRequest | None" = None) -> dict[str, Any]:
        """Train the model of a version; see :func:`.run.train`."""
        from zip_pipeline.training.run import train

        return train(job, self, stop)


trainers: Registry[Trainer] = Registry("trainer", "zip_pipeline.trainers", __name__, default="sft")
DEFAULT_TRAINERS: dict[Stage, str] = {"sft": "sft", "preference": "kto"}


def trainer_for(stage: Stage, name: str = "") -> Trainer:
    """Return the trainer of a stage: the one of that name if it is for the stage, or the default.

    Both stages share their settings, so a name for the other stage changes nothing in this one.

    Raises:
        UserError: there is no trainer of that name.
    """
    default = trainers[DEFAULT_TRAINERS[stage]]
    named = trainers[name] if name else default
    return named if named.stage == stage else default
