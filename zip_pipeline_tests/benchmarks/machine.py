"""What every figure must be read with: machine, versions, and where the real pools lie."""

import json
import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zip_pipeline.compression.codecs import codecs
from zip_pipeline.selection.ledger import library_versions


def pools_folder() -> Path:
    """Return the folder of real pools.

    Raises:
        SystemExit: there is none.
    """
    default = Path(__file__).parents[3] / "shared"
    folder = Path(os.environ.get("ZIP_SHARED", default)) / "pools"
    if not folder.is_dir():
        raise SystemExit(f"no real pools at {folder}; set ZIP_SHARED to a folder that has them")
    return folder


def cpu_seconds() -> float:
    """Return the processor time of this process and of its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Fill the yielded dictionary with ``seconds`` and ``cpu_seconds`` when the block ends."""
    times: dict[str, float] = {}
    started, cpu = time.perf_counter(), cpu_seconds()
    yield times
    times["seconds"] = round(time.perf_counter() - started, 3)
    times["cpu_seconds"] = round(cpu_seconds() - cpu, 3)


def report(benchmark: str, figures: dict[str, object]) -> None:
    """Print one JSON line: the figures, then versions, cores and peak memory."""
    line = {
        "benchmark": benchmark,
        **figures,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "num_cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "versions": library_versions(codecs.default),
    }
    print(json.dumps(line))
