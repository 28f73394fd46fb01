"""Rules of reading CSV and Parquet files."""

import polars as pl
import pytest

from zip_pipeline.ingest import tables
from zip_pipeline.ingest.rows import DEFAULT_LIMITS, ReadLimits, RejectionError
from zip_pipeline.ingest.tables import read_csv, read_parquet
from zip_pipeline_tests.pool.files import parquet_table, write


def read(text: bytes, limits: ReadLimits = DEFAULT_LIMITS) -> list:
    """Return the rows of a CSV text."""
    return list(read_csv(iter([text]), "f.csv", limits))


def test_csv_rows_are_numbered_records_of_the_header():
    """Each record is named by the header; quoted line ends stay, blank lines are no rows."""
    rows = read(b'prompt, completion\r\n"a\nb","c ""d"""\r\n\r\ne,\r\n')
    assert [(row.source_row, row.record) for row in rows] == [
        (1, {"prompt": "a\nb", "completion": 'c "d"'}),
        (2, {"prompt": "e", "completion": ""}),
    ]
    assert rows[0].raw == '{"prompt": "a\\nb", "completion": "c \\"d\\""}'


def test_csv_cells_of_messages_are_parsed():
    """Cells of message columns are parsed; text cells only where they hold messages."""
    [row] = read(
        b'messages,prompt,chosen,rejected,other\n"[1]","[{""role"": ""user""}]","[1]",'
        b'"[oops","[{""from"": ""x""}]"\n'
    )
    assert row.record == {
        "messages": [1],
        "prompt": [{"role": "user"}],
        "chosen": "[1]",
        "rejected": "[oops",
        "other": '[{"from": "x"}]',
    }


@pytest.mark.parametrize(
    ("line", "reason", "raw"),
    [
        (b"1", "invalid_csv", "1"),
        (b"1,2,3", "invalid_csv", "1,2,3"),
        (b'"1"2,3', "invalid_csv", '"1"2,3'),
        (b'1,"\xff\n2"', "bad_encoding", '1,"�\n2"'),
        (b"1," + b"x" * 60, "row_too_long", "1," + "x" * 48),
    ],
)
def test_csv_costs_one_row_for_each_broken_record(line, reason, raw):
    """A broken record is one rejected row with its text, the records around it survive."""
    rows = read(b"a,b\n1,2\n" + line + b"\n3,4\n", ReadLimits(max_row_bytes=50))
    assert rows[0].record == {"a": "1", "b": "2"}
    assert rows[-1].record == {"a": "3", "b": "4"}
    assert (rows[1].source_row, rows[1].reason, rows[1].raw) == (2, reason, raw)


def test_csv_record_of_many_lines_is_bounded():
    """A record that takes in line after line is rejected at the limit, and reading goes on."""
    text = b'a,b\n1,2\n3,"' + b"x\n" * 60 + b'",\n5,6\n'
    rows = read(text, ReadLimits(max_row_bytes=50))
    assert (rows[1].source_row, rows[1].reason, rows[1].raw) == (2, "row_too_long", '3,"x')
    assert {row.reason for row in rows[2:]} == {"invalid_csv"}


def test_csv_ends_inside_quotes_as_a_rejected_row():
    """A record whose quotes never close is rejected."""
    rows = read(b'a,b\n1,2\n3,"4\n5,6')
    assert [(row.source_row, row.reason) for row in rows] == [(1, None), (2, "invalid_csv")]


def test_csv_with_a_damaged_header_is_rejected_whole():
    """Without a sound header no row can be named."""
    with pytest.raises(RejectionError, match="names 'a' twice"):
        read(b"a,b,a\n1,2,3\n")
    with pytest.raises(RejectionError, match="the CSV header is damaged"):
        read(b'"a"b,c\n1,2\n')


def test_csv_of_no_rows_gives_none():
    """An empty file and a header alone hold no rows."""
    assert read(b"") == []
    assert read(b"a,b\n") == []


def test_parquet_rows_are_the_same_in_slices_of_any_size(tmp_path, monkeypatch):
    """All rows come back in order, however many a slice holds."""
    records = [{"n": n, "turns": [{"role": "user", "content": "x" * n}]} for n in range(50)]
    path = write(tmp_path / "t.parquet", parquet_table(records, row_group_size=7))
    for first, num_bytes in ((256, 1 << 20), (3, 1), (1, 500)):
        monkeypatch.setattr(tables, "_FIRST_SLICE_ROWS", first)
        monkeypatch.setattr(tables, "_SLICE_BYTES", num_bytes)
        rows = list(read_parquet(path, "t.parquet", DEFAULT_LIMITS))
        assert [row.record for row in rows] == records
        assert [row.source_row for row in rows] == list(range(1, 51))


def test_parquet_keeps_the_rows_before_the_damage(tmp_path, monkeypatch):
    """Rows before a damaged place come first, then the file is rejected."""
    monkeypatch.setattr(tables, "_FIRST_SLICE_ROWS", 10)
    monkeypatch.setattr(tables, "_SLICE_BYTES", 1)
    records = [{"n": f"{n * n * 7919:x}" * 20} for n in range(400)]
    content = bytearray(parquet_table(records, row_group_size=50))
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(b ^ 0x5A for b in content[middle : middle + 300])
    rows = read_parquet(write(tmp_path / "t.parquet", bytes(content)), "t", DEFAULT_LIMITS)
    seen: list[object] = []
    with pytest.raises(RejectionError) as caught:
        seen.extend(row.record for row in rows)
    assert caught.value.reason == "corrupt_table"
    assert len(seen) >= 100
    assert seen == records[: len(seen)]


def test_parquet_bomb_is_rejected(tmp_path):
    """Rows that expand far beyond the file on disk are a bomb."""
    path = write(tmp_path / "t.parquet", parquet_table([{"a": "x" * 10_000}] * 2000))
    limits = ReadLimits(allowance_bytes=1 << 20, max_expansion=200)
    rows = read_parquet(path, "t.parquet", limits)
    assert next(rows).source_row == 1
    with pytest.raises(RejectionError) as caught:
        list(rows)
    assert caught.value.reason == "decompression_bomb"


def test_parquet_row_above_the_limit_is_rejected(tmp_path):
    """A row above the limit is rejected with its beginning; the others survive."""
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": ["x", "y" * 9000, "z"]}).write_parquet(path)
    rows = list(read_parquet(path, "t.parquet", ReadLimits(max_row_bytes=5000)))
    assert [row.reason for row in rows] == [None, "row_too_long", None]
    assert rows[1].raw == '{"a": "' + "y" * (4096 - 7)
