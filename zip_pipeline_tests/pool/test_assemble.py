"""Rules of the assembled pool."""

import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import IngestResult, ingest, write_batch
from zip_pipeline.pool.pool import (
    AssembledPool,
    assemble_pool,
    assemble_results,
    pool_fingerprint,
)
from zip_pipeline.samples import pool_schema
from zip_pipeline_tests.pool.files import json_lines, write

BATCHES = {"b.jsonl": "xyx?", "a.jsonl": "yz", "c.jsonl": "zw?w"}


@pytest.fixture
def results(tmp_path) -> dict[str, IngestResult]:
    """Return three batches: each letter is a sample, ``?`` a broken row."""
    found = {}
    for batch, letters in BATCHES.items():
        rows = [b"{" if x == "?" else {"question": x, "answer": x} for x in letters]
        path = write(tmp_path / batch, json_lines(rows))
        found[batch] = ingest(path, "sft", batch=batch)
    return found


def questions(pool: AssembledPool) -> list[tuple[str, str]]:
    """Return the batch and the question of each sample."""
    return [(row["batch"], row["turns"][0]["content"]) for row in pool.samples.to_dicts()]


def test_pool_keeps_the_first_batch_in_order_of_names(tmp_path, results):
    """Across batches equal samples are one, of the first name; each repeat is recorded."""
    root = DataRoot(tmp_path / "data")
    for batch, result in results.items():
        write_batch(root["sft"], batch, result)
    pool = assemble_pool(root["sft"])
    assert questions(pool) == [
        ("a.jsonl", "y"),
        ("a.jsonl", "z"),
        ("b.jsonl", "x"),
        ("c.jsonl", "w"),
    ]
    assert [row[1:] for row in pool.duplicates.rows()] == [
        ("b.jsonl", "b.jsonl", 2, "a.jsonl", "a.jsonl", 1),
        ("c.jsonl", "c.jsonl", 1, "a.jsonl", "a.jsonl", 2),
    ]
    counts = (pool.num_rows_read, pool.num_quarantined, pool.num_batch_duplicates)
    assert counts == (10, 2, 2)
    assert pool.num_duplicates == 4
    assert pool.fingerprints == {b: results[b].fingerprint for b in sorted(results)}


def test_pool_in_memory_keeps_the_order_given(results):
    """Batches in memory are taken as they come."""
    pool = assemble_results("sft", results)
    assert questions(pool)[:3] == [("b.jsonl", "x"), ("b.jsonl", "y"), ("a.jsonl", "z")]
    assert pool.samples.height + pool.num_duplicates + pool.num_quarantined == 10


def test_empty_pool_has_no_samples(tmp_path):
    """Without batches the pool is empty, with the usual columns."""
    pool = assemble_pool(DataRoot(tmp_path)["preference"])
    assert pool.samples.schema == pool_schema("preference")
    assert (pool.samples.height, pool.duplicates.height, pool.num_rows_read) == (0, 0, 0)


def test_pool_fingerprint_tells_batches_and_content(tmp_path, results):
    """The fingerprint changes with any batch and any batch's name, and only then."""
    root = DataRoot(tmp_path / "data")
    seen = [pool_fingerprint(root["sft"])]
    for batch, result in results.items():
        write_batch(root["sft"], batch, result)
        seen.append(pool_fingerprint(root["sft"]))
    write_batch(root["sft"], "c.jsonl", results["c.jsonl"])
    assert pool_fingerprint(root["sft"]) == seen[-1]
    write_batch(root["sft"], "c.jsonl", results["a.jsonl"])
    seen.append(pool_fingerprint(root["sft"]))
    assert len(set(seen)) == 5


def test_pool_with_an_incomplete_batch_is_refused(tmp_path, results):
    """A batch that is not whole is an error; it is never left out silently."""
    root = DataRoot(tmp_path / "data")
    write_batch(root["sft"], "a.jsonl", results["a.jsonl"])
    root["sft"].duplicates("a.jsonl").unlink()
    for read in (assemble_pool, pool_fingerprint):
        with pytest.raises(ValueError, match=r"ingest the batch 'a\.jsonl' of sft again"):
            read(root["sft"])
