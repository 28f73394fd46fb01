"""Lines and quadratics through a few points."""

import numpy as np
import pytest

from zip_pipeline.entropy_law.fit import fit_curve


def test_curve_of_a_noisy_line_has_the_textbook_intervals():
    """Line and band are those of ordinary least squares."""
    xs = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    ys = np.array([2.1, 3.9, 6.2, 7.8, 10.0])
    curve = fit_curve(xs, ys)
    # By hand: Sxx = 10, Sxy = 19.7, residual sum of squares 0.091, t(0.975; 3) = 3.182446.
    slope, intercept = 1.97, 6.0 - 1.97 * 3
    assert curve.shape == "line"
    variance = 0.091 / 3
    at_end = 3.182446 * (variance * (1 / 5 + 4 / 10)) ** 0.5
    assert (curve.grid[0], curve.grid[-1]) == (1.0, 5.0)
    assert curve.mean == pytest.approx(intercept + slope * curve.grid)
    assert curve.high[-1] - curve.mean[-1] == pytest.approx(at_end, rel=1e-5)
    assert curve.mean[0] - curve.low[0] == pytest.approx(at_end, rel=1e-5)
    assert curve.r_squared == pytest.approx(1 - 0.091 / 38.9)


def test_curve_is_a_quadratic_where_the_points_bend():
    """A clear bend over eight points is a quadratic, and it is found."""
    xs = np.linspace(3.0, 5.0, 8)
    noise = np.array([1, -1, 1, -1, -1, 1, -1, 1]) * 0.01
    curve = fit_curve(xs, 7 - 2 * xs + 0.5 * xs**2 + noise)
    assert curve.shape == "quadratic"
    bent = 7 - 2 * curve.grid + 0.5 * curve.grid**2
    assert curve.mean == pytest.approx(bent, abs=0.01)
    assert ((curve.low < bent) & (bent < curve.high)).all()


def test_curve_of_noise_is_mostly_a_line():
    """Without a bend the quadratic is seldom chosen: one time in ten or less."""
    rng = np.random.default_rng(0)
    xs = np.arange(8.0)
    shapes = [fit_curve(xs, xs + rng.normal(size=8)).shape for _ in range(200)]
    assert 0 < shapes.count("quadratic") <= 20


def test_curve_of_five_points_or_two_places_is_a_line():
    """A quadratic takes six points and three places."""
    assert fit_curve(np.arange(5.0), np.arange(5.0) ** 2).shape == "line"
    two = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    assert fit_curve(two, np.array([1.0, 2.0, 3.0, 5.0, 6.0, 9.0])).shape == "line"


def test_curve_of_points_on_a_line_is_exact():
    """A perfect line is a line with intervals of no width, also where x hardly varies."""
    xs = 4.0 + 1e-5 * np.arange(7)
    curve = fit_curve(xs, 3 * xs - 1)
    assert curve.shape == "line"
    assert curve.mean == pytest.approx(3 * curve.grid - 1, rel=1e-9)
    assert curve.r_squared == pytest.approx(1.0)
    assert curve.high == pytest.approx(curve.low)
