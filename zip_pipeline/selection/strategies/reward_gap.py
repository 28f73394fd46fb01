"""Strategy ``reward_gap``: the pairs that preference training finds hardest."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ScoreStrategy


class RewardGap(ScoreStrategy):
    """Smallest implicit reward gap first, negative ones before all; what has none comes last.

    A gap below 0 means that training has made the model prefer the rejected answer.

    Source: arXiv 2508.04149, section 3.
    """

    name = "reward_gap"
    description = "the pairs whose chosen answer a trained model prefers least"
    parameters = ("signals",)
    mixture = "none"
    signals = ("reward_gap",)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: minus its implicit reward gap is {score:.4f}",
        "never_reached": "its implicit reward gap, {score:.4f} with its sign turned, was too large "
        "before the budget was used",
    }

    def scores(self, pool: Measured, config: SelectionConfig, workers: int) -> NDArray[np.float64]:
        """Return minus the gap of each sample, shape (samples,)."""
        return (-pool.signal("reward_gap")["gap"]).fill_null(-np.inf).to_numpy()


STRATEGY = RewardGap()
