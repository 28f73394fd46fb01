"""The three files of a selection."""

import json
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.cli.output_files import OutputFiles, write_records

_LEDGER = pl.DataFrame({"sample_id": ["a"]})


def _publish(files: OutputFiles, text: str) -> None:
    files.prepare(resume=False)
    files.publish(lambda path: path.write_text(text), _LEDGER, lambda: {"text": text})


def test_output_files_stand_beside_out_under_its_stem(tmp_path: Path):
    """Ledger, manifest and checkpoint are named after OUT."""
    files = OutputFiles(tmp_path / "my.subset.jsonl")
    assert files.ledger.name == "my.subset.ledger.parquet"
    assert files.manifest.name == "my.subset.manifest.json"
    assert files.checkpoint == tmp_path / ".my.subset.checkpoint" / "selection"


def test_publish_writes_all_three_and_nothing_else(tmp_path: Path):
    """After publishing only the three files are there."""
    _publish(OutputFiles(tmp_path / "new" / "x.json"), "[]")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["x.json", "x.ledger.parquet", "x.manifest.json"]


def test_publish_replaces_an_older_selection(tmp_path: Path):
    """A second selection replaces the first one whole."""
    files = OutputFiles(tmp_path / "x.json")
    _publish(files, "old")
    _publish(files, "new")
    assert files.out.read_text() == "new"
    assert json.loads(files.manifest.read_text()) == {"text": "new"}


def test_publish_keeps_the_older_selection_when_writing_fails(tmp_path: Path):
    """When the new files cannot be completed the old ones stay, all three."""
    files = OutputFiles(tmp_path / "x.json")
    _publish(files, "old")
    files.prepare(resume=False)

    def fail() -> dict[str, object]:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        files.publish(lambda path: path.write_text("new"), _LEDGER, fail)
    assert files.out.read_text() == "old"
    assert json.loads(files.manifest.read_text()) == {"text": "old"}


def test_prepare_drops_a_stale_checkpoint_unless_resuming(tmp_path: Path):
    """Only --resume keeps what an earlier run left, and of that only the checkpoint."""
    files = OutputFiles(tmp_path / "x.json")
    files.prepare(resume=False)
    files.checkpoint.write_text("state")
    (files.work / "x.json").write_text("staged by a run that was killed")
    (files.work / "pool-x" / "pool").mkdir(parents=True)
    (files.work / "pool-x" / "pool" / "a.parquet").touch()
    files.prepare(resume=True)
    assert list(files.work.iterdir()) == [files.checkpoint]
    files.prepare(resume=False)
    assert not files.checkpoint.exists()


@pytest.mark.parametrize("name", ["x.csv", "x", "x.jsonl.gz", ".jsonl"])
def test_output_files_refuse_other_kinds(tmp_path: Path, name: str):
    """OUT is a .jsonl, .json or .parquet file."""
    with pytest.raises(ValueError, match=r"--output: got .* allowed are files named \*\.jsonl"):
        OutputFiles(tmp_path / name)


@pytest.mark.parametrize("out", ["in.jsonl", "folder/x.json", "x.json"])
def test_output_files_refuse_to_write_over_inputs(tmp_path: Path, out: str):
    """No output file may be an input or lie in an input folder."""
    (tmp_path / "folder").mkdir()
    inputs = [tmp_path / "in.jsonl", tmp_path / "folder", tmp_path / "x.ledger.parquet"]
    with pytest.raises(ValueError, match="write outside of what is read"):
        OutputFiles(tmp_path / out).refuse_inputs(inputs)
    OutputFiles(tmp_path / "other.json").refuse_inputs(inputs)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("num", [0, 1, 3])
def test_write_records_round_trips(tmp_path: Path, suffix: str, num: int):
    """Records come back JSON-equal, in order, whatever white space they held."""
    records = ['{"a": 1.0, "b": "x\\ny\u2028"}', '{\n  "ü": [\n1]}', '{"c": "\\ud800"}'][:num]
    path = tmp_path / f"records{suffix}"
    write_records(path, records)
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line]
    found = json.loads(text) if suffix == ".json" else [json.loads(line) for line in lines]
    assert found == [json.loads(record) for record in records]
    assert text.endswith("\n") or not num
