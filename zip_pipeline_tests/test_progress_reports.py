"""Where progress is shown."""

import json
from pathlib import Path

import pytest

from zip_pipeline.process import PlainReporter, SilentReporter, reporter


def test_progress_goes_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Dagster lines are printed, and by the first process of a group only."""
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    with reporter() as report:
        assert type(report) is PlainReporter
        report.line("a line\x1b[2J")
        report.record({"a": 1})
    monkeypatch.setenv("RANK", "1")
    with reporter() as report:
        assert type(report) is SilentReporter
        report.line("not seen")
    assert capsys.readouterr().out == "a line\\x1b[2J\n"


def test_progress_goes_to_dagster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started through Pipes, lines go to the run's log and records are custom messages."""
    from dagster_pipes import PipesContext, PipesContextData, encode_param

    empty = dict.fromkeys(PipesContextData.__annotations__)
    context = empty | {"run_id": "run", "retry_number": 0, "extras": {}}
    monkeypatch.setenv("DAGSTER_PIPES_CONTEXT", encode_param({"data": context}))
    monkeypatch.setenv("DAGSTER_PIPES_MESSAGES", encode_param({"path": str(tmp_path / "sent")}))
    # A context that was opened before in this process would be taken again.
    monkeypatch.setattr(PipesContext, "_instance", None)
    with reporter() as report:
        report.line("a line")
        report.record({"a": 1})
    sent = [json.loads(line) for line in (tmp_path / "sent").read_text().splitlines()]
    params = {message["method"]: message["params"] for message in sent}
    assert params["log"]["message"] == "a line"
    assert params["report_custom_message"]["payload"] == {"a": 1}
