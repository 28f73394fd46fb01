"""How long a selection will take: before it starts, and while it runs."""

import math
import time
from collections import deque

import numpy as np

from zip_pipeline.compression.deflate_set import DeflateSet
from zip_pipeline.compression.selected_set import SelectedSet
from zip_pipeline.compression.zstd_set import ZstdSet
from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.ordering import lowest_index_first

_NUM_PROBES = 64
_MAX_PROBE_BYTES = 1 << 21
# What a pick of long_range takes: measurements against the selected set (81,262 samples, K
# 10000/200/100: 31), and dictionaries of its round's picks.
_MEASURED_PER_PICK = 31
_WINDOW_ROUNDS = 20


def estimate_seconds(pool: Measured, config: SelectionConfig, workers: int) -> float:
    """Return roughly how many seconds the rounds of a selection will take.

    Some candidates are measured here and now, behind sets as large as they will be, and the
    time is multiplied by how often that will be done. Expect half to twice the real time.

    Args:
        pool: the measured candidates.
        config: strategy ``zip`` or ``long_range``, and its budget.
        workers: how many will measure at the same time.
    """
    num_samples = len(pool.num_bytes)
    if not num_samples or not config.budget:
        return 0.0
    nearest = lowest_index_first(pool.pi, config.k1)
    mean_cost = max(float(pool.costs[nearest].mean()), 1.0)
    num_picks = min(config.budget / mean_cost, num_samples)
    num_rounds = math.ceil(num_picks / config.k3)
    probes = pool.candidates.texts.read(nearest[:: -(-len(nearest) // _NUM_PROBES)])
    picked_bytes = num_picks * float(pool.num_bytes[nearest].mean())
    if config.strategy == "zip":
        coarse = _seconds_behind(config, probes, picked_bytes / 2)
        fine = _seconds_behind(config, probes, picked_bytes / num_rounds / 2)
        k2, k3 = min(config.k2, num_samples), min(config.k3, num_samples)
        measured = len(nearest) * coarse + k3 * (k2 - k3 / 2) * fine
        return num_rounds * measured / workers
    coarse = _seconds_behind(config, probes, picked_bytes / 2)
    fine = _seconds_prepared(config, probes)
    return num_picks * (_MEASURED_PER_PICK * coarse / workers + fine)


def _seconds_behind(config: SelectionConfig, probes: list[bytes], set_bytes: float) -> float:
    """Return seconds per measurement behind a set of about that size."""
    given = _set_of(config, probes, set_bytes)
    given.marginal_bytes(probes[:1])
    started = time.perf_counter()
    given.marginal_bytes(probes)
    return (time.perf_counter() - started) / len(probes)


def _seconds_prepared(config: SelectionConfig, probes: list[bytes]) -> float:
    """Return seconds per measurement behind a set that was just changed."""
    mean_bytes = float(np.mean([len(probe) for probe in probes]))
    given = _set_of(config, probes, config.k3 / 2 * mean_bytes)
    started = time.perf_counter()
    for probe in probes:
        given.extend([probe])
        given.marginal_bytes([probe])
    return (time.perf_counter() - started) / len(probes)


def _set_of(config: SelectionConfig, probes: list[bytes], num_bytes: float) -> SelectedSet:
    given: SelectedSet = (
        ZstdSet(1, config.resolved_level)
        if config.resolved_codec == "zstd"
        else DeflateSet(config.resolved_level)
    )
    size = max(sum(map(len, probes)), 1)
    for _ in range(int(min(num_bytes, _MAX_PROBE_BYTES) / size)):
        given.extend(probes)
    return given


class RemainingTime:
    """How fast a selection has been of late, and how long the rest takes at that rate.

    Args:
        total: the budget.
        used: what was used of it before the clock started.
    """

    def __init__(self, total: int, used: int) -> None:
        self._total = total
        self._seen: deque[tuple[int, float]] = deque([(used, 0.0)], maxlen=_WINDOW_ROUNDS)

    def after(self, used: int, seconds: float) -> tuple[float | None, float | None]:
        """Return budget units per second and the seconds left; None while nothing is known."""
        first_used, first_seconds = self._seen[0]
        self._seen.append((used, seconds))
        if used <= first_used or seconds <= first_seconds:
            return None, None
        rate = (used - first_used) / (seconds - first_seconds)
        return rate, (self._total - used) / rate
