"""Rules of reading CSV, Parquet and Arrow files."""

import io
from datetime import date
from decimal import Decimal

import polars as pl
import pyarrow
import pyarrow.parquet
import pytest

from zip_pipeline.errors import UserError
from zip_pipeline.ingest import tables
from zip_pipeline.ingest.rows import DEFAULT_LIMITS, ReadLimits, RejectionError
from zip_pipeline.ingest.tables import check_separator, read_csv, read_table
from zip_pipeline_tests.pool.files import arrow_file, arrow_stream, parquet_table, write


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
    assert rows[1].detail.endswith(
        "a quote opens in the first of 47 lines, which all went into this row"
    )
    assert {row.reason for row in rows[2:-1]} == {"invalid_csv"}
    assert rows[-1].record == {"a": "5", "b": "6"}


STRAY = (
    "a quote opens in the first of {} lines and does not close in it; the others are read as rows "
    "of their own"
)


def test_csv_quote_that_never_closes_costs_one_row():
    """What follows it is read again, whether the end, another quote or the limit shows it."""
    rows = read(b'a,b\n1,2\n3,"4\n5,6')
    assert [(row.source_row, row.reason, row.raw) for row in rows] == [
        (1, None, '{"a": "1", "b": "2"}'),
        (2, "invalid_csv", '3,"4'),
        (3, None, '{"a": "5", "b": "6"}'),
    ]
    assert rows[1].detail == f"unexpected end of data; {STRAY.format(2)}"
    rows = read(b'a,b\n"3,4\n5,6\n7,"8, 9"\n')
    assert [row.record for row in rows] == [None, {"a": "5", "b": "6"}, {"a": "7", "b": "8, 9"}]
    assert rows[0].detail == f"',' expected after '\"'; {STRAY.format(3)}"
    rows = read(b'a,b\n"3,4\n' + b"5,6\n" * 20, ReadLimits(max_row_bytes=30))
    assert [row.record for row in rows] == [None, *[{"a": "5", "b": "6"}] * 20]
    assert (rows[0].reason, rows[0].raw) == ("invalid_csv", '"3,4')


def test_csv_lines_of_a_long_cell_are_no_rows():
    """Where what a row took in does not look like records, it stays with the row."""
    rows = read(b'a,b\n"Dear all,\nthis is "quoted"\nprose\n1,2\n')
    assert rows[0].reason == "invalid_csv"
    assert rows[0].detail.endswith(
        "a quote opens in the first of 2 lines, which all went into this row"
    )
    assert [row.record for row in rows[1:]] == [None, {"a": "1", "b": "2"}]


def test_csv_of_open_quotes_takes_linear_time():
    """Lines are not read again and again, each time with the line before left out."""
    text = b"a,b\n" + b'x","\n' * 20_000
    num_fed = 0

    class Counted(tables._CsvLines):
        def __next__(self):
            nonlocal num_fed
            num_fed += 1
            return super().__next__()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_CsvLines", Counted)
        rows = read(text, ReadLimits(max_row_bytes=1 << 20))
    assert {row.reason for row in rows} == {"invalid_csv"}
    assert num_fed < 400_000


@pytest.mark.parametrize(
    ("text", "record"),
    [
        (b'question;answer\n"a; b";c, d\n', {"question": "a; b", "answer": "c, d"}),
        (b"question\tanswer\na, b\tc\n", {"question": "a, b", "answer": "c"}),
        (b"question|answer\na;b|c", {"question": "a;b", "answer": "c"}),
        (b"question,answer; short\na;b,c\n", {"question": "a;b", "answer; short": "c"}),
        (b"text\na;b\n", {"text": "a;b"}),
        (b'q;a\n"one\ntwo;";3', {"q": "one\ntwo;", "a": "3"}),
    ],
)
def test_csv_separator_is_told_from_the_first_records(text, record):
    """What splits header and rows alike separates the cells."""
    assert [row.record for row in read(text)] == [record]


def test_csv_separator_can_be_given():
    """A given separator holds, whatever the records look like; what cannot be one is refused."""
    text = b"a;b,c\n1;2,3\n"
    for separator, record in [(";", {"a": "1", "b,c": "2,3"}), (",", {"a;b": "1;2", "c": "3"})]:
        rows = read_csv(iter([text]), "f.csv", DEFAULT_LIMITS, separator=separator)
        assert [row.record for row in rows] == [record]
    for separator in ("", ";;", '"', "\n"):
        with pytest.raises(UserError, match=r"separator: .* cannot separate cells; expected one"):
            check_separator(separator)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("Prompt, COMPLETION ,Source", ["prompt", "completion", "source"]),
        ("Instruction,Input,Output", ["instruction", "input", "output"]),
        ("Prompt,prompt,completion", ["Prompt", "prompt", "completion"]),
        ("Frage,Antwort,Prompt", ["Frage", "Antwort", "Prompt"]),
    ],
)
def test_csv_header_is_lower_case_where_that_is_a_known_format(header, names):
    """Names of other columns stay, so that they can be mapped as they are written."""
    row = ",".join("x" for _ in names)
    assert [list(r.record) for r in read(f"{header}\n{row}\n".encode())] == [names]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "café à très bon"),
        ("cp1251", "Привет, мир"),
        ("shift_jis", "こんにちは、世界"),
        ("gb18030", "你好、世界。今天天气怎么样"),
    ],
)
def test_csv_row_of_another_encoding_names_it(encoding, text):
    """The reason says what the bytes look like, and how to say so."""
    rows = read(f'prompt,completion\nHi,"{text}"\nHi,ok\n'.encode(encoding))
    assert [row.reason for row in rows] == ["bad_encoding", None]
    assert rows[0].detail == (
        f"the row holds bytes that are not UTF-8; it looks like {encoding}: if the file is, say "
        f'encoding = "{encoding}" in NAME.batch.toml beside the file or folder NAME'
    )


def test_csv_with_a_damaged_header_is_rejected_whole():
    """Without a sound header no row can be named."""
    with pytest.raises(RejectionError, match="names 'a' twice"):
        read(b"a,b,a\n1,2,3\n")
    with pytest.raises(RejectionError, match="the CSV header is damaged"):
        read(b'"a"b,c\n1,2\n')


def test_csv_header_of_another_encoding_rejects_the_file():
    """Rows of ASCII alone would be a part that nobody chose."""
    with pytest.raises(RejectionError, match=r"bad_encoding: the CSV header .* looks like cp1252"):
        read("größe,prompt,completion\n1,2,3\n".encode("cp1252"))


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
        rows = list(read_table(path, "t.parquet", DEFAULT_LIMITS))
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
    rows = read_table(write(tmp_path / "t.parquet", bytes(content)), "t", DEFAULT_LIMITS)
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
    rows = read_table(path, "t.parquet", limits)
    assert next(rows).source_row == 1
    with pytest.raises(RejectionError) as caught:
        list(rows)
    assert caught.value.reason == "decompression_bomb"


@pytest.mark.parametrize("value", [["x" * (2 << 20)], [[0] * 40_000], [[{"a": "b"}] * 40_000]])
def test_parquet_bomb_is_rejected_by_what_its_footer_tells(tmp_path, monkeypatch, value):
    """A long cell or list in a small file is not decoded to be refused."""
    path = write(tmp_path / "t.parquet", parquet_table([{"a": one} for one in value]))
    assert path.stat().st_size < 5_000
    monkeypatch.setattr(tables, "_parts", pytest.fail)
    with pytest.raises(RejectionError, match="decompression_bomb"):
        list(read_table(path, "t.parquet", ReadLimits(allowance_bytes=1 << 20)))


def test_rows_that_share_a_long_text_become_python_objects_a_few_at_a_time():
    """A text that a dictionary repeats is one in a table, and one for each row in Python."""
    long = [{"a": "x" * (6 << 20), "b": None}, {"a": None, "b": [{"c": "y" * (10 << 20)}]}]
    assert tables._num_rows_at_once(pl.DataFrame(long)) == 1
    assert tables._num_rows_at_once(pl.DataFrame(long[:1])) == 2
    assert tables._num_rows_at_once(pl.DataFrame({"a": [1], "b": [[2]], "c": ["x"]})) == 512
    assert tables._num_rows_at_once(pl.DataFrame({"a": [None], "b": [[{"c": None}]]})) == 512


def test_csv_empty_lines_between_records_are_none_and_inside_of_them_are_kept():
    """However many they are."""
    text = b"a,b\n" + b"\n" * 100_000 + b'1,"x\n\n\ny"\n\n\n2,z\n'
    assert [row.record for row in read(text)] == [{"a": "1", "b": "x\n\n\ny"}, {"a": "2", "b": "z"}]


def test_parquet_row_above_the_limit_is_rejected(tmp_path):
    """A row above the limit is rejected with its beginning; the others survive."""
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": ["x", "y" * 9000, "z"]}).write_parquet(path)
    rows = list(read_table(path, "t.parquet", ReadLimits(max_row_bytes=5000)))
    assert [row.reason for row in rows] == [None, "row_too_long", None]
    assert rows[1].raw == '{"a": "' + "y" * (4096 - 7)


MERGED = [
    {"function": {"name": "move", "arguments": {"x": 0, "y": 1}}},
    {"function": {"name": "say", "arguments": {"text": "hi"}}},
    {"function": {"name": "stop", "arguments": {}}},
]


@pytest.mark.parametrize("kind", [parquet_table, arrow_stream, arrow_file])
def test_table_objects_lose_the_fields_that_merging_gave_them(tmp_path, kind):
    """Arguments of a tool call are those that it had; null content of a turn stays."""
    turns = [{"role": "assistant", "content": None, "tool_calls": [call]} for call in MERGED]
    path = write(tmp_path / "t", kind([{"messages": [turn], "note": None} for turn in turns]))
    rows = list(read_table(path, "t", DEFAULT_LIMITS))
    assert [row.record for row in rows] == [{"messages": [t], "note": None} for t in turns]
    assert rows[1].raw == (
        '{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"function": '
        '{"name": "say", "arguments": {"text": "hi"}}}]}], "note": null}'
    )


def test_json_columns_come_as_what_they_hold(tmp_path):
    """As datasets stores messages of several shapes: as texts of Arrow's type of JSON."""
    rows = pyarrow.array([['{"role": "user", "n": 1.5}', "{"], None])
    one = pyarrow.array(['{"a": [null, {"b": null}]}', None])
    texts = rows.cast(pyarrow.list_(pyarrow.json_())), one.cast(pyarrow.json_())
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table(texts, ["messages", "meta"]), path)
    assert [row.record for row in read_table(path, "t", DEFAULT_LIMITS)] == [
        {"messages": [{"role": "user", "n": 1.5}, "{"], "meta": {"a": [None, {"b": None}]}},
        {"messages": None, "meta": None},
    ]


def test_table_raw_text_is_strict_json(tmp_path):
    """Bytes are base64, NaN and infinities null, dates and decimal numbers text."""
    columns = {
        "image": [b"\x89PNG\x00"],
        "scores": [[0.5, float("nan"), float("inf")]],
        "score": [float("-inf")],
        "day": [date(2024, 2, 29)],
        "price": [Decimal("1.10")],
        "kind": pl.Series(["x"], dtype=pl.Categorical),
        "pair": pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2)),
    }
    pl.DataFrame(columns).write_parquet(tmp_path / "t.parquet")
    [row] = read_table(tmp_path / "t.parquet", "t", DEFAULT_LIMITS)
    assert row.raw == (
        '{"image": "iVBORwA=", "scores": [0.5, null, null], "score": null, "day": "2024-02-29", '
        '"price": "1.10", "kind": "x", "pair": [1, 2]}'
    )
    assert row.record["image"] == b"\x89PNG\x00"


def test_table_turns_that_are_kept_as_lists_are_turns(tmp_path):
    """A sequence of objects, which `datasets` keeps as an object of lists, is a list again."""
    records = [
        {"conversations": {"from": ["human", "gpt"], "value": ["a", "b"]}, "meta": {"from": ["x"]}},
        {"conversations": {"from": ["human"], "value": ["a", "b"]}, "meta": {"from": ["x"]}},
        {"conversations": None, "meta": {"from": ["x"]}},
    ]
    path = write(tmp_path / "t.parquet", parquet_table(records))
    assert [row.record for row in read_table(path, "t", DEFAULT_LIMITS)] == [
        {
            "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
            "meta": {"from": ["x"]},
        },
        *records[1:],
    ]


def test_feather_of_the_first_version_is_named(tmp_path):
    """It is another format, which Polars does not read."""
    rows = read_table(write(tmp_path / "a.feather", b"FEA1" + bytes(40)), "a", DEFAULT_LIMITS)
    with pytest.raises(RejectionError, match="this is the first version of Feather; write the"):
        list(rows)


def test_arrow_stream_gives_the_batches_before_the_damage(tmp_path):
    """A stream that was cut off, or whose middle is damaged, gives its first rows."""
    columns = {"n": [f"{n}" * 50 for n in range(3000)], "kind": ["x", "y", None] * 1000}
    frame = pl.DataFrame(columns, schema_overrides={"kind": pl.Categorical})
    buffer = io.BytesIO()
    pyarrow = pytest.importorskip("pyarrow")
    table = frame.to_arrow()
    with pyarrow.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    content = buffer.getvalue()
    whole = list(read_table(write(tmp_path / "t", content), "t", DEFAULT_LIMITS))
    assert [row.record for row in whole] == frame.to_dicts()
    for end in (len(content) // 2, len(content) - 300):
        rows = read_table(write(tmp_path / "t", content[:end]), "t", DEFAULT_LIMITS)
        seen = []
        with pytest.raises(RejectionError, match="corrupt_table: an Arrow batch is cut off"):
            seen.extend(row.record for row in rows)
        assert len(seen) in (1000, 2000)
        assert seen == frame.to_dicts()[: len(seen)]
