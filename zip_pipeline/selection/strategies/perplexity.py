"""Strategy ``perplexity``: what a language model finds hardest to say."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ScoreStrategy


class Perplexity(ScoreStrategy):
    """Highest mean loss of the answers first; what has no loss comes last.

    Source: the baseline of ZIP (arXiv 2407.06645), section 5.1; on answers only.
    """

    name = "perplexity"
    description = "the answers that a language model finds hardest"
    parameters = ("signals",)
    mixture = "none"
    signals = ("loss",)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: the mean loss of its answers is {score:.4f} nats",
        "never_reached": "the mean loss of its answers, {score:.4f} nats, was too low before the "
        "budget was used",
    }

    def scores(self, pool: Measured, config: SelectionConfig, workers: int) -> NDArray[np.float64]:
        """Return the mean loss of each sample, shape (samples,)."""
        return pool.signal("loss")["loss"].fill_null(-np.inf).to_numpy()


STRATEGY = Perplexity()
