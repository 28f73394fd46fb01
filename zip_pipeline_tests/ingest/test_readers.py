"""Rules of reading files and folders."""

import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zip_pipeline.errors import UserError
from zip_pipeline.ingest import readers, tables
from zip_pipeline.ingest.readers import describe_file, left_out_splits, plain_name, read_rows
from zip_pipeline.ingest.rows import ReadLimits, RejectionError
from zip_pipeline_tests.pool.files import (
    BROKEN_FILE,
    COMPRESSIONS,
    KINDS,
    arrow_stream,
    json_lines,
    needs_broken_file,
    parquet_table,
    write,
)

TABLES = ("table.parquet", "table.arrow", "table.feather")
RECORDS = [{"prompt": f'é "{n}"\n', "completion": "[1, 2]"} for n in range(30)]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_and_compression_gives_the_same_records(tmp_path, name, suffix):
    """The records of a file do not depend on how it is written."""
    path = write(tmp_path / f"{name}{suffix}", KINDS[name](RECORDS))
    rows = list(read_rows(path))
    assert [row.record for row in rows] == RECORDS
    assert [row.source_row for row in rows] == list(range(1, 31))
    assert {row.source_file for row in rows} == {f"{name}{suffix}"}


@pytest.mark.parametrize("name", [name for name in KINDS if name not in TABLES])
def test_byte_order_mark_is_no_text(tmp_path, name):
    """A UTF-8 byte order mark changes nothing."""
    path = write(tmp_path / name, b"\xef\xbb\xbf" + KINDS[name](RECORDS))
    assert [row.record for row in read_rows(path)] == RECORDS


@pytest.mark.parametrize("name", [name for name in KINDS if name not in TABLES])
def test_empty_file_has_no_rows(tmp_path, name):
    """An empty file holds no rows."""
    assert list(read_rows(write(tmp_path / name, b""))) == []


def test_folder_gives_its_files_in_order(tmp_path):
    """Files of a folder come by name, at any depth, hidden ones left out."""
    for name in ("b.jsonl", "sub/a.jsonl", "a.JSONL.GZ", ".hidden.jsonl", ".git/x.jsonl"):
        write(tmp_path / "drop" / name, json_lines([{"n": name}]))
    rows = list(read_rows(tmp_path / "drop"))
    assert [row.source_file for row in rows] == ["a.JSONL.GZ", "b.jsonl", "sub/a.jsonl"]


@pytest.mark.parametrize("text", [b"{}\n", b"a,b\n", b"[1],"])
def test_rows_beyond_number_in_a_few_bytes_are_a_bomb(tmp_path, text):
    """A row counts as hundreds of bytes: ever so many tiny ones are one rejected row in the end."""
    name = "a.csv.gz" if b"a" in text else "a.json.gz"
    path = write(tmp_path / name, (b"[" if b"[" in text else b"") + text * 5_000)
    rows = list(read_rows(path, ReadLimits(allowance_bytes=1 << 20)))
    assert [row.reason for row in rows[2044:]] == [rows[0].reason] * 5 + ["decompression_bomb"]
    assert len({row.source_row for row in rows}) == len(rows) == 2050


def test_what_a_pipe_is_nobody_waits_to_learn(tmp_path):
    """A pipe is described as what it is, without waiting for whoever writes into it."""
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(RejectionError, match="neither a regular file nor a folder"):
        describe_file(tmp_path / "a.jsonl")


def test_unsupported_file_is_one_rejected_row(tmp_path):
    """A file of another kind is one rejected row; its neighbours are read."""
    write(tmp_path / "drop" / "NOTES.md", b"# Text\n\nand more")
    write(tmp_path / "drop" / "a.jsonl", json_lines([{"n": 1}]))
    os.mkfifo(tmp_path / "drop" / "b.jsonl")
    (tmp_path / "drop" / "c.jsonl").symlink_to("b.jsonl")
    rows = [(row.source_file, row.source_row, row.reason) for row in read_rows(tmp_path / "drop")]
    assert rows == [
        ("NOTES.md", 1, "unsupported_file"),
        ("a.jsonl", 1, None),
        ("b.jsonl", 1, "unsupported_file"),
        ("c.jsonl", 1, "unsupported_file"),
    ]


def test_damaged_files_leave_the_others_unharmed(tmp_path):
    """Each damaged file costs one row after its good ones, no other file any."""
    good = json_lines(RECORDS)
    write(tmp_path / "a.jsonl", good)
    write(tmp_path / "b.parquet", parquet_table(RECORDS)[:-40])
    (tmp_path / "c.parquet.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"\xff" * 99)
    write(tmp_path / "d.jsonl", "{}".encode("utf-16")[:-1])
    write(tmp_path / "f.json", b'[{"n": 1}, {"n": 2')
    write(tmp_path / "g.jsonl", b'{"x": "' + b"0" * 300_000 + b'"}\n' + good)
    write(tmp_path / "z.jsonl", good)
    bomb = write(tmp_path / "h.jsonl.gz", json_lines([{"n": 1}]) + b" " * 2_000_000)
    limits = ReadLimits(max_row_bytes=4096, allowance_bytes=1 << 20)
    rows = list(read_rows(tmp_path, limits))
    rejected = {r.source_file: (r.source_row, r.reason) for r in rows if r.record is None}
    assert rejected == {
        "b.parquet": (1, "corrupt_table"),
        "c.parquet.zst": (1, "corrupt_archive"),
        "d.jsonl": (1, "bad_encoding"),
        "f.json": (2, "invalid_json"),
        "g.jsonl": (1, "row_too_long"),
        bomb.name: (2, "decompression_bomb"),
    }
    assert len(rows) - len(rejected) == 30 + 1 + 30 + 1 + 30


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
@pytest.mark.parametrize("name", [name for name in KINDS if name not in TABLES])
def test_truncated_archive_keeps_the_rows_before(tmp_path, name, suffix):
    """A compressed file that ends too early gives its first rows, and one row for the rest."""
    records = [{"prompt": os.urandom(900).hex(), "completion": str(n)} for n in range(400)]
    path = write(tmp_path / f"{name}{suffix}", KINDS[name](records))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *before, last = read_rows(path)
    assert len(before) > 100
    assert [row.record for row in before] == records[: len(before)]
    assert (last.source_row, last.reason) == (len(before) + 1, "truncated_archive")
    assert records[len(before)]["prompt"].startswith(last.raw.partition('"prompt": "')[2])


FIRST, SECOND = ({"prompt": f"{n}?", "completion": f"{n}."} for n in (1, 2))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.jsonl.gz", "a.JSONL.zst"])
@pytest.mark.parametrize(
    "text",
    [
        '[{"prompt": "1?", "completion": "1."}, {"prompt": "2?", "completion": "2."}]',
        '[\n{"prompt": "1?", "completion": "1."},\n{"prompt": "2?", "completion": "2."}\n]\n',
        '[{"prompt": "1?", "completion": "1."}\n,{"prompt": "2?", "completion": "2."}]\n',
        '{"prompt": "1?", "completion": "1."}\n{"prompt": "2?", "completion": "2."}\n',
        '{"prompt": "1?", "completion": "1."}{"prompt": "2?", "completion": "2."}\n',
        '{"prompt": "1?", "completion": "1."},\n{"prompt": "2?", "completion": "2."},\n',
        '{"prompt": "1?", "completion": "1."}\n\ufeff{"prompt": "2?", "completion": "2."}\n',
        '[{"prompt": "1?", "completion": "1."}]\n\ufeff[{"prompt": "2?", "completion": "2."}]\n',
        '{\n "prompt": "1?",\n "completion": "1."\n}\n{"prompt": "2?",\n"completion": "2."}',
        '{"data": [{"prompt": "1?", "completion": "1."}, {"prompt": "2?", "completion": "2."}]}\n',
        '{"prompt": ["1?", "2?"], "completion": ["1.", "2."]}\n',
    ],
)
def test_contents_tell_how_json_is_laid_out(tmp_path, name, text):
    """Lists, lines, printed objects and tables are read alike under every name of JSON."""
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert [row.record for row in read_rows(path)] == [FIRST, SECOND]


def test_lines_with_several_rows_keep_their_number(tmp_path):
    """A line that lost its line feed gives its rows; with damage in it, it is one rejected row."""
    text = b'{"n": 1}\n{"n": 2} {"n": 3}\n{"n": 4}{"n": \n{"n": 5} and more\n{"n": 6}\n'
    rows = read_rows(write(tmp_path / "a.jsonl", text))
    assert [(row.source_row, row.raw, row.reason) for row in rows] == [
        (1, '{"n": 1}', None),
        (2, '{"n": 2}', None),
        (2, '{"n": 3}', None),
        (3, '{"n": 4}{"n":', "invalid_json"),
        (4, '{"n": 5} and more', "invalid_json"),
        (5, '{"n": 6}', None),
    ]


@pytest.mark.parametrize("first", [b'{"n": ', b'{"n": 1}}', b"oops", b'{"n": "\xff"}'])
def test_a_broken_first_line_costs_one_row(tmp_path, first):
    """A file of lines is read as lines, however its first one is damaged."""
    path = write(tmp_path / "a.jsonl", first + b'\n{"n": 2}\n')
    first_row, second = read_rows(path)
    assert (first_row.source_row, first_row.record) == (1, None)
    assert (second.source_row, second.record) == (2, {"n": 2})


def test_lines_that_are_lists_are_conversations(tmp_path):
    """A list of turns, or of texts, is a row; another list is none."""
    turns = '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]'
    text = f'{turns}\n["Hi", "Hello."]\n[1]\n[]\n'
    rows = list(read_rows(write(tmp_path / "a.jsonl", text.encode())))
    assert [(row.raw, row.reason) for row in rows] == [
        (f'{{"messages": {turns}}}', None),
        ('{"messages": ["Hi", "Hello."]}', None),
        ("[1]", "not_an_object"),
        ("[]", "not_an_object"),
    ]
    assert rows[1].record == {"messages": ["Hi", "Hello."]}


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
@pytest.mark.parametrize("kind", ["table.parquet", "table.feather", "table.arrow"])
def test_contents_tell_a_table(tmp_path, kind, name):
    """A table under another name is read as the table that it is."""
    path = write(tmp_path / name, KINDS[kind](RECORDS))
    assert [row.record for row in read_rows(path)] == RECORDS


def test_encoding_and_separator_can_be_given(tmp_path):
    """They reach the files that they concern; others are read as ever."""
    write(tmp_path / "a.csv", "prompt;completion\nthé;café, oui\n".encode("cp1252"))
    write(tmp_path / "b.jsonl", '{"prompt": "thé"}\n'.encode("cp1252"))
    write(tmp_path / "c.parquet", parquet_table([{"prompt": "thé"}]))
    rows = read_rows(tmp_path, encoding="cp1252", separator=";")
    assert [row.record for row in rows] == [
        {"prompt": "thé", "completion": "café, oui"},
        {"prompt": "thé"},
        {"prompt": "thé"},
    ]
    with pytest.raises(UserError, match="encoding: 'x' is no text encoding"):
        list(read_rows(tmp_path, encoding="x"))
    with pytest.raises(UserError, match="separator: '' cannot separate cells"):
        list(read_rows(tmp_path, separator=""))


def test_undecodable_lines_name_what_they_look_like(tmp_path):
    """A row of another encoding says which; one of damaged UTF-8 does not."""
    text = '{"a": "café"}\n'.encode("cp1252") + '{"a": "Größe für"}\n'.encode() + b"{\xff}"
    damaged = '{"a": "Größe für'.encode() + b'\xff"}\n'
    details = [row.detail for row in read_rows(write(tmp_path / "a.jsonl", text + b"\n" + damaged))]
    assert details == [
        "'utf-8' codec can't decode byte 0xe9 in position 10: invalid continuation byte; it looks "
        'like cp1252: if the file is, say encoding = "cp1252" in NAME.batch.toml beside the file '
        "or folder NAME",
        "",
        "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte; it looks like "
        'cp1252: if the file is, say encoding = "cp1252" in NAME.batch.toml beside the file or '
        "folder NAME",
        "'utf-8' codec can't decode byte 0xff in position 19: invalid start byte; most of the row "
        "is UTF-8, so its bytes are damaged",
    ]


def sources(path: Path) -> list[str]:
    """Return the files that give rows, or rejections."""
    return [row.source_file for row in read_rows(path)]


def test_files_about_a_data_set_are_no_rows(tmp_path):
    """What a repository or a saved folder says of itself is neither read nor quarantined."""
    others = ("README.md", "LICENSE", "dataset_infos.json", ".gitattributes", "saved/state.json")
    for name in (*others, "saved/dataset_info.json", "saved/cache-1.arrow", "odd.bin"):
        write(tmp_path / "hub" / name, b"{}")
    write(tmp_path / "hub" / "state.json", json_lines([FIRST]))
    write(tmp_path / "hub" / "saved" / "data-00000-of-00001.arrow", arrow_stream([SECOND]))
    rows = [(row.source_file, row.record, row.reason) for row in read_rows(tmp_path / "hub")]
    assert rows == [
        ("odd.bin", None, "unsupported_file"),
        ("saved/data-00000-of-00001.arrow", SECOND, None),
        ("state.json", FIRST, None),
    ]


def test_a_folder_of_nothing_but_files_about_data_says_so(tmp_path):
    """Nothing is passed over in silence: then these files are quarantined."""
    write(tmp_path / "hub" / "README.md", b"x")
    assert [row.reason for row in read_rows(tmp_path / "hub")] == ["unsupported_file"]
    assert [row.reason for row in read_rows(tmp_path / "hub" / "README.md")] == ["unsupported_file"]


LEFT_OUT = [
    "data/test/a.jsonl",
    "data/test-00000-of-00001.jsonl",
    "dev.json",
    "eval/part 1/b.jsonl",
    "squad_validation.jsonl.gz",
    "test_sft-00000-of-00002.jsonl",
    "test2.jsonl",
    "train/valid-1.jsonl",
]
READ = [
    "data/test/train.jsonl",
    "data/train-00000-of-00001.jsonl",
    "devices.jsonl",
    "latest.jsonl",
    "train_test.jsonl",
    "write_test_cases.jsonl",
]


def test_files_of_other_splits_are_left_out_and_named(tmp_path):
    """Test and validation files of a folder are not read; train and unnamed files are."""
    for name in (*LEFT_OUT, *READ):
        write(tmp_path / "drop" / name, json_lines([{"n": 1}]))
    assert left_out_splits(tmp_path / "drop") == sorted(LEFT_OUT)
    assert sources(tmp_path / "drop") == sorted(READ)


def test_test_files_are_read_where_none_is_for_training(tmp_path):
    """In a person's own folder such a name tells no split; nor does that of a single file."""
    for name in ("hh_test.jsonl", "web.jsonl"):
        write(tmp_path / "own" / name, json_lines([{"n": 1}]))
    assert sources(tmp_path / "own") == ["hh_test.jsonl", "web.jsonl"]
    for name in ("test.jsonl", "eval/a.jsonl"):
        write(tmp_path / "test" / name, json_lines([{"n": 1}]))
    assert left_out_splits(tmp_path / "test") == []
    assert sources(tmp_path / "test") == ["eval/a.jsonl", "test.jsonl"]
    assert sources(tmp_path / "test" / "test.jsonl") == ["test.jsonl"]


DAMAGES = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=9)), max_size=4)
NAMES = st.sampled_from([f"{name}{suffix}" for name in KINDS for suffix in COMPRESSIONS])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=NAMES, end=st.floats(0, 1), damages=DAMAGES, seal=st.booleans())
def test_damage_never_ends_the_reading(tmp_path, name, end, damages, seal):
    """Whatever is cut off or overwritten, reading ends, and rows are records or rejections."""
    write_kind, suffix = KINDS[".".join(name.split(".")[:2])], Path(name).suffix
    content = write_kind(RECORDS)
    if not seal:
        content = COMPRESSIONS.get(suffix, bytes)(content)
    content = bytearray(content[: int(end * len(content)) + 1])
    for place, noise in damages:
        start = int(place * len(content))
        content[start : start + len(noise)] = noise
    path = tmp_path / name
    path.write_bytes(COMPRESSIONS.get(suffix, bytes)(content) if seal else content)
    rows = list(read_rows(path))
    assert all((row.record is None) == (row.reason is not None) for row in rows)
    assert [row.source_row for row in rows] == sorted(row.source_row for row in rows)


@needs_broken_file
@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("name", KINDS)
def test_what_the_system_withholds_ends_the_reading(tmp_path, name, suffix):
    """A file that cannot be read is an error with file and remedy, whatever kind it is."""
    path = tmp_path / f"{name}{suffix}"
    path.symlink_to(BROKEN_FILE)
    with pytest.raises(ValueError) as caught:
        list(read_rows(path))
    found = str(caught.value)
    assert found.startswith(f"{path}: cannot be read (")
    assert found.endswith("); nothing of it is taken in. Put that right, then try again")


def test_an_error_of_polars_that_is_the_systems_ends_the_reading(tmp_path, monkeypatch):
    """Polars tells by the kind of its error what the system withholds, and what is damage."""
    path = write(tmp_path / "a.parquet", parquet_table(RECORDS))

    def no_descriptors(_: Path):
        raise OSError(f"Too many open files (os error 24): {path}")

    monkeypatch.setattr(tables, "scan_table", no_descriptors)
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read \(Too many open files \(os"):
        list(read_rows(path))


def test_a_place_that_no_file_has_is_damage(tmp_path, monkeypatch):
    """Where a table tells Polars to look there, the system finds that invalid, not the file."""
    path = write(tmp_path / "a.parquet", parquet_table(RECORDS))

    def nowhere(_: Path):
        raise OSError("Invalid argument (os error 22)")

    monkeypatch.setattr(tables, "scan_table", nowhere)
    assert [row.reason for row in read_rows(path)] == ["corrupt_table"]


def test_too_little_memory_ends_the_reading(tmp_path, monkeypatch):
    """What there is no memory for today may be read tomorrow."""
    _break_csv(monkeypatch, MemoryError())
    with pytest.raises(ValueError, match=r"a\.csv: cannot be read \(MemoryError\); nothing of it"):
        list(read_rows(write(tmp_path / "a.csv", KINDS["table.csv"](RECORDS))))


def _break_csv(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let reading CSV fail after the first row."""

    def broken(*arguments, **options):
        yield next(tables.read_csv(*arguments, **options))
        raise error

    monkeypatch.setattr(readers, "read_csv", broken)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("year 56728 is out of range"),
        OverflowError("date value out of range"),
        RecursionError("maximum recursion depth exceeded"),
        pl.exceptions.ComputeError("no such thing"),
        pl.exceptions.PanicException("`unwrap` on an `Err` value"),
    ],
)
def test_what_odd_data_make_libraries_raise_costs_one_file(tmp_path, monkeypatch, error):
    """The rows before stay, one row says what is wrong, and the other files are read."""
    for name in ("a.csv", "b.jsonl"):
        kind = KINDS["table.csv" if name == "a.csv" else "lines.jsonl"]
        write(tmp_path / "drop" / name, kind(RECORDS))
    _break_csv(monkeypatch, error)
    first, rejected, *others = read_rows(tmp_path / "drop")
    assert (first.source_file, first.record) == ("a.csv", RECORDS[0])
    assert (rejected.source_file, rejected.source_row) == ("a.csv", 2)
    assert (rejected.reason, rejected.detail) == (
        "unexpected_content",
        f"{type(error).__name__}: {error}",
    )
    assert [row.record for row in others] == RECORDS


@pytest.mark.parametrize("error", [AssertionError("impossible"), TypeError("no str"), KeyError(1)])
def test_mistakes_of_ours_are_not_taken_for_odd_data(tmp_path, monkeypatch, error):
    """They pass on as they are."""
    _break_csv(monkeypatch, error)
    with pytest.raises(type(error)):
        list(read_rows(write(tmp_path / "a.csv", KINDS["table.csv"](RECORDS))))


def test_link_that_comes_while_files_are_read_is_refused(tmp_path):
    """What is put in the place of a file after the listing is checked before it is opened."""
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / "drop" / name, json_lines([{"n": 1}]))
    secret = write(tmp_path / "secret.jsonl", json_lines([{"n": 2}]))
    rows = read_rows(tmp_path / "drop")
    assert next(rows).source_file == "a.jsonl"
    (tmp_path / "drop" / "b.jsonl").unlink()
    (tmp_path / "drop" / "b.jsonl").symlink_to(secret)
    with pytest.raises(ValueError, match=r"b\.jsonl: the link leads out of .*/drop, to "):
        list(rows)


def test_missing_and_empty_drops_are_refused(tmp_path):
    """A path that leads nowhere and a folder without files are errors that say so."""
    with pytest.raises(ValueError, match="none: no such file or folder"):
        list(read_rows(tmp_path / "none"))
    write(tmp_path / "drop" / ".DS_Store", b"x")
    with pytest.raises(ValueError, match="drop: the folder holds no file"):
        list(read_rows(tmp_path / "drop"))


def test_file_name_that_is_not_utf8_is_readable(tmp_path):
    """A file name of other bytes is told with replacements."""
    folder = tmp_path / "drop"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.jsonl")).write_bytes(b"{}\n")
    assert [row.source_file for row in read_rows(folder)] == ["?.jsonl"]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a.jsonl.gz", "a"),
        ("a.b.CSV.zst", "a.b"),
        ("a.tsv.xz", "a"),
        ("a.arrow", "a"),
        ("a.json", "a"),
        ("a.txt", "a.txt"),
        ("a", "a"),
    ],
)
def test_plain_name_has_no_extension(name, plain):
    """Only the extensions of supported files are cut."""
    assert plain_name(name) == plain


def test_a_file_without_a_known_ending_is_told_by_its_beginning(tmp_path):
    """JSON in a .txt, Excel's line that names the separator, and the line ends of old Macs."""
    rows = b'{"prompt": "p", "completion": "c"}\n'
    assert [r.record for r in read_rows(write(tmp_path / "a.txt", rows))] == [
        {"prompt": "p", "completion": "c"}
    ]
    assert [r.reason for r in read_rows(write(tmp_path / "b.txt", b"text"))] == ["unsupported_file"]
    for text in (b"sep=;\r\nprompt;completion\r\np;c\r\n", b"prompt;completion\rp;c\r"):
        table = write(tmp_path / "a.csv", text)
        assert [r.record for r in read_rows(table)] == [{"prompt": "p", "completion": "c"}]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid x\n", "run git lfs pull"),
        ("a.xlsx", b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml", "save its sheet as CSV"),
        ("a.csv", b"PK\x03\x04" + bytes(26) + b"_rels/.rels", "an Excel workbook"),
        ("a.xls", b"\xd0\xcf\x11\xe0" + bytes(600), "Excel workbook of before 2007"),
        ("a.zip", b"PK\x03\x04" + bytes(26) + b"rows.jsonl", "a zip archive; unpack it"),
        ("a.tar.gz", b"rows".ljust(257, b"\0") + b"ustar", "a tar archive"),
        ("a.jsonl", b"\n<!DOCTYPE html>\n<title>Sign in</title>", "a web page"),
        ("a.json", b"<HTML><body>", "download the file itself"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path, name, content, words):
    """With what to do about it, whatever the file is called."""
    [row] = read_rows(write(tmp_path / name, content))
    assert row.reason == "unsupported_file"
    assert words in row.detail
