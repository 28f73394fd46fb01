"""Strategy ``alpagasus``: what a judge has found good, and nothing else."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from zip_pipeline.selection.candidates import Budget, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import fill_in_order
from zip_pipeline.selection.run import Fate, Run
from zip_pipeline.selection.strategies.score import Score

THRESHOLD = 4.5


class AlpaGasus(Score):
    """Quality of 4.5 and up, of 5, highest first; nothing below, even if budget is left.

    Source: AlpaGasus (arXiv 2307.08701), section 2.2, and the threshold of gpt4life/alpagasus
    (rating/filter.py), which calls itself unofficial.
    Deviation: the published choice takes all of them; here the budget may end it, so the highest
    come first, ties in a seeded uniform order.
    """

    name = "alpagasus"
    description = f"quality of {THRESHOLD} and up, of 5, highest first, and nothing below"
    words: ClassVar[Mapping[str, str]] = {
        **Score.words,
        "candidate": f"its quality, {{score:g}}, is below {THRESHOLD}, so it is never picked, "
        "whatever is left of the budget",
    }

    def rounds(
        self, run: Run, budget: Budget, pool: Measured, config: SelectionConfig, workers: int
    ) -> Iterator[Run]:
        """Yield the run at its end; see :meth:`.Strategy.rounds`."""
        run.scores = self.scores(pool, config, workers)
        order = self.ranked(run.scores, pool, config)
        is_good = run.scores[order] >= THRESHOLD
        fill_in_order(run, budget, order[is_good])
        run.reach(order[~is_good], Fate.CANDIDATE)
        yield run


STRATEGY = AlpaGasus()
