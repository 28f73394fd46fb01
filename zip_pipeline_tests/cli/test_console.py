"""Words and one-line errors."""

import pytest

from zip_pipeline.cli.console import describe_error, words_of_bytes, words_of_seconds


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
