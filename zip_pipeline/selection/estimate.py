"""How long a selection will take: before it starts, and while it runs."""

import math
import time
from collections import deque

import numpy as np

from zip_pipeline.compression.sets import DeflateSet, SelectedSet, ZstdSet
from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.config import SelectionConfig

_NUM_PROBES = 128
_MAX_PROBE_BYTES = 1 << 21
_WINDOW_ROUNDS = 20
# Rounds of long_range that are played before it is estimated.
PILOT_SECONDS = 1.0
# What the formula of estimate_long_range gives too much: 1.6 to 1.7 times the time of selections
# from 81,262, 338,653 and 1,368,217 samples.
_EXCESS = 1.6


def estimate_zip(pool: Measured, config: SelectionConfig, workers: int) -> float:
    """Return roughly how many seconds the rounds of strategy ``zip`` will take.

    Some samples are measured here and now, behind sets as large as they will be, and the time
    is multiplied by how often that will be done. Expect half to twice the real time.

    Args:
        pool: the measured candidates.
        config: the budget, in its unit.
        workers: how many will measure at the same time.
    """
    num_samples = len(pool.num_bytes)
    if not num_samples or not config.budget:
        return 0.0
    num_picks = min(_num_picks(pool, config.budget), num_samples)
    num_rounds = math.ceil(num_picks / config.k3)
    which = np.linspace(0, num_samples - 1, min(_NUM_PROBES, num_samples)).astype(np.int64)
    probes = pool.candidates.texts.read(which)
    picked_bytes = num_picks * float(pool.num_bytes.mean())
    coarse = _seconds_behind(config, probes, picked_bytes / 2)
    fine = _seconds_behind(config, probes, picked_bytes / num_rounds / 2)
    k1, k2, k3 = (min(k, num_samples) for k in (config.k1, config.k2, config.k3))
    return num_rounds * (k1 * coarse + k3 * (k2 - k3 / 2) * fine) / workers


def estimate_long_range(
    pool: Measured,
    config: SelectionConfig,
    *,
    left: int,
    used: int,
    num_rounds: int,
    seconds: float,
) -> float:
    """Return roughly how many seconds the rounds of strategy ``long_range`` take in all.

    Early rounds end early: at their rate it would take far too long, and if every round picked
    k3, too short. The truth is near the geometric mean. Expect half to twice the real time.

    Args:
        pool: the measured candidates.
        config: with k3.
        left: what was to be used of the budget when the clock started, in its unit.
        used: what the first rounds used of it, more than 0.
        num_rounds: how many rounds that were, more than 0.
        seconds: what they took.
    """
    at_this_rate = seconds * left / used
    full_rounds = seconds / num_rounds * max(1.0, _num_picks(pool, left) / config.k3)
    return math.sqrt(at_this_rate * full_rounds) / _EXCESS


def _num_picks(pool: Measured, budget: int) -> float:
    return budget / max(float(pool.costs.mean()), 1.0)


def _seconds_behind(config: SelectionConfig, probes: list[bytes], set_bytes: float) -> float:
    """Return seconds per measurement behind a set of about that size."""
    given = _set_of(config, probes, set_bytes)
    given.marginal_bytes(probes[:1])
    started = time.perf_counter()
    given.marginal_bytes(probes)
    return (time.perf_counter() - started) / len(probes)


def _set_of(config: SelectionConfig, probes: list[bytes], num_bytes: float) -> SelectedSet:
    given: SelectedSet = (
        ZstdSet(1, config.resolved_level)
        if config.resolved_codec == "zstd"
        else DeflateSet(config.resolved_level)
    )
    size = max(sum(map(len, probes)), 1)
    for _ in range(round(min(num_bytes, _MAX_PROBE_BYTES) / size)):
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
