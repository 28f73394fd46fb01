"""A batch of one percent comes to the whole real pool: what is computed anew, and how long."""

import gzip
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import ingest, write_batch
from zip_pipeline.pool.batches import write_state
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.benchmarks.bench_growth import BUDGET_BYTES
from zip_pipeline_tests.benchmarks.bench_ingestion import build
from zip_pipeline_tests.benchmarks.grown_pool import varied_records
from zip_pipeline_tests.benchmarks.machine import report

CONFIGS = {
    "long_range": SelectionConfig(strategy="long_range", budget_bytes=BUDGET_BYTES),
    "zip": SelectionConfig(strategy="zip", budget_tokens=200_000),
}


def reselect(root: DataRoot, config: SelectionConfig) -> float:
    """Return the seconds of a selection, version written and all."""
    started = time.perf_counter()
    select_version(root["sft"], config, log=lambda _: None)
    return time.perf_counter() - started


def main() -> None:
    """Build the pool, add the batch as a file of its own, and select again."""
    with tempfile.TemporaryDirectory() as folder:
        root = DataRoot(Path(folder))
        full = build(root["sft"])
        full_seconds = sum(full.values())
        records = varied_records(root)
        chosen = np.random.default_rng(0).permutation(len(records))[: len(records) // 100]
        drop = Path(folder) / "one-percent.jsonl.gz"
        lines = "".join(json.dumps(records[i]) + "\n" for i in chosen)
        drop.write_bytes(gzip.compress(lines.encode()))
        started = time.perf_counter()
        write_batch(root["sft"], drop.name, ingest(drop, "sft", batch=drop.name))
        write_state(root["sft"], drop.name)
        seconds = time.perf_counter() - started
        times = {name: round(reselect(root, config), 1) for name, config in CONFIGS.items()}
    report(
        "one_percent_more",
        {
            "num_rows": len(chosen),
            "full_build_seconds": round(full_seconds, 2),
            "batch_seconds": round(seconds, 3),
            "batch_percent_of_full": round(100 * seconds / full_seconds, 2),
            "reselection_seconds": times,
        },
    )


if __name__ == "__main__":
    main()
