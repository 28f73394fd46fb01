"""Strategy ``mig``: what tells most about tags of which the subset has told little."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.errors import UserError
from zip_pipeline.selection.candidates import Budget, Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.run import Run
from zip_pipeline.selection.strategies import Strategy
from zip_pipeline.selection.strategies.instag import Tags, tags_of
from zip_pipeline.selection.vectors import (
    Embedded,
    Gains,
    blocks,
    cosines,
    exact,
    pick_greedily,
)
from zip_pipeline.signals.embedding import Vectors, vectors_of
from zip_pipeline.signals.tags import plain

LEAST_COSINE = 0.9
# phi(x) = (x + A)^B
A = 1e-6
B = 0.8
MOST_JOINED = 1 << 23
"""pairs of tags"""
_NUMBERS_AT_A_TIME = 1 << 23
Numbers = NDArray[np.float64]


class TagGraph:
    """Tags, and what is told about one of them when another one is told of.

    Two tags are joined where their cosine is at least a threshold. Row t of P holds these cosines,
    1 for t itself, over their sum: the share that each tag has in what is told about t.

    Args:
        vectors: exact ones, zeros where a tag has none, shape (tags, dimensions).
        least_cosine: of tags that are joined, above 0.

    Raises:
        UserError: too many pairs are joined.
    """

    def __init__(self, vectors: Vectors, least_cosine: float) -> None:
        parts = [np.zeros((2, 0), dtype=np.int64)]
        weights = [np.zeros(0)]
        for block in blocks(len(vectors), max(_NUMBERS_AT_A_TIME // max(len(vectors), 1), 1)):
            near = cosines(vectors[block], vectors)
            near[np.arange(len(near)), np.arange(len(vectors))[block]] = 1
            rows, others = np.nonzero(near >= least_cosine)
            parts.append(np.stack([rows + block.start, others]))
            weights.append(near[rows, others])
            if sum(map(len, weights)) > MOST_JOINED:
                raise UserError(
                    f"tag_cosine: at {least_cosine:g} more than {MOST_JOINED:,} pairs of the "
                    f"{len(vectors):,} tags are joined; give a higher one"
                )
        self.rows, self.others = np.concatenate(parts, axis=1)
        joined = np.concatenate(weights)
        sums = np.bincount(self.rows, joined, minlength=len(vectors))
        # As P is turned: what the tag of the row tells about the other one.
        self.shares = joined / sums[self.others]
        self._starts = np.searchsorted(self.rows, np.arange(len(vectors)))

    def told(self, tags: NDArray[np.int32]) -> tuple[Indices, Numbers]:
        """Return what some tags tell of, and how much: P times 1 at each of them."""
        among = np.isin(self.rows, tags)
        return self.others[among], self.shares[among]

    def worth(self, prices: Numbers) -> Numbers:
        """Return what telling of each tag is worth, at prices of what is told, shape (tags,)."""
        if not len(prices):
            return prices
        return np.add.reduceat(self.shares * prices[self.others], self._starts)


class Information:
    """sum over tags t of phi((P x)_t), x the sum over the set of quality where a sample has a tag.

    The gain of a row is its first order: the derivative of phi times what the row tells. Gains only
    fall as the set grows. They count in single precision, so that what is equal ties in whatever
    order it is summed up.

    Args:
        graph: of the tags.
        starts: where the tags of each row start, shape (rows,); each has at least one.
        tags: of one row after another, ascending, shape (pairs,).
        qualities: shape (rows,).
    """

    def __init__(
        self,
        graph: TagGraph,
        starts: Indices,
        tags: NDArray[np.int32],
        qualities: Numbers,
        num_tags: int,
    ) -> None:
        self._graph, self._tags, self._qualities = graph, tags, qualities
        self._starts = starts
        self._told = np.zeros(num_tags)

    def add(self, row: int) -> None:
        """Add a row to the set."""
        own = slice(*np.append(self._starts, len(self._tags))[row : row + 2])
        tags, shares = self._graph.told(self._tags[own])
        np.add.at(self._told, tags, self._qualities[row] * shares)

    def gains(self) -> Gains:
        """Return the gain of each row on its own, shape (rows,)."""
        if not len(self._qualities):
            return self._qualities
        worth = self._graph.worth(B * (self._told + A) ** (B - 1))
        sums = np.add.reduceat(worth[self._tags], self._starts)
        return np.asarray((self._qualities * sums).astype(np.float32), np.float64)


class Mig(Strategy):
    """Greedy on :class:`Information` per token, or per unit of another budget.

    Tags are the nodes of :class:`TagGraph`; those that differ in case or white space alone are one.
    Their vectors are those of the model of the signal ``embedding``, which is asked for nothing
    else. Samples without a tag come last, by sample id.

    Source: MIG (arXiv 2504.13835), section 3, and its code (mig/sampler.py, mig/label.py): the
    threshold, phi(x) = (x + 1e-6)^0.8, gains by its derivative, quality to each tag in full.
    Deviation: per token; all tags of the records, where the code keeps a list of frequent ones;
    quality is the configuration's, there DEITA's quality times complexity, in the mean over turns;
    the embedder of the configuration.
    """

    name = "mig"
    description = "what tells most, by quality, about tags of which the subset has told little"
    measure = "gain"
    parameters = ("quality", "quality_power", "tag_cosine", "signals")
    mixture = "none"
    signals = ("tags",)
    embeds_tags = True
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: for its size it told most about tags of which those "
        "before it had told little (gain {score:.4g})",
        "never_reached": "others told more, for their size, about tags of which the subset had "
        "told little before the budget was used (its last gain {score:.4g})",
    }

    def check(self, config: SelectionConfig) -> None:
        """Raise UserError where there is no quality."""
        super().check(config)
        if config.quality is None:
            raise UserError(
                f"quality: {self.name} weighs by it what a sample tells, and got none; name a "
                "number of the records, such as meta.score, or a .parquet or .csv file of scores"
            )

    def rounds(
        self, run: Run, budget: Budget, pool: Measured, config: SelectionConfig, workers: int
    ) -> Iterator[Run]:
        """Yield the run after each 200 picks; see :meth:`.Strategy.rounds`.

        Raises:
            UserError: no sample has a tag.
        """
        tags = tags_of(pool, config, plain)
        by_id = pool.candidates.by_id()
        has_tags = (tags.counts > 0)[by_id]
        positions = by_id[has_tags]
        # No vector is looked at but those of tags.
        nothing = np.zeros((len(positions), 0), np.float32)
        embedded = Embedded(positions, nothing, by_id[~has_tags])
        assert pool.weights is not None, "the configuration is checked"
        assert pool.candidates.signals is not None, "the strategy declares its signals"
        vectors = pool.candidates.signals.tags
        assert vectors is not None, "the strategy embeds tags"
        least = LEAST_COSINE if config.tag_cosine is None else config.tag_cosine
        information = _information(tags.part(positions), pool.weights[positions], vectors, least)
        yield from pick_greedily(run, budget, pool, embedded, information)


def _information(
    tags: Tags, qualities: Numbers, vectors: pl.DataFrame, least_cosine: float
) -> Information:
    """Return the information of rows, given their tags, and the vectors of these and others."""
    is_used = np.zeros(len(tags.names), np.bool_)
    is_used[tags.numbers] = True
    used = pl.Series([name for name, own in zip(tags.names, is_used, strict=True) if own])
    nodes = vectors.filter(pl.col("tag").is_in(used.implode())).with_row_index("node")
    names = pl.DataFrame({"tag": tags.names}, schema={"tag": pl.String})
    node_of = names.join(nodes, on="tag", how="left", maintain_order="left")["node"]
    graph = TagGraph(exact(vectors_of(nodes)), least_cosine)
    # Rows and their nodes as one number each, ascending.
    pairs = np.repeat(np.arange(len(tags.ends)), tags.counts) * len(nodes)
    pairs += node_of.fill_null(0).to_numpy()[tags.numbers]
    pairs.sort()
    starts = tags.ends - tags.counts
    own = (pairs % len(nodes)).astype(np.int32) if len(nodes) else np.zeros(0, np.int32)
    return Information(graph, starts, own, qualities, len(nodes))


STRATEGY = Mig()
