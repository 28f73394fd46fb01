"""The progress bar."""

import io

import pytest
from rich.console import Console

from zip_pipeline.cli import progress
from zip_pipeline.selection.progress import Progress


def _show(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=160)
    monkeypatch.setattr(progress, "errors", lambda: console)
    with progress.stage_progress() as bars:
        bars.stage("Reading a.jsonl")
        bars.stage("Measuring 90 samples")
        for number in (4, 5):
            bars.show_round(Progress(number, number * 10, number * 10, 90, "samples", 1.0))
    return stream.getvalue()


def test_progress_tells_round_and_how_much_is_done(monkeypatch: pytest.MonkeyPatch):
    """The bar names the stage, then round, picks and the used budget."""
    text = _show(monkeypatch, terminal=True)
    assert "Selecting: round 5, 50 samples" in text
    assert "50 of 90 samples" in text


def test_progress_is_silent_without_a_terminal(monkeypatch: pytest.MonkeyPatch):
    """Logs and pipes get no bar."""
    assert _show(monkeypatch, terminal=False) == ""
