"""Several calls at once."""

import time
from collections.abc import Iterator

import pytest

from zip_pipeline.judge.client import EndpointError
from zip_pipeline.judge.ratings import ask_in_parallel


def test_parallel_calls_keep_their_order_and_stop_at_the_first_failure():
    """Results come in the order of the items; a failure drops calls that had not begun."""
    assert ask_in_parallel(lambda i: i * i, [3, 1, 2], 2) == [9, 1, 4]
    assert ask_in_parallel(lambda i: i, [], 2) == []
    begun = []

    def fail_at_two(i: int) -> int:
        begun.append(i)
        if i == 2:
            raise EndpointError("gone")
        time.sleep(0.01)
        return i

    with pytest.raises(EndpointError, match="gone"):
        ask_in_parallel(fail_at_two, list(range(50)), 2)
    assert len(begun) <= 4


def test_cancelled_run_begins_nothing_more():
    """A cancel while calls are under way lets these end and drops the others."""
    begun = []

    def slow(i: int) -> None:
        begun.append(i)
        time.sleep(0.05)

    def cancelled_after_three() -> Iterator[int]:
        yield from range(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask_in_parallel(slow, cancelled_after_three(), 1)  # type: ignore[arg-type]
    assert begun in ([], [0])
