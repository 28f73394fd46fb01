"""How long a selection will take: before it starts, and while it runs."""

from collections import deque
from dataclasses import dataclass

from zip_pipeline.selection.candidates import Measured

_WINDOW_ROUNDS = 20
# Rounds that are run before a strategy is asked what all of them will take.
PILOT_SECONDS = 1.0


@dataclass(frozen=True)
class Pilot:
    """How the first rounds of a selection went."""

    left: int
    """what was to be used of the budget when the clock started, in its unit"""
    used: int
    """what the rounds used of it, more than 0"""
    num_rounds: int
    """how many they were, more than 0"""
    seconds: float


def num_picks(pool: Measured, budget: int) -> float:
    """Return about how many samples fit a budget, in its unit."""
    return budget / max(float(pool.costs.mean()), 1.0)


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
