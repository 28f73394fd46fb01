"""Strategy ``score``: the samples of highest quality."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.errors import UserError
from zip_pipeline.selection.candidates import Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ScoreStrategy
from zip_pipeline.selection.strategies.random import order_by_chance


class Score(ScoreStrategy):
    """Highest quality first, ties in a seeded uniform order.

    In a preference pool ``quality = "chosen_score"`` is the score of the chosen answer.

    Source: the baseline of ZIP (arXiv 2407.06645) for preference pools, section 5.1.
    """

    name = "score"
    description = "the highest quality first"
    parameters: ClassVar[tuple[str, ...]] = ("quality", "seed")
    mixture = "none"
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: its quality is {score:g}",
        "never_reached": "its quality, {score:g}, was too low before the budget was used, or a "
        "draw with seed {seed} put others of that quality first",
    }

    def check(self, config: SelectionConfig) -> None:
        """Raise UserError where the configuration names no quality."""
        super().check(config)
        if config.quality is None:
            raise UserError(
                f"quality: {self.name} selects by the quality of each sample, and got none; name a "
                "number of the records, such as meta.score, or a .parquet or .csv file of scores"
            )

    def scores(self, pool: Measured, config: SelectionConfig, workers: int) -> NDArray[np.float64]:
        """Return the quality of each sample, shape (samples,)."""
        assert pool.candidates.quality is not None, "check has asked for it"
        return pool.candidates.quality.to_numpy()

    def ranked(
        self, scores: NDArray[np.float64], pool: Measured, config: SelectionConfig
    ) -> Indices:
        """Return all positions, shape (samples,), highest score first."""
        order = order_by_chance(pool.candidates, config.seed)
        return order[np.argsort(-scores[order], kind="stable")]


STRATEGY = Score()
