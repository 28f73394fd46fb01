"""Why a job cannot be done."""

from pathlib import Path

import pytest

from zip_pipeline.job_errors import ERROR_FILE_VARIABLE, FAULT, report_error


def test_reason_goes_to_stderr_and_to_the_file_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """People read it on standard error, whoever started the process in the file."""
    monkeypatch.delenv(ERROR_FILE_VARIABLE, raising=False)
    assert report_error(ValueError("no")) == FAULT == 2
    monkeypatch.setenv(ERROR_FILE_VARIABLE, str(tmp_path / "error"))
    report_error(ValueError("too long: ü"))
    assert (tmp_path / "error").read_text(encoding="utf-8") == "too long: ü"
    assert capsys.readouterr().err == "Error: no\nError: too long: ü\n"
