"""How quality, redundancy and loss hang together over the versions, with what is uncertain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.entropy_law.verdict import is_named, same_quality

Floats: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]
NUM_GRID_POINTS = 101
LAW_RELATIONS = (("R", "Z"), ("L", "Z"), ("L", "R"))
"""What the law is about, as pairs of x and y."""


@dataclass(frozen=True)
class Curve:
    """A line or quadratic through points, with pointwise 95% intervals of its mean.

    ``grid``, ``mean``, ``low`` and ``high`` draw it from the least to the largest x.
    """

    shape: Literal["line", "quadratic"]
    r_squared: float
    grid: Floats
    mean: Floats
    low: Floats
    high: Floats

    @property
    def words(self) -> str:
        """What a legend says of it."""
        return f"{self.shape}, R² {self.r_squared:.2f}, with its 95% interval"


def fit_curve(xs: Floats, ys: Floats) -> Curve:
    """Return the least-squares line, or the quadratic where the small-sample AIC prefers it.

    AICc = n log(RSS / n) + 2k + 2k (k + 1) / (n - k - 1), with k coefficients and one variance
    counted; the lower wins. With five points a quadratic has no finite AICc, so it takes six,
    and three different x, to be considered at all.

    Args:
        xs: abscissae, at least five, of which two differ.
        ys: ordinates, of which two differ.

    Source: Hurvich and Tsai (1989) for AICc.
    """
    assert len(xs) == len(ys) > 3
    possible = [1, 2] if len(np.unique(xs)) > 2 else [1]
    return _fit(xs, ys, min(possible, key=lambda degree: _aicc(xs, ys, degree)))


def _powers(points: Floats, xs: Floats, degree: int) -> Floats:
    """Return powers of points, centred and scaled as xs are: raw powers would lose digits."""
    return np.vander((points - xs.mean()) / np.ptp(xs), degree + 1, increasing=True)


def _solution(xs: Floats, ys: Floats, degree: int) -> tuple[NDArray[np.floating[Any]], float]:
    """Return the coefficients of :func:`_powers` and the sum of squared residuals."""
    design = _powers(xs, xs, degree)
    solution = np.linalg.lstsq(design, ys, rcond=None)[0]
    return solution, float(((ys - design @ solution) ** 2).sum())


def _aicc(xs: Floats, ys: Floats, degree: int) -> float:
    num, k = len(xs), degree + 2
    if num - k - 1 <= 0:
        return math.inf
    # A perfect fit has no finite logarithm: rounding is the least error there is.
    least = num * (1e-12 * max(1e-300, float(np.abs(ys).max()))) ** 2
    squares = max(_solution(xs, ys, degree)[1], least)
    return num * math.log(squares / num) + 2 * k + 2 * k * (k + 1) / (num - k - 1)


def _fit(xs: Floats, ys: Floats, degree: int) -> Curve:
    from scipy.special import stdtrit

    solution, squares = _solution(xs, ys, degree)
    degrees = len(xs) - degree - 1
    design = _powers(xs, xs, degree)
    covariance = squares / degrees * np.linalg.inv(design.T @ design)
    grid = np.linspace(xs.min(), xs.max(), NUM_GRID_POINTS)
    rows = _powers(grid, xs, degree)
    mean = rows @ solution
    band = stdtrit(degrees, 0.975) * np.sqrt(np.einsum("ij,jk,ik->i", rows, covariance, rows))
    return Curve(
        shape="line" if degree == 1 else "quadratic",
        r_squared=1 - squares / float(((ys - ys.mean()) ** 2).sum()),
        grid=grid,
        mean=mean,
        low=mean - band,
        high=mean + band,
    )


MIN_POINTS = 5
"""The fewest points at which a rank correlation can be significant at 5% (2 of 120 orders)."""
MIN_INTERVAL_POINTS = 10
"""The fewest points from which an interval of the correlation is drawn."""
NUM_RESAMPLES = 2000
NUM_PERMUTATIONS = 10_000


@dataclass(frozen=True)
class Relation:
    """What is known of y over x: points, rank correlation and curve, or why there are none.

    ``points`` are the versions with both, ``without_y`` those of which only x was measured.
    """

    x: str
    y: str
    points: pl.DataFrame
    without_y: pl.DataFrame
    spearman: float | None
    interval: Interval | None
    p_value: float | None
    curve: Curve | None
    note: str


def comparable_points(table: pl.DataFrame, stage: str) -> pl.DataFrame:
    """Return the measured versions of a stage that one relation may be drawn through.

    They share the series of the stage's latest version, and their Q does not differ from its
    beyond its spread. Blocked versions are among them: they were measured, though not trained.
    """
    rows = table.filter(
        (pl.col("stage") == stage) & pl.all_horizontal(pl.col("R", "L").is_not_null())
    ).sort("version")
    if rows.is_empty():
        return rows
    latest = rows.row(-1, named=True)
    return same_quality(latest, rows.filter(is_named("series", latest["series"])))


def relations(table: pl.DataFrame, stage: str) -> list[Relation]:
    """Return Z over R, Z over L and R over L of a stage's comparable versions.

    Z counts where it was measured in the same way as for the latest version that has one.

    Source: Entropy Law (arXiv 2407.06645), figures of Z over R and of R over L.
    """
    points = comparable_points(table, stage)
    names = points.filter(pl.col("Z").is_not_null())["Z_name"]
    is_same = is_named("Z_name", names[-1] if len(names) else None)
    points = points.with_columns(Z=pl.when(is_same).then(pl.col("Z")))
    return [relation(points, x, y) for x, y in LAW_RELATIONS]


def relation(points: pl.DataFrame, x: str, y: str, *, seed: int = 0) -> Relation:
    """Return the Spearman correlation and the curve of column ``y`` over column ``x``.

    The interval is the 95% percentile bootstrap over versions; re-draws in which a column is
    constant have no correlation and are left out. With few points it is too narrow, and of no
    width where the order is perfect: it is None below :data:`MIN_INTERVAL_POINTS` points or
    without a width. A two-sided p-value is given always, from random permutations: how often
    unrelated columns correlate as strongly.

    Args:
        points: comparable versions, one per row; those without ``x`` are ignored.
        x: name of a measured column.
        y: name of another.
        seed: of the bootstrap and the permutations.

    Returns:
        The relation; correlation and curve are None below :data:`MIN_POINTS` points or where
        a column is constant, and ``note`` says so.
    """
    points = points.filter(pl.col(x).is_not_null())
    known = points.filter(pl.col(y).is_not_null())
    xs, ys = known[x].to_numpy(), known[y].to_numpy()
    without_y, num = points.filter(pl.col(y).is_null()), len(known)
    constant = [name for name in (x, y) if known[name].n_unique() == 1]
    if num < MIN_POINTS or constant:
        words = f"{' and '.join(constant)} did not vary over {num} points"
        if num < MIN_POINTS:
            words = f"insufficient points: {num} of at least {MIN_POINTS}"
        return Relation(x, y, known, without_y, None, None, None, None, words)
    correlation = float(_spearman(xs[None, :], ys[None, :])[0])
    interval = _bootstrap_interval(xs, ys, seed) if num >= MIN_INTERVAL_POINTS else None
    p_value = _permutation_p_value(xs, ys, seed)
    between = "" if interval is None else "95% {:+.2f} to {:+.2f}, ".format(*interval)
    words = f"{num} points, Spearman {correlation:+.2f} ({between}p {p_value:.2g})"
    curve = fit_curve(xs, ys)
    return Relation(x, y, known, without_y, correlation, interval, p_value, curve, words)


def relations_table(found: Sequence[Relation]) -> pl.DataFrame:
    """Return one row per relation: what a person reads in place of the figure."""
    columns = {
        "relation": pl.String,
        "num_points": pl.Int64,
        **dict.fromkeys(("spearman", "spearman_low", "spearman_high", "p_value"), pl.Float64),
        "shape": pl.String,
        "r_squared": pl.Float64,
        "note": pl.String,
    }
    rows = []
    for r in found:
        curve = (r.curve.shape, r.curve.r_squared) if r.curve else (None, None)
        correlation = (r.spearman, *(r.interval or (None, None)), r.p_value)
        rows.append((f"{r.y} over {r.x}", r.points.height, *correlation, *curve, r.note))
    return pl.DataFrame(rows, schema=columns, orient="row")


def _spearman(xs: Floats, ys: Floats) -> Floats:
    """Return the rank correlation of each row of ``xs`` with that of ``ys``, NaN if constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=1) for values in (xs, ys)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    products = (a * b).sum(axis=1)
    return np.array([p / n if n > 0 else np.nan for p, n in zip(products, norm, strict=True)])


def _bootstrap_interval(xs: Floats, ys: Floats, seed: int) -> Interval | None:
    rows = np.random.default_rng(seed).integers(len(xs), size=(NUM_RESAMPLES, len(xs)))
    low, high = np.nanquantile(_spearman(xs[rows], ys[rows]), [0.025, 0.975])
    return (float(low), float(high)) if high > low else None


def _permutation_p_value(xs: Floats, ys: Floats, seed: int) -> float:
    orders = np.random.default_rng(seed).permuted(
        np.tile(np.arange(len(xs)), (NUM_PERMUTATIONS, 1)), axis=1
    )
    strength = abs(_spearman(xs[None, :], ys[None, :])[0])
    permuted = np.abs(_spearman(np.broadcast_to(xs, orders.shape), ys[orders]))
    # The order at hand counts as one of them, so that p is never 0.
    return float((1 + (permuted >= strength - 1e-9).sum()) / (1 + NUM_PERMUTATIONS))
