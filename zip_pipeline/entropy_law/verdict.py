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
                raise UserError(f"{name}: {getattr(self, name)} is not allowed; must be {words}")


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
        # Equal values leave rounding alone, which must not decide.
        basis = "mean" if error_mean <= error_latest + _ROUNDING * abs(mean) else "latest"
        if basis == "latest":
            reference, error = earlier[-1], earlier_spreads[-1]
    bound = max(
        bound,
        rule.num_spreads * math.hypot(spread, error),
        rule.smallest_relative_change * abs(reference),
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


def _quantile(level: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, level))


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


def baseline(new: Row, table: pl.DataFrame, rule: VerdictRule) -> Baseline:
    """Return the latest comparable versions before a new one, at most ``rule.window``.

    Comparable: same stage, a lower number, the same series, R and L measured, not a risk (or one
    that a person let through, and that :func:`did_no_harm`), and Q within its spread (see
    :func:`same_quality`).

    Args:
        new: the row of the new version.
        table: the table of versions; rows of later versions and other stages are ignored.
        rule: the numbers of the rule.
    """
    earlier = table.filter(
        (pl.col("stage") == new["stage"]) & (pl.col("version") < new["version"])
    ).sort("version")
    if earlier.is_empty():
        return Baseline(earlier, "first", "there is no earlier version to compare with.")
    series = earlier.filter(pl.col("series").eq_missing(pl.lit(new["series"], pl.String)))
    if series.is_empty():
        why = f"no earlier version has its budget and probe settings (series {new['series']!r})"
        return Baseline(series, "not_comparable", why + "; it starts a new series.")
    measured = series.filter(pl.all_horizontal(pl.col("R", "L").is_not_null()))
    usable = measured.filter((pl.col("verdict").fill_null("") != BLOCKING_VERDICT) | did_no_harm())
    if usable.is_empty():
        why = f"every earlier version of the series {new['series']!r} is blocked or unmeasured."
        return Baseline(usable, "not_comparable", why)
    alike = same_quality(new, usable, rule)
    if alike.is_empty():
        return Baseline(usable.tail(rule.window), "law_not_applicable", _quality_words(new, usable))
    return Baseline(alike.tail(rule.window))


def did_no_harm() -> pl.Expr:
    """Return the expression that is true for versions let through whose model is not worse.

    A person who trains a version against the law's advice does not make it the measure of the
    next ones. Its Z does: where that is not below the lowest Z of the versions that were no risk,
    measured in the same way, the law was wrong about it.
    """
    is_risk = pl.col("verdict").fill_null("") == BLOCKING_VERDICT
    lowest = pl.col("Z").filter(~is_risk).min().over("Z_name")
    return (~is_blocked() & (pl.col("Z") >= lowest)).fill_null(False)


def same_quality(new: Row, rows: pl.DataFrame, rule: VerdictRule) -> pl.DataFrame:
    """Return the rows whose Q does not differ from the new version's beyond its spread.

    The spread is the larger of the measuring error of the difference and, with four or more
    values, the usual step from version to version (1.4826 times the median absolute step, which
    one change of level does not move); a difference of up to ``rule.num_spreads`` times the
    spread is none. A row without Q stays in (nothing says that Q changed); where the new version
    has none, all do. A Q that was measured in another way (``Q_name``) cannot be compared.
    """
    if new["Q"] is None:
        return rows
    measured = rows.filter(
        pl.col("Q").is_not_null() & pl.col("Q_name").eq_missing(pl.lit(new["Q_name"], pl.String))
    )
    usual = _usual_step(measured["Q"].to_list())
    new_spread = new["Q_spread"] or 0.0

    def is_alike(q: float, spread: float | None) -> bool:
        tolerance = rule.num_spreads * max(math.hypot(new_spread, spread or 0.0), usual)
        return abs(float(new["Q"]) - q) <= tolerance + 1e-12

    versions = [
        version
        for version, q, spread in measured.select("version", "Q", "Q_spread").iter_rows()
        if is_alike(q, spread)
    ]
    return rows.filter(pl.col("Q").is_null() | pl.col("version").is_in(versions))


def _usual_step(values: list[float]) -> float:
    steps = [abs(b - a) for a, b in pairwise(values)]
    return _NORMAL_CONSISTENCY * median(steps) if len(steps) >= _MIN_STEPS else 0.0


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
DEFAULT_RULE = VerdictRule()


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


def judge(
    new: Mapping[str, Any], earlier: pl.DataFrame, rule: VerdictRule = DEFAULT_RULE
) -> Verdict:
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
    ``law_not_applicable`` (Q changed). Up and down are told from flat as
    :func:`zip_pipeline.entropy_law.verdict.change` says.

    How often it errs, simulated with normal R and L that err independently: of versions drawn
    like the earlier ones 0.3% are blocked, of those of a slow rise of both 3% (6% and 17% if R
    and L always err together); a jump of both by five standard deviations is blocked in 70% of
    cases with three earlier versions, in 90% with four and in 99% with ten.

    Args:
        new: the row of the new version: ``stage``, ``version``, ``series``, R, L, and where
            known their spreads, Q, ``Q_spread`` and ``Q_name``.
        earlier: the table of versions; rows that do not precede the new one are ignored.
        rule: the numbers of the rule.

    Raises:
        UserError: the new row has no stage, version, R or L.

    Source: Entropy Law (arXiv 2407.06645), its use for incremental updates of the data.
    Deviation: the source names no threshold; it leaves R up at equal L, and L down at equal R,
        without a name.
    """
    row = _complete(new)
    base = baseline(row, earlier, rule)
    compared: list[int] = base.rows["version"].to_list()
    if base.obstacle is not None and base.obstacle != "law_not_applicable":
        return _without_comparison(row, base.obstacle, base.why)
    if not _has_threshold(row, base.rows, rule):
        why = (
            f"only {_versions(compared)} can be compared, and the spread of R or L is not known "
            f"for all; with fewer than {rule.min_versions} the threshold comes from the spreads."
        )
        return _without_comparison(row, "not_comparable", why)
    changes = {name: _change(name, row, base.rows, rule) for name in ("R", "L")}
    return _verdict(row, changes, compared, rule, base.why)


def _complete(new: Mapping[str, Any]) -> Row:
    missing = [name for name in ("stage", "version", "R", "L") if new.get(name) is None]
    if missing:
        raise UserError(f"no verdict without {', '.join(missing)} of the new version; measure it")
    return dict.fromkeys(SCHEMA) | dict(new)


def _without_comparison(row: Row, kind: Kind, why: str) -> Verdict:
    numbers = {"R": float(row["R"]), "L": float(row["L"]), "num_compared": 0.0}
    reason = f"Version {row['version']} was not judged: {why}"
    return Verdict(kind, False, reason, [], numbers)


def _has_threshold(row: Row, rows: pl.DataFrame, rule: VerdictRule) -> bool:
    if rows.height >= rule.min_versions:
        return True
    spreads = [*rows["R_spread"], *rows["L_spread"], row["R_spread"], row["L_spread"]]
    return None not in spreads


def _change(name: str, row: Row, rows: pl.DataFrame, rule: VerdictRule) -> Change:
    spreads = rows[f"{name}_spread"].fill_null(0.0).to_list()
    return change(row[name], row[f"{name}_spread"] or 0.0, rows[name].to_list(), spreads, rule)


def _verdict(
    row: Row, changes: Mapping[str, Change], compared: list[int], rule: VerdictRule, why: str
) -> Verdict:
    kind, meaning = _KINDS[changes["R"].direction, changes["L"].direction]
    figures = "; ".join(_change_words(name, change) for name, change in changes.items())
    facts = f"{figures}. Compared with {_versions(compared)}; {_bound_words(changes, rule)}"
    if why:
        kind, meaning = "law_not_applicable", f"the law does not apply. {why} Regardless of Q"
    reason = f"Version {row['version']}: {meaning}: {facts}."
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


def _bound_words(changes: Mapping[str, Change], rule: VerdictRule) -> str:
    spreads = f"{rule.num_spreads:g} times the measuring error"
    if changes["R"].basis == "spreads":
        return f"usual is up to {spreads}, known from seeded re-draws"
    return f"usual is up to their one-sided {rule.level:.0%} prediction bound, at least {spreads}"


def _versions(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"version {numbers[0]}"
    return f"versions {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
