"""Strategy ``zip``: the paper's multi-stage greedy selection."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.compression.codecs import codecs
from zip_pipeline.compression.sets import IndexedSet
from zip_pipeline.selection.candidates import Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import NewSet, Offer, RoundStrategy, lowest_index_first
from zip_pipeline.selection.run import Run, num_picks

_NUM_PROBES = 128
_PROBES_BYTES = 1 << 23
_MAX_SET_BYTES = 1 << 21
_SELECTED, _PICKED = "selected", "picked"


class ZipEngine:
    """Measures R of (set + sample), against all picks (coarse) and this round's picks (fine).

    Args:
        new_set: returns an empty set of pool samples; one of the same name takes its place.
        alone: R of each sample alone, shape (samples,): what an empty set would answer.

    Source: ZIP, algorithm 1.
    Deviation: float64 instead of float32; ties go to the lowest index.
    """

    def __init__(
        self, new_set: Callable[[str], IndexedSet], alone: NDArray[np.floating[Any]]
    ) -> None:
        self._new_set = new_set
        self._alone = alone
        self.start([])

    def start(self, picks_by_round: list[list[int]]) -> None:
        """Build the selected set from the picks of earlier rounds."""
        self._selected = self._new_set(_SELECTED)
        self._has_selected = False
        for picks in picks_by_round:
            self.add(picks)

    def coarse(self, candidates: Indices, k2: int, pi: NDArray[np.floating[Any]]) -> Indices:
        """Write R of (all picks + candidate) of each candidate to ``pi``; all are measured."""
        ratios = self._selected.ratios_with if self._has_selected else self._alone.__getitem__
        pi[candidates] = ratios(candidates)
        return candidates

    def fine(self, shortlist: Indices, k3: int, outside: float, offer: Offer, run: Run) -> None:
        """Offer, again and again, the sample with the lowest R of (picks of this round + it)."""
        picked = self._new_set(_PICKED)
        left = shortlist
        num_picked = 0
        while num_picked < k3 and len(left):
            ratios = picked.ratios_with(left) if num_picked else self._alone[left]
            order = lowest_index_first(ratios, len(left))
            taken = next(
                (n for n, position in enumerate(order) if offer(int(left[position]))), None
            )
            if taken is None:
                return
            picked.add(left[order[taken : taken + 1]])
            num_picked += 1
            # Whoever came before the accepted one did not fit, and never will in this round.
            left = np.delete(left, order[: taken + 1])

    def add(self, picks: list[int]) -> None:
        """Add the picks of a round to the selected set."""
        self._selected.add(np.array(picks, dtype=np.int64))
        self._has_selected |= bool(picks)


class Zip(RoundStrategy):
    """The paper's algorithm."""

    name = "zip"
    description = "the paper's algorithm"
    parameters = ("k1", "k2", "k3", "codec", "level", "num_shards", "reference_compat")
    guards_noise = False
    mixture = "none"

    def engine(self, pool: Measured, new_set: NewSet, config: SelectionConfig) -> ZipEngine:
        """Return what measures R of (set + sample)."""
        return ZipEngine(new_set, pool.pi)

    def estimate(self, pool: Measured, config: SelectionConfig, workers: int) -> float:
        """Return roughly how many seconds all rounds take.

        Some samples are measured now, behind sets as large as they will be, and the time is
        multiplied by how often that will be done. Expect half to twice the real time.
        """
        num_samples = len(pool.num_bytes)
        if not num_samples:
            return 0.0
        num_picked = min(num_picks(pool, config.budget), num_samples)
        num_rounds = math.ceil(num_picked / config.k3)
        mean_bytes = float(pool.num_bytes.mean())
        fitting = max(1, int(_PROBES_BYTES / max(mean_bytes, 1)))
        num_probes = min(_NUM_PROBES, num_samples, fitting)
        which = np.linspace(0, num_samples - 1, num_probes).astype(np.int64)
        probes = pool.candidates.texts.read(which)
        picked_bytes = num_picked * mean_bytes
        coarse = _seconds_behind(config, probes, picked_bytes / 2)
        fine = _seconds_behind(config, probes, picked_bytes / num_rounds / 2)
        k1, k2, k3 = (min(k, num_samples) for k in (config.k1, config.k2, config.k3))
        return num_rounds * (k1 * coarse + k3 * (k2 - k3 / 2) * fine) / workers


def _seconds_behind(config: SelectionConfig, probes: list[bytes], set_bytes: float) -> float:
    """Return seconds per measurement behind a set of about that size."""
    given = codecs[config.resolved_codec].new_set(config.resolved_level, workers=1)
    size = max(sum(map(len, probes)), 1)
    for _ in range(round(min(set_bytes, _MAX_SET_BYTES) / size)):
        given.extend(probes)
    given.marginal_bytes(probes[:1])
    started = time.perf_counter()
    given.marginal_bytes(probes)
    return (time.perf_counter() - started) / len(probes)


STRATEGY = Zip()
