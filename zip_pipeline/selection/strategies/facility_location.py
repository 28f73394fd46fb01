"""Strategy ``facility_location``: a subset in which each sample of the pool has its like."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.selection.candidates import Budget, Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.run import Run
from zip_pipeline.selection.strategies import Strategy
from zip_pipeline.selection.vectors import (
    SIGNAL,
    Embedded,
    Gains,
    Rows,
    blocks,
    cosines,
    pick_greedily,
)
from zip_pipeline.signals.embedding import Vectors
from zip_pipeline.tables import TemporaryMatrix

# The a of the formula, where there are qualities.
SHARE_OF_QUALITY = 0.5
MOST_POINTS = 1024
# Of a cosine between 0 and 1: two bytes hold it, and sums of whole numbers have no rounding error.
STEPS = (1 << 16) - 1
_ROWS_AT_A_TIME = 1 << 13
_NUMBERS_AT_A_TIME = 1 << 24
_Steps = NDArray[np.uint16]


class Facilities:
    """f(S) = (1 - a) (n / |V|) sum over v in V of max over s in S of cos(v, s), + a sum of q(s).

    Cosines are rounded to 65,535 steps from 0 to 1, those below count as 0; f of the empty S is 0.
    A row that is added changes what others add at those points alone to which it is nearer than all
    before, which are ever fewer. So the sums of all rows are kept up to date; they are exact, and
    what is equal ties. All cosines are kept in a file, where 1,024 points take 2 KB a row.

    Args:
        vectors: of the n rows, exact ones, shape (rows, dimensions).
        points: the represented rows V, ascending.
        qualities: q of each row, shape (rows,); None for a = 0.
        folder: of the file.
    """

    def __init__(
        self, vectors: Rows, points: Indices, qualities: NDArray[np.float64] | None, folder: Path
    ) -> None:
        self._vectors, self._points = vectors, vectors[points]
        self._nearest = np.zeros(len(points), dtype=np.uint16)
        share = 0.0 if qualities is None else SHARE_OF_QUALITY
        self._weight = (1 - share) * len(vectors) / max(len(points), 1) / STEPS
        self._bonus = 0.0 if qualities is None else share * qualities
        self._near = TemporaryMatrix((len(points), len(vectors)), np.uint16, folder)
        self._sums = np.zeros(len(vectors), np.int64)
        for block in blocks(len(vectors)):
            near = _in_steps(self._points, vectors[block])
            self._near.write(np.arange(len(points)), near, block.start)
            self._sums[block] = near.sum(axis=0, dtype=np.int64)

    def add(self, row: int) -> None:
        """Add a row to S."""
        near = _in_steps(self._points, self._vectors[np.array([row])])[:, 0]
        (nearer,) = np.nonzero(near > self._nearest)
        for part in blocks(len(nearer), max(_NUMBERS_AT_A_TIME // len(self._sums), 1)):
            points = nearer[part]
            low, high, rows = self._nearest[points, None], near[points, None], self._near[points]
            for block in blocks(len(self._sums), _ROWS_AT_A_TIME):
                between = rows[:, block].clip(low, high) - low
                self._sums[block] -= between.sum(axis=0, dtype=np.int64)
        self._nearest[nearer] = near[nearer]

    def gains(self) -> Gains:
        """Return f(S + row) - f(S) for each row on its own, shape (rows,)."""
        return np.asarray(self._weight * self._sums + self._bonus, np.float64)


def _in_steps(points: Vectors, vectors: Vectors) -> _Steps:
    """Return the cosines of points and rows in steps, shape (points, rows)."""
    steps: _Steps = np.rint(cosines(points, vectors).clip(0, 1) * STEPS).astype(np.uint16)
    return steps


class FacilityLocation(Strategy):
    """Greedy on :class:`Facilities` per token, or per unit of another budget.

    With qualities a is 0.5, and q is quality to its power, as it is given: multiply it to weigh it
    more. Represented are all samples of the pool, or 1,024 of them that the seed draws. Samples
    without a vector come last.

    Source: QDIT (arXiv 2311.14736): facility location plus quality, by a greedy.
    Deviation: per token; a draw of the represented samples; cosines in 65,535 steps; the embedder
    of the configuration.
    """

    name = "facility_location"
    description = "a subset in which each sample of the pool has its like (QDIT), per token"
    measure = "gain"
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
        points = np.sort(embedded.by_chance(pool.candidates, config.seed)[:MOST_POINTS])
        qualities = None if pool.weights is None else pool.weights[embedded.positions]
        folder = pool.candidates.texts.path.parent
        facilities = Facilities(embedded.vectors, points, qualities, folder)
        yield from pick_greedily(run, budget, pool, embedded, facilities)


STRATEGY = FacilityLocation()
