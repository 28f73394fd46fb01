"""``zip`` on the whole real SFT pool against its physical floor: the bare codec calls.

The floor replays every question of the selection, the same bytes in the same order, as copy,
compress and flush in a tight loop, each core doing its part without waiting for the others.
"""

import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np

from zip_pipeline.compression.codecs.deflate import DeflateMeasurer
from zip_pipeline.compression.sets import Indices, Ratios
from zip_pipeline.compression.texts import TextFile
from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import run_selection
from zip_pipeline_tests.benchmarks.machine import report, stopwatch
from zip_pipeline_tests.benchmarks.real_pool import measured, real_pool

NUM_PICKS = int(os.environ.get("ZIP_BENCH_PICKS", "5000"))
Trace = list[tuple[str, str, Indices]]


class _TracedSet:
    """A set that writes down what it is asked."""

    def __init__(self, name: str, inner: object, trace: Trace) -> None:
        self._name, self._inner, self._trace = name, inner, trace
        trace.append(("new", name, np.zeros(0, dtype=np.int64)))

    def add(self, indices: Indices) -> None:
        self._trace.append(("add", self._name, indices.copy()))
        self._inner.add(indices)

    def ratios_with(self, indices: Indices) -> Ratios:
        self._trace.append(("ask", self._name, indices.copy()))
        return self._inner.ratios_with(indices)


@contextmanager
def traced() -> Iterator[Trace]:
    """Record all questions that selections ask in the block."""
    trace: Trace = []
    original = DeflateMeasurer.new_set

    def new_set(self: DeflateMeasurer, name: str) -> _TracedSet:
        return _TracedSet(name, original(self, name), trace)

    with patch.object(DeflateMeasurer, "new_set", new_set):
        yield trace


def replay(texts: list[bytes], trace: Trace, part: int, num_parts: int) -> None:
    """Do one part of every question of the trace with bare calls."""
    sets = {}
    for what, name, indices in trace:
        if what == "new":
            sets[name] = zlib.compressobj(9)
        elif what == "add":
            for i in indices:
                sets[name].compress(texts[i])
        else:
            copy = sets[name].copy
            for i in indices[part::num_parts].tolist():
                stream = copy()
                len(stream.compress(texts[i])) + len(stream.flush())


def floor_seconds(file: TextFile, trace: Trace, num_cores: int) -> float:
    """Return the seconds of the replay on so many cores."""
    texts = list(file)
    started = time.perf_counter()
    children = []
    for part in range(num_cores):
        child = os.fork()
        if not child:
            replay(texts, trace, part, num_cores)
            os._exit(0)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert not any(statuses), statuses
    return time.perf_counter() - started


def main() -> None:
    """Select with two workers and with one, replay on two cores and on one."""
    config = SelectionConfig(strategy="zip", budget_samples=NUM_PICKS)
    with real_pool() as pool:
        table: Measured = measured(pool, config)
        with stopwatch() as two, traced() as trace:
            picks = run_selection(table, config, workers=2).picks
        floor = floor_seconds(pool.texts, trace, 2)
        with stopwatch() as one:
            same = run_selection(table, config, workers=1).picks == picks
        one_core_floor = floor_seconds(pool.texts, trace, 1)
    asked = sum(len(indices) for what, _, indices in trace if what == "ask")
    report(
        "zip_against_floor",
        {
            "num_picks": len(picks),
            "num_candidates_measured": asked,
            "seconds": two["seconds"],
            "floor_seconds": round(floor, 2),
            "times_floor": round(two["seconds"] / floor, 3),
            "one_worker_seconds": one["seconds"],
            "gain_of_second_worker": round(one["seconds"] / two["seconds"], 3),
            "one_core_floor_seconds": round(one_core_floor, 2),
            "gain_of_second_core_at_the_floor": round(one_core_floor / floor, 3),
            "same_picks": same,
        },
    )


if __name__ == "__main__":
    main()
