"""Rules of reading files and folders."""

import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zip_pipeline.ingest import readers, tables
from zip_pipeline.ingest.readers import plain_name, read_rows
from zip_pipeline.ingest.rows import ReadLimits
from zip_pipeline_tests.pool.files import (
    BROKEN_FILE,
    COMPRESSIONS,
    KINDS,
    json_lines,
    needs_broken_file,
    parquet_table,
    write,
)

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


@pytest.mark.parametrize("name", [name for name in KINDS if "parquet" not in name])
def test_byte_order_mark_is_no_text(tmp_path, name):
    """A UTF-8 byte order mark changes nothing."""
    path = write(tmp_path / name, b"\xef\xbb\xbf" + KINDS[name](RECORDS))
    assert [row.record for row in read_rows(path)] == RECORDS


@pytest.mark.parametrize("name", [name for name in KINDS if "parquet" not in name])
def test_empty_file_has_no_rows(tmp_path, name):
    """An empty file holds no rows."""
    assert list(read_rows(write(tmp_path / name, b""))) == []


def test_folder_gives_its_files_in_order(tmp_path):
    """Files of a folder come by name, at any depth, hidden ones left out."""
    for name in ("b.jsonl", "sub/a.jsonl", "a.JSONL.GZ", ".hidden.jsonl", ".git/x.jsonl"):
        write(tmp_path / "drop" / name, json_lines([{"n": name}]))
    rows = list(read_rows(tmp_path / "drop"))
    assert [row.source_file for row in rows] == ["a.JSONL.GZ", "b.jsonl", "sub/a.jsonl"]


def test_unsupported_file_is_one_rejected_row(tmp_path):
    """A file of another kind is one rejected row; its neighbours are read."""
    write(tmp_path / "drop" / "README.md", b"# Text\n\nand more")
    write(tmp_path / "drop" / "a.jsonl", json_lines([{"n": 1}]))
    os.mkfifo(tmp_path / "drop" / "b.jsonl")
    (tmp_path / "drop" / "c.jsonl").symlink_to("b.jsonl")
    rows = [(row.source_file, row.source_row, row.reason) for row in read_rows(tmp_path / "drop")]
    assert rows == [
        ("README.md", 1, "unsupported_file"),
        ("a.jsonl", 1, None),
        ("b.jsonl", 1, "unsupported_file"),
        ("c.jsonl", 1, "unsupported_file"),
    ]


def test_damaged_files_leave_the_others_unharmed(tmp_path):
    """Each damaged file costs one row after its good ones, no other file any."""
    good = json_lines(RECORDS)
    write(tmp_path / "a.jsonl", good)
    write(tmp_path / "b.parquet", parquet_table(RECORDS)[:-40])
    (tmp_path / "c.parquet.zst").write_bytes(b"no frame")
    write(tmp_path / "d.jsonl", "x".encode("utf-16"))
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


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", [name for name in KINDS if "parquet" not in name])
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
    assert [row.source_row for row in rows] == sorted({row.source_row for row in rows})


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


def test_too_little_memory_ends_the_reading(tmp_path, monkeypatch):
    """What there is no memory for today may be read tomorrow."""
    _break_csv(monkeypatch, MemoryError())
    with pytest.raises(ValueError, match=r"a\.csv: cannot be read \(MemoryError\); nothing of it"):
        list(read_rows(write(tmp_path / "a.csv", KINDS["table.csv"](RECORDS))))


def _break_csv(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let reading CSV fail after the first row."""

    def broken(*arguments):
        yield next(tables.read_csv(*arguments))
        raise error

    monkeypatch.setitem(readers._TEXT_READERS, ".csv", broken)


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
    [("a.jsonl.gz", "a"), ("a.b.CSV.zst", "a.b"), ("a.json", "a"), ("a.txt", "a.txt"), ("a", "a")],
)
def test_plain_name_has_no_extension(name, plain):
    """Only the extensions of supported files are cut."""
    assert plain_name(name) == plain
