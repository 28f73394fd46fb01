"""The inputs of a selection, stored on disk, are the pool that they are in memory."""

from pathlib import Path

import pytest

from zip_pipeline.compression.state import texts_of
from zip_pipeline.ingest.ingest import ingest
from zip_pipeline.pool.pool import assemble_results
from zip_pipeline.workflow.file_selection import name_inputs, open_inputs
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Return twelve inputs, not in the order of their names, two of one name."""
    found: list[Path] = []
    for number in (9, 11, 3, 1, 10, 2, 4, 5, 6, 7, 8, 0):
        folder = tmp_path / f"in{number}"
        folder.mkdir()
        name = "same.jsonl" if number in (3, 10) else f"n{number}[?].jsonl"
        records: list[object] = [*sft_records(6, first=4 * number)]
        rows = [*records, "{", records[0], {"instruction": "no answer"}]
        found.append(write_jsonl(folder / name, rows))
    return name_inputs(found)


def test_inputs_on_disk_are_the_pool_in_memory(tmp_path: Path, inputs: dict[str, Path]):
    """Order of inputs, duplicates of both kinds, counts and fingerprints are those in memory."""
    work = tmp_path / "work[1]"
    work.mkdir()
    results = {batch: ingest(path, "sft", batch=batch) for batch, path in inputs.items()}
    slow = assemble_results("sft", results)
    told: list[str] = []
    with open_inputs(work, inputs, "sft", None, told.append) as given:
        assert given.pool.rows(range(len(given.pool.index))).equals(slow.samples)
        assert list(given.pool.texts) == texts_of(slow.samples, "sft")
        assert given.duplicates.tail(len(slow.duplicates)).equals(slow.duplicates)
        assert not list(work.glob("*/state"))
    inside = given.duplicates.head(12).select("batch", "source_row", "first_batch")
    assert inside.rows() == [(batch, 8, batch) for batch in inputs]
    assert list(slow.samples["batch"].unique(maintain_order=True)) == list(inputs)
    assert (given.duplicates.height, slow.num_duplicates) == (34, 34)
    assert given.counts == {"num_rows_read": 108, "num_quarantined": 24, "num_duplicates": 34}
    assert given.quarantine_reasons == {"invalid_json": 12, "missing_field": 12}
    assert given.fingerprints == slow.fingerprints
    assert list(given.fingerprints) == told == list(inputs)
    assert list(work.iterdir()) == []


def test_inputs_leave_nothing_behind_when_they_cannot_be_used(tmp_path: Path):
    """What was stored goes with the error."""
    source = write_jsonl(tmp_path / "in.jsonl", ["{"])
    work = tmp_path / "work"
    work.mkdir()
    opened = open_inputs(work, {"in.jsonl": source}, "sft", None, lambda _: None)
    with pytest.raises(ValueError, match=r"no sample in in\.jsonl: 1 rows read, quarantined: 1 "):
        opened.__enter__()
    assert list(work.iterdir()) == []
