"""``zip-pipeline compact``: what was folded, and what the other commands say afterwards."""

import io
import os
from pathlib import Path

import pytest

from zip_pipeline.cli import summary
from zip_pipeline.cli.console import ReadableConsole
from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import read_batch, write_state
from zip_pipeline_tests.cli.commands import call, call_badly, call_well
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    """Return a pool of four batches with repeats inside and across them, the last not measured."""
    root = DataRoot(tmp_path)
    root["sft"].raw.mkdir(parents=True)
    for number, name in enumerate(("a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl")):
        records = [*sft_records(3, first=2 * number), *sft_records(1, first=2 * number), "{"]
        write_jsonl(root["sft"].raw / name, records)
        ingest_drop(root["sft"], name)
        os.utime(root["sft"].samples(name), (number, number))
        if name != "d.jsonl":
            write_state(root["sft"], name)
    return root


def _summary(root: DataRoot) -> str:
    console = ReadableConsole(io.StringIO(), 160)
    summary.show_data_root(console, root, {"sft": None, "preference": None})
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_compact_says_what_it_folded(root: DataRoot) -> None:
    """Both stages are told of, what stays on its own too, and a second call has nothing to do."""
    text = call_well("compact", "--data-root", root.path, "--keep-latest", "1")
    (stored,) = (name for name in root["sft"].batches() if name.startswith("compacted-"))
    assert text.splitlines() == [
        f"sft: 3 stored batches folded into {stored}, which holds 3 batches with 9 samples",
        "preference: nothing to fold: 0 stored batches, the latest 1 stay",
    ]
    again = call_well("compact", "--data-root", root.path, "--stage", "sft", "--keep-latest", "1")
    assert again == "sft: nothing to fold: 2 stored batches, the latest 1 stay\n"


def test_compact_names_what_it_leaves_alone(root: DataRoot) -> None:
    """A batch without compression state stays, and the reason has a remedy."""
    text = call_well("compact", "--data-root", root.path, "--stage", "sft", "--keep-latest", "0")
    assert text.splitlines()[1] == (
        "  d.jsonl left alone: it has no compression state for the samples that it holds now; "
        "materialise sft/compression_state for the partition 'd.jsonl'"
    )


def test_trace_and_summary_do_not_tell_folded_batches_from_others(root: DataRoot) -> None:
    """Places, copies and counts are the same, and follow a drop that comes again."""
    sample_id = read_batch(root["sft"], "b.jsonl")["sample_id"][0]
    before = call_well("trace", sample_id, "--data-root", root.path), _summary(root)
    assert "exact copy; batch a.jsonl stands for it" in before[0]
    assert "exact copy of b.jsonl, row 1" in before[0]
    call_well("compact", "--data-root", root.path, "--keep-latest", "1")
    assert (call_well("trace", sample_id, "--data-root", root.path), _summary(root)) == before
    write_jsonl(root["sft"].raw / "b.jsonl", sft_records(2, first=40))
    ingest_drop(root["sft"], "b.jsonl")
    after = call_well("trace", sample_id, "--data-root", root.path)
    assert "a.jsonl" in after
    assert "b.jsonl" not in after
    assert "3 invalid json" in _summary(root)


def test_compact_refuses_what_is_no_number_of_batches(root: DataRoot) -> None:
    """A negative number is a usage error, a missing data root one with a remedy."""
    assert call("compact", "--data-root", root.path, "--keep-latest", "-1").exit_code == 2
    assert "no such data root" in call_badly("compact", "--data-root", root.path / "none")
