"""The progress bar."""

import io
import re
import sys
from dataclasses import replace

import pytest
from rich.file_proxy import FileProxy

from zip_pipeline.cli import console
from zip_pipeline.cli.console import ReadableConsole
from zip_pipeline.selection.run import Progress


def _show(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    stream = io.StringIO()
    terminal_console = ReadableConsole(stream, 160, force_terminal=terminal)
    monkeypatch.setattr(console, "errors", lambda: terminal_console)
    with console.stage_progress() as bars:
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


@pytest.mark.parametrize(
    "report",
    [
        Progress(12, 1234, 123_456, 200_000, "tokens", 9.0),
        Progress(1234, 98_765, 1_234_567, 20_000_000, "target_tokens", 9.0, phase="Filling up"),
    ],
)
def test_progress_fits_80_columns(monkeypatch: pytest.MonkeyPatch, report: Progress):
    """Round and figures are whole, and so is the time that remains."""
    stream = io.StringIO()
    terminal_console = ReadableConsole(stream, 80, force_terminal=True, color_system=None)
    monkeypatch.setattr(console, "errors", lambda: terminal_console)
    with console.stage_progress() as bars:
        bars.stage("Measuring 90 samples")
        bars.show_round(report)
        bars.show_round(replace(report, used=report.used + 5_000))
    lines = [line.strip() for line in re.split(r"\r|\n|\x1b\[[0-9;?]*\w", stream.getvalue())]
    assert all(len(line) <= 80 for line in lines)
    unit = report.unit.replace("_", " ")
    figures = f"{report.used + 5_000:,} of {report.budget:,} {unit}"
    (line, *_) = [line for line in lines if figures in line]
    assert f"{report.phase}: round {report.round}" in line
    assert re.search(r"(\d|-):[\d-]{2}:[\d-]{2}$", line)


def test_progress_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch):
    """A name is no markup, and its control characters are readable, those of rich's kind too."""
    stream = io.StringIO()
    terminal_console = ReadableConsole(stream, 160, force_terminal=True)
    monkeypatch.setattr(console, "errors", lambda: terminal_console)
    with console.stage_progress() as bars:
        bars.stage("Reading [bold]\x1b]0;PWN\x07")
        # What others print meanwhile is not drawn by the bar, which would obey it.
        assert not isinstance(sys.stdout, FileProxy)
        assert not isinstance(sys.stderr, FileProxy)
    assert r"Reading [bold]\x1b]0;PWN\x07" in stream.getvalue()


def test_progress_is_silent_without_a_terminal(monkeypatch: pytest.MonkeyPatch):
    """Logs and pipes get no bar."""
    assert _show(monkeypatch, terminal=False) == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_selection_says_first_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
):
    """Also where no bar is shown; a short one says nothing."""
    stream = io.StringIO()
    terminal_console = ReadableConsole(stream, 160, force_terminal=terminal)
    monkeypatch.setattr(console, "errors", lambda: terminal_console)
    with console.stage_progress() as bars:
        bars.stage("Measuring 90 samples")
        bars.show_round(
            Progress(0, 0, 0, 90, "samples", 0.0, remaining_seconds=240.0, is_estimate=True)
        )
    assert "Selecting: estimated time about 4 min" in stream.getvalue()
    stream.truncate(0)
    with console.stage_progress() as bars:
        bars.stage("Measuring 90 samples")
        bars.show_round(
            Progress(0, 0, 0, 90, "samples", 0.0, remaining_seconds=9.0, is_estimate=True)
        )
    assert "estimated" not in stream.getvalue()


def test_every_phase_starts_its_own_bar(monkeypatch: pytest.MonkeyPatch):
    """After the shards the merge counts from nothing up to its own budget."""
    stream = io.StringIO()
    terminal_console = ReadableConsole(stream, 160, force_terminal=True)
    monkeypatch.setattr(console, "errors", lambda: terminal_console)
    with console.stage_progress() as bars:
        bars.stage("Measuring 90 samples")
        bars.show_round(Progress(0, 50, 50, 60, "samples", 1.0, phase="3 shards"))
        bars.show_round(Progress(1, 10, 10, 30, "samples", 1.0, phase="Merging"))
    assert "Merging: round 1, 10 samples" in stream.getvalue()
    assert "10 of 30 samples" in stream.getvalue()
