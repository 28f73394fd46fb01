"""Why a job cannot be done."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from zip_pipeline.process import ERROR_FILE_VARIABLE, FAULT, report_error


def test_reason_goes_to_stderr_and_to_the_file_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """People read it on standard error, whoever started the process in the file, as it is."""
    monkeypatch.delenv(ERROR_FILE_VARIABLE, raising=False)
    assert report_error(ValueError("no")) == FAULT == 2
    monkeypatch.setenv(ERROR_FILE_VARIABLE, str(tmp_path / "error"))
    report_error(ValueError("too long: ü\x1b[2J"))
    assert (tmp_path / "error").read_text(encoding="utf-8") == "too long: ü\x1b[2J"
    assert capsys.readouterr().err == "Error: no\nError: too long: ü\\x1b[2J\n"


def test_process_ends_with_its_parent(tmp_path: Path) -> None:
    """However the parent ends, the child that asked for it ends too."""
    child = (
        "import os, sys, time; from pathlib import Path\n"
        "from zip_pipeline.process import end_with_parent\n"
        "end_with_parent()\n"
        "Path(sys.argv[1]).write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    parent = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, sys.argv[1]])"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path / "pid")])
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    status = Path("/proc") / (tmp_path / "pid").read_text() / "cmdline"
    while status.exists() and status.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
