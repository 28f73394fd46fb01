"""Strategy ``novel_select``: what is farthest from what is picked, most of all in dense places."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.selection.candidates import Budget, Indices, Mask, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import Offer
from zip_pipeline.selection.run import Run
from zip_pipeline.selection.strategies import Strategy
from zip_pipeline.selection.vectors import SIGNAL, Embedded, blocks, cosines, pick_rows
from zip_pipeline.signals.embedding import Vectors

NUM_NEIGHBOURS = 10
DENSITY_POWER = 0.5
MOST_CANDIDATES = 1 << 17
MOST_NEIGHBOURS = 1 << 13
PICKS_PER_ROUND = 200
_LEAST_DISTANCE = 1e-9
_REFRESHED = 64
_ROWS_AT_A_TIME = 1 << 10
# An old bound is a sum in another order than the sum that it bounds.
_ROUNDING = 1e-9
Numbers = NDArray[np.float64]


def densities(vectors: Vectors, among: Vectors) -> Numbers:
    """Return (mean distance to the 10 nearest)^-0.5 of each vector, shape (vectors,).

    Distance is 1 - cosine. Equal vectors count as one, and none is a neighbour of itself.
    """
    place_of = {vector.tobytes(): place for place, vector in enumerate(among)}
    others = among[list(place_of.values())]
    place_of = {key: place for place, key in enumerate(place_of)}
    num = min(NUM_NEIGHBOURS, len(others))
    means = np.ones(len(vectors))
    for block in blocks(len(vectors), _ROWS_AT_A_TIME):
        distances = _distances(vectors[block], others)
        for own, vector in zip(distances, vectors[block], strict=True):
            if (place := place_of.get(vector.tobytes())) is not None:
                own[place] = np.inf
        nearest = np.partition(distances, num - 1, axis=1)[:, :num]
        is_there = np.isfinite(nearest)
        sums = np.where(is_there, nearest, 0).sum(axis=1)
        np.divide(sums, is_there.sum(axis=1), out=means[block], where=is_there.any(axis=1))
    return np.asarray(1 / np.sqrt(means + _LEAST_DISTANCE))


def _distances(some: Vectors, others: Vectors) -> Numbers:
    """Return 1 - cosine, at least 0, shape (some, others)."""
    return np.maximum(1 - cosines(some, others), 0)


class Novelty:
    """Sums over what is picked, sorted by weighted distance: that of the n-th nearest over n.

    The weighted distance of two rows is (1 - cosine) times the sum of their densities. A pick at
    distance d from a row moves its farther ones a rank back, so the sum grows by d / (number of
    picks) at most: the bounds of a lazy greedy.

    Args:
        vectors: exact ones, shape (rows, dimensions).
        density: of each row, shape (rows,).
    """

    def __init__(self, vectors: Vectors, density: Numbers) -> None:
        # Each pick reads them all: doubled once, not each time.
        self._vectors, self._density = vectors.astype(np.float64), density
        self.picks: list[int] = []
        self._picked = self._vectors[:0]
        self.bounds = np.zeros(len(vectors))
        self._shares = 1 / np.arange(1, len(vectors) + 1)

    def add(self, row: int) -> None:
        """Add a pick."""
        self.picks.append(row)
        self._picked = self._vectors[self.picks]
        distances = np.maximum(1 - self._vectors @ self._vectors[row], 0)
        self.bounds += (self._density + self._density[row]) * distances / len(self.picks)

    def sums(self, rows: Indices) -> Numbers:
        """Return the sum of each row, shape (rows,)."""
        weighted = np.maximum(1 - self._vectors[rows] @ self._picked.T, 0)
        weighted *= self._density[rows][:, None] + self._density[self.picks]
        weighted.sort(axis=1)
        return np.asarray((weighted * self._shares[: len(self.picks)]).sum(axis=1))

    def most_novel(self, left: Mask) -> int:
        """Return the row of the highest sum among those that are left; ties: the lowest."""
        known = np.where(left, self.bounds * (1 + _ROUNDING), -np.inf)
        is_stale, best = left.copy(), -np.inf
        while (known[is_stale] >= best).any():
            stale = np.flatnonzero(is_stale & (known >= best))
            if len(stale) > _REFRESHED:
                stale = stale[np.argpartition(known[stale], -_REFRESHED)[-_REFRESHED:]]
            known[stale] = self.bounds[stale] = self.sums(stale)
            is_stale[stale] = False
            best = max(best, float(known[stale].max()))
        return int(np.flatnonzero(~is_stale & (known == best))[0])


class NovelSelect(Strategy):
    """From a start that the seed draws, the most novel sample again and again.

    Novel is a high mean over what is picked of (1 / rank) times the weighted distance, where the
    rank counts from the nearest on by weighted distance, as in :class:`Novelty`; a density is
    (mean distance to the 10 nearest)^-0.5. Time grows with picks times samples, so of larger pools
    131,072 candidates are drawn by the seed; what was not drawn comes after them in that order, and
    last the samples without a vector.

    Source: NovelSelect (arXiv 2502.17184), and its code (novelselect.py, utils.py), which ranks by
    distance times densities, where the paper's formula ranks by distance, and takes the densities
    of both samples.
    Deviation: that draw; densities by the neighbours in a draw of 8,192 candidates, by 1 - cosine
    of normalised vectors, where the code has squared distances of vectors as they are; double
    precision for half; the embedder of the configuration.
    """

    name = "novel_select"
    description = "what is farthest from what is picked, most of all where samples are dense"
    measure = "novelty"
    parameters = ("seed", "signals")
    mixture = "none"
    signals = (SIGNAL,)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: it was the most novel sample beside those picked "
        "before (novelty {score:.4g})",
        "never_reached": "others were more novel before the budget was used (its novelty at most "
        "{score:.4g}), or it was not drawn as a candidate with seed {seed}",
    }

    def rounds(
        self, run: Run, budget: Budget, pool: Measured, config: SelectionConfig, workers: int
    ) -> Iterator[Run]:
        """Yield the run after each 200 picks; see :meth:`.Strategy.rounds`."""
        whole = Embedded.of(pool)
        embedded, draw = _drawn(whole, whole.by_chance(pool.candidates, config.seed))
        positions, vectors = embedded.positions, embedded.vectors[:]
        among = vectors[draw[:MOST_NEIGHBOURS]]
        novelty = Novelty(vectors, densities(vectors, among))
        for row in embedded.rows_of(run.picks).tolist():
            if row >= 0:
                novelty.add(row)
        scores = np.full(len(pool.pi), -np.inf) if run.scores is None else run.scores
        run.scores = scores

        def pick(rows: Indices, offer: Offer) -> None:
            left = np.zeros(len(vectors), dtype=np.bool_)
            left[rows] = True
            for _ in range(PICKS_PER_ROUND):
                if not left.any():
                    break
                row = novelty.most_novel(left) if novelty.picks else int(draw[left[draw]][0])
                # What fits no more ends the round: the next one looks at none like it.
                if not offer(row):
                    break
                left[row] = False
                scores[positions[row]] = novelty.bounds[row] / max(len(novelty.picks), 1)
                novelty.add(row)
            still = run.unpicked[positions]
            scores[positions[still]] = novelty.bounds[still] / max(len(novelty.picks), 1)

        yield from pick_rows(run, budget, embedded, PICKS_PER_ROUND, pick)


def _drawn(embedded: Embedded, draw: Indices) -> tuple[Embedded, Indices]:
    """Return the candidates as a pool, by sample id, and their rows in the order of the draw."""
    rows = np.sort(draw[:MOST_CANDIDATES])
    others = np.concatenate([embedded.positions[draw[MOST_CANDIDATES:]], embedded.others])
    drawn = Embedded(embedded.positions[rows], embedded.vectors[rows], others)
    return drawn, np.searchsorted(rows, draw[:MOST_CANDIDATES])


STRATEGY = NovelSelect()
