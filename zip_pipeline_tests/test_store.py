"""A store: each number is claimed once, files have their hash, and what is wrong is told."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from zip_pipeline.errors import UserError
from zip_pipeline.store import Store, StoreSettings
from zip_pipeline_tests.ingest.remote_servers import GoogleBucket

obstore = pytest.importorskip("obstore")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store on disk."""
    (tmp_path / "store").mkdir()
    return Store(f"file://{tmp_path}/store")


def _file(folder: Path, content: bytes) -> tuple[Path, str]:
    path = folder / "file"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def test_a_number_is_claimed_once(store: Store) -> None:
    """The first one has it, and entries come in their order."""
    assert store.claim(1, {"units": {"a": {}}})
    assert not store.claim(1, {"units": {"b": {}}})
    assert store.claim(2, {"units": {"c": {}}})
    assert [entry["units"] for entry in store.entries(0)] == [{"a": {}}, {"c": {}}]
    assert [entry["units"] for entry in store.entries(1)] == [{"c": {}}]


def test_no_gap_in_the_log_is_filled(store: Store, tmp_path: Path) -> None:
    """Who has read beyond it would never see what is written there."""
    for number in (1, 2, 3):
        assert store.claim(number, {"units": {}})
    assert not store.claim(2, {"units": {}})
    (tmp_path / "store" / "log" / "0000000002.json").unlink()
    with pytest.raises(UserError, match=r"log/0000000002.json is missing; restore it from a back"):
        store.claim(2, {"units": {}})
    assert [entry["id"] for entry in store.entries(0)] == [(store.entry(1) or {})["id"]]


def test_many_entries_are_read_at_once_and_come_in_their_order(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight at most, and one where most often there is none."""
    for number in range(1, 41):
        assert store.claim(number, {"number": number})
    get, lock = obstore.get, threading.Lock()
    reading, most = 0, 0

    def get_slowly(*arguments: object) -> object:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        time.sleep(0.02)
        with lock:
            reading -= 1
        return get(*arguments)

    monkeypatch.setattr(obstore, "get", get_slowly)
    assert list(store.entries(40)) == []
    assert most == 1
    assert [entry["number"] for entry in store.entries(2)] == list(range(3, 41))
    assert most == 8


def test_many_files_are_removed_at_once_and_counted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the store has no request for many, eight at a time; what is gone is not counted."""
    (tmp_path / "store" / "aside").mkdir()
    names = [f"aside/{number}" for number in range(40)]
    for name in names[:30]:
        (tmp_path / "store" / name).write_bytes(b"")
    delete, together = obstore.delete, threading.Barrier(8)

    def delete_with_others(*arguments: object) -> None:
        together.wait(timeout=10)
        delete(*arguments)

    monkeypatch.setattr(obstore, "delete", delete_with_others)
    assert store._delete(names) == 30
    assert not any((tmp_path / "store" / "aside").iterdir())


def test_a_claim_whose_answer_was_lost_is_ours(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library asks again then, and is told that the name is taken: by ourselves."""
    put = obstore.put

    def put_twice(*arguments: object, **options: object) -> object:
        put(*arguments, **options)
        return put(*arguments, **options)

    monkeypatch.setattr(obstore, "put", put_twice)
    assert store.claim(1, {"units": {}})


def test_a_store_is_begun_once(store: Store) -> None:
    """Its identity stays, and nothing is left of the look at whether it keeps claims."""
    assert store.identity() is None
    identity = store.begin()
    assert (store.begin(), store.identity()) == (identity, identity)
    assert [about["path"] for page in obstore.list(store._files) for about in page] == [
        "log/0000000000.json"
    ]


def test_a_store_that_heeds_no_condition_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that writes over what is there would lose versions without a word."""
    put = obstore.put
    monkeypatch.setattr(obstore, "put", lambda store, name, file, **_: put(store, name, file))
    with pytest.raises(UserError, match=r"put if absent.* use a store or a release of it that"):
        store.begin()
    assert store.identity() is None


@pytest.mark.server
def test_google_gives_a_name_once_and_takes_files_in_parts(
    tmp_path: Path, gs: GoogleBucket
) -> None:
    """As documented of its XML API: by generations, in pages, with its own words for refusals."""
    one, other = Store("gs://pool/team"), Store("gs://pool/team")
    assert one.begin() == other.begin()
    assert [one.claim(1, {"units": {}}), other.claim(1, {"units": {}})] == [True, False]
    path, sha256 = _file(tmp_path, b"abc" * 4_000_000)
    assert one.add(path, sha256)
    assert gs.requests["POST"] == 2
    other.fetch(sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    for status in (401, 403):
        gs.refusal = status
        with pytest.raises(
            UserError, match=rf"no access \({status}\); set GOOGLE_APPLICATION_CRED"
        ):
            one.identity()


@pytest.mark.parametrize("scheme", ["file", pytest.param("gs", marks=pytest.mark.server)])
def test_two_may_clean_at_once(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """What the other one has put aside or removed meanwhile is no damage, and is counted once."""
    place = tmp_path / "store"
    place.mkdir()
    if scheme == "gs":
        request.getfixturevalue("gs")
    url = f"file://{place}" if scheme == "file" else "gs://pool/team"
    one, other = Store(url), Store(url)
    monkeypatch.setattr("zip_pipeline.store._OLD", timedelta(seconds=-1))
    path, sha256 = _file(tmp_path, b"old")
    assert one.add(path, sha256)
    ages = Store._ages

    def ages_before_the_other(store: Store, folder: str, now: datetime) -> dict[str, timedelta]:
        found = ages(store, folder, now)
        if store is one and folder == "aside":
            told.append(other.clean([]))
        return found

    told = list[tuple[int, int]]()
    monkeypatch.setattr(Store, "_ages", ages_before_the_other)
    assert [one.clean([]), one.clean([])] == [(0, 1), (0, 0)]
    assert told == [(0, 1), (1, 0)]


def test_files_come_back_as_they_were(store: Store, tmp_path: Path) -> None:
    """A file has the hash that it is asked for by, when it goes and when it comes."""
    path, sha256 = _file(tmp_path, b"abc" * 1_000)
    assert store.add(path, sha256)
    store.fetch(sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert not store.add(path, "0" * 64)
    (tmp_path / "store" / "objects" / sha256).write_bytes(b"other")
    with pytest.raises(UserError, match=rf"objects/{sha256} does not have its hash; restore"):
        store.fetch(sha256, tmp_path / "copy")
    with pytest.raises(UserError, match="a file that the store names is not there; restore"):
        store.fetch("0" * 64, tmp_path / "copy")


def _age(folder: Path) -> None:
    """Let a day and some hours go by."""
    for path in folder.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - 90_000
            os.utime(path, (then, then))


def test_what_nothing_names_goes_in_two_days(store: Store, tmp_path: Path) -> None:
    """Meanwhile it is found still, and stays where somebody names it again."""
    folder, hashes = tmp_path / "store", []
    for content in (b"named", b"named again", b"old"):
        path, sha256 = _file(tmp_path, content)
        assert store.add(path, sha256)
        hashes.append(sha256)
    assert store.clean(hashes[:1]) == (0, 2)
    _age(folder)
    assert store.clean(hashes[:1]) == (0, 2)
    assert store.clean(hashes[:1]) == (0, 2)
    store.fetch(hashes[1], tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"named again"
    _age(folder)
    assert store.clean(hashes[:2]) == (1, 0)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert sorted(names) == sorted(f"objects/{sha256}" for sha256 in hashes[:2])
    with pytest.raises(UserError, match=f"objects/{'0' * 64} is missing; restore it"):
        store.clean(["0" * 64])


def test_what_is_put_aside_again_waits_again(store: Store, tmp_path: Path) -> None:
    """Somebody who names it may have written it anew since the files were listed."""
    path, sha256 = _file(tmp_path, b"content")
    for found in ((0, 1), (0, 1)):
        assert store.add(path, sha256)
        _age(tmp_path / "store")
        assert store.clean([]) == found
    assert store.add(path, sha256)
    _age(tmp_path / "store")
    rename = obstore.rename

    def rename_once_it_was_written_anew(*arguments: object) -> None:
        assert store.add(path, sha256)
        rename(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(obstore, "rename", rename_once_it_was_written_anew)
        assert store.clean([]) == (0, 1)
    assert store.clean([sha256]) == (0, 0)
    store.fetch(sha256, tmp_path / "copy")


@pytest.mark.parametrize("days", [-3, 3])
def test_a_wrong_clock_of_who_cleans_removes_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """What another one has written meanwhile, and not named yet, is as old as the store says."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return cls.fromtimestamp(time.time() + 86_400 * days, tz)

    path, sha256 = _file(tmp_path, b"content")
    assert store.add(path, sha256)
    monkeypatch.setattr("zip_pipeline.store.datetime", Clock)
    for _ in range(2):
        assert store.clean([]) == (0, 1)
    assert (tmp_path / "store" / "objects" / sha256).exists()
    assert not any((tmp_path / "store" / "claims").iterdir())


def test_what_a_writer_that_was_killed_left_half_goes_after_a_day(
    store: Store, tmp_path: Path
) -> None:
    """The library neither lists nor removes it."""
    (tmp_path / "store" / "objects").mkdir()
    program = (
        "import io, os, sys, obstore\n"
        "from obstore.store import LocalStore\n"
        "class Rows(io.RawIOBase):\n"
        "    def readable(self): return True\n"
        "    def seekable(self): return True\n"
        "    def seek(self, offset, whence=0): return 1 << 24 if whence == 2 else offset\n"
        "    def tell(self): return 0\n"
        "    def read(self, size=-1):\n"
        "        if any(os.scandir(sys.argv[1] + '/objects')): os.kill(os.getpid(), 9)\n"
        "        return b'x' * size\n"
        "obstore.put(LocalStore(sys.argv[1]), 'objects/a', Rows(), use_multipart=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "store"], check=False)
    assert done.returncode == -signal.SIGKILL
    (half,) = (tmp_path / "store" / "objects").iterdir()
    assert store.clean([]) == (0, 0)
    _age(half.parent)
    assert store.clean([]) == (1, 0)
    assert not half.exists()


def test_a_file_that_may_be_put_aside_is_written_anew(store: Store, tmp_path: Path) -> None:
    """It is as young as the entry that is about to name it; a young one is not sent again."""
    path, sha256 = _file(tmp_path, b"content")
    assert store.add(path, sha256)
    place = tmp_path / "store" / "objects" / sha256
    _age(place.parent)
    assert store.add(path, sha256)
    written = place.stat()
    assert written.st_mtime > time.time() - 60
    assert store.add(path, sha256)
    assert place.stat().st_ino == written.st_ino
    path.unlink()
    assert not store.add(path, sha256)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"layout": 99}'])
def test_a_damaged_entry_is_named(store: Store, tmp_path: Path, content: bytes) -> None:
    """As is one of a later release."""
    (tmp_path / "store" / "log").mkdir()
    (tmp_path / "store" / "log" / "0000000001.json").write_bytes(content)
    with pytest.raises(UserError, match=r"log/0000000001.json.*(is no entry|has the layout 99)"):
        list(store.entries(0))


@pytest.mark.parametrize(
    "url",
    [
        *("store", "/srv/store", "http://example.org/x", "file://", "s3://", "s3:bucket"),
        *("s3://me:secret@bucket/x", "s3://bucket/x?key=secret", "s3://bucket/x#secret"),
    ],
)
def test_other_addresses_are_refused_and_not_shown(url: str) -> None:
    """They may hold a password."""
    with pytest.raises(UserError, match=r"^url: is no address of a store; allowed are s3://") as e:
        StoreSettings(url=url)
    assert "secret" not in str(e.value)


def test_what_keeps_one_from_the_store_is_told_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folder, server and credentials, each with its remedy, and no key in any message."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"none: there is no such folder; make it"):
        Store(f"file://{tmp_path}/none")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    # Credentials come from a place where nobody is, then from the environment.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"^s3://pool/x: the store fails \(no answer\)|no access"):
        Store("s3://pool/x").identity()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "secret-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
    with pytest.raises(
        UserError, match=r"^s3://pool/x: the store fails \(no answer\); check the address"
    ) as failure:
        Store("s3://pool/x").identity()
    assert "secret" not in str(failure.value)
    assert failure.value.__cause__ is None
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "No space left on device; free some space there, or name another place"),
        (errno.EDQUOT, "Disk quota exceeded; free some space there, or name another place"),
        (errno.EROFS, "Read-only file system; mount it for writing, or name another place"),
        (errno.EACCES, "Permission denied; give this user the right to it, or name another place"),
        (errno.EIO, "the store fails (Input/output error); check its folder, or try again later"),
    ],
)
def test_what_keeps_one_from_a_folder_is_told_in_words_of_the_system(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    """Not as a network that does not answer."""

    def fail(*_: object, **__: object) -> None:
        reason = f"Unable to copy data to file: {os.strerror(code)} (os error {code})"
        raise obstore.exceptions.GenericError(f"Generic LocalFileSystem error: {reason}\n\nDebug")

    monkeypatch.setattr(obstore, "put", fail)
    with pytest.raises(UserError) as failure:
        store.claim(1, {"units": {}})
    assert str(failure.value) == f"{store.url}: {words}"


def test_a_file_that_does_not_fit_here_is_named(store: Store, tmp_path: Path) -> None:
    """The disk is full on this side."""
    path, sha256 = _file(tmp_path, b"abc")
    assert store.add(path, sha256)
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        store.fetch(sha256, Path("/dev/full"))


def test_nothing_of_it_is_loaded_where_no_store_is_named() -> None:
    """The settings are read without the library."""
    program = "import sys, zip_pipeline.workflow.versions; print('obstore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"False\n"
