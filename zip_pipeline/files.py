"""Where things lie on disk; every write is whole or not there at all."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from zip_pipeline.errors import UserError

TEMPORARY = ".tmp-"
# Who reads a few rows decodes little of a table in small groups; large pages compress better.
_ROWS_PER_GROUP = 1 << 14
_PAGE_BYTES = 1 << 22


def sync(path: Path) -> None:
    """Return when the content of a file, or the names in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place.

    A reader sees the old file or the new one, never a part; a killed writer leaves only a
    hidden temporary file, which :func:`remove_leftovers` clears.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def scan_table(path: Path) -> pl.LazyFrame:
    """Return the rows of one Parquet file, yet to be read, whatever its name looks like."""
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def write_table(path: Path, table: pl.DataFrame, metadata: Mapping[str, str]) -> None:
    """Write a table with string metadata to ``path``, atomically."""
    write_atomically(
        path,
        lambda p: table.write_parquet(
            p,
            compression="zstd",
            row_group_size=_ROWS_PER_GROUP,
            data_page_size=_PAGE_BYTES,
            metadata=dict(metadata),
        ),
    )


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata that :func:`write_table` stored, without reading the rows."""
    return dict(pl.read_parquet_metadata(path))


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write ``value`` as indented JSON to ``path``, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, atomically."""
    write_atomically(path, lambda p: p.write_bytes(content))


_MAX_TOML_BYTES = 1 << 20
_MAX_TOML_DEPTH = 64


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a settings file says.

    Raises:
        UserError: it is no regular file, too long, no TOML in UTF-8, nested too deep, or the
            system does not let it be read.
        FileNotFoundError: it is not there.
    """
    try:
        # To open a pipe would wait for whoever writes into it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: no regular file; put a file in its place, or remove it")
        with path.open("rb") as file:
            content = file.read(_MAX_TOML_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); put that right") from error
    if len(content) > _MAX_TOML_BYTES:
        raise UserError(f"{path}: longer than {_MAX_TOML_BYTES:,} bytes; correct it or remove it")
    try:
        values = tomllib.loads(content.decode())
    except ValueError as error:
        raise UserError(
            f"{path}: not valid TOML in UTF-8: {error}; correct it or remove it"
        ) from error
    except RecursionError:
        raise _nested_too_deep(path) from None
    level: list[Any] = [values]
    for _ in range(_MAX_TOML_DEPTH):
        level = [inner for value in level for inner in _inside(value)]
    if level:
        raise _nested_too_deep(path)
    return values


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _nested_too_deep(path: Path) -> UserError:
    return UserError(
        f"{path}: tables and lists nest deeper than {_MAX_TOML_DEPTH} levels; correct the file"
    )


def fingerprint(parts: Iterable[str]) -> str:
    """Return a hash of the sequence of strings: 32 hexadecimal digits.

    Each part is hashed with its length, so no two sequences run together.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def user_cache() -> Path:
    """Return where copies for no data root are kept; it may be removed at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "zip-pipeline"


_MARK = ".zip-pipeline"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock ``path``, once it is free, for as long as the block lasts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def held_lock(path: Path) -> Iterator[bool]:
    """Hold the lock ``path`` for as long as the block lasts; yield whether it was free.

    Nobody waits: a lock that another process holds is not this one's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def is_locked(path: Path) -> bool:
    """Return whether some process holds the lock ``path``."""
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@contextmanager
def own_folder(path: Path, what: str) -> Iterator[Path]:
    """Hold a folder that only this package writes to, made where there is none.

    A mark in the folder says whose it is, and is the lock as well: what lies there without a mark
    is somebody else's and is never emptied or removed, nor is what a link leads to. The folder
    stays, unless nothing was put into it or :func:`remove_own_folder` was called.

    Args:
        path: the folder.
        what: who uses it, as in ``a selection with this output``, for messages.

    Raises:
        UserError: something else lies there, or another process holds the folder.
    """
    with _locked_mark(path, what) as mark:
        try:
            yield path
        finally:
            if _is_there(mark, path) and list(path.iterdir()) == [path / _MARK]:
                remove_own_folder(path)


def _locked_mark(path: Path, what: str) -> TextIO:
    while True:
        if _is_foreign(path):
            raise UserError(
                f"{path}: this folder was not made by zip-pipeline, and {what} would empty it; "
                "move it away, or name another place"
            )
        with contextlib.ExitStack() as stack:
            try:
                path.mkdir(parents=True, exist_ok=True)
                mark = stack.enter_context((path / _MARK).open("a"))
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{path}: {what} is running already; wait for its end, or name another place"
                ) from None
            except (FileNotFoundError, FileExistsError):
                continue
            # Whoever held the folder before may have removed it meanwhile.
            if _is_there(mark, path):
                stack.pop_all()
                return mark


def _is_there(mark: TextIO, path: Path) -> bool:
    """Return whether the mark at this place is still the one that we hold."""
    try:
        return os.path.samestat(os.fstat(mark.fileno()), (path / _MARK).stat())
    except FileNotFoundError:
        return False


def _is_foreign(path: Path) -> bool:
    if path.is_symlink():
        return True
    try:
        entries = list(path.iterdir())
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return True
    return bool(entries) and path / _MARK not in entries


def empty_own_folder(path: Path, keep: Collection[Path] = ()) -> None:
    """Remove all that lies in a folder of :func:`own_folder` but ``keep``; follow no links."""
    for entry in set(path.iterdir()) - {path / _MARK, *keep}:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def remove_own_folder(path: Path) -> None:
    """Remove a folder of :func:`own_folder` and all that lies in it; the mark goes last."""
    empty_own_folder(path)
    (path / _MARK).unlink(missing_ok=True)
    # Somebody may have put a mark of their own there by now: then it is their folder.
    with contextlib.suppress(OSError):
        path.rmdir()
