"""Words and one-line errors."""

import io
import json
import os
import sqlite3
from pathlib import Path

import polars as pl
import pytest
from rich.text import Text

from zip_pipeline.cli.console import (
    ReadableConsole,
    describe_error,
    new_table,
    print_json,
    styled,
    words_of_bytes,
    words_of_seconds,
)
from zip_pipeline.errors import UserError, storage_error


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (7_080_000, "7.08 MB"),
        (2e9, "2.00 GB"),
        (3e12, "3,000.00 GB"),
    ],
)
def test_words_of_bytes_use_decimal_units(num_bytes: float, words: str):
    """A size is told in the largest decimal unit that gives at least 1."""
    assert words_of_bytes(num_bytes) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (31.4, "31 s"), (59.7, "1 min 0 s"), (125, "2 min 5 s")],
)
def test_words_of_seconds_fit_their_size(seconds: float, words: str):
    """Short times have a decimal, long ones minutes."""
    assert words_of_seconds(seconds) == words


def test_describe_error_is_one_line():
    """Errors are told in one line, those of files by name and cause."""
    assert describe_error(ValueError("a\n  b")) == "a b"
    assert describe_error(FileNotFoundError(2, "No such file", "x")) == "x: No such file"
    assert describe_error(OSError(5, "Input/output error")) == "Input/output error"
    assert describe_error(OSError("odd")) == "odd"
    assert describe_error(ValueError("a\x1c\x85b")) == r"a\x1c\x85b"


@pytest.mark.parametrize("number", [28, 122, 30, 13, 1, 2])
def test_an_error_of_the_disk_is_told_with_place_and_remedy(number: int):
    """A full disk or quota, no right, for reading alone, gone: also where it is only the cause."""
    error = OSError(number, os.strerror(number), "/place")
    wrapped = RuntimeError("of a library")
    wrapped.__cause__ = error
    in_words = pl.exceptions.ComputeError(f"/place: no (os error {number})")
    for given in (error, wrapped, in_words):
        told = str(storage_error(given))
        assert told.startswith("/place")
        assert os.strerror(number) in told or f"os error {number}" in told
        assert "another" in told.partition("; ")[2]


def test_an_error_of_the_database_is_told_with_its_place(tmp_path: Path):
    """SQLite does not say which file; what is no fault of the disk is told by nobody."""
    path = tmp_path / "history.db"
    sqlite3.connect(path).execute("CREATE TABLE t (a)").connection.close()
    told = []
    for uri, statement in (
        (f"file:{path}?mode=ro", "INSERT INTO t VALUES (1)"),
        (f"file:{tmp_path}/none/x.db", "SELECT 1"),
        (f"file:{path}", "SELECT b FROM t"),
    ):
        with pytest.raises(sqlite3.OperationalError) as caught:
            sqlite3.connect(uri, uri=True).execute(statement)
        told.append(str(storage_error(caught.value, tmp_path)))
    assert told[0].startswith(f"{tmp_path}: Read-only file system; mount it for writing")
    assert told[1].startswith(f"{tmp_path}: Permission denied; give this user the right")
    assert told[2] == "None"
    assert storage_error(UserError("x: (os error 28)")) is None


def test_console_takes_data_as_it_is_and_shows_what_would_control_it():
    """No markup, emoji codes or control characters, in lines, tables, rules and finished text."""
    stream = io.StringIO()
    console = ReadableConsole(stream, 40, force_terminal=True, color_system="standard")
    data = "[bold]:cat:[/]\x1b[2J\r"
    table = new_table(data)
    table.add_row(data)
    for printed in (data, table, Text(data), styled((data, "red"))):
        console.print(printed)
    console.rule(data)
    text = stream.getvalue()
    assert text.count(r"[bold]:cat:[/]\x1b[2J") == 6
    assert text.count("\x1b[2J") == 0
    assert "\x1b[31m[bold]:cat:[/]\\x1b[2J\\r\x1b[0m\n" in text
    assert "\r" not in text


def test_json_for_programs_reads_back_and_controls_nothing(capsys: pytest.CaptureFixture[str]):
    """JSON escapes by itself, but for one control character."""
    value = {"a": "\x1b[2J\x7f\x9b\u202e\ud800"}
    print_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert printed == '{\n  "a": "\\u001b[2J\\u007f\\u009b\\u202e\\ud800"\n}\n'
