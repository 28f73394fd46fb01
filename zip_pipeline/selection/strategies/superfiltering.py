"""Strategy ``superfiltering``: where the question helps least to write the answer."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ScoreStrategy


class Superfiltering(ScoreStrategy):
    """Highest instruction-following difficulty below 1 first.

    That is the perplexity of the answer after the question over that of the answer alone. From 1 on
    question and answer do not belong together: such samples come last, the lowest of them first,
    and after them what has none.

    Source: Superfiltering (arXiv 2402.00530), section 3, and its code (code_ifd/data_analysis.py,
    select_data.py): the first token of an answer counts after the question, and not alone.
    Deviation: several turns count by their mean; what is left out there comes last here, and what
    could not be measured is last of all, where it counts as 0 there.
    """

    name = "superfiltering"
    description = "answers that the question helps least to write (IFD), by a small model"
    parameters = ("signals",)
    mixture = "none"
    signals = ("loss",)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: its instruction-following difficulty comes to "
        "{score:.4f}",
        "never_reached": "its instruction-following difficulty, {score:.4f} (minus it from 1 on), "
        "was too low before the budget was used",
    }

    def scores(self, pool: Measured, config: SelectionConfig, workers: int) -> NDArray[np.float64]:
        """Return the difficulty of each sample, minus it from 1 on, shape (samples,)."""
        ifd = pl.col("ifd")
        score = pl.when(ifd < 1).then(ifd).otherwise(-ifd).fill_null(-np.inf)
        return pool.signal("loss").select(score).to_series().to_numpy()


STRATEGY = Superfiltering()
