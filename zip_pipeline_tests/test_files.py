"""Atomic writes, metadata, leftovers and version numbers."""

import json
import threading
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot, VersionStore, remove_leftovers
from zip_pipeline.files import fingerprint, read_metadata, write_atomically, write_json, write_table

TABLE = pl.DataFrame({"a": [1, 2]})


def test_write_leaves_the_old_file_when_the_writer_fails(tmp_path: Path) -> None:
    """A writer that stops half-way changes nothing and leaves nothing behind."""
    path = tmp_path / "folder" / "file.txt"
    write_atomically(path, lambda p: p.write_text("old"))

    def fail(part: Path) -> None:
        part.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_file_that_it_was_for(tmp_path: Path) -> None:
    """The system does not say which one; an error that names another file keeps its name."""
    for given, named in (
        (OSError(28, "No space left on device"), f"{tmp_path}/f.txt"),
        (pl.exceptions.ComputeError("No space (os error 28)"), f"{tmp_path}/f.txt"),
        (OSError(30, "Read-only file system", "/x"), "/x"),
    ):

        def fail(part: Path, error: Exception = given) -> None:
            raise error

        with pytest.raises(OSError) as caught:
            write_atomically(tmp_path / "f.txt", fail)
        assert caught.value.filename == named


def test_table_metadata_is_read_without_the_rows(tmp_path: Path) -> None:
    """Metadata and rows come back as written."""
    path = tmp_path / "t.parquet"
    write_table(path, TABLE, {"fingerprint": "é1"})
    assert read_metadata(path)["fingerprint"] == "é1"
    assert pl.read_parquet(path).equals(TABLE)


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    """Hidden temporary files and folders of yesterday go; results and today's stay."""
    root = DataRoot(tmp_path)
    write_table(root["sft"].samples("keep"), TABLE, {})
    root["sft"].samples(".tmp-abc").write_text("half")
    half_version = root["sft"].versions.folder / ".tmp-def"
    half_version.mkdir(parents=True)
    (half_version / "subset.parquet").write_text("half")
    for half in (root["sft"].held_out, root.path / "models" / "m", root.path / "cache" / "c"):
        half.parent.mkdir()
        (half.parent / ".tmp-ghi").write_text("half")
    dropped = root["sft"].raw / ".tmp-mine.jsonl"
    dropped.parent.mkdir(parents=True)
    dropped.write_text("not ours")
    (root.path / "cache" / ".tmp-link").symlink_to(dropped.parent)
    assert remove_leftovers(root) == 0
    assert remove_leftovers(root, older_than_seconds=0) == 6
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([root["sft"].samples("keep"), dropped])
    assert not half_version.exists()
    assert remove_leftovers(DataRoot(tmp_path / "absent")) == 0


def test_fingerprint_tells_sequences_apart_that_join_to_the_same_text() -> None:
    """Borders between parts count."""
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])
    assert fingerprint(["ab"]) == fingerprint(["ab"])
    assert len(fingerprint([])) == 32


def test_fingerprint_of_pieces_is_that_of_the_text_that_they_make() -> None:
    """So a table that is hashed part by part keeps the hash that it has as one text."""
    assert fingerprint(["a", lambda: ["b", "", "é\ud800", "c"], "d"]) == fingerprint(
        ["a", "bé\ud800c", "d"]
    )


def test_versions_are_numbered_from_one_and_never_change(tmp_path: Path) -> None:
    """Each write is a new folder with its number in the manifest; the old one stays as it was."""
    store = VersionStore(tmp_path / "versions")
    assert store.numbers() == []
    assert store.latest() is None
    assert store.write(TABLE, TABLE, {"name": "first"}) == 1
    before = {p.name: p.read_bytes() for p in store.path(1).iterdir()}
    assert set(before) == {"subset.parquet", "ledger.parquet", "manifest.json", "hashes.json"}
    assert store.write(TABLE.head(1), TABLE, {"name": "second"}) == 2
    assert {p.name: p.read_bytes() for p in store.path(1).iterdir()} == before
    assert store.numbers() == [1, 2]
    assert json.loads((store.path(2) / "hashes.json").read_text())["layout"] == 1
    assert store.manifest(2) == {"version": 2, "layout": 1, "name": "second"}
    assert pl.read_parquet(store.path(2) / "subset.parquet")["a"].to_list() == [1]


def test_unknown_versions_are_refused_with_those_there_are(tmp_path: Path) -> None:
    """The message names the versions that exist."""
    store = VersionStore(tmp_path)
    with pytest.raises(ValueError, match="no version 3; there are: none yet"):
        store.path(3)
    store.write(TABLE, TABLE, {})
    with pytest.raises(ValueError, match="no version 3; there are: 1"):
        store.manifest(3)


def test_unfinished_versions_are_invisible(tmp_path: Path) -> None:
    """A hidden folder or a foreign name is no version."""
    (tmp_path / ".tmp-x").mkdir()
    (tmp_path / "vnext").mkdir()
    (tmp_path / "v00a").mkdir()
    assert VersionStore(tmp_path).numbers() == []


def test_writers_at_once_get_different_numbers(tmp_path: Path) -> None:
    """Eight threads write eight complete versions, 1 to 8."""
    store = VersionStore(tmp_path)
    numbers: list[int] = []

    def write(name: int) -> None:
        numbers.append(store.write(TABLE, TABLE, {"name": name}))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))
    assert {store.manifest(n)["version"] for n in numbers} == set(range(1, 9))
    assert {store.manifest(n)["name"] for n in numbers} == set(range(8))


def test_data_root_lists_batches_by_name(tmp_path: Path) -> None:
    """Ingested batches are listed sorted; half-written ones are not."""
    root = DataRoot(tmp_path)
    assert root["sft"].batches() == []
    for name in ("b.jsonl", "a"):
        write_table(root["sft"].samples(name), TABLE, {})
    (tmp_path / "pool" / "sft" / ".tmp-1.parquet").write_text("half")
    assert root["sft"].batches() == ["a", "b.jsonl"]
    assert root["preference"].batches() == []


def test_json_keeps_text_readable(tmp_path: Path) -> None:
    """Non-Latin text is stored as itself."""
    write_json(tmp_path / "a.json", {"name": "東京"})
    assert "東京" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "東京"}
