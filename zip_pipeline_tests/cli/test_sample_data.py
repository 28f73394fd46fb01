"""``zip-pipeline sample-data``."""

from pathlib import Path

import pytest

from zip_pipeline_tests.cli.commands import call, call_badly, call_well


def test_sample_data_fills_the_drop_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The drops of the state are written and listed, with the command to go on with."""
    monkeypatch.chdir(tmp_path)  # a long path would wrap the table
    text = call_well("sample-data", "d", "--scale", "0.05", "--state", "x2")
    files = [path for path in (tmp_path / "d" / "raw").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"sft", "preference"}
    assert len(files) == 3
    assert all(path.name in text for path in files)
    assert "zip-pipeline run --data-root d" in text


def test_sample_data_refuses_what_it_cannot_make(tmp_path: Path):
    """Unknown states and tiny scales are refused."""
    assert call("sample-data", tmp_path, "--state", "x9").exit_code == 2
    assert call_badly("sample-data", tmp_path, "--scale", "0").startswith("scale: got 0.0")
