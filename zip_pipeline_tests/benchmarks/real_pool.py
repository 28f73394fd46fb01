"""The real SFT pool, ingested and measured, as selections read it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zip_pipeline.data_root import DataRoot
from zip_pipeline.pool.pool import SelectionPool, open_selection_pool
from zip_pipeline.selection.candidates import Candidates, Measured, measure
from zip_pipeline.selection.config import SelectionConfig
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
    candidates = Candidates(pool.index, pool.texts, pool.state, ngrams=lambda: pool.ngrams)
    return measure(candidates, config, "tiny", 0)
