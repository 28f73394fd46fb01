"""Strategy ``facility_location``: a subset in which each sample of the pool has its like."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.selection.candidates import Budget, Indices, Mask, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import Offer
from zip_pipeline.selection.run import Run
from zip_pipeline.selection.strategies import Strategy
from zip_pipeline.selection.strategies.random import random_order
from zip_pipeline.selection.vectors import SIGNAL, Embedded, blocks, cosines, pick_rows
from zip_pipeline.signals.embedding import Vectors

# The a of the formula, where there are qualities.
SHARE_OF_QUALITY = 0.5
MOST_POINTS = 1024
PICKS_PER_ROUND = 200
_IN_REACH = 4096
Gains = NDArray[np.float64]


class Facilities:
    """f(S) = (1 - a) (n / |V|) sum over v in V of max over s in S of cos(v, s), + a sum of q(s).

    Cosines below 0 count as 0; f of the empty S is 0. A row that is added changes what others add
    at those points alone to which it is nearer than all before, which are ever fewer. So the sums
    of all rows are kept up to date; they are exact, and what is equal ties.

    Args:
        vectors: of the n rows, exact ones, shape (rows, dimensions).
        points: the represented rows V, ascending.
        qualities: q of each row, shape (rows,); None for a = 0.
    """

    def __init__(
        self, vectors: Vectors, points: Indices, qualities: NDArray[np.float64] | None
    ) -> None:
        self._vectors, self._points = vectors, vectors[points]
        self._nearest = np.zeros(len(points))
        share = 0.0 if qualities is None else SHARE_OF_QUALITY
        self._weight = (1 - share) * len(vectors) / max(len(points), 1)
        self._bonus = np.zeros(len(vectors)) if qualities is None else share * qualities
        self._sums = self._between(self._points, self._nearest, np.ones(len(points)) * 2)

    def _between(self, points: Vectors, low: Gains, high: Gains) -> Gains:
        """Return the sum of what lies between low and high of each row's cosines to points."""
        sums = np.zeros(len(self._vectors))
        for block in blocks(len(sums)):
            near = cosines(self._vectors[block], points)
            np.clip(near, low, high, out=near)
            near -= low
            sums[block] = near.sum(axis=1)
        return sums

    def add(self, index: int) -> None:
        """Add a row to S."""
        (near,) = cosines(self._vectors[[index]], self._points)
        (nearer,) = np.nonzero(near > self._nearest)
        low, high = self._nearest[nearer], near[nearer]
        self._sums -= self._between(self._points[nearer], low, high)
        self._nearest[nearer] = high

    def gains(self) -> Gains:
        """Return f(S + row) - f(S) for each row on its own, shape (rows,)."""
        return self._weight * self._sums + self._bonus


class FacilityLocation(Strategy):
    """Greedy on :class:`Facilities` per token, or per unit of another budget.

    With qualities a is 0.5, and q is quality to its power, as it is given: multiply it to weigh it
    more. Represented are all samples of the pool, or 1,024 of them that the seed draws. Samples
    without a vector come last.

    Source: QDIT (arXiv 2311.14736): facility location plus quality, by a greedy.
    Deviation: per token; a draw of the represented samples; the embedder of the configuration.
    """

    name = "facility_location"
    description = "a subset in which each sample of the pool has its like (QDIT), per token"
    parameters = ("quality", "quality_power", "seed", "signals")
    mixture = "none"
    signals = (SIGNAL,)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: it added most, for its size, to how near the subset "
        "is to each sample of the pool (gain {score:.4g})",
        "never_reached": "others added more, for their size, to how near the subset is to each "
        "sample of the pool before the budget was used (its last known gain {score:.4g})",
    }

    def rounds(
        self, run: Run, budget: Budget, pool: Measured, config: SelectionConfig, workers: int
    ) -> Iterator[Run]:
        """Yield the run after each 200 picks; see :meth:`.Strategy.rounds`."""
        embedded = Embedded.of(pool)
        positions = embedded.positions
        ids = pool.candidates.index["sample_id"][positions].to_list()
        points = np.sort(random_order(ids, config.seed)[:MOST_POINTS])
        qualities = None if pool.weights is None else pool.weights[positions]
        facilities = Facilities(embedded.vectors, points, qualities)
        is_picked = np.isin(positions, run.picks)
        for row in np.flatnonzero(is_picked).tolist():
            facilities.add(row)
        costs = np.maximum(pool.costs[positions], 1)
        scores = np.full(len(pool.pi), -np.inf) if run.scores is None else run.scores
        run.scores = scores
        left = ~is_picked
        scores[positions[left]] = (facilities.gains() / costs)[left]

        def pick(rows: Indices, offer: Offer) -> None:
            fits = np.zeros(len(positions), dtype=np.bool_)
            fits[rows] = True
            for _ in range(PICKS_PER_ROUND):
                gains = facilities.gains() / costs
                if (row := _pick(gains, fits, offer)) is None:
                    break
                scores[positions[row]] = gains[row]
                facilities.add(row)
            left = run.unpicked[positions]
            scores[positions[left]] = (facilities.gains() / costs)[left]

        yield from pick_rows(run, budget, embedded, _IN_REACH, pick)


def _pick(gains: Gains, fits: Mask, offer: Offer) -> int | None:
    """Offer rows, the highest gain first, until one is accepted; return it, None if none is.

    ``fits`` loses those that were offered. Ties: the lowest row.
    """
    while fits.any():
        row = int(np.where(fits, gains, -np.inf).argmax())
        fits[row] = False
        if offer(row):
            return row
    return None


STRATEGY = FacilityLocation()
