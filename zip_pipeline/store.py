"""A store that data roots share: entries that are numbered and claimed once, files by hash."""

import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator

from zip_pipeline.errors import UserError, error_number, require, storage_error
from zip_pipeline.files import LAYOUT, check_layout, fingerprint, named, user_cache, write_bytes
from zip_pipeline.settings import SETTINGS_FILE, Settings

TABLE = "store"
_FORMS = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER"
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL for a server of yours",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "file": "the rights to the folder",
}
# Of an object that nothing names: from here on it is written anew, and from there on removed.
_FRESH, _OLD = timedelta(hours=1), timedelta(days=1)
_NUM_AT_ONCE = 8


class StoreSettings(Settings):
    """The store that the data root is shared by: the table ``[store]``."""

    shows_texts: ClassVar[bool] = False

    url: str = Field(
        default="",
        description=f"Where it lies: {_FORMS}; if not given, the data root is shared with nobody.",
    )
    models: bool = Field(
        default=False, description="Whether trained models and their evaluations go there as well."
    )

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        parts = urlsplit(url)
        is_plain = "@" not in parts.netloc and not parts.query and not parts.fragment
        has_place = parts.path.strip("/") if parts.scheme == "file" else parts.netloc
        if url and not (parts.scheme in _CREDENTIALS and is_plain and has_place):
            raise UserError(
                f"is no address of a store; allowed are {_FORMS}, without user, password and "
                "query: credentials come from the environment"
            )
        return url


def local_folder(path: Path) -> Path:
    """Return a data root's folder: of the address of a store a copy for this user, made if need be.

    An address that was read as a path has lost a stroke: ``s3:/BUCKET``.

    Raises:
        UserError: the address is wrong.
    """
    scheme, _, place = str(path).partition(":/")
    if scheme not in _CREDENTIALS or not place:
        return path
    url = f"{scheme}://{'/' * (scheme == 'file')}{place.lstrip('/')}"
    try:
        settings = StoreSettings(url=url)
    except UserError as error:
        # It may hold a password.
        raise UserError(f"data root: {str(error).partition(': ')[2]}") from None
    folder = user_cache() / "roots" / fingerprint([settings.url])
    if not (folder / SETTINGS_FILE).exists():
        write_bytes(folder / SETTINGS_FILE, f"[{TABLE}]\nurl = {json.dumps(url)}\n".encode())
    return folder


class Store:
    """Entries from 0 up, each of which one writer alone can claim, and files named by their hash.

    Args:
        url: where it lies.

    Raises:
        UserError: of every method too: what the store refuses, or that it does not answer.
    """

    def __init__(self, url: str) -> None:
        require("obstore", f"[{TABLE}] of {SETTINGS_FILE}")
        from obstore.store import LocalStore, from_url

        self.url = url
        self._scheme = urlsplit(url).scheme
        with self._telling():
            if self._scheme == "file":
                self._folder = Path(unquote(urlsplit(url).path))
                self._files: Any = LocalStore(self._folder)
                return
            self._files = from_url(
                url,
                # Of a server of one's own the address may begin with http.
                client_options={
                    "allow_http": True,
                    "connect_timeout": "5s",
                    "read_timeout": "20s",
                    "timeout": "1h",
                },
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
            )

    def identity(self) -> str | None:
        """Return what tells the store from any other, None where there is none yet."""
        first = self.entry(0)
        return None if first is None else str(first["store"])

    def begin(self) -> str:
        """Return :meth:`identity` of the store, which is begun where there is none yet.

        Raises:
            UserError: the store lets two writers have the same name.
        """
        self._check_claims()
        self.claim(0, {"store": uuid.uuid4().hex})
        identity = self.identity()
        assert identity is not None
        return identity

    def _check_claims(self) -> None:
        name = f"claims/{uuid.uuid4().hex}"
        is_first, is_second = (self._put_new(name, content) for content in (b"1", b"2"))
        self._delete([name])
        if not is_first or is_second:
            raise UserError(
                f"{self.url}: the store writes over what is there though it is asked not to "
                "(put if absent), so two writers would lose what one of them wrote; use a store "
                "or a release of it that heeds this"
            )

    def entry(self, number: int) -> dict[str, Any] | None:
        """Return an entry, None where there is none; ``id`` tells it from any other."""
        name = _log(number)
        if (content := self._get(name)) is None:
            return None
        try:
            entry = json.loads(content)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise self._damaged(name, "is no entry")
        check_layout(Path(name), entry)
        return entry

    def entries(self, after: int) -> Iterator[dict[str, Any]]:
        """Yield the entries that follow one, in their order; more and more are read at once."""
        num_at_once = 1
        with ThreadPoolExecutor(_NUM_AT_ONCE) as pool:
            while True:
                numbers = range(after + 1, after + 1 + num_at_once)
                # Most often there is none.
                is_first = num_at_once == 1
                read = map(self.entry, numbers) if is_first else pool.map(self.entry, numbers)
                for entry in read:
                    if entry is None:
                        return
                    yield entry
                after, num_at_once = numbers[-1], min(2 * num_at_once, _NUM_AT_ONCE)

    def claim(self, number: int, entry: Mapping[str, object]) -> bool:
        """Write an entry under its number; return whether no other writer was first."""
        if self._is_followed(number) and self.entry(number) is None:
            # Whoever has taken in what follows would never see ours.
            raise self._damaged(_log(number), "is missing")
        mine = {"layout": LAYOUT, "id": uuid.uuid4().hex, **entry}
        content = json.dumps(mine, ensure_ascii=False, sort_keys=True).encode()
        # An answer that got lost is asked for again, and then our own entry is there.
        return self._put_new(_log(number), content) or self.entry(number) == mine

    def _is_followed(self, number: int) -> bool:
        with self._telling():
            import obstore

            # Not all servers heed the offset.
            pages = obstore.list(self._files, prefix="log", offset=_log(number))
            return any(about["path"] > _log(number) for page in pages for about in page)

    def add(self, path: Path, sha256: str) -> bool:
        """Write a file under its hash; return whether it was there, and as it should be."""
        name = f"objects/{sha256}"
        try:
            # What is written is what was hashed, though another file may be put in its place.
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    return False
                if not self._is_fresh(name):
                    file.seek(0)
                    self._put(name, file)
        except FileNotFoundError:
            return False
        return True

    def fetch(self, sha256: str, path: Path) -> None:
        """Write the file of a hash to ``path``.

        Raises:
            UserError: it is not there, or has another hash.
        """
        digest = hashlib.sha256()
        with named(path), path.open("wb") as file:
            for chunk in self._chunks(sha256):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise self._damaged(f"objects/{sha256}", "does not have its hash")

    def clean(self, named: Collection[str]) -> tuple[int, int]:
        """Remove files that have not been named for some time, as killed writers leave them.

        A writer may name again what it finds there. So a file that nothing names is put aside
        when it is a day old, where it is found still, and removed another day later.

        Args:
            named: the hashes of all that are needed.

        Returns:
            How many were removed by this call, and how many wait for it.

        Raises:
            UserError: one that is named is missing.
        """
        now = self._now()
        there, aside = self._ages("objects", now), self._ages("aside", now)
        if missing := sorted(set(named) - there.keys() - aside.keys()):
            raise self._damaged(f"objects/{missing[0]}", "is missing")
        # Somebody may write one of them anew by now, so none goes that is put aside only here.
        moved = {sha256 for sha256 in there.keys() - set(named) if there[sha256] > _OLD}
        for sha256 in moved:
            self._rename(f"objects/{sha256}", f"aside/{sha256}")
        for sha256 in (set(named) & aside.keys()) - there.keys():
            self._rename(f"aside/{sha256}", f"objects/{sha256}")
        old = [sha256 for sha256 in aside.keys() - set(named) - moved if aside[sha256] > _OLD]
        num_removed = self._delete([f"aside/{sha256}" for sha256 in old])
        num_removed += self._remove_halves(now)
        return num_removed, len((there.keys() | aside.keys()) - set(named) - set(old))

    def _remove_halves(self, now: datetime) -> int:
        """Remove what writers to a folder that were killed left half; buckets do so themselves."""
        halves = self._folder.glob("*/*#*") if self._scheme == "file" else ()
        num_removed = 0
        with self._telling():
            for path in halves:
                # Its writer may complete it, or another one who cleans remove it, meanwhile.
                with suppress(FileNotFoundError):
                    if now.timestamp() - path.stat().st_mtime > _OLD.total_seconds():
                        path.unlink()
                        num_removed += 1
        return num_removed

    def _now(self) -> datetime:
        """Return the time by the store's clock: by a wrong one here, what is new would be old."""
        name = f"claims/{uuid.uuid4().hex}"
        self._put_new(name, b"")
        with self._telling():
            import obstore

            now: datetime = obstore.head(self._files, name)["last_modified"]
        self._delete([name])
        return now

    def _ages(self, folder: str, now: datetime) -> dict[str, timedelta]:
        """Return since when each file of a folder lies there."""
        with self._telling():
            import obstore

            return {
                about["path"].rpartition("/")[2]: now - about["last_modified"]
                for page in obstore.list(self._files, prefix=folder)
                for about in page
            }

    def _rename(self, name: str, to: str) -> None:
        # Another one who cleans may have moved it meanwhile.
        with self._telling(), suppress(FileNotFoundError):
            import obstore

            obstore.rename(self._files, name, to)
            if self._scheme == "file":
                # Buckets copy, and so tell since when it lies there.
                os.utime(self._folder / to)

    def _damaged(self, name: str, what: str) -> UserError:
        return UserError(f"{self.url}: {name} {what}; restore it from a backup of the store")

    def _is_fresh(self, name: str) -> bool:
        with self._telling():
            import obstore

            try:
                about = obstore.head(self._files, name)
            except FileNotFoundError:
                return False
        return about["last_modified"] > datetime.now(UTC) - _FRESH

    def _get(self, name: str) -> bytes | None:
        with self._telling():
            import obstore

            try:
                return bytes(obstore.get(self._files, name).bytes())
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

    def _chunks(self, sha256: str) -> Iterator[bytes]:
        with self._telling():
            import obstore

            try:
                found = obstore.get(self._files, f"objects/{sha256}")
            except FileNotFoundError:
                found = obstore.get(self._files, f"aside/{sha256}")
            for chunk in found:
                yield bytes(chunk)

    def _put(self, name: str, file: Any) -> None:  # noqa: ANN401
        with self._telling():
            import obstore

            obstore.put(self._files, name, file)

    def _put_new(self, name: str, content: bytes) -> bool:
        with self._telling():
            import obstore

            try:
                obstore.put(self._files, name, content, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def _delete(self, names: list[str]) -> int:
        """Return how many were there; S3 does not tell."""
        with self._telling():
            import obstore

            if self._scheme == "s3":
                obstore.delete(self._files, names)
                return len(names)

            def is_removed(name: str) -> bool:
                try:
                    obstore.delete(self._files, name)
                except FileNotFoundError:
                    # By another one who cleans, or by a first try whose answer was lost.
                    return False
                return True

            with ThreadPoolExecutor(_NUM_AT_ONCE) as pool:
                return sum(pool.map(is_removed, names))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, NotImplementedError) as error:
            # Not chained: the library's words may hold more than is to be shown.
            raise _told(error, self.url, self._scheme) from None


def _log(number: int) -> str:
    return f"log/{number:010}.json"


_STATUS = re.compile(r"status code: (\d{3})")
_ACCESS = re.compile(r"169\.254\.|metadata|credential|token", re.IGNORECASE)


_LATER = "or try again later"


def _told(error: Exception, url: str, scheme: str) -> UserError:
    """Return what to tell of an error: of a folder what the system says."""
    number = error_number(error) if scheme == "file" else 0
    if number in (0, errno.ENOENT):
        return UserError(f"{url}: {_why(error, scheme)}")
    words = os.strerror(number)
    told = storage_error(OSError(number, words, url))
    return told or UserError(f"{url}: the store fails ({words}); check its folder, {_LATER}")


def _why(error: Exception, scheme: str) -> str:
    """Return what went wrong and the remedy, without the library's own words."""
    words = str(error)
    told = _STATUS.search(words)
    status = told[1] if told else ""
    if "NoSuchBucket" in words:
        return "there is no such bucket; make it, or correct the address"
    if scheme == "file" and "canonicalize" in words:
        return "there is no such folder; make it, or correct the address"
    if isinstance(error, NotImplementedError) or status == "501":
        return "the store cannot write a name only where it is free; use one that can"
    is_denied = isinstance(error, PermissionError) or status in ("401", "403")
    if is_denied or "Unauthenticated" in type(error).__name__ or _ACCESS.search(words):
        reason = f" ({status})" if status else ""
        return (
            f"no access{reason}; set {_CREDENTIALS[scheme]}, of one who may read, list, write and "
            "delete there"
        )
    if isinstance(error, FileNotFoundError):
        return "a file that the store names is not there; restore it from a backup of the store"
    reason = f"status {status}" if status else "no answer"
    return f"the store fails ({reason}); check the address and the network, {_LATER}"
