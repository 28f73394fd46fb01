"""Which earlier versions a new one may be compared with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Literal, TypeAlias

import polars as pl

from zip_pipeline.entropy_law.prediction import VerdictRule
from zip_pipeline.entropy_law.versions_table import BLOCKING_VERDICT, is_blocked

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
