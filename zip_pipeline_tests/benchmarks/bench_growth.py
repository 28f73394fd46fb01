"""``long_range`` on pools of 80K, 320K and 1.3M samples: how time and memory grow."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.pool.batches import read_state
from zip_pipeline.process import return_freed_memory
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import Cluster
from zip_pipeline.workflow.versions import read_version, select_version
from zip_pipeline_tests.benchmarks.bench_ingestion import build
from zip_pipeline_tests.benchmarks.grown_pool import grow
from zip_pipeline_tests.benchmarks.machine import cpu_seconds, report

SIZES = {1: "80K", 4: "320K", 16: "1.3M"}
BUDGET_BYTES = 7_080_000
# (times the real pool, configuration)
RUNS = [
    *((times, {"budget_bytes": BUDGET_BYTES}) for times in SIZES),
    (16, {"budget_samples": 5_000}),
    (16, {"budget_samples": 50_000}),
]

PLACES = (StageFolder.samples, StageFolder.quarantine, StageFolder.duplicates, StageFolder.state)


def link_part(whole: DataRoot, folder: Path, times: int) -> DataRoot:
    """Return a root with the real batches and all variations below ``times``."""
    part = DataRoot(folder / f"times-{times}")
    for batch in whole["sft"].batches():
        if batch.startswith("variation-") and int(batch.split("-")[1]) >= times:
            continue
        for place in PLACES:
            target = place(part["sft"], batch)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(place(whole["sft"], batch), target)
    return part


def measure_run(root: Path, options: dict[str, int], address: str | None = None) -> dict:
    """Select in this process and write the version; return what it took."""
    return_freed_memory()
    started, cpu = time.perf_counter(), cpu_seconds()
    config = SelectionConfig(strategy="long_range", **options)
    folder = DataRoot(root)["sft"]
    number = select_version(folder, config, log=lambda _: None, cluster=Cluster(address))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    version = read_version(folder, number)
    manifest, num_picked = version.manifest, len(version.subset)
    text_bytes = sum(read_state(folder, b)["num_bytes"].sum() for b in folder.batches())
    return {
        "num_samples": len(version.ledger),
        "text_mb": round(text_bytes / 1e6),
        "num_picked": num_picked,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds() - cpu, 1),
        "selection_seconds": manifest["seconds"],
        "milliseconds_per_pick": round(1e3 * manifest["seconds"]["select"] / num_picked, 3),
        "process_peak_mb": round(peak / 1e6),
        "allowed_peak_mb": round(300 + 1.5 * text_bytes / 1e6),
        "ratio_xz": round(manifest["compression_ratio"]["xz"], 3),
        "subset_fingerprint": manifest["subset_fingerprint"],
    }


def in_own_process(root: Path, options: dict[str, int], address: str | None = None) -> dict:
    """Return what :func:`measure_run` does, in a process of its own for its peak memory."""
    arguments = json.dumps([str(root), options, address])
    command = [sys.executable, "-m", "zip_pipeline_tests.benchmarks.bench_growth", arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


@contextmanager
def grown_roots() -> Iterator[dict[int, Path]]:
    """Yield the data roots of all sizes, built once where ``ZIP_BENCH_ROOT`` says so."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(os.environ.get("ZIP_BENCH_ROOT", name))
        whole = DataRoot(folder / "whole")
        if not whole["sft"].batches():
            build(whole["sft"])
            grow(whole, max(SIZES) - 1)
        for times in SIZES:
            if not (folder / f"times-{times}").exists():
                link_part(whole, folder, times)
        yield {times: folder / f"times-{times}" for times in SIZES}


def main() -> None:
    """Select from pools of all sizes, and with two budgets from the largest."""
    with grown_roots() as roots:
        for times, options in RUNS:
            (budget,) = options
            report(f"growth_{SIZES[times]}_{budget}", in_own_process(roots[times], options))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        root, options, address = json.loads(sys.argv[1])
        print(json.dumps(measure_run(Path(root), options, address)))
    else:
        main()
