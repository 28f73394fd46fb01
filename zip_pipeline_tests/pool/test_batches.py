"""Rules of batches on disk."""

import dataclasses

import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import ingest
from zip_pipeline.pool.batches import (
    IngestResult,
    Parts,
    batch_fingerprint,
    batch_metadata,
    is_ingested,
    read_batch,
    read_quarantine,
    write_batch,
)
from zip_pipeline_tests.pool.files import json_lines, write

ROWS = [{"question": "q", "answer": "a"}] * 2 + [{"question": "r", "answer": "b"}, {"question": 1}]


@pytest.fixture
def root(tmp_path) -> DataRoot:
    """Return an empty data root."""
    return DataRoot(tmp_path / "data")


@pytest.fixture
def result(tmp_path) -> IngestResult:
    """Return a batch of two samples, a duplicate and a rejected row."""
    return ingest(write(tmp_path / "a.jsonl", json_lines(ROWS)), "sft", batch="a")


def test_batch_comes_back_with_its_counts(root, result):
    """What was written is read, and the counts are told without the rows."""
    assert not is_ingested(root["sft"], "a")
    write_batch(root["sft"], "a", result)
    assert is_ingested(root["sft"], "a")
    assert read_batch(root["sft"], "a").equals(result.samples)
    assert read_quarantine(root["sft"], "a").equals(result.quarantine)
    assert batch_metadata(root["sft"], "a") == {
        "fingerprint": result.fingerprint,
        "num_rows_read": "4",
        "num_samples": "2",
        "num_quarantined": "1",
        "num_duplicates": "1",
        "unread": "{}",
        "left_out_files": "[]",
    }


def test_batch_without_one_of_its_tables_is_refused(root, result):
    """A missing table is an error that names it and the remedy."""
    folder = root["sft"]
    for path in (folder.samples, folder.quarantine, folder.duplicates):
        write_batch(root["sft"], "a", result)
        path("a").unlink()
        with pytest.raises(ValueError, match=r"a\.parquet: the file is missing; ingest the batch"):
            read_batch(root["sft"], "a")


def test_half_replaced_batch_is_refused(root, result):
    """Tables of two ingestions do not make a batch."""
    write_batch(root["sft"], "a", result)
    newer = dataclasses.replace(result, fingerprint="other")
    root["sft"].write(root["sft"].quarantine("a"), newer.quarantine, newer.metadata())
    for read in (batch_metadata, read_batch, read_quarantine):
        with pytest.raises(ValueError, match="differ in fingerprint, as after a stopped ingestion"):
            read(root["sft"], "a")
    write_batch(root["sft"], "a", newer)
    assert batch_metadata(root["sft"], "a")["fingerprint"] == "other"


def test_damaged_and_foreign_tables_are_refused(root, result):
    """A table that is no Parquet, has no fingerprint or other columns is an error."""
    write_batch(root["sft"], "a", result)
    root["sft"].write(root["sft"].samples("a"), result.samples.drop("raw"), result.metadata())
    with pytest.raises(ValueError, match="the columns are of another release; ingest 'a' again"):
        read_batch(root["sft"], "a")
    folder = root["sft"]
    for path in (folder.samples, folder.quarantine, folder.duplicates):
        folder.write(path("a"), result.samples, {})
    with pytest.raises(ValueError, match="differ in fingerprint"):
        batch_metadata(root["sft"], "a")
    root["sft"].quarantine("a").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"quarantine/sft/a\.parquet: cannot be read"):
        batch_metadata(root["sft"], "a")


def test_result_that_does_not_add_up_is_a_mistake(result):
    """Every row read must be in one of the tables."""
    with pytest.raises(AssertionError, match="5 rows read, 4 kept"):
        dataclasses.replace(result, num_rows_read=5)


def test_a_batch_keeps_its_hash_when_columns_come_for_what_is_in_its_records(result):
    """So data roots of older releases see no change where there is none."""
    older = Parts.of(result.samples.drop("tools", "media"))
    tables = result.tables._replace(samples=older)
    assert batch_fingerprint(tables) == result.fingerprint
