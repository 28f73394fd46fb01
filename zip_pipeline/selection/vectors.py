"""Vectors of the samples of a pool: exact cosines, clusters, and clusters that take turns."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.errors import require
from zip_pipeline.selection.candidates import Budget, Candidates, Indices, Measured
from zip_pipeline.selection.rounds import Offer, Order, fill_in_order, offer_to, open_round
from zip_pipeline.selection.run import Run
from zip_pipeline.selection.strategies.random import order_by_chance
from zip_pipeline.signals.embedding import Vectors, normalised, vectors_of
from zip_pipeline.tables import PartOfTable, TemporaryMatrix, rows_in_parts, whole_of

SIGNAL = "embedding"
MOST_CLUSTERS = 1024
MOST_LEARNT = 1 << 26
"""numbers of the vectors that k-means learns from"""
PICKS_PER_ROUND = 200
_IN_REACH = 4096
_STEPS = 2**20
_ROWS_AT_A_TIME = 1 << 12
_BATCH = 1 << 12
Cosines = NDArray[np.float64]
Gains = NDArray[np.float64]


def exact(vectors: NDArray[np.floating]) -> Vectors:
    """Return vectors of length 1, each number rounded to a multiple of 2^-20.

    In double precision their cosines, and sums of up to 2,000 of these, have no rounding error: so
    they do not depend on blocks, threads or processor, and what is equal ties.
    """
    rounded = np.rint(normalised(vectors) * _STEPS) / _STEPS
    # Without a sign of zero, so that equal vectors have equal bytes.
    return np.asarray(rounded + 0.0, dtype=np.float32)


def cosines(some: Vectors, others: Vectors) -> Cosines:
    """Return the cosines of exact vectors, shape (some, others)."""
    return np.asarray(some.astype(np.float64) @ others.astype(np.float64).T)


def blocks(num_rows: int, size: int = _ROWS_AT_A_TIME) -> Iterator[slice]:
    """Yield slices that together are all rows."""
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


class Rows(Protocol):
    """Vectors in memory or in a file, shape (rows, dimensions)."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, rows: slice | Indices) -> Any:  # noqa: ANN401  as of numpy
        """Return some of them, in memory."""


@dataclass(frozen=True)
class PartOfRows:
    """Some of the rows, by their numbers."""

    whole: Rows
    numbers: Indices

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: slice | Indices) -> Vectors:
        vectors: Vectors = self.whole[self.numbers[rows]]
        return vectors


@dataclass(frozen=True)
class Embedded:
    """The samples of a pool that are looked at by their vectors, by sample id, and the others.

    Args:
        positions: in the pool, of those that have one, shape (rows,).
        vectors: exact ones, shape (rows, dimensions).
        others: positions of those that come after them, such as samples without a word.
    """

    positions: Indices
    vectors: Rows
    others: Indices

    @classmethod
    def of(cls, pool: Measured) -> "Embedded":
        """Return those of a pool, with their vectors in a file."""
        table = pool.candidates.signal_table(SIGNAL)
        whole, num_dimensions = whole_of(table), 0
        has_vector = [np.zeros(0, np.bool_)]
        for part in rows_in_parts(whole, "vector", num_rows=_ROWS_AT_A_TIME):
            has_vector.append(part["vector"].is_not_null().to_numpy())
            num_dimensions = max(num_dimensions, int(part["vector"].list.len().max() or 0))  # type: ignore[arg-type]
        is_row, by_id = np.concatenate(has_vector), pool.candidates.by_id()
        in_whole = table.positions[by_id] if isinstance(table, PartOfTable) else by_id
        is_own = is_row[in_whole]
        # Of each sample of the whole its row among the vectors.
        row_of = np.full(len(is_row), -1)
        row_of[in_whole[is_own]] = np.arange(is_own.sum())
        shape, folder = (int(is_own.sum()), num_dimensions), pool.candidates.texts.path.parent
        vectors, start = TemporaryMatrix(shape, np.float32, folder), 0
        for part in rows_in_parts(whole, "vector", num_rows=_ROWS_AT_A_TIME):
            rows = row_of[start : start + part.height]
            vectors.write(rows[rows >= 0], exact(vectors_of(part))[rows >= 0])
            start += part.height
        return cls(by_id[is_own], vectors, by_id[~is_own])

    def rows_of(self, positions: Sequence[int] | Indices) -> Indices:
        """Return the row of each of some positions, -1 where it has no vector."""
        rows = np.full(len(self.positions) + len(self.others), -1)
        rows[self.positions] = np.arange(len(self.positions))
        return rows[positions]

    def by_chance(self, candidates: Candidates, seed: int) -> Indices:
        """Return all rows in a uniform order that the seed draws."""
        rows = self.rows_of(order_by_chance(candidates, seed))
        return rows[rows >= 0]

    def order(self, rows: Indices) -> Indices:
        """Return the positions of all rows in an order, and after them the others."""
        return np.concatenate([self.positions[rows], self.others])


def pick_rows(
    run: Run,
    budget: Budget,
    embedded: Embedded,
    num_in_reach: int,
    pick: Callable[[Indices, Offer], None],
) -> Iterator[Run]:
    """Yield the run after each round, until nothing fits; the others come when no row is left.

    Args:
        run: with the score of each position, higher = sooner.
        budget: with the cost of ``run.picks`` already taken.
        embedded: the pool.
        num_in_reach: how many unpicked samples are looked at in a round, in order of their scores.
        pick: gets the rows that fit, ascending, and offers some of them.
    """
    offer = offer_to(run, budget)
    assert run.scores is not None, "the strategy tells scores"
    order = Order.HIGHEST_FIRST
    while (eligible := open_round(run, budget, num_in_reach, run.scores, order)).any():
        (rows,) = np.nonzero(eligible[embedded.positions])
        if len(rows):
            run.num_rounds += 1
            pick(rows, lambda row: offer(int(embedded.positions[row])))
        else:
            fill_in_order(run, budget, embedded.others[run.unpicked[embedded.others]])
        yield run


class Objective(Protocol):
    """What a set of rows is worth, told by what another row adds to it."""

    def add(self, row: int) -> None:
        """Add a row to the set."""

    def gains(self) -> Gains:
        """Return what each row on its own adds to the worth of the set, shape (rows,)."""


def pick_greedily(
    run: Run, budget: Budget, pool: Measured, embedded: Embedded, objective: Objective
) -> Iterator[Run]:
    """Yield the run after each 200 picks, or fewer, of the row that adds most for its cost.

    Ties go to the lowest row. The score of a position is its last gain per unit of the budget.

    Args:
        run: fresh or from a checkpoint.
        budget: with the cost of ``run.picks`` already taken.
        pool: the candidates, measured.
        embedded: the rows among them.
        objective: of the empty set.
    """
    positions = embedded.positions
    for row in embedded.rows_of(run.picks).tolist():
        if row >= 0:
            objective.add(row)
    costs = np.maximum(pool.costs[positions], 1)
    scores = np.full(len(pool.pi), -np.inf) if run.scores is None else run.scores
    run.scores = scores

    def tell() -> None:
        left = run.unpicked[positions]
        scores[positions[left]] = (objective.gains() / costs)[left]

    def pick(rows: Indices, offer: Offer) -> None:
        fits = np.zeros(len(positions), dtype=np.bool_)
        fits[rows] = True
        for _ in range(PICKS_PER_ROUND):
            gains = np.where(fits, objective.gains() / costs, -np.inf)
            row = int(gains.argmax())
            # What fits no more ends the round: the next one looks at none like it.
            if not fits[row] or not offer(row):
                break
            fits[row] = False
            scores[positions[row]] = gains[row]
            objective.add(row)
        tell()

    tell()
    yield from pick_rows(run, budget, embedded, _IN_REACH, pick)


@dataclass(frozen=True)
class Clusters:
    """The cluster of each row, and the cosine to its centroid, both of shape (rows,)."""

    labels: Indices
    cosines: Cosines

    def take_turns(self, rows: Indices) -> Indices:
        """Return rows so that clusters take turns, the one with most rows first.

        In each cluster the rows keep their order.
        """
        labels = self.labels[rows]
        sizes = np.bincount(labels)
        by_cluster = np.argsort(labels, kind="stable")
        firsts = np.cumsum(sizes) - sizes
        turns = np.empty(len(rows), dtype=np.int64)
        turns[by_cluster] = np.arange(len(rows)) - firsts[labels[by_cluster]]
        return rows[np.lexsort((labels, -sizes[labels], turns))]


def num_clusters(num_rows: int) -> int:
    """Return the square root of half the rows, at least 1 and at most 1,024."""
    return min(max(math.isqrt(num_rows // 2), 1), MOST_CLUSTERS)


def clusters_of(vectors: Rows, seed: int, what: str) -> Clusters:
    """Return the clusters of exact vectors, by the cosine to the nearest centroid of k-means.

    Ties go to the lowest cluster. Of more than 67 million numbers, 262,144 vectors of 256, k-means
    learns from so many rows that the seed draws.

    Args:
        vectors: shape (rows, dimensions).
        seed: of k-means.
        what: asks for them, for the message where scikit-learn is not installed.
    """
    require("sklearn", what)
    centroids = _centroids(vectors, seed)
    labels, nearest = np.zeros(len(vectors), np.int64), np.zeros(len(vectors))
    for block in blocks(len(vectors)):
        found = cosines(vectors[block], centroids)
        labels[block] = found.argmax(axis=1)
        nearest[block] = found.max(axis=1)
    return Clusters(labels, nearest)


def _centroids(vectors: Rows, seed: int) -> Vectors:
    if not len(vectors):
        return exact(vectors[:])
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    num, num_learnt = num_clusters(len(vectors)), MOST_LEARNT // vectors[:1].size
    if num_learnt < len(vectors):
        drawn = random.permutation(len(vectors))[:num_learnt]
        vectors = PartOfRows(vectors, np.sort(drawn))
    model = MiniBatchKMeans(
        num,
        n_init=1,
        batch_size=_BATCH,
        random_state=random,
        compute_labels=False,
    )
    # Sums of single precision depend on how many threads share them.
    with threadpool_limits(1):
        return exact(model.fit(vectors[:]).cluster_centers_)
