"""Rules of cutting bytes into lines."""

from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.ingest.rows import DEFAULT_LIMITS, ReadLimits
from zip_pipeline.ingest.text import Line, read_json_lines, split_lines


def cut(text: bytes, size: int) -> list[bytes]:
    """Return the text in pieces."""
    return [text[start : start + size] for start in range(0, len(text), size)]


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(1, 9), st.integers(1, 12))
def test_split_lines_equals_a_split_in_one_go(text, size, max_bytes):
    """However the bytes come in, lines are those of one split, cut off at the limit."""
    whole = text.replace(b"\r", b"\n").split(b"\n")
    expected = [Line(line[:max_bytes], len(line)) for line in whole]
    if not whole[-1]:
        expected.pop()
    chunks = iter(cut(text.replace(b"\r", b"\n"), size))
    found = list(split_lines(chunks, max_bytes))
    assert all(line.num_bytes == line.num_lines - 1 for line in found if line.num_lines > 1)
    assert [
        one
        for line in found
        for one in ([line] if line.num_lines == 1 else [Line(b"", 0)] * line.num_lines)
    ] == expected


def test_empty_lines_come_at_once():
    """Millions of them are one line, before and behind others."""
    text = b"\n" * 1_000_000 + b"a\n" + b"\n" * 1_000_000 + b"b"
    assert list(split_lines(iter([text]), 10)) == [
        Line(b"\n" * 10, 999_999, 1_000_000),
        Line(b"a", 1),
        Line(b"\n" * 10, 999_999, 1_000_000),
        Line(b"b", 1),
    ]


def test_json_lines_number_lines_and_keep_their_text():
    """Rows carry their line number, blank lines counted, and the text of the line."""
    text = b'{"a": 1.0}\r\n\n  \n {"b" : NaN} \n[1]\n{"c": \n{"d": "\xff"}\n{"e": 5}'
    rows = list(read_json_lines(iter([text]), "f.jsonl", DEFAULT_LIMITS))
    assert [(r.source_row, r.raw, r.reason) for r in rows] == [
        (1, '{"a": 1.0}', None),
        (4, '{"b" : NaN}', None),
        (5, "[1]", "not_an_object"),
        (6, '{"c":', "invalid_json"),
        (7, '{"d": "�"}', "bad_encoding"),
        (8, '{"e": 5}', None),
    ]
    assert rows[0].record == {"a": 1.0}
    assert rows[5].record == {"e": 5}


def test_json_lines_skip_a_line_above_the_limit():
    """A line above the limit is one rejected row with its beginning; the others survive."""
    text = b'{"a": 1}\n{"b": "' + b"x" * 9000 + b'"}\n{"c": 3}\n'
    limits = ReadLimits(max_row_bytes=5000)
    rows = list(read_json_lines(iter(cut(text, 700)), "f.jsonl", limits))
    assert [row.record for row in rows] == [{"a": 1}, None, {"c": 3}]
    assert rows[1].reason == "row_too_long"
    assert rows[1].raw == '{"b": "' + "x" * (4096 - 7)
    expected = "9009 bytes, allowed are 5000; raw keeps the first 4096 characters"
    assert rows[1].detail == expected
