"""What every incremental redundancy state of a growing set of texts can answer."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Sizes: TypeAlias = NDArray[np.int64]
Ratios: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

_CHUNKS_PER_WORKER = 4
_MIN_CHUNK = 16


def worker_count(workers: int) -> int:
    """Return ``workers``, or the number of usable cores where it is 0.

    Raises:
        ValueError: ``workers`` is negative.
    """
    if workers < 0:
        raise ValueError(f"workers: got {workers}; allowed are 0 (all cores) and above")
    return workers or len(os.sched_getaffinity(0))


class SelectedSet(Protocol):
    """A set of texts whose compressed size with one more text is cheap to ask for."""

    def add(self, texts: Sequence[bytes]) -> None:
        """Append texts to the set, in order, and size the set."""

    def extend(self, texts: Sequence[bytes]) -> None:
        """Append texts to the set, in order, for askers of ``marginal_bytes`` alone."""

    def ratios_with(self, texts: Sequence[bytes]) -> Ratios:
        """Return R of (set + text), raw / compressed bytes, for each text on its own."""

    def marginal_bytes(self, texts: Sequence[bytes]) -> Sizes:
        """Return by how many bytes each text, on its own, would grow the compressed set."""


class Parallel:
    """A pool of threads for codecs that release the interpreter lock.

    Results come in the order of the input, so they do not depend on the number of workers.
    """

    def __init__(self, workers: int) -> None:
        assert workers >= 1
        self.workers = workers
        self._executor = ThreadPoolExecutor(workers) if workers > 1 else None

    def sizes(
        self, measure: Callable[[Sequence[bytes]], list[int]], texts: Sequence[bytes]
    ) -> Sizes:
        """Return ``measure`` of all texts, computed in chunks of consecutive texts."""
        if self._executor is None or len(texts) <= _MIN_CHUNK:
            return np.array(measure(texts), dtype=np.int64)
        step = max(_MIN_CHUNK, -(-len(texts) // (self.workers * _CHUNKS_PER_WORKER)))
        chunks = [texts[start : start + step] for start in range(0, len(texts), step)]
        parts = self._executor.map(measure, chunks)
        return np.array([size for part in parts for size in part], dtype=np.int64)

    def close(self) -> None:
        """Stop the threads."""
        if self._executor is not None:
            self._executor.shutdown()
