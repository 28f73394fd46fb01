"""Where things lie on disk; every write is whole or not there at all."""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import polars as pl

from zip_pipeline.errors import UserError, error_number

TEMPORARY = ".tmp-"
Table: TypeAlias = pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]
# Who reads a few rows decodes little of a table in small groups; large pages compress better.
ROWS_PER_GROUP = 1 << 14
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
        with named(path):
            write(temporary)
            sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let an error of the system in the block name the file, as a write to a full disk does not."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        number = error_number(error)
        if number and getattr(error, "filename", None) is None:
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def scan_table(*paths: Path) -> pl.LazyFrame:
    """Return the rows of Parquet files, yet to be read, whatever their names look like."""
    return pl.scan_parquet(list(paths), glob=False, hive_partitioning=False)


def write_table(path: Path, table: Table, metadata: Mapping[str, str]) -> None:
    """Write a table with string metadata to ``path``, atomically.

    Whoever reads a row holds its row group. Each part of a table in parts, which has at least one,
    becomes a group; any other table has groups of ``ROWS_PER_GROUP`` rows.
    """
    if not isinstance(table, pl.DataFrame | pl.LazyFrame):
        write_atomically(path, lambda p: write_row_groups(p, table, metadata))
        return
    write_atomically(
        path,
        lambda p: table.lazy().sink_parquet(
            p,
            compression="zstd",
            row_group_size=ROWS_PER_GROUP,
            data_page_size=_PAGE_BYTES,
            metadata=dict(metadata),
        ),
    )


def write_row_groups(
    path: Path, groups: Iterable[pl.DataFrame], metadata: Mapping[str, str]
) -> None:
    """Write a table in parts with string metadata to ``path``, each as a row group."""
    # polars counts rows alone, and a group of long rows among short ones could be the whole file.
    from pyarrow.parquet import ParquetWriter

    tables = (rows.to_arrow(compat_level=pl.CompatLevel.oldest()) for rows in groups)
    first = next(tables)
    with ParquetWriter(
        path,
        first.schema.with_metadata(dict(metadata)),
        compression="zstd",
        compression_level=3,
        data_page_size=_PAGE_BYTES,
        # Hardly a text is there twice.
        use_dictionary=False,
    ) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def row_group_heights(path: Path) -> list[int]:
    """Return how many rows of a Parquet file are in each of its row groups."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        return [group.num_rows for group in groups]


def read_row_groups(rows: pl.LazyFrame, path: Path) -> Iterator[pl.DataFrame]:
    """Yield rows of a file, as :func:`scan_table` gives them, a row group at a time."""
    start = 0
    for height in row_group_heights(path):
        yield rows.slice(start, height).collect()
        start += height


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata that :func:`write_table` stored, without reading the rows."""
    # What the writer adds is its own, and others write it otherwise.
    return {k: v for k, v in pl.read_parquet_metadata(path).items() if k != "ARROW:schema"}


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


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Raises:
        UserError: the file is missing, cannot be read, or holds anything else.
    """
    with readable(path, remedy):
        value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a JSON {type(value).__name__}, not an object; {remedy}")
    return value


def read_table(path: Path, remedy: str) -> pl.LazyFrame:
    """Return :func:`scan_table` of a file whose end, where its columns are listed, is there.

    Raises:
        UserError: the file is missing, or is no whole table.
    """
    with readable(path, remedy):
        read_metadata(path)
    return scan_table(path)


@contextmanager
def readable(path: Path, remedy: str) -> Iterator[None]:
    """Let what goes wrong where the block reads ``path`` be an error that names it.

    Raises:
        UserError: the block cannot read it.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: the file is missing; {remedy}") from error
    except (OSError, ValueError, RecursionError, pl.exceptions.PolarsError) as error:
        if isinstance(error, UserError):
            raise
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: cannot be read ({reason}); {remedy}") from error


LAYOUT = 1
"""How versions and the records of hashes are laid out; a release reads its own and older ones."""
HASHES = "hashes.json"
"""The record of the hashes of all files in its folder; ``NAME.hashes.json`` is that of one file,
or one folder, beside it."""


def record_of(path: Path) -> Path:
    """Return where the hash of a file, or those of the files in a folder, are kept beside it."""
    return path.with_suffix(f".{HASHES}")


def files_in(folder: Path) -> list[Path]:
    """Return all files in a folder and below, sorted, without temporary ones."""
    found = (path for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in found if not path.name.startswith(TEMPORARY))


def write_hashes(record: Path, files: Iterable[Path]) -> None:
    """Record the hashes of files that lie in the folder of ``record`` or below."""
    names = {path.relative_to(record.parent).as_posix(): path for path in files if path != record}
    hashes = {name: file_hash(path) for name, path in names.items()}
    write_json(record, {"layout": LAYOUT, "sha256": hashes})


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, as ``sha256sum`` tells it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def hashing(path: Path) -> Iterator[None]:
    """Let the block write a file, or a folder, and record its hashes beside it.

    A writer that is killed leaves no record, so a whole file never has the hash of another.
    """
    record_of(path).unlink(missing_ok=True)
    yield
    write_hashes(record_of(path), files_in(path) if path.is_dir() else [path])


def read_hashes(record: Path, remedy: str) -> dict[str, str] | None:
    """Return the hash of each file by its name, seen from the folder of the record, if it is there.

    Raises:
        UserError: the record is damaged, or of a later release.
    """
    try:
        content = read_json(record, remedy)
    except UserError:
        if record.exists():
            raise
        return None
    check_layout(record, content)
    hashes = content.get("sha256")
    if not isinstance(hashes, dict) or not all(isinstance(h, str) for h in hashes.values()):
        raise UserError(f"{record}: is no record of hashes; {remedy}")
    return hashes


def check_layout(path: Path, content: Mapping[str, object]) -> None:
    """Raise UserError where the content of a JSON file is of a layout that is not known yet."""
    layout = content.get("layout", 0)
    if not isinstance(layout, int) or layout > LAYOUT:
        raise UserError(
            f"{path}: has the layout {layout!r}, this release reads up to {LAYOUT}; use the "
            "release of zip-pipeline that wrote it, or a later one"
        )


def check_hash(path: Path, remedy: str, record: Path | None = None) -> None:
    """Raise UserError where a file is not as it was written; one without a hash may be anything.

    The content is read once per process, and again when the file changes.

    Args:
        path: the file.
        remedy: what to do about it, for the message.
        record: where its hash is, :func:`record_of` it if not given.

    Raises:
        UserError: the file was changed, or the record is damaged.
        FileNotFoundError: there is no such file.
    """
    record = record or record_of(path)
    while (hashes := read_hashes(record, remedy)) is not None:
        status = path.stat()
        found = _known_hash(path, status.st_ino, status.st_mtime_ns, status.st_size)
        if hashes.get(path.relative_to(record.parent).as_posix()) == found:
            return
        # The file may have been replaced, and its record after it, meanwhile.
        if read_hashes(record, remedy) == hashes:
            raise UserError(f"{path}: was changed since it was written; {remedy}")


@functools.lru_cache(maxsize=4096)
def _known_hash(path: Path, _inode: int, _changed: int, _size: int) -> str:
    return file_hash(path)


Pieces: TypeAlias = Callable[[], Iterable[str]]


def fingerprint(parts: Iterable[str | Pieces]) -> str:
    """Return a hash of the sequence of strings: 32 hexadecimal digits.

    Each part is hashed with its length, so no two sequences run together. One that is too long for
    memory is a function that returns it in pieces, each time it is called.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if not isinstance(part, str):
            digest.update(sum(map(len, map(_encoded, part()))).to_bytes(8, "little"))
            for piece in part():
                digest.update(_encoded(piece))
            continue
        encoded = _encoded(part)
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


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
