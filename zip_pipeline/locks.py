"""Locks that end with the process that holds them, however it ends."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_MARK = ".zip-pipeline"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock ``path``, once it is free, for as long as the block lasts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Keep :func:`locked` waiting for as long as the block lasts; many may do so at once.

    The folder of the lock must be there: without it, there is nothing to lock yet. Who may not
    write there holds a lock that is there already.
    """
    with contextlib.suppress(OSError):
        path.touch()
    if not path.exists():
        yield
        return
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
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
        ValueError: something else lies there, or another process holds the folder.
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
            raise ValueError(
                f"{path}: this folder was not made by zip-pipeline, and {what} would empty it; "
                "move it away, or name another place"
            )
        with contextlib.ExitStack() as stack:
            try:
                path.mkdir(parents=True, exist_ok=True)
                mark = stack.enter_context((path / _MARK).open("a"))
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
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
