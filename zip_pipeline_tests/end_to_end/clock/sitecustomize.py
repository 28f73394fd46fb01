"""Gives each Python process that finds this folder on its path a clock that others move.

Python imports it before all else. ``MOVED_CLOCK`` names a file with one number of 8 bytes: by how
many seconds the clock goes ahead.
"""

import datetime
import importlib.abc
import mmap
import os
import sys
import threading
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_now, _wait = time.time, threading.Event.wait
_SECONDS_BETWEEN_LOOKS = 0.1

with Path(os.environ["MOVED_CLOCK"]).open("rb") as file:
    _ahead = memoryview(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)).cast("d")


def _moved() -> float:
    return _now() + _ahead[0]


def _wait_by_it(event: threading.Event, timeout: float | None = None) -> bool:
    """Wait until the event is set, or the clock says that the time is over."""
    if timeout is None:
        return _wait(event)
    end = _moved() + timeout
    while (left := end - _moved()) > 0:
        if _wait(event, min(left, _SECONDS_BETWEEN_LOOKS)):
            return True
    return event.is_set()


_machine = ModuleType("time")
vars(_machine).update(vars(time))
time.time = _moved
# With it the daemon's loops wait.
threading.Event.wait = _wait_by_it


def _changed(module: ModuleType) -> None:
    """Set what a module takes for the time when it is imported."""
    if module.__name__ == "dagster._time":
        module._mockable_get_current_datetime = lambda: datetime.datetime.fromtimestamp(
            _moved(), datetime.UTC
        )
    else:
        # gRPC's core has a clock of its own, and compares deadlines with it.
        module.time = _machine


class _Changes(importlib.abc.MetaPathFinder):
    """Finds the modules that have to be changed, where a process imports them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "dagster._time" and not fullname.startswith("grpc."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            _changed(module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Changes())
