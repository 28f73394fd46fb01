"""The ways to select: a registry, and what each of them declares."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from zip_pipeline.errors import UserError
from zip_pipeline.registry import Registry

if TYPE_CHECKING:
    from zip_pipeline.selection.candidates import Budget, Measured
    from zip_pipeline.selection.config import SelectionConfig
    from zip_pipeline.selection.run import Pilot, Run


class Strategy(ABC):
    """A way to select; most are a :class:`.RoundStrategy` or an :class:`.OrderStrategy`."""

    name: ClassVar[str]
    """what people type to choose it"""
    description: ClassVar[str]
    """one sentence without the name and without a full stop, for help and launchpad"""
    parameters: ClassVar[tuple[str, ...]]
    """fields of the configuration that it heeds, besides the budget and the quotas"""
    codec: ClassVar[str] = "deflate"
    """what measures redundancy where the configuration does not say"""
    mixture: ClassVar[str] = "natural"
    """what share of the budget each source gets where the configuration does not say"""
    guards_noise: ClassVar[bool] = True
    """whether noise takes no part where the configuration does not say"""
    signals: ClassVar[tuple[str, ...]] = ()
    """what it must know of each sample, by the names of signals"""
    embeds_tags: ClassVar[bool] = False
    """whether it must know the vectors of tags, by the model of the signal ``embedding``"""
    picks_what_fits: ClassVar[bool] = True
    """whether it may be passed over where the budget covers the pool: it would pick everything, and
    only the order of the picks, which costs time, would tell something"""
    words: ClassVar[Mapping[str, str]] = {}
    """sentences of ``trace`` by fate, where they differ from those of rounds; fields of the ledger
    row and of the configuration in braces"""

    measure: ClassVar[str] = ""
    """what decides between two samples: ``ratio``, lowest first, or what its scores are called,
    highest first; empty where no number does"""
    unmeasured: ClassVar[str] = ""
    """what ``trace`` adds about a sample that was left out where no number decides: what does"""

    def uses(self, parameter: str) -> bool:
        """Return whether a field of the configuration makes a difference."""
        return parameter in self.parameters

    def check(self, config: "SelectionConfig") -> None:
        """Raise UserError where the configuration is none for this strategy."""
        if self.uses("target") and config.target is None:
            raise UserError(
                f"target: {self.name} selects by the samples of a file, and got none; name one "
                "whose samples are like what the model shall do"
            )

    @abstractmethod
    def rounds(
        self,
        run: "Run",
        budget: "Budget",
        pool: "Measured",
        config: "SelectionConfig",
        workers: int,
    ) -> Iterator["Run"]:
        """Pick until nothing more fits; yield the run, changed in place, after each round.

        Args:
            run: the state to start from, fresh or from a checkpoint.
            budget: with the cost of ``run.picks`` already taken.
            pool: the candidates, measured.
            config: the strategy's parameters.
            workers: threads or processes; the picks do not depend on their number.
        """

    def estimate(self, pool: "Measured", config: "SelectionConfig", workers: int) -> float | None:
        """Return roughly how many seconds all rounds take; None where only a pilot can tell."""
        return None

    def estimate_after(
        self, pilot: "Pilot", pool: "Measured", config: "SelectionConfig"
    ) -> float | None:
        """Return roughly how many seconds all rounds take, given how the first ones went."""
        return None


strategies: Registry[Strategy] = Registry(
    "strategy", "zip_pipeline.strategies", __name__, default="zip"
)
