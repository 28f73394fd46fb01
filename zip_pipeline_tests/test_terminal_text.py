"""Control characters are shown, never sent."""

import io
import sys

import pytest

from zip_pipeline.terminal_text import (
    ShownStream,
    counted,
    show_control_characters,
    shown,
    shown_in_cell,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\x1b]52;c;cHduZWQ=\x07\x1b[2J", r"\x1b]52;c;cHduZWQ=\x07\x1b[2J"),
        ("a\x00b\x08c\rd\x7f", r"a\x00b\x08c\rd\x7f"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("a\u202eb\u2066c\u2069\u2028", r"a\u202eb\u2066c\u2069\u2028"),
        ("half \ud83d, byte \udcff", r"half \ud83d, byte \udcff"),
        (
            "two\n\tlines, é, 名, 🙂, \u200f, back\\slash",
            "two\n\tlines, é, 名, 🙂, \u200f, back\\slash",
        ),
    ],
)
def test_shown_text_escapes_what_controls_a_terminal(text: str, words: str) -> None:
    """C0, DEL, C1, what overrides direction and half surrogate pairs; all else stays as it is."""
    assert shown(text) == words
    assert shown(words) == words


def test_shown_in_cell_keeps_rows_and_columns_apart() -> None:
    """A line break or tab of the data is no line break or tab of the table."""
    assert shown_in_cell("a\tb\nc\r\x1b[1m") == r"a\tb\nc\r\x1b[1m"


def test_streams_show_whatever_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrapped once, standard output and error escape each way of writing, and stay streams."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    show_control_characters()
    show_control_characters()
    print("a\x1b[2Jb", flush=True)
    sys.stderr.writelines(["c\x07", "\n"])
    assert sys.stdout.write("\x1b") == 1
    assert not sys.stdout.isatty()
    assert isinstance(sys.stdout, ShownStream)
    assert sys.stdout.rich_proxied_file is out
    assert out.getvalue() == "a\\x1b[2Jb\n\\x1b"
    assert err.getvalue() == "c\\x07\n"


@pytest.mark.parametrize(
    ("num", "noun", "words"),
    [
        (1, "sample", "1 sample"),
        (0, "sample", "0 samples"),
        (1, "batch", "1 batch"),
        (2000, "batch", "2,000 batches"),
        (2, "more row", "2 more rows"),
    ],
)
def test_counted_nouns_have_their_plural(num: int, noun: str, words: str) -> None:
    """One is one, and any other number is many."""
    assert counted(num, noun) == words
