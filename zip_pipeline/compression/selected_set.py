"""What every incremental redundancy state of a growing set of texts can answer."""

import logging
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
# Results do not depend on the number of workers, and beyond the cores they only cost memory. A
# few per core let a small machine prove the first.
_MOST_PER_CORE = 4
_log = logging.getLogger(__name__)


def worker_count(
    workers: int, name: str = "workers", tell: Callable[[str], object] = _log.warning
) -> int:
    """Return how many workers to start.

    Args:
        workers: how many were asked for, 0 for one per usable core; of more than 4 per core the
            rest is not started.
        name: what the person calls the number.
        tell: is called with one line where fewer are started than were asked for.

    Raises:
        ValueError: ``workers`` is negative.
    """
    if workers < 0:
        raise ValueError(f"{name}: got {workers}; allowed are 0 (all cores) and above")
    num_cores = len(os.sched_getaffinity(0))
    most = _MOST_PER_CORE * num_cores
    if workers > most:
        cores = "core" if num_cores == 1 else "cores"
        tell(
            f"{name}: {workers} is more than this machine's {num_cores} {cores} can use; "
            f"{most} are used"
        )
    return min(workers or num_cores, most)


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
        self.workers = worker_count(workers)
        self._executor = ThreadPoolExecutor(self.workers) if self.workers > 1 else None

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
