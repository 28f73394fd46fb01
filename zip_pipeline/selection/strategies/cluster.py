"""Strategy ``cluster``: of each cluster of samples those that are most typical of it."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from zip_pipeline.selection.candidates import Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import OrderStrategy
from zip_pipeline.selection.vectors import SIGNAL, Embedded, clusters_of


class Cluster(OrderStrategy):
    """Clusters take turns, the largest first; each gives the sample nearest to its centroid.

    There are as many clusters as the square root of half the samples, at most 1,024. Samples
    without a vector come last.

    Source: the baseline of ZIP (arXiv 2407.06645), section 5.1, which does not tell the number.
    Deviation: k-means in small batches, on a draw of large pools; the configured embedder.
    """

    name = "cluster"
    description = "the most typical samples of each cluster, by what they say"
    parameters = ("seed", "signals")
    mixture = "none"
    signals = (SIGNAL,)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: of those left in its cluster it was the nearest to the "
        "centre when the cluster's turn came",
        "never_reached": "others of its cluster were nearer to the centre, and the budget was used "
        "before its turn came",
    }
    unmeasured = "clusters take turns, so no figure compares it with the last pick"

    def order(self, pool: Measured, config: SelectionConfig) -> Indices:
        """Return all positions, those of the first turns first."""
        embedded = Embedded.of(pool)
        clusters = clusters_of(embedded.vectors, config.seed, f"strategy {self.name}")
        nearest_first = np.argsort(-clusters.cosines, kind="stable")
        return embedded.order(clusters.take_turns(nearest_first))


STRATEGY = Cluster()
