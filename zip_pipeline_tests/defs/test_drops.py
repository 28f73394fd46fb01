"""What counts as a drop, and what counts as a change of it."""

import os
from pathlib import Path

from zip_pipeline.defs.drops import fingerprint_of, list_drops


def _write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_list_drops_ignores_hidden_unfinished_and_sidecars(tmp_path: Path) -> None:
    """Files and folders are drops; hidden, unfinished, sidecar and empty entries are not."""
    _write(tmp_path / "a.jsonl")
    _write(tmp_path / "folder" / "deep" / "b.csv")
    for name in (".hidden", "c.tmp", "d.jsonl.part", "e.zip.crdownload", "a.jsonl.batch.toml"):
        _write(tmp_path / name)
    (tmp_path / "empty").mkdir()
    drops = list_drops(tmp_path)
    assert sorted(drops.found) == ["a.jsonl", "folder"]
    assert drops.unusable == {}


def test_list_drops_of_no_folder_is_empty(tmp_path: Path) -> None:
    """A drop folder that does not exist holds no drops."""
    assert list_drops(tmp_path / "absent").found == {}


def test_list_drops_names_what_cannot_be_a_partition(tmp_path: Path) -> None:
    """An entry whose name Dagster cannot hold is reported with the reason, others are kept."""
    _write(tmp_path / "good.jsonl")
    _write(tmp_path / "a...b.jsonl")
    _write(tmp_path / "tab\there.jsonl")
    _write(tmp_path / ("n" * 201))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.jsonl")).write_text("x")
    drops = list_drops(tmp_path)
    assert list(drops.found) == ["good.jsonl"]
    assert drops.unusable == {
        "a...b.jsonl": "the name contains '...'",
        "bad\udcff.jsonl": "the name is not valid UTF-8",
        "n" * 201: "the name has 201 bytes, allowed are 200",
        "tab\there.jsonl": "the name contains '\\t'",
    }


def test_fingerprint_changes_with_size_time_name_and_sidecar(tmp_path: Path) -> None:
    """Each of size, time, a name inside the folder and the sidecar is part of the fingerprint."""
    drop = tmp_path / "folder"
    inner = _write(drop / "a.csv", "1")
    seen = [fingerprint_of(drop)]
    _write(inner, "22")
    seen.append(fingerprint_of(drop))
    os.utime(inner, (1, 1))
    seen.append(fingerprint_of(drop))
    inner.rename(drop / "b.csv")
    seen.append(fingerprint_of(drop))
    sidecar = _write(tmp_path / "folder.batch.toml", 'source = "s"')
    seen.append(fingerprint_of(drop))
    os.utime(sidecar, (2, 2))
    seen.append(fingerprint_of(drop))
    assert None not in seen
    assert len(set(seen)) == 6


def test_fingerprint_does_not_read_contents(tmp_path: Path) -> None:
    """Equal names, sizes and times give equal fingerprints, whatever the bytes."""
    drop = _write(tmp_path / "a.jsonl", "one")
    os.utime(drop, (5, 5))
    before = fingerprint_of(drop)
    _write(drop, "two")
    os.utime(drop, (5, 5))
    assert fingerprint_of(drop) == before


def test_fingerprint_of_nothing_is_none(tmp_path: Path) -> None:
    """No such entry, or a folder without files, has no fingerprint."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    assert [fingerprint_of(tmp_path / name) for name in ("absent", "empty", "dangling")] == [
        None
    ] * 3
