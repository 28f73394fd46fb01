"""Strategy ``random``: a seeded baseline."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from zip_pipeline.selection.candidates import Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import OrderStrategy


def random_order(sample_ids: Iterable[str], seed: int) -> Indices:
    """Return all positions in a uniform order that depends on the ids and the seed alone.

    Each id is hashed with the seed and the hashes are sorted (ties: by id), so the order of
    the samples in the pool does not matter, and a new sample changes no other's place.
    """
    salt = seed.to_bytes(8, "little")
    keys = [
        (hashlib.blake2b(sample_id.encode(), digest_size=8, salt=salt).digest(), sample_id)
        for sample_id in sample_ids
    ]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


class Random(OrderStrategy):
    """Draws without looking at any sample."""

    name = "random"
    description = "a seeded baseline"
    parameters = ("seed",)
    mixture = "none"
    words: ClassVar[Mapping[str, str]] = {
        "picked": "drawn as number {rank} with seed {seed}",
        "never_reached": "not drawn with seed {seed} before the budget was used",
    }

    def order(self, pool: Measured, config: SelectionConfig) -> Indices:
        """Return a uniform order of all positions."""
        return random_order(pool.candidates.index["sample_id"], config.seed)


STRATEGY = Random()
