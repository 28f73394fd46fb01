"""Locks that end with the process that holds them, however it ends."""

import contextlib
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
