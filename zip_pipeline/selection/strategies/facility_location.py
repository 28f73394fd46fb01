"""Strategy ``facility_location``: a subset in which each sample of the pool has its like."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.selection.candidates import Budget, Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import Offer
from zip_pipeline.selection.run import Run
from zip_pipeline.selection.strategies import Strategy
from zip_pipeline.selection.strategies.coverage import PICKS_PER_ROUND, Gains, LazyGreedy
from zip_pipeline.selection.strategies.random import random_order
from zip_pipeline.selection.vectors import SIGNAL, Embedded, cosines, pick_rows
from zip_pipeline.signals.embedding import Vectors

# The a of the formula, where there are qualities.
SHARE_OF_QUALITY = 0.5
MOST_POINTS = 2048
_IN_REACH = 4096


class Facilities:
    """f(S) = (1 - a) (n / |V|) sum over v in V of max over s in S of cos(v, s), + a sum of q(s).

    Cosines below 0 count as 0; f of the empty S is 0. Only the row's own numbers and its block's
    size enter a gain, and sums of cosines are exact: what is equal ties.

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

    def add(self, index: int) -> None:
        """Add a row to S."""
        (near,) = cosines(self._vectors[[index]], self._points)
        self._nearest = np.maximum(self._nearest, near)

    def gains(self, indices: Indices) -> Gains:
        """Return f(S + row) - f(S) for each row on its own, shape (indices,)."""
        near = cosines(self._vectors[indices], self._points)
        near -= self._nearest
        gains = np.maximum(near, 0, out=near).sum(axis=1)
        return np.asarray(self._weight * gains + self._bonus[indices])


class FacilityLocation(Strategy):
    """Greedy on :class:`Facilities` per token, or per unit of another budget.

    With qualities a is 0.5, and q is quality to its power, as it is given: multiply it to weigh it
    more. Represented are all samples of the pool, or 2,048 of them that the seed draws. Samples
    without a vector come last.

    Source: QDIT (arXiv 2311.14736): facility location plus quality, by a greedy; lazy and by cost
    as in ``coverage``.
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
        with ThreadPoolExecutor(workers) as executor:
            costs = np.maximum(pool.costs[positions], 1).astype(np.float64)
            greedy = LazyGreedy(facilities, costs, executor, workers)
            if run.scores is not None:
                greedy.scores[is_picked] = run.scores[positions[is_picked]]
            scores = np.full(len(pool.pi), -np.inf)
            scores[positions] = greedy.scores
            run.scores = scores

            def pick(rows: Indices, offer: Offer) -> None:
                greedy.pick(rows, PICKS_PER_ROUND, offer)
                scores[positions] = greedy.scores

            yield from pick_rows(run, budget, embedded, _IN_REACH, pick)


STRATEGY = FacilityLocation()
