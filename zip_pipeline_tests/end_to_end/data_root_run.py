"""One run over a data root, as Dagster's assets do it, but without Dagster: quick to start.

``python -m zip_pipeline_tests.end_to_end.data_root_run DIR [again]`` prints each phase as it
begins; ``again`` ingests every drop anew.
"""

import sys
from pathlib import Path

import polars as pl

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.drops import is_batch_name
from zip_pipeline.ingest.ingest import batch_metadata, ingest_drop
from zip_pipeline.pool.batches import is_current, read_state, write_state
from zip_pipeline.pool.pool import AssembledPool, assemble_pool
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import select

CONFIG = SelectionConfig(budget_samples=300, k1=300, k2=24, k3=8)


def run(root: DataRoot, *, again: bool) -> None:
    """Ingest and measure what is not yet, then select a version unless it is there already."""
    drops = sorted(p.name for p in root["sft"].raw.iterdir() if is_batch_name(p.name))
    for batch in drops:
        _say(f"ingest {batch}")
        if again or not _is_ingested(root, batch):
            ingest_drop(root["sft"], batch)
    for batch in drops:
        _say(f"state {batch}")
        if not is_current(root["sft"], batch):
            write_state(root["sft"], batch)
    _say("select")
    pool = assemble_pool(root["sft"])
    if not _is_selected(root, pool):
        _select(root, pool)
    _say("end")


def _say(phase: str) -> None:
    print(phase, flush=True)


def _is_ingested(root: DataRoot, batch: str) -> bool:
    try:
        batch_metadata(root["sft"], batch)
    except ValueError:
        return False
    return True


def _is_selected(root: DataRoot, pool: AssembledPool) -> bool:
    store = root["sft"].versions
    latest = store.latest()
    return latest is not None and store.manifest(latest)["inputs"] == pool.fingerprints


def _select(root: DataRoot, pool: AssembledPool) -> None:
    state = pl.concat([read_state(root["sft"], batch) for batch in root["sft"].batches()])
    selection = select(
        pool.samples,
        state,
        "sft",
        CONFIG,
        checkpoint=root["sft"].checkpoints / "selection",
        duplicates=pool.duplicates,
        inputs=pool.fingerprints,
        counts={
            "num_rows_read": pool.num_rows_read,
            "num_quarantined": pool.num_quarantined,
            "num_duplicates": pool.num_duplicates,
        },
    )
    _say("write")
    subset = selection.subset(pool.samples)
    root["sft"].versions.write(subset, selection.ledger, selection.manifest)


if __name__ == "__main__":
    run(DataRoot(Path(sys.argv[1])), again="again" in sys.argv[2:])
