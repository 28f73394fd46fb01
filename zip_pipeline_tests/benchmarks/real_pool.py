"""The real SFT pool, ingested and measured, as selections read it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zip_pipeline.data_root import DataRoot
from zip_pipeline.pool.pool import SelectionPool, open_selection_pool
from zip_pipeline.selection.candidates import Candidates, Measured, measure
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import Cluster, Selection, select_candidates
from zip_pipeline_tests.benchmarks.bench_ingestion import build


@contextmanager
def real_pool() -> Iterator[SelectionPool]:
    """Yield the whole real SFT pool."""
    with tempfile.TemporaryDirectory() as folder:
        root = DataRoot(Path(folder))
        build(root["sft"])
        with open_selection_pool(root["sft"]) as pool:
            yield pool


def measured(pool: SelectionPool, config: SelectionConfig) -> Measured:
    """Return the pool as a strategy plays with it."""
    return measure(Candidates(pool.index, pool.texts, pool.state), config, "tiny", 0)


def select_version(
    root: DataRoot, config: SelectionConfig, address: str | None = None
) -> tuple[Selection, int]:
    """Select from the SFT pool of ``root``, write the version; return it and the bytes of text."""
    with open_selection_pool(root["sft"]) as pool:
        candidates = Candidates(pool.index, pool.texts, pool.state)
        selection = select_candidates(candidates, "sft", config, cluster=Cluster(address))
        subset = pool.picked_rows(selection.picks, selection.ledger)
        text_bytes = int(pool.texts.offsets[-1])
    root["sft"].versions.write(subset, selection.ledger, selection.manifest)
    return selection, text_bytes
