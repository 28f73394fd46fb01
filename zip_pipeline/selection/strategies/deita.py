"""Strategy ``deita``: quality times complexity, without what is close to a better sample."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from zip_pipeline.selection.candidates import Budget, Indices, Mask, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ScoreStrategy, fill_in_order
from zip_pipeline.selection.run import Fate, Run
from zip_pipeline.selection.strategies.score import Score
from zip_pipeline.selection.vectors import Embedded, Rows
from zip_pipeline.tables import TemporaryMatrix

MOST_COSINE = 0.9
_SAMPLES_AT_A_TIME = 512
_KEPT_AT_A_TIME = 8192


class Deita(Score):
    """Highest quality x complexity first, passing over what is close to a sample before it.

    ``quality`` is a product of two numbers of the records, such as
    ``meta.quality * meta.complexity``, or a file that holds it. A sample is kept when its cosine to
    every kept one is at most 0.9 (signal ``embedding``); the others come after all that are kept.
    Ties go by sample id.

    Source: DEITA (arXiv 2312.15685), section 3.4, algorithm 1, and its code
    (selection/filter/base.py and combined_filter.py), one sample at a time.
    Deviation: the scores are those of the pool; there they are summed over turns, which favours
    long dialogues. What is passed over fills what is left of the budget. A kept sample stands for
    those close to it, also where it does not fit the budget.
    """

    name = "deita"
    description = (
        "quality times complexity, passing over what has a cosine above "
        f"{MOST_COSINE} to a better sample"
    )
    parameters = ("quality", "signals")
    signals = ("embedding",)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: its quality times complexity is {score:g}",
        "candidate": "passed over for after all others: its quality times complexity is {score:g}, "
        f"and its cosine to a better sample is above {MOST_COSINE}",
        "never_reached": "its quality times complexity, {score:g}, was too low before the budget "
        "was used",
    }
    measure = ScoreStrategy.measure
    ranked = ScoreStrategy.ranked

    def rounds(
        self, run: Run, budget: Budget, pool: Measured, config: SelectionConfig, workers: int
    ) -> Iterator[Run]:
        """Yield the run at its end; see :meth:`.Strategy.rounds`."""
        run.scores = self.scores(pool, config, workers)
        order = self.ranked(run.scores, pool, config)
        embedded, is_kept = Embedded.of(pool), np.ones(len(order), np.bool_)
        rows, folder = embedded.rows_of(order), pool.candidates.texts.path.parent
        is_kept[rows >= 0] = kept(embedded.vectors, rows[rows >= 0], MOST_COSINE, folder)
        passed = order[~is_kept]
        fill_in_order(run, budget, np.concatenate([order[is_kept], passed]))
        run.reach(passed, Fate.CANDIDATE)
        yield run


def kept(vectors: Rows, order: Indices, most_cosine: float, folder: Path) -> Mask:
    """Return whether each of an order is far enough from all kept before it, shape (order,).

    Args:
        vectors: of length 1, shape (rows, dimensions).
        order: numbers of rows.
        most_cosine: to a kept one.
        folder: of a temporary file.
    """
    is_kept = np.zeros(len(order), dtype=np.bool_)
    found = TemporaryMatrix((len(order), vectors[:0].shape[1]), np.float32, folder)
    num_kept = 0
    for start in range(0, len(order), _SAMPLES_AT_A_TIME):
        block = vectors[order[start : start + _SAMPLES_AT_A_TIME]]
        is_far = np.ones(len(block), dtype=np.bool_)
        for first in range(0, num_kept, _KEPT_AT_A_TIME):
            others = found[first : min(first + _KEPT_AT_A_TIME, num_kept)]
            is_far[is_far] = (block[is_far] @ others.T).max(axis=1) <= most_cosine
        cosines = block @ block.T
        for row in np.flatnonzero(is_far):
            # What an earlier row has struck out strikes out nothing itself.
            if is_far[row]:
                is_far[row + 1 :] &= cosines[row, row + 1 :] <= most_cosine
        own = block[is_far]
        found.write(np.arange(num_kept, num_kept + len(own)), own)
        num_kept += len(own)
        is_kept[start : start + len(block)] = is_far
    return is_kept


STRATEGY = Deita()
