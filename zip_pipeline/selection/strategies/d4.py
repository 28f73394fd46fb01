"""Strategy ``d4``: without near-duplicates, what is least typical of its cluster."""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from zip_pipeline.selection.candidates import Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import OrderStrategy
from zip_pipeline.selection.vectors import (
    SIGNAL,
    Clusters,
    Cosines,
    Embedded,
    PartOfRows,
    Rows,
    blocks,
    clusters_of,
    cosines,
)

KEPT = 0.75
MOST_FARTHER = 1 << 12
_ROWS_AT_A_TIME = 1 << 10


def redundancies(vectors: Rows, clusters: Clusters) -> Cosines:
    """Return how much each row repeats another one of its cluster, shape (rows,), 0 to 1.

    It is the highest cosine to those of its cluster that are farther from the centroid, so that of
    near-duplicates the farthest repeats nobody; ties: the lowest row counts as farther. Looked at
    are the nearest 4,096 of these by their cosine to the centroid, which that of near-duplicates is
    next to: so time grows with the rows, not with their square.
    """
    found = np.zeros(len(vectors))
    farthest_first = np.lexsort((clusters.cosines, clusters.labels))
    borders = np.flatnonzero(np.diff(clusters.labels[farthest_first])) + 1
    for members in np.split(farthest_first, borders):
        for block in blocks(len(members), _ROWS_AT_A_TIME):
            own = np.arange(block.start, block.stop)[:, None]
            others = np.arange(max(block.start - MOST_FARTHER, 0), block.stop)
            is_farther = (others < own) & (others >= own - MOST_FARTHER)
            vectors_of_others = vectors[members[others]]
            near = cosines(vectors_of_others[block.start - block.stop :], vectors_of_others)
            found[members[block]] = np.where(is_farther, near, 0).max(axis=1)
    return found


class D4(OrderStrategy):
    """Drops the quarter that repeats most, clusters the rest anew, and takes the farthest first.

    Far is a low cosine to the centroid. What was dropped comes last, the least redundant of it
    first, and after it samples without a vector. There are as many clusters as for ``cluster``.

    Source: D4 (arXiv 2308.12284), R_dedup 0.75; SemDeDup (arXiv 2303.09540), whose published code
    (semdedup.py, which_to_keep "hard") keeps the farthest of near-duplicates, and counts those that
    are themselves dropped.
    Deviation: the budget takes the place of R_proto; the quarter is exact, where SemDeDup sets a
    threshold that drops about as many; fewer clusters; of larger ones the nearest 4,096 are
    compared; and the embedder of the configuration.
    """

    name = "d4"
    description = "no near-duplicates, and the least typical samples of each cluster first"
    parameters = ("seed", "signals")
    mixture = "none"
    signals = (SIGNAL,)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: of those left without near-duplicates it was the "
        "farthest from the centre of its cluster",
        "never_reached": "a near-duplicate of another sample, or too near to the centre of its "
        "cluster before the budget was used",
    }
    unmeasured = (
        "the ledger has no distances to centres, so no figure compares it with the last pick"
    )

    def order(self, pool: Measured, config: SelectionConfig) -> Indices:
        """Return all positions, the farthest first, what was dropped last."""
        embedded, what = Embedded.of(pool), f"strategy {self.name}"
        vectors = embedded.vectors
        repeats = redundancies(vectors, clusters_of(vectors, config.seed, what))
        least_first = np.argsort(repeats, kind="stable")
        num_kept = math.ceil(KEPT * len(vectors))
        kept = np.sort(least_first[:num_kept])
        anew = clusters_of(PartOfRows(vectors, kept), config.seed, what)
        farthest_first = kept[np.argsort(anew.cosines, kind="stable")]
        return embedded.order(np.concatenate([farthest_first, least_first[num_kept:]]))


STRATEGY = D4()
