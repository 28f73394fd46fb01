"""Strategy ``t_shirt``: where the question surely helps least, by informative tokens alone."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.selection.candidates import Budget, Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ScoreStrategy, fill_in_order
from zip_pipeline.selection.run import Fate, Run

INFORMATIVE_SHARE = 0.5
SHORTLIST_BUDGETS = 2


class TShirt(ScoreStrategy):
    """Among twice the budget of highest selective IFD, what varies least among neighbours first.

    The threshold of the signal ``selective_ifd`` is the one by which nearest to half of all
    differences of the pool are informative. Samples whose IFD is 1 and more come after all others,
    the lowest of them first, and after them what has none.

    Source: T-SHIRT (arXiv 2506.01317), algorithm 1, and its code (compute_stat.py,
    tshirt_select.py): half of the tokens and twice the budget.
    Deviation: the threshold is one of 49, not the exact percentile, so that some picks differ; what
    is left out there comes last here.
    """

    name = "t_shirt"
    description = (
        "answers that the question helps least to write, by informative tokens, and surely so"
    )
    parameters = ("signals",)
    mixture = "none"
    signals = ("selective_ifd",)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: the mean selective IFD of its neighbours comes to "
        "{score:.4f}",
        "shortlisted": "left on the shortlist of twice the budget: its selective IFD, {score:.4f} "
        "in the mean, varies more among its neighbours than that of those picked",
        "never_reached": "its selective IFD, {score:.4f} (minus its IFD from 1 on), was too low "
        "for the shortlist of twice the budget",
    }

    def scores(self, pool: Measured, config: SelectionConfig, workers: int) -> NDArray[np.float64]:
        """Return the mean selective IFD, minus the IFD where that is from 1 on, (samples,)."""
        table = pool.signal("selective_ifd")
        mean = pl.col("means").list.get(threshold_of(table))
        score = pl.when(pl.col("ifd") < 1).then(mean).otherwise(-pl.col("ifd"))
        return table.select(score.fill_null(-np.inf)).to_series().to_numpy()

    def rounds(
        self, run: Run, budget: Budget, pool: Measured, config: SelectionConfig, workers: int
    ) -> Iterator[Run]:
        """Yield the run at its end; see :meth:`.Strategy.rounds`."""
        run.scores = self.scores(pool, config, workers)
        order = self.ranked(run.scores, pool, config)
        num_listed = _num_listed(run.scores[order], budget.costs[order], budget.value)
        listed, others = order[:num_listed], order[num_listed:]
        table = pool.signal("selective_ifd")
        deviations = table["deviations"].list.get(threshold_of(table)).to_numpy()
        by_id = pool.candidates.by_id()
        listed = by_id[np.isin(by_id, listed)]
        listed = listed[np.argsort(deviations[listed], kind="stable")]
        fill_in_order(run, budget, np.concatenate([listed, others]))
        run.reach(listed, Fate.SHORTLISTED)
        yield run


def _num_listed(scores: NDArray[np.float64], costs: Indices, budget: int) -> int:
    """Return how many of the first of an order make twice the budget; none of IFD 1 and more."""
    num_enough = int(np.searchsorted(np.cumsum(costs), SHORTLIST_BUDGETS * budget)) + 1
    return min(num_enough, int((scores > 0).sum()))


def threshold_of(table: pl.DataFrame) -> int:
    """Return the number of the threshold above which nearest to half of all differences lie."""
    above = np.array(table["num_above"].drop_nulls().to_list())
    if not len(above):
        return 0
    shares = above.sum(axis=0) / table["num_differences"].sum()
    return int(np.abs(shares - INFORMATIVE_SHARE).argmin())


STRATEGY = TShirt()
