"""What a data root holds, told after a run."""

import io
import shlex
from pathlib import Path

import pytest

from zip_pipeline.cli import summary
from zip_pipeline.cli.console import ReadableConsole
from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl


def _summary(root: DataRoot) -> str:
    console = ReadableConsole(io.StringIO(), 160)
    summary.show_data_root(console, root, {"sft": None, "preference": None})
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_summary_of_batches_without_versions(tmp_path: Path):
    """Batches are counted, versions and stages that are missing are said to be."""
    root = DataRoot(tmp_path)
    root["sft"].raw.mkdir(parents=True)
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(root["sft"].raw / name, [*sft_records(3), "{"])
        ingest_drop(root["sft"], name)
    # A killed ingestion left b.jsonl without one of its tables.
    root["sft"].quarantine("b.jsonl").unlink()
    text = _summary(root)
    assert "1 batch " in text
    assert "Quarantined: 1 invalid json (a.jsonl row 4); all: zip-pipeline quarantine --st" in text
    assert "No version was selected yet." in text
    assert "No batch is ingested." in text


def test_summary_shows_some_of_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Many batches are cut in the table but counted in the total."""
    monkeypatch.setattr(summary, "_NUM_BATCHES", 2)
    root = DataRoot(tmp_path)
    root["sft"].raw.mkdir(parents=True)
    for number in range(5):
        write_jsonl(root["sft"].raw / f"{number}.jsonl", sft_records(2, first=2 * number))
        ingest_drop(root["sft"], f"{number}.jsonl")
    text = _summary(root)
    assert "… 3 more batches" in text
    assert "5 batches" in text


def test_what_it_says_next_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A name with a space is quoted, and make is named where there is something to make."""
    monkeypatch.chdir(tmp_path)
    root = DataRoot(tmp_path / "my data")
    root["sft"].raw.mkdir(parents=True)
    versions = ["zip-pipeline", "versions", "--data-root", str(root.path)]
    variable = f"ZIP_PIPELINE_DATA={root.path}"
    dagster = [variable, "dagster", "dev", "-m", "zip_pipeline.definitions"]
    assert _next(_summary(root)) == [dagster, versions]
    Path("Makefile").write_text("all:\n\nui: all\n")
    assert _next(_summary(root)) == [["make", "ui", f"DATA={root.path}"], versions]


def _next(text: str) -> list[list[str]]:
    lines = text.partition("Next ")[2].splitlines()[1:]
    return [shlex.split(line, comments=True) for line in lines]
