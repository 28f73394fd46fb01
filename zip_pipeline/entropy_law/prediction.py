"""What the earlier versions let one expect of the next, and how far off it may be."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

Basis: TypeAlias = Literal["mean", "latest", "spreads"]
Direction: TypeAlias = Literal["up", "down", "flat"]


@dataclass(frozen=True, kw_only=True)
class VerdictRule:
    """The numbers behind a verdict; all are properties of the rule, none of the samples."""

    level: float = 0.95
    """One-sided level of the prediction bound."""
    min_versions: int = 3
    """How many comparable versions it takes to use their own variation."""
    window: int = 10
    """How many of the latest comparable versions count."""
    num_spreads: float = 2.0
    """How many standard deviations of the measuring error a change must exceed in any case."""
    smallest_relative_change: float = 0.001
    """A change below this share of the reference is none, however little the versions vary."""

    def __post_init__(self) -> None:
        """Refuse a rule that cannot be applied."""
        allowed = {
            "level": (0.5 <= self.level < 1, "at least 0.5 and below 1"),
            "min_versions": (self.min_versions >= 3, "at least 3"),
            "window": (self.window >= self.min_versions, "at least min_versions"),
            "num_spreads": (self.num_spreads > 0, "above 0"),
            "smallest_relative_change": (self.smallest_relative_change >= 0, "0 or more"),
        }
        for name, (is_allowed, words) in allowed.items():
            if not is_allowed:
                raise ValueError(f"{name}: {getattr(self, name)} is not allowed; must be {words}")


@dataclass(frozen=True)
class Change:
    """How a new value stands to the earlier ones."""

    value: float
    reference: float
    bound: float
    basis: Basis

    @property
    def difference(self) -> float:
        """New value minus reference."""
        return self.value - self.reference

    @property
    def direction(self) -> Direction:
        """``up`` or ``down`` where the difference exceeds the bound, else ``flat``."""
        if abs(self.difference) <= self.bound:
            return "flat"
        return "up" if self.difference > 0 else "down"


def change(
    value: float,
    spread: float,
    earlier: Sequence[float],
    earlier_spreads: Sequence[float],
    rule: VerdictRule,
) -> Change:
    """Return how a value stands to the values of earlier versions, in its unit.

    With ``min_versions`` or more, two references are tried: the mean m of the n earlier values,
    with standard error of prediction s * sqrt(1 + 1/n), and the latest value, with the root mean
    square d of the steps between successive values. The smaller error wins: versions that
    scatter about a level are compared with their mean, versions that drift (a pool that slowly
    becomes more redundant, a selection that improves) with the latest. The bound is that error
    times the quantile of Student's t with n - 1 degrees of freedom. A mean alone would call
    every third version of a slow rise "up", and would not see a relapse after a fall.

    With fewer, the reference is the mean and the bound ``num_spreads`` times the measuring
    error of the difference.

    The bound is never below the measuring error so multiplied, nor below
    ``smallest_relative_change`` of the reference, so versions that hardly differ raise no alarm.

    A steady drift is thus not called a change: it shows in the figure over versions instead.

    Args:
        value: the new value.
        spread: its measuring error, one standard deviation.
        earlier: the earlier values, oldest first, at least one.
        earlier_spreads: their measuring errors.
        rule: the numbers of the rule.

    Source: prediction interval of a normal sample; mean square successive difference
    (von Neumann et al. 1941).
    """
    assert len(earlier) == len(earlier_spreads) > 0
    mean = math.fsum(earlier) / len(earlier)
    error_of_mean = math.sqrt(math.fsum(s * s for s in earlier_spreads)) / len(earlier)
    reference, bound, error = mean, 0.0, error_of_mean
    basis: Basis = "spreads"
    if len(earlier) >= rule.min_versions:
        error_mean, error_latest = _prediction_errors(earlier, mean)
        bound = _quantile(rule.level, len(earlier) - 1) * min(error_mean, error_latest)
        basis = "mean" if error_mean <= error_latest else "latest"
        if basis == "latest":
            reference, error = earlier[-1], earlier_spreads[-1]
    bound = max(
        bound,
        rule.num_spreads * math.hypot(spread, error),
        rule.smallest_relative_change * abs(reference),
    )
    return Change(value, reference, bound, basis)


def _prediction_errors(values: Sequence[float], mean: float) -> tuple[float, float]:
    """Return the standard errors of predicting the next value by the mean and by the latest."""
    num = len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (num - 1)
    steps = [b - a for a, b in pairwise(values)]
    mean_square_step = math.fsum(step * step for step in steps) / (num - 1)
    return math.sqrt(variance * (1 + 1 / num)), math.sqrt(mean_square_step)


def _quantile(level: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, level))
