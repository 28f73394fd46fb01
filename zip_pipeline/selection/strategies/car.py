"""Strategy ``car``: the best samples, and then the best of each cluster."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from zip_pipeline.errors import UserError
from zip_pipeline.selection.candidates import Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import OrderStrategy
from zip_pipeline.selection.vectors import SIGNAL, Embedded, clusters_of


class Car(OrderStrategy):
    """Half of the budget for the best by quality; then clusters take turns with their best.

    The largest cluster is first. A turn whose sample is among the best of all is used by it. There
    are as many clusters as for ``cluster``. Samples without a vector come last, but for the best.

    Source: CaR (arXiv 2402.18191), section 3, and its code (Clustering/cluster.py): sqrt(n / 2)
    clusters; the best of a cluster adds nothing where it is among the best of all.
    Deviation: shares of a budget in the place of n1 = 1,000 and n2 = 1, so that clusters come again
    and again; quality is the configuration's, as is the embedder; k-means in small batches, and
    without the PCA that keeps 95% of the variance.
    """

    name = "car"
    description = "the best samples by quality, then the best of each cluster"
    parameters = ("quality", "seed", "signals")
    mixture = "none"
    signals = (SIGNAL,)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank} at quality {quality:g}: among the best of all, or the "
        "best left in its cluster when the cluster's turn came",
        "never_reached": "at quality {quality:g} not among the best of all, and others of its "
        "cluster were better before the budget was used",
    }
    unmeasured = (
        "after the best of all clusters take turns, so no figure compares it with the last pick"
    )

    def check(self, config: SelectionConfig) -> None:
        """Raise UserError where there is no quality."""
        super().check(config)
        if config.quality is None:
            raise UserError(
                f"quality: {self.name} takes the best samples first, and got none; name a number "
                "of the records, such as meta.score, or a .parquet or .csv file with the columns "
                "sample_id and score"
            )

    def order(self, pool: Measured, config: SelectionConfig) -> Indices:
        """Return all positions, the best half of the budget first."""
        assert pool.weights is not None, "the configuration is checked"
        embedded = Embedded.of(pool)
        by_id = pool.candidates.by_id()
        best_first = by_id[np.argsort(-pool.weights[by_id], kind="stable")]
        num_best = int((np.cumsum(pool.costs[best_first]) <= config.budget / 2).sum())
        best = best_first[:num_best]
        clusters = clusters_of(embedded.vectors, config.seed, f"strategy {self.name}")
        rows = np.argsort(-pool.weights[embedded.positions], kind="stable")
        turns = embedded.order(clusters.take_turns(rows))
        return np.concatenate([best, turns[~np.isin(turns, best)]])


STRATEGY = Car()
