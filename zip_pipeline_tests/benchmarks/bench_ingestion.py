"""Ingest all real pools, one batch per file: rows, seconds, peak memory."""

import tempfile
import time
from pathlib import Path

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.ingest.ingest import ingest, write_batch
from zip_pipeline.pool.batches import write_state
from zip_pipeline.pool.pool import assemble_pool
from zip_pipeline.samples import STAGES
from zip_pipeline_tests.benchmarks.machine import pools_folder, report


def build(folder: StageFolder) -> dict[str, float]:
    """Ingest and measure every file of a stage's pool; return seconds by step."""
    clock = [time.perf_counter()]
    files = sorted((pools_folder() / folder.stage).iterdir())
    for file in files:
        write_batch(folder, file.name, ingest(file, folder.stage, batch=file.name))
    clock.append(time.perf_counter())
    for file in files:
        write_state(folder, file.name)
    clock.append(time.perf_counter())
    return {"ingestion_seconds": clock[1] - clock[0], "state_seconds": clock[2] - clock[1]}


def main() -> None:
    """Measure both stages and print their counts."""
    with tempfile.TemporaryDirectory() as folder:
        for stage in STAGES:
            root = DataRoot(Path(folder))
            seconds = {name: round(value, 2) for name, value in build(root[stage]).items()}
            pool = assemble_pool(root[stage])
            counts = {
                "num_rows_read": pool.num_rows_read,
                "num_samples": len(pool.samples),
                "num_quarantined": pool.num_quarantined,
                "num_duplicates": pool.num_batch_duplicates + len(pool.duplicates),
            }
            report(f"ingestion_{stage}", counts | seconds)


if __name__ == "__main__":
    main()
