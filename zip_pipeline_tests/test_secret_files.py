"""Secrets that come as files."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zip_pipeline.errors import UserError
from zip_pipeline.secret_files import read_secret_files
from zip_pipeline_tests.cli.commands import call_badly


def test_a_secret_is_read_from_its_file(tmp_path: Path):
    """The end of the line goes, what is set stays, and an empty file sets nothing."""
    secret, empty = tmp_path / "secret", tmp_path / "empty"
    secret.write_bytes(b" s3cret\r\n")
    empty.touch()
    environment = {
        "JUDGE_KEY_FILE": str(secret),
        "HF_TOKEN_FILE": str(empty),
        "DB_PASSWORD_FILE": str(secret),
        "DB_PASSWORD": "mine",
        "OTHER_SECRET_FILE": "",
    }
    before = dict(environment)
    read_secret_files(environment)
    assert environment == before | {"JUDGE_KEY": " s3cret"}


def test_other_files_are_none_of_ours(tmp_path: Path):
    """A variable that names a file for another reason is left alone, wherever it leads."""
    environment = {"SSL_CERT_FILE": str(tmp_path / "none"), "ZIP_PIPELINE_ERROR_FILE": "none"}
    before = dict(environment)
    read_secret_files(environment)
    assert environment == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory; name a file that this user may read"),
        (b"\xff", "is no secret"),
        (b"a\0b", "is no secret"),
        (b"a" * 65_537, "is no secret"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_shown(
    tmp_path: Path, content: bytes | None, words: str
):
    """The message names the variable and the file."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_secret_files({"JUDGE_KEY_FILE": str(path)})
    assert str(caught.value).startswith(f"JUDGE_KEY_FILE: {path}: ")
    assert "aaa" not in str(caught.value)


def _run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zip_pipeline.secret_files", *arguments]
    environment = os.environ | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_container_begins_with_its_secrets(tmp_path: Path):
    """The command runs in place of the program that read them; a missing file is one line."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    command = ("python", "-c", "import os; print(os.environ['DB_PASSWORD'])")
    assert _run(*command, DB_PASSWORD_FILE=str(secret)).stdout == "s3cret\n"
    secret.unlink()
    refused = _run(*command, DB_PASSWORD_FILE=str(secret))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith(f"Error: DB_PASSWORD_FILE: {secret}: ")


def test_commands_and_graph_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What begins without a container does so, too."""
    path = tmp_path / "none"
    monkeypatch.setenv("HF_TOKEN_FILE", str(path))
    told = call_badly("versions", "--data-root", tmp_path)
    assert told.startswith(f"HF_TOKEN_FILE: {path}: No such file")
    monkeypatch.delitem(sys.modules, "zip_pipeline.definitions", raising=False)
    with pytest.raises(UserError, match=r"HF_TOKEN_FILE: .*: No such file"):
        importlib.import_module("zip_pipeline.definitions")
