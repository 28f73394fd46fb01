"""Strategies ``random``, ``random_balanced`` and ``random_lengths``: seeded baselines."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.selection.candidates import Candidates, Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import OrderStrategy
from zip_pipeline.tables import of_ids


def random_keys(sample_ids: Iterable[str], seed: int) -> Iterator[bytes]:
    """Yield 8 uniform bytes for each sample that depend on its id and the seed alone.

    So the order of the samples in the pool does not matter, and a new one changes no other's.
    """
    salt = seed.to_bytes(8, "little")
    for sample_id in sample_ids:
        yield hashlib.blake2b(sample_id.encode(), digest_size=8, salt=salt).digest()


def random_numbers(sample_ids: Iterable[str], seed: int) -> NDArray[np.uint64]:
    """Return :func:`random_keys` as numbers, shape (ids,)."""
    keys = b"".join(random_keys(sample_ids, seed))
    return np.frombuffer(keys, ">u8").astype(np.uint64)


def random_order(sample_ids: Sequence[str] | pl.Series, seed: int) -> Indices:
    """Return all positions in a uniform order: by :func:`random_keys`, ties by id."""
    keys = random_numbers(sample_ids, seed)
    keyed = pl.DataFrame({"key": keys, "id": sample_ids}, schema_overrides={"id": pl.String})
    order: Indices = keyed.select(pl.arg_sort_by("key", "id")).to_series().to_numpy()
    return order.astype(np.int64)


def order_by_chance(candidates: Candidates, seed: int) -> Indices:
    """Return :func:`random_order` of candidates that come by their ids, without these in memory."""
    return np.argsort(
        of_ids(candidates.index, lambda ids: random_numbers(ids, seed)), kind="stable"
    )


class Random(OrderStrategy):
    """Draws without looking at any sample."""

    name = "random"
    description = "a seeded baseline"
    parameters: ClassVar[tuple[str, ...]] = ("seed",)
    guards_noise = False
    mixture = "none"
    words: ClassVar[Mapping[str, str]] = {
        "picked": "drawn as number {rank} with seed {seed}",
        "never_reached": "not drawn with seed {seed} before the budget was used",
    }
    unmeasured = "chance alone decides which come first"

    def order(self, pool: Measured, config: SelectionConfig) -> Indices:
        """Return a uniform order of all positions."""
        return order_by_chance(pool.candidates, config.seed)


class RandomBalanced(Random):
    """Draws from each source its share of the pool: what a choice within sources is measured by."""

    name = "random_balanced"
    description = "random, with each source at its share of the pool"
    mixture = "natural"


# Samples are as long as each other when their sizes lie in one class, each 1.41 times the last.
_CLASSES_PER_DOUBLING = 2


def length_classes(num_bytes: Indices) -> Indices:
    """Return the class of each size: floor(2 log2(bytes))."""
    classes: Indices = np.floor(_CLASSES_PER_DOUBLING * np.log2(np.maximum(num_bytes, 1)))
    return classes.astype(np.int64)


class RandomLengths(Random):
    """Draws so that at any time as many are of each length as in the target file.

    The n-th draw of a length class of which the target has m samples comes at (n - 1/2) / m; the
    classes that the target lacks come last. As target serves what another strategy has picked: what
    is then left of a difference does not come from the lengths.

    Source: Sainte-Laguë's apportionment.
    """

    name = "random_lengths"
    description = "random, with as many samples of each length as the target file has"
    parameters = ("seed", "target")
    unmeasured = (
        "lengths take turns as the target has them, and of one length chance decides which come "
        "first"
    )

    def order(self, pool: Measured, config: SelectionConfig) -> Indices:
        """Return the positions in the order of the draws, ties as in the uniform order."""
        order = super().order(pool, config)
        target = np.array([len(text) for text in pool.candidates.target], dtype=np.int64)
        return order[np.argsort(_turns(pool.num_bytes[order], target), kind="stable")]


def _turns(num_bytes: Indices, target_bytes: Indices) -> NDArray[np.float64]:
    """Return when each sample is drawn, given the sizes in an order, shape (samples,)."""
    classes, targets = length_classes(num_bytes), length_classes(target_bytes)
    turns = np.full(len(classes), np.inf)
    for own, num_targets in zip(*np.unique(targets, return_counts=True), strict=True):
        (places,) = np.nonzero(classes == own)
        turns[places] = (np.arange(len(places)) + 0.5) / num_targets
    return turns


STRATEGY = (Random(), RandomBalanced(), RandomLengths())
