"""Calls that wait for an endpoint, several at once."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")


def ask_in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], num_workers: int
) -> list[Result]:
    """Return ``function`` of each item, in order, with at most ``num_workers`` under way.

    Raises:
        Exception: what the first failing call raised; calls that had not begun are dropped.
    """
    failed = threading.Event()

    def call(item: Item) -> Result | None:
        if failed.is_set():
            return None
        try:
            return function(item)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(num_workers) as executor:
        try:
            futures = [executor.submit(call, item) for item in items]
            wait(futures)
        except BaseException:  # the run is cancelled: begin nothing more
            failed.set()
            raise
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise errors[0]
    return [cast(Result, future.result()) for future in futures]
