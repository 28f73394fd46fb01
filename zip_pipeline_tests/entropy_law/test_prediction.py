"""When a value is up, down or flat against earlier ones, and how often that errs."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zip_pipeline.entropy_law.verdict import change


def test_change_of_scattered_values_is_told_by_students_t():
    """With three values the bound is t(0.95; 2) * s * sqrt(1 + 1/3) about their mean."""
    of_three = change(6.0, 0.0, [1.0, 3.0, 2.0], [0.0] * 3)
    assert of_three.reference == 2.0
    assert of_three.basis == "mean"
    assert of_three.bound == pytest.approx(2.919986 * 1.0 * (4 / 3) ** 0.5, rel=1e-6)
    assert of_three.difference == 4.0
    assert of_three.direction == "up"
    assert change(5.3, 0.0, [1.0, 3.0, 2.0], [0.0] * 3).direction == "flat"
    assert change(-1.4, 0.0, [1.0, 3.0, 2.0], [0.0] * 3).direction == "down"


def test_change_of_drifting_values_is_told_from_the_latest():
    """Values that fall by 1 each are no scatter: a relapse to their mean is up."""
    relapse = change(4.0, 0.0, [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [0.0] * 7)
    assert (relapse.basis, relapse.reference) == ("latest", 1.0)
    assert relapse.bound == pytest.approx(1.943180 * 1.0, rel=1e-6)
    assert relapse.direction == "up"


@pytest.mark.parametrize("num", [3, 4, 10, 25])
def test_change_goes_with_a_steady_drift(num: int):
    """The next step of a steady rise is not up, however long the rise."""
    values = [3.0 + 0.1 * i for i in range(num)]
    assert change(3.0 + 0.1 * num, 0.0, values, [0.0] * num).direction == "flat"


def test_change_of_few_values_is_told_by_their_spreads():
    """With two values the bound is twice the measuring error of new value minus mean."""
    of_two = change(3.5, 0.03, [3.0, 3.2], [0.04, 0.0])
    assert of_two.basis == "spreads"
    assert of_two.reference == pytest.approx(3.1)
    assert of_two.bound == pytest.approx(2 * (0.03**2 + 0.02**2) ** 0.5)
    assert change(3.15, 0.03, [3.0, 3.2], [0.04, 0.0]).direction == "flat"


def test_change_is_never_finer_than_the_measurement():
    """Equal earlier values do not make a change of less than twice the measuring error up."""
    assert change(3.05, 0.03, [3.0] * 6, [0.03] * 6).direction == "flat"
    assert change(3.08, 0.03, [3.0] * 6, [0.03] * 6).direction == "up"


@pytest.mark.parametrize("num", [1, 2, 3, 8])
def test_change_is_never_finer_than_a_thousandth(num: int):
    """Exact values that hardly vary raise no alarm below a thousandth of the reference."""
    assert change(3.0029, 0.0, [3.0] * num, [0.0] * num).direction == "flat"
    assert change(3.0031, 0.0, [3.0] * num, [0.0] * num).direction == "up"


@given(
    st.lists(st.floats(0.5, 9.0), min_size=1, max_size=12),
    st.floats(0.5, 9.0),
    st.floats(0.0, 1.0),
    st.floats(0.1, 50.0),
)
@example([2.5999999999999996] * 3, 1.0, 1.0, 1.5)
def test_change_does_not_depend_on_the_unit(
    earlier: list[float], value: float, spread: float, factor: float
):
    """Values in another unit give the same direction and basis, and a bound in that unit."""
    spreads = [spread] * len(earlier)
    one = change(value, spread, earlier, spreads)
    scaled = [v * factor for v in earlier]
    other = change(value * factor, spread * factor, scaled, [s * factor for s in spreads])
    assert one.bound >= 2 * spread
    # Of equal values rounding decides whether their mean or the latest is nearer.
    if one.basis == other.basis:
        assert other.bound == pytest.approx(one.bound * factor)
        if abs(abs(one.difference) - one.bound) > 1e-9:
            assert other.direction == one.direction


def _share_up(histories: np.ndarray, new: np.ndarray) -> float:
    """Return how often the new value is up, with no measuring error."""
    spreads = [0.0] * histories.shape[1]
    ups = [
        change(value, 0.0, earlier, spreads).direction == "up"
        for value, earlier in zip(new.tolist(), histories.tolist(), strict=True)
    ]
    return float(np.mean(ups))


@pytest.mark.parametrize("num", [3, 4, 10])
@pytest.mark.parametrize(
    ("drift", "allowed"), [("none", 0.08), ("walk", 0.10), ("slow rise", 0.19), ("rise", 0.19)]
)
def test_change_seldom_calls_an_ordinary_version_up(num: int, drift: str, allowed: float):
    """Of versions like the earlier ones about 5% are up; of the next of a rise at most 19%.

    A verdict needs R and L up together, so these shares are squared where R and L err alone.
    """
    noise = np.random.default_rng(num).normal(size=(3000, num + 1))
    ramp = np.arange(num + 1)
    noisy = {"none": 0.0, "walk": 0.0, "slow rise": 0.3 * ramp, "rise": 1.0 * ramp}[drift] + noise
    values = 100 + (noise.cumsum(axis=1) if drift == "walk" else noisy)
    # Without the floor of a thousandth, so that it is the bound that is tested.
    assert 0.02 < _share_up(values[:, :-1], values[:, -1]) < allowed


@pytest.mark.parametrize(("num", "share"), [(3, 0.80), (4, 0.92), (10, 0.99)])
def test_change_sees_a_jump_of_five_standard_deviations(num: int, share: float):
    """A jump by five standard deviations is up nearly always, with three versions in 4 of 5."""
    noise = np.random.default_rng(num).normal(size=(3000, num + 1))
    noise[:, -1] += 5.0
    assert _share_up(100 + noise[:, :-1], 100 + noise[:, -1]) > share


@pytest.mark.parametrize("num", [4, 10])
def test_change_sees_a_relapse_after_steady_gains(num: int):
    """After gains of one standard deviation each, a fall back by six is up in over half."""
    noise = np.random.default_rng(num).normal(size=(3000, num + 1)) - np.arange(num + 1)
    noise[:, -1] += 6.0
    assert _share_up(100 + noise[:, :-1], 100 + noise[:, -1]) > 0.5
