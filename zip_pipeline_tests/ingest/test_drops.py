"""Rules of the drop folders."""

import os
import shutil

import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.drops import is_batch_name, read_sidecar, snapshot
from zip_pipeline.ingest.options import ReadOptions


@pytest.mark.parametrize("name", [".a", "a.tmp", "a.part", "a.crdownload", "a.jsonl.batch.toml"])
def test_hidden_unfinished_and_sidecar_names_are_no_batches(name):
    """What is hidden, still being written or a sidecar is no batch."""
    assert not is_batch_name(name)
    assert is_batch_name(name.strip(".") + ".jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"format = ", r"a\.batch\.toml: not valid TOML in UTF-8"),
        (b"\xff", r"a\.batch\.toml: not valid TOML in UTF-8"),
        (b"map = " + b"[" * 5_000, r"a\.batch\.toml: tables and lists nest deeper than 64 levels"),
        (b"map" + b".a" * 5_000 + b" = 1", r"a\.batch\.toml: tables and lists nest deeper than"),
        (b"#" * (1 << 20) + b"#", r"a\.batch\.toml: longer than 1,048,576 bytes"),
        (b'fromat = "alpaca"', r"a\.batch\.toml: fromat: unknown; allowed are format, source"),
        (b"source = 3", r"a\.batch\.toml: source: got 3; it must be a text"),
        (b'source = ""', r"a\.batch\.toml: source: got ''"),
        (b'map = { usr = "q" }', r"a\.batch\.toml: map: got 'usr'; allowed are user, assistant"),
        (b'roles = { a = "boss" }', r"a\.batch\.toml: roles: got 'boss'; allowed are system, user"),
        (b'encoding = "latin-99"', r"a\.batch\.toml: encoding: 'latin-99' is no text encoding"),
        (b'media = "drop"', r"a\.batch\.toml: media: got 'drop'"),
        (b'format = "csv"', r"a\.batch\.toml: format: 'csv' is no format of sft"),
    ],
)
def test_sidecar_errors_name_the_file(tmp_path, text, message):
    """A sidecar that is wrong is an error that names it and the setting."""
    root = DataRoot(tmp_path)
    root["sft"].raw.mkdir(parents=True)
    (root["sft"].raw / "a.batch.toml").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        read_sidecar(root["sft"], "a")


def test_sidecar_is_optional(tmp_path):
    """Without a sidecar nothing is set; with one, what it says."""
    root = DataRoot(tmp_path)
    assert read_sidecar(root["sft"], "a") == ReadOptions()
    root["sft"].raw.mkdir(parents=True)
    (root["sft"].raw / "a.batch.toml").write_bytes(b'format = "alpaca"')
    assert read_sidecar(root["sft"], "a") == ReadOptions(format="alpaca")


def test_snapshot_tells_changes(tmp_path):
    """Any file that comes, goes or changes alters the snapshot, also where a link leads."""
    folder = tmp_path / "drop"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    seen = [snapshot(folder)]
    assert snapshot(folder) == seen[0]
    (folder / "a").write_bytes(b"22")
    seen.append(snapshot(folder))
    (folder / "b").symlink_to("a")
    seen.append(snapshot(folder))
    (folder / "b").unlink()
    shutil.copy2(folder / "a", tmp_path / "c")
    (folder / "b").symlink_to("../c")
    seen.append(snapshot(folder))
    assert len(set(seen)) == 4
    assert [name for name, *_ in seen[2]] == ["a", "b"]


def test_snapshot_of_an_empty_folder_is_empty(tmp_path):
    """A folder that is made before its files come is no error."""
    (tmp_path / "drop").mkdir()
    assert snapshot(tmp_path / "drop") == ()


def test_snapshot_names_what_the_system_withholds(tmp_path, monkeypatch):
    """A file that cannot even be looked at is an error with the remedy."""
    (tmp_path / "a").touch()

    def broken(*_: object, **__: object):
        raise OSError(5, "Input/output error", str(tmp_path / "a"))

    monkeypatch.setattr("zip_pipeline.ingest.drops.list_files", lambda *_: [("a", tmp_path / "a")])
    monkeypatch.setattr("pathlib.Path.stat", broken)
    with pytest.raises(ValueError, match=r"a: cannot be read \(Input/output error\); "):
        snapshot(tmp_path / "a")


def test_sidecar_that_is_a_link_out_of_the_drop_folder_is_refused(tmp_path):
    """No value of another file is read, let alone shown; a dead link is named as well."""
    root = DataRoot(tmp_path)
    root["sft"].raw.mkdir(parents=True)
    (tmp_path / "secret.toml").write_bytes(b'password = "x"')
    sidecar = root["sft"].raw / "a.batch.toml"
    sidecar.symlink_to("../../secret.toml")
    with pytest.raises(ValueError, match=r"a\.batch\.toml: the link leads out of ") as caught:
        read_sidecar(root["sft"], "a")
    assert "password" not in str(caught.value)
    sidecar.unlink()
    sidecar.symlink_to("gone.toml")
    with pytest.raises(ValueError, match=r"a\.batch\.toml: the link to gone\.toml leads nowhere"):
        read_sidecar(root["sft"], "a")


def test_sidecar_that_cannot_be_read_is_an_error(tmp_path):
    """What the system does not read as a file is named with the remedy."""
    root = DataRoot(tmp_path)
    (root["sft"].raw / "a.batch.toml").mkdir(parents=True)
    os.mkfifo(root["sft"].raw / "b.batch.toml")
    for batch in ("a", "b"):
        with pytest.raises(UserError, match=rf"{batch}\.batch\.toml: no regular file; put a file"):
            read_sidecar(root["sft"], batch)


def test_snapshot_of_a_vanished_file_is_an_error(tmp_path, monkeypatch):
    """A file that goes while it is looked at is an error with the remedy."""
    gone = [("a", tmp_path / "a")]
    monkeypatch.setattr("zip_pipeline.ingest.drops.list_files", lambda path, within: gone)
    with pytest.raises(ValueError, match="a: the file is gone; drop it again"):
        snapshot(tmp_path)
