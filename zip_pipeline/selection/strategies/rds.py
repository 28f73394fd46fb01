"""Strategy ``rds``: what is most like the samples of a target file, which take turns."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from zip_pipeline.errors import UserError
from zip_pipeline.selection.candidates import Budget, Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import Offer
from zip_pipeline.selection.run import Run
from zip_pipeline.selection.strategies import Strategy
from zip_pipeline.selection.vectors import (
    SIGNAL,
    Cosines,
    Embedded,
    Rows,
    blocks,
    cosines,
    exact,
    pick_rows,
)
from zip_pipeline.signals.embedding import Vectors, vectors_of

# As many picks of a round, and as many samples of which each row of the target knows the order.
PICKS_PER_ROUND = 4096
_TARGETS_AT_A_TIME = 32
_ROWS_AT_A_TIME = 1 << 16
# Of larger targets each row knows the order of fewer samples, and a round ends sooner.
_MOST_NEAREST = 1 << 23
_LEAST_NEAREST = 64


def _nearest(vectors: Rows, target: Vectors, rows: Indices) -> Indices:
    """Return the rows nearest to each row of the target, nearest first, shape (target, most).

    Ties go to the lowest row.
    """
    num = min(PICKS_PER_ROUND, len(rows), max(_MOST_NEAREST // len(target), _LEAST_NEAREST))
    found = np.zeros((len(target), num), dtype=np.int64)
    highest = np.full(found.shape, -np.inf)
    for part in blocks(len(rows), _ROWS_AT_A_TIME):
        some = vectors[rows[part]]
        for block in blocks(len(target), _TARGETS_AT_A_TIME):
            near = [cosines(target[block], some[few]) for few in blocks(len(some))]
            for number, own in enumerate(np.concatenate(near, axis=1), start=block.start):
                # With those of the parts before, which have lower rows, and so stand first.
                values = np.concatenate([highest[number], own])
                # With all that tie with the last of them, so that the lowest rows are among them.
                (among,) = np.nonzero(values >= np.partition(values, -num)[-num])
                first = among[np.argsort(-values[among], kind="stable")[:num]]
                found[number] = np.concatenate([found[number], rows[part]])[first]
                highest[number] = values[first]
    return found


def _take_turns(nearest: Indices, first: int, num_rows: int, offer: Offer) -> None:
    """Offer rows in turns until enough are accepted, or a list of nearest rows is at its end.

    Args:
        nearest: shape (target, most).
        first: whose turn it is.
        num_rows: number of rows of the pool.
        offer: tells whether a row was accepted; only then the turn is over.
    """
    is_offered = np.zeros(num_rows, dtype=np.bool_)
    lists = [iter(own) for own in nearest]
    for turn in range(first, first + PICKS_PER_ROUND):
        for row in lists[turn % len(lists)]:
            if not is_offered[row]:
                is_offered[row] = True
                if offer(row):
                    break
        else:
            return


class Rds(Strategy):
    """The samples of the target take turns, each with the nearest sample that is left.

    Near is a high cosine. Samples without a vector come last.

    Source: RDS+ (arXiv 2503.01807), section 3, and its code
    (minimal_multitask/get_top_influences.py, method max): every query takes its best in turn.
    Deviation: a query whose best is taken already takes the next, where the code lets its turn
    pass; the embedder of the configuration, where RDS+ has the last hidden states of a language
    model, weighted by position (compute_influence_cosinesim.py); there tasks take turns besides,
    each by its highest cosines, and tasks are not known here.
    """

    name = "rds"
    description = "what says most nearly the same as the samples of a target file"
    parameters = ("target", "signals")
    mixture = "none"
    signals = (SIGNAL,)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: the nearest left to a sample of the target whose turn "
        "it was (its highest cosine to any of them {score:.4f})",
        "never_reached": "others were nearer to each sample of the target before the budget was "
        "used (its highest cosine to any of them {score:.4f})",
    }
    unmeasured = (
        "samples of the target take turns, so no figure compares it with the last pick of another"
    )

    def rounds(
        self, run: Run, budget: Budget, pool: Measured, config: SelectionConfig, workers: int
    ) -> Iterator[Run]:
        """Yield the run after each some thousand picks; see :meth:`.Strategy.rounds`."""
        embedded, target = Embedded.of(pool), _target(pool)
        run.scores = np.full(len(pool.pi), -np.inf)
        run.scores[embedded.positions] = _highest(embedded.vectors, target)

        def pick(rows: Indices, offer: Offer) -> None:
            nearest = _nearest(embedded.vectors, target, rows)
            _take_turns(nearest, len(run.picks), len(embedded.positions), offer)

        yield from pick_rows(run, budget, embedded, PICKS_PER_ROUND, pick)


def _target(pool: Measured) -> Vectors:
    """Return the vectors of the target that are any, shape (target, dimensions)."""
    assert pool.candidates.signals is not None, "the strategy declares its signals"
    vectors = exact(vectors_of(pool.candidates.signals.target[SIGNAL]))
    vectors = vectors[vectors.any(axis=1)]
    if not len(vectors):
        raise UserError("target: none of its samples has a word; name a file with samples that do")
    return vectors


def _highest(vectors: Rows, target: Vectors) -> Cosines:
    highest = np.full(len(vectors), -np.inf)
    for block in blocks(len(vectors)):
        some = vectors[block]
        for part in blocks(len(target)):
            near = cosines(some, target[part]).max(axis=1)
            highest[block] = np.maximum(highest[block], near)
    return highest


STRATEGY = Rds()
