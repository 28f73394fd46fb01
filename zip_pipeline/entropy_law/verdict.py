"""Whether a new version of the data is likely to train a worse model than the earlier ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Literal, TypeAlias

import polars as pl

from zip_pipeline.entropy_law.table import BLOCKING_VERDICT, SCHEMA, is_blocked
from zip_pipeline.errors import UserError

Basis: TypeAlias = Literal["mean", "latest", "spreads"]
Direction: TypeAlias = Literal["up", "down", "flat"]


# All are properties of the rule, none of the samples.
LEVEL = 0.95
"""One-sided level of the prediction bound."""
MIN_VERSIONS = 3
"""How many comparable versions it takes to use their own variation."""
WINDOW = 10
"""How many of the latest comparable versions count."""
NUM_SPREADS = 2.0
"""How many standard deviations of the measuring error a change must exceed in any case."""
SMALLEST_RELATIVE_CHANGE = 0.001
"""A change below this share of the reference is none, however little the versions vary."""


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
    value: float, spread: float, earlier: Sequence[float], earlier_spreads: Sequence[float]
) -> Change:
    """Return how a value stands to the values of earlier versions, in its unit.

    With :data:`MIN_VERSIONS` or more, two references are tried: the mean m of the n earlier
    values, with standard error of prediction s * sqrt(1 + 1/n), and the latest value, with the
    root mean square d of the steps between successive values. The smaller error wins: versions
    that scatter about a level are compared with their mean, versions that drift (a pool that
    slowly becomes more redundant, a selection that improves) with the latest. The bound is that
    error times the quantile of Student's t with n - 1 degrees of freedom. A mean alone would call
    every third version of a slow rise "up", and would not see a relapse after a fall.

    With fewer, the reference is the mean and the bound :data:`NUM_SPREADS` times the measuring
    error of the difference.

    The bound is never below the measuring error so multiplied, nor below
    :data:`SMALLEST_RELATIVE_CHANGE` of the reference, so versions that hardly differ raise no
    alarm. A steady drift is thus not called a change: it shows in the figure over versions instead.

    Args:
        value: the new value.
        spread: its measuring error, one standard deviation.
        earlier: the earlier values, oldest first, at least one.
        earlier_spreads: their measuring errors.

    Source: prediction interval of a normal sample; mean square successive difference
    (von Neumann et al. 1941).
    """
    from scipy.special import stdtrit

    assert len(earlier) == len(earlier_spreads) > 0
    num = len(earlier)
    reference = math.fsum(earlier) / num
    error = math.sqrt(math.fsum(s * s for s in earlier_spreads)) / num
    bound = 0.0
    basis: Basis = "spreads"
    if num >= MIN_VERSIONS:
        error_mean, error_latest = _prediction_errors(earlier, reference)
        bound = float(stdtrit(num - 1, LEVEL)) * min(error_mean, error_latest)
        # Equal values leave rounding alone, which must not decide.
        basis = "mean" if error_mean <= error_latest + _ROUNDING * abs(reference) else "latest"
        if basis == "latest":
            reference, error = earlier[-1], earlier_spreads[-1]
    bound = max(
        bound, NUM_SPREADS * math.hypot(spread, error), SMALLEST_RELATIVE_CHANGE * abs(reference)
    )
    return Change(value, reference, bound, basis)


_ROUNDING = 1e-12


def _prediction_errors(values: Sequence[float], mean: float) -> tuple[float, float]:
    """Return the standard errors of predicting the next value by the mean and by the latest."""
    num = len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (num - 1)
    steps = [b - a for a, b in pairwise(values)]
    mean_square_step = math.fsum(step * step for step in steps) / (num - 1)
    return math.sqrt(variance * (1 + 1 / num)), math.sqrt(mean_square_step)


Obstacle: TypeAlias = Literal["first", "not_comparable", "law_not_applicable"]
Row: TypeAlias = Mapping[str, Any]
# Turns the median absolute step of a normal sample into its standard deviation.
_NORMAL_CONSISTENCY = 1.4826
_MIN_STEPS = 3


@dataclass(frozen=True)
class Baseline:
    """The versions to compare with, oldest first, or why there is none."""

    rows: pl.DataFrame
    obstacle: Obstacle | None = None
    why: str = ""


def baseline(new: Row, table: pl.DataFrame) -> Baseline:
    """Return the latest comparable versions before a new one, at most :data:`WINDOW`.

    Comparable: same stage, a lower number, the same series, R and L measured, not a risk (or one
    that a person let through, and that :func:`did_no_harm`), and Q within its spread (see
    :func:`same_quality`).
    """
    earlier = table.filter(
        (pl.col("stage") == new["stage"]) & (pl.col("version") < new["version"])
    ).sort("version")
    if earlier.is_empty():
        return Baseline(earlier, "first", "there is no earlier version to compare with.")
    series = earlier.filter(is_named("series", new["series"]))
    if series.is_empty():
        why = f"no earlier version has its budget and probe settings (series {new['series']!r})"
        return Baseline(series, "not_comparable", why + "; it starts a new series.")
    measured = series.filter(pl.all_horizontal(pl.col("R", "L").is_not_null()))
    usable = measured.filter((pl.col("verdict").fill_null("") != BLOCKING_VERDICT) | did_no_harm())
    if usable.is_empty():
        why = f"every earlier version of the series {new['series']!r} is blocked or unmeasured."
        return Baseline(usable, "not_comparable", why)
    alike = same_quality(new, usable)
    if alike.is_empty():
        return Baseline(usable.tail(WINDOW), "law_not_applicable", _quality_words(new, usable))
    return Baseline(alike.tail(WINDOW))


def is_named(column: str, name: str | None) -> pl.Expr:
    """Return the expression that is true where a column holds this name, or neither has one."""
    return pl.col(column).eq_missing(pl.lit(name, pl.String))


def did_no_harm() -> pl.Expr:
    """Return the expression that is true for versions let through whose model is not worse.

    A person who trains a version against the law's advice does not make it the measure of the
    next ones. Its Z does: where that is not below the lowest Z of the versions that were no risk,
    measured in the same way, the law was wrong about it.
    """
    is_risk = pl.col("verdict").fill_null("") == BLOCKING_VERDICT
    lowest = pl.col("Z").filter(~is_risk).min().over("Z_name")
    return (~is_blocked() & (pl.col("Z") >= lowest)).fill_null(False)


def same_quality(new: Row, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose Q does not differ from the new version's beyond its spread.

    The spread is the larger of the measuring error of the difference and, with four or more
    values, the usual step from version to version (1.4826 times the median absolute step, which
    one change of level does not move); a difference of up to :data:`NUM_SPREADS` times the
    spread is none. A row without Q stays in (nothing says that Q changed); where the new version
    has none, all do. A Q that was measured in another way (``Q_name``) cannot be compared.
    """
    if new["Q"] is None:
        return rows
    is_measured_alike = pl.col("Q").is_not_null() & is_named("Q_name", new["Q_name"])
    steps = [abs(b - a) for a, b in pairwise(rows.filter(is_measured_alike)["Q"])]
    usual = _NORMAL_CONSISTENCY * median(steps) if len(steps) >= _MIN_STEPS else 0.0
    error = (pl.col("Q_spread").fill_null(0.0).pow(2) + (new["Q_spread"] or 0.0) ** 2).sqrt()
    tolerance = NUM_SPREADS * pl.max_horizontal(error, pl.lit(usual)) + 1e-12
    is_alike = is_measured_alike & ((pl.col("Q") - new["Q"]).abs() <= tolerance)
    return rows.filter(pl.col("Q").is_null() | is_alike)


def _quality_words(new: Row, rows: pl.DataFrame) -> str:
    latest = rows.row(-1, named=True)
    if latest["Q_name"] != new["Q_name"]:
        return (
            f"Q was measured as {new['Q_name']!r}, for version {latest['version']} as "
            f"{latest['Q_name']!r}, so nothing says whether the quality is the same."
        )
    return (
        f"Q is {new['Q']:.4g}, for version {latest['version']} {latest['Q']:.4g}: it changed "
        "beyond its own spread, and the law holds only while it is constant."
    )


Kind: TypeAlias = Literal[
    "risk",
    "consistency_warning",
    "expected_gain",
    "redundancy_warning",
    "no_change",
    "law_not_applicable",
    "not_comparable",
    "first",
]
_KINDS: dict[tuple[Direction, Direction], tuple[Kind, str]] = {
    ("up", "up"): ("risk", "more redundant and harder to fit: expect a worse model"),
    ("up", "flat"): ("redundancy_warning", "more redundant, as easy to fit"),
    ("up", "down"): ("redundancy_warning", "more redundant, and easier to fit for that"),
    ("flat", "up"): ("consistency_warning", "as redundant, but less consistent"),
    ("flat", "flat"): ("no_change", "neither redundancy nor consistency changed"),
    ("flat", "down"): ("expected_gain", "as redundant and more consistent"),
    ("down", "up"): (
        "expected_gain",
        "less redundant; new matter costs loss, but so does noise: look at the picks",
    ),
    ("down", "flat"): ("expected_gain", "less redundant, as consistent"),
    ("down", "down"): ("expected_gain", "less redundant and more consistent"),
}
_BASES = {"mean": "the mean", "latest": "the latest, as they drift", "spreads": "the mean"}


@dataclass(frozen=True)
class Verdict:
    """What the law says about a new version.

    ``numbers`` holds, for R and L where they were compared, the value, ``_reference``,
    ``_change`` and ``_bound``; Q where it is known; and ``num_compared``.
    """

    kind: Kind
    blocks: bool
    reason: str
    compared: list[int]
    numbers: dict[str, float]


def judge(new: Mapping[str, Any], earlier: pl.DataFrame) -> Verdict:
    """Return the law's verdict on a new version, with the numbers and the versions compared.

    The quality Z of the model falls as redundancy R and first-epoch loss L rise, while the
    quality Q of the samples is constant. Against the comparable earlier versions:

    - R up, L up: ``risk``, the only one that blocks
    - R up, L flat or down: ``redundancy_warning``
    - R flat, L up: ``consistency_warning``
    - R flat, L flat: ``no_change``
    - R flat, L down, or R down: ``expected_gain``

    Otherwise ``first`` (no earlier version), ``not_comparable`` (none of the same probe
    settings: a new series starts; or nothing to take a threshold from) or
    ``law_not_applicable`` (Q changed). Up and down are told from flat as :func:`change` says.

    How often it errs, simulated with normal R and L that err independently: of versions drawn
    like the earlier ones 0.3% are blocked, of those of a slow rise of both 3% (6% and 17% if R
    and L always err together); a jump of both by five standard deviations is blocked in 70% of
    cases with three earlier versions, in 90% with four and in 99% with ten.

    Args:
        new: the row of the new version: ``stage``, ``version``, ``series``, R, L, and where
            known their spreads, Q, ``Q_spread`` and ``Q_name``.
        earlier: the table of versions; rows that do not precede the new one are ignored.

    Raises:
        UserError: the new row has no stage, version, R or L.

    Source: Entropy Law (arXiv 2407.06645), its use for incremental updates of the data.
    Deviation: the source names no threshold; it leaves R up at equal L, and L down at equal R,
        without a name.
    """
    missing = [name for name in ("stage", "version", "R", "L") if new.get(name) is None]
    if missing:
        raise UserError(f"no verdict without {', '.join(missing)} of the new version; measure it")
    row: Row = dict.fromkeys(SCHEMA) | dict(new)
    base = baseline(row, earlier)
    if base.obstacle is not None and base.obstacle != "law_not_applicable":
        return _without_comparison(row, base.obstacle, base.why)
    compared: list[int] = base.rows["version"].to_list()
    spreads = [*base.rows["R_spread"], *base.rows["L_spread"], row["R_spread"], row["L_spread"]]
    if len(compared) < MIN_VERSIONS and None in spreads:
        why = (
            f"only {_versions(compared)} can be compared, and the spread of R or L is not known "
            f"for all; with fewer than {MIN_VERSIONS} the threshold comes from the spreads."
        )
        return _without_comparison(row, "not_comparable", why)
    changes = {
        name: change(
            row[name],
            row[f"{name}_spread"] or 0.0,
            base.rows[name].to_list(),
            base.rows[f"{name}_spread"].fill_null(0.0).to_list(),
        )
        for name in ("R", "L")
    }
    return _verdict(row, changes, compared, base.why)


def _without_comparison(row: Row, kind: Kind, why: str) -> Verdict:
    numbers = {"R": float(row["R"]), "L": float(row["L"]), "num_compared": 0.0}
    reason = f"Version {row['version']} was not judged: {why}"
    return Verdict(kind, False, reason, [], numbers)


def _verdict(row: Row, changes: Mapping[str, Change], compared: list[int], why: str) -> Verdict:
    kind, meaning = _KINDS[changes["R"].direction, changes["L"].direction]
    figures = "; ".join(_change_words(name, change) for name, change in changes.items())
    spreads = f"{NUM_SPREADS:g} times the measuring error"
    bound = f"their one-sided {LEVEL:.0%} prediction bound, at least {spreads}"
    if changes["R"].basis == "spreads":
        bound = f"{spreads}, known from seeded re-draws"
    if why:
        kind, meaning = "law_not_applicable", f"the law does not apply. {why} Regardless of Q"
    reason = (
        f"Version {row['version']}: {meaning}: {figures}. Compared with {_versions(compared)}; "
        f"usual is up to {bound}."
    )
    numbers = {"num_compared": float(len(compared))}
    for name, of_name in changes.items():
        numbers |= {name: of_name.value, f"{name}_reference": of_name.reference}
        numbers |= {f"{name}_change": of_name.difference, f"{name}_bound": of_name.bound}
    if row["Q"] is not None:
        numbers["Q"] = float(row["Q"])
    return Verdict(kind, kind == BLOCKING_VERDICT, reason, compared, numbers)


def _change_words(name: str, change: Change) -> str:
    verb = {"up": "rose to", "down": "fell to", "flat": "stayed at"}[change.direction]
    return (
        f"{name} {verb} {change.value:.4g}, {change.difference:+.3g} against "
        f"{change.reference:.4g} ({_BASES[change.basis]}) where {change.bound:.3g} is usual"
    )


def _versions(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"version {numbers[0]}"
    return f"versions {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
