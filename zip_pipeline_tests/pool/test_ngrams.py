"""N-gram counts that are kept per batch, so that a new drop costs itself alone."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from zip_pipeline.compression.ngrams import ngram_counts
from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import ingest
from zip_pipeline.pool import ngrams, parts
from zip_pipeline.pool.batches import write_batch
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import select
from zip_pipeline.workflow.versions import read_version, select_version
from zip_pipeline_tests.pool.files import json_lines, write
from zip_pipeline_tests.pool.pools import BATCHES, store, store_pool


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many texts were counted, call by call."""
    numbers: list[int] = []

    def counting(texts: Sequence[bytes]) -> list[bytes]:
        numbers.append(len(texts))
        return ngram_counts(texts)

    monkeypatch.setattr(ngrams, "ngram_counts", counting)
    return numbers


@pytest.mark.parametrize("stage", STAGES)
def test_counts_of_the_pool_are_those_of_its_texts(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row i of the index has the counts of text i, when they are counted and when they are read.

    So it has where a batch is written and read in many parts.
    """
    monkeypatch.setattr(parts, "_PART_BYTES", 1)
    folder = DataRoot(tmp_path)[stage]
    store_pool(folder)
    for _ in range(2):
        with open_selection_pool(folder) as pool:
            texts = [pool.texts[i] for i in range(len(pool.texts))]
            assert [pool.ngrams[i] for i in range(len(pool.ngrams))] == ngram_counts(texts)
            assert len(texts) == 20
    assert not list(folder.root.cache.iterdir())


MEASURE = """
import sys
from pathlib import Path
import numpy as np
from zip_pipeline.data_root import DataRoot
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.process import return_freed_memory
from zip_pipeline.selection.strategies.coverage import Counts
from zip_pipeline_tests.processes import peak_bytes
before = peak_bytes()
# As each selection does first.
return_freed_memory()
with open_selection_pool(DataRoot(Path(sys.argv[1]))["sft"]) as pool:
    num_bytes = int(pool.ngrams.offsets[-1])
    mass = Counts(pool.ngrams).mass(np.arange(len(pool.index)))
    print(peak_bytes() - before, num_bytes, int(mass.sum()))
"""


@pytest.mark.slow
def test_counts_are_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """Those of 30 MB of text, which take 60 MB, need 330 MB at most to be counted and added up."""
    folder = DataRoot(tmp_path)["sft"]
    words = [f"{n:03}" for n in range(1000)]
    for batch in range(12):
        draw = Random(batch)
        said = (" ".join(draw.choices(words, k=25_000)) for _ in range(25))
        rows = json_lines([{"prompt": "?", "completion": text} for text in said])
        path = write(folder.raw / f"{batch}.jsonl", rows)
        write_batch(folder, path.name, ingest(path, "sft", batch=path.name))
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    growth_bytes, num_bytes, total = map(int, done.stdout.split())
    assert num_bytes > 50_000_000
    assert total > num_bytes / 4
    assert growth_bytes < 330_000_000


def test_a_new_or_changed_batch_alone_is_counted(tmp_path: Path, counted: list[int]) -> None:
    """The other batches are read."""
    folder = DataRoot(tmp_path)["sft"]
    store_pool(folder)

    def count() -> int:
        counted.clear()
        with open_selection_pool(folder) as pool:
            assert len(pool.ngrams) == len(pool.index)
        return sum(counted)

    assert count() >= 20
    assert count() == 0
    store(folder, "new.jsonl", [60, 61])
    assert count() == 2
    store(folder, "d.jsonl", [9, 10, 11, 62, 63])
    assert count() == 5


def test_a_version_is_picked_by_the_stored_counts(tmp_path: Path, counted: list[int]) -> None:
    """Its picks are those of a selection that counts for itself."""
    folder = DataRoot(tmp_path)["sft"]
    store_pool(folder)
    config = SelectionConfig(strategy="coverage", budget_samples=9)
    version = read_version(folder, select_version(folder, config, print))
    assert sum(counted) >= len(version.ledger.filter(version.ledger["rank"].is_not_null())) == 9
    with open_selection_pool(folder) as pool:
        expected = select(pool.rows(range(len(pool.index))), None, "sft", config)
        assert version.subset["sample_id"].to_list() == [
            pool.index["sample_id"][pick] for pick in expected.picks
        ]
    assert folder.ngrams(next(iter(BATCHES))).exists()
