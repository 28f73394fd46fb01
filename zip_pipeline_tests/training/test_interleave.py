"""The order of KTO's rows."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.training.rows import interleave


@given(st.lists(st.booleans(), max_size=60), st.integers(2, 8), st.integers(0, 3))
def test_every_window_has_both_labels(labels: list[bool], window: int, seed: int) -> None:
    """Each window has both labels, each row comes once, or the rows are refused for a reason."""
    odd = len(labels) % window == 1
    num_windows = len(labels) // window + (len(labels) % window > 1)
    num_desirable = sum(labels)
    rest = max(num_desirable, len(labels) - num_desirable) - odd
    rarer = min(num_desirable, len(labels) - num_desirable, rest)
    if rarer < num_windows or num_windows == 0:
        with pytest.raises(ValueError, match="the rarer label") as error:
            interleave(labels, window, seed)
        _follow(str(error.value), labels, window)
        return
    order = interleave(labels, window, seed)
    assert len(set(order)) == len(order) == len(labels) - odd
    windows = [order[start : start + window] for start in range(0, len(order), window)]
    assert all({labels[place] for place in places} == {True, False} for places in windows)


def _follow(message: str, labels: list[bool], window: int) -> None:
    """Do what the message says: the size that it names is enough, and none below it is."""
    sizes = re.findall(r"per_device_batch_size to (\d+) or more", message)
    assert bool(sizes) is (len(set(labels)) == 2) is ("answers of both kinds" not in message)
    for size in map(int, sizes):
        assert interleave(labels, size, 0)
        for smaller in range(window, size):
            with pytest.raises(ValueError, match="the rarer label"):
                interleave(labels, smaller, 0)


def test_windows_get_their_share_and_rows_are_shuffled() -> None:
    """Of a quarter undesirable rows every window of 8 has two, in an order that the seed sets."""
    labels = [place % 4 != 0 for place in range(64)]
    order = interleave(labels, 8, 0)
    shares = [sum(labels[p] for p in order[start : start + 8]) for start in range(0, 64, 8)]
    assert shares == [6] * 8
    assert order != sorted(order)
    assert order == interleave(labels, 8, 0)
    assert order != interleave(labels, 8, 1)


def test_a_window_of_one_row_is_refused() -> None:
    """KTO cannot estimate its KL term from one row."""
    with pytest.raises(ValueError, match="KTO needs 2 or more rows at once; got 1"):
        interleave([True, False], 1, 0)
