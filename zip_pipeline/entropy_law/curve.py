"""A line or quadratic through a few points, and how well they determine it."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]
NUM_GRID_POINTS = 101


@dataclass(frozen=True)
class Curve:
    """A line or quadratic through points, with pointwise 95% intervals of the mean.

    ``coefficients``: constant first, with their 95% ``intervals`` in the same order. ``grid``,
    ``mean``, ``low`` and ``high`` draw it from the least to the largest x.
    """

    shape: Literal["line", "quadratic"]
    coefficients: tuple[float, ...]
    intervals: tuple[Interval, ...]
    r_squared: float
    grid: Floats
    mean: Floats
    low: Floats
    high: Floats


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
    shapes = [1, 2] if len(np.unique(xs)) > 2 else [1]
    return _fit(xs, ys, min(shapes, key=lambda degree: _aicc(xs, ys, degree)))


def _scaled(xs: Floats, degree: int) -> Floats:
    """Return powers of the centred and scaled abscissae: raw powers would lose digits."""
    scaled = (xs - xs.mean()) / np.ptp(xs)
    return np.vander(scaled, degree + 1, increasing=True)


def _unscaling(xs: Floats, degree: int) -> Floats:
    """Return the matrix that turns coefficients of scaled powers into those of powers of x."""
    centre, width = float(xs.mean()), float(np.ptp(xs))
    size = range(degree + 1)
    entries = [
        [math.comb(k, j) * (-centre) ** (k - j) / width**k if k >= j else 0.0 for k in size]
        for j in size
    ]
    return np.array(entries)


def _residual_squares(xs: Floats, ys: Floats, degree: int) -> float:
    design = _scaled(xs, degree)
    residuals = ys - design @ np.linalg.lstsq(design, ys, rcond=None)[0]
    # A perfect fit has no finite logarithm: rounding is the least error there is.
    least = len(ys) * (1e-12 * max(1e-300, float(np.abs(ys).max()))) ** 2
    return max(float((residuals**2).sum()), least)


def _aicc(xs: Floats, ys: Floats, degree: int) -> float:
    num, k = len(xs), degree + 2
    if num - k - 1 <= 0:
        return math.inf
    squares = _residual_squares(xs, ys, degree)
    return num * math.log(squares / num) + 2 * k + 2 * k * (k + 1) / (num - k - 1)


def _fit(xs: Floats, ys: Floats, degree: int) -> Curve:
    from scipy.special import stdtrit

    design = _scaled(xs, degree)
    solution = np.linalg.lstsq(design, ys, rcond=None)[0]
    degrees = len(xs) - degree - 1
    squares = float(((ys - design @ solution) ** 2).sum())
    covariance = squares / degrees * np.linalg.inv(design.T @ design)
    quantile = float(stdtrit(degrees, 0.975))
    unscaling = _unscaling(xs, degree)
    coefficients = unscaling @ solution
    errors = quantile * np.sqrt(np.diag(unscaling @ covariance @ unscaling.T))
    grid = np.linspace(xs.min(), xs.max(), NUM_GRID_POINTS)
    rows = np.vander((grid - xs.mean()) / np.ptp(xs), degree + 1, increasing=True)
    band = quantile * np.sqrt(np.einsum("ij,jk,ik->i", rows, covariance, rows))
    return Curve(
        shape="line" if degree == 1 else "quadratic",
        coefficients=tuple(map(float, coefficients)),
        intervals=tuple(
            (float(c - e), float(c + e)) for c, e in zip(coefficients, errors, strict=True)
        ),
        r_squared=1 - squares / float(((ys - ys.mean()) ** 2).sum()),
        grid=grid,
        mean=rows @ solution,
        low=rows @ solution - band,
        high=rows @ solution + band,
    )
