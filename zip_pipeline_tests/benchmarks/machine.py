"""What every figure must be read with: machine, versions, and where the real pools lie."""

import json
import os
import platform
import resource
from pathlib import Path

from zip_pipeline.selection.manifest import library_versions


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


def report(benchmark: str, figures: dict[str, object]) -> None:
    """Print one JSON line: the figures, then versions, cores and peak memory."""
    line = {
        "benchmark": benchmark,
        **figures,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "num_cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "versions": library_versions(),
    }
    print(json.dumps(line))
