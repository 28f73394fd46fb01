"""What counts as a drop, and what counts as a change of it."""

import os
from pathlib import Path

import pytest

from zip_pipeline.ingest.drops import fingerprint_of, list_drops


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
        "a...b.jsonl": "the name contains '...'; rename it",
        "bad\udcff.jsonl": "the name is not valid UTF-8; rename it",
        "n" * 201: "the name has 201 bytes, allowed are 200; rename it",
        "tab\there.jsonl": "the name contains '\\t'; rename it",
    }


def test_list_drops_names_what_cannot_be_read_or_may_not(tmp_path: Path) -> None:
    """Dead links, links out of the folder and looping folders are named, others are kept."""
    raw = tmp_path / "raw"
    _write(raw / "good.jsonl")
    _write(raw / "sidecar.jsonl")
    _write(raw / "folder" / "a.jsonl")
    links = {
        "dead.jsonl": "gone.jsonl",
        "hosts.jsonl": "/etc/hosts",
        "fine.jsonl": "good.jsonl",
        "folder/loop": "..",
        "sidecar.jsonl.batch.toml": "gone.toml",
    }
    for name, target in links.items():
        (raw / name).symlink_to(target)
    drops = list_drops(raw)
    assert list(drops.found) == ["fine.jsonl", "good.jsonl"]
    assert {name: reason.partition(", ")[0] for name, reason in drops.unusable.items()} == {
        "dead.jsonl": f"{raw}/dead.jsonl: the link to gone.jsonl leads nowhere (No such file or "
        "directory); mend it or remove it",
        "hosts.jsonl": f"{raw}/hosts.jsonl: the link leads out of {raw}",
        "folder": f"{raw}/folder/loop: the link leads back to {raw}",
        "sidecar.jsonl": f"{raw}/sidecar.jsonl.batch.toml: the link to gone.toml leads nowhere (No "
        "such file or directory); mend it or remove it",
    }


def test_list_drops_of_a_folder_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drops that cannot be seen are not taken for none."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ValueError, match=r": cannot be read \(Permission denied\); nothing"):
        list_drops(tmp_path)


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
    assert [fingerprint_of(tmp_path / name) for name in ("absent", "empty")] == [None, None]
