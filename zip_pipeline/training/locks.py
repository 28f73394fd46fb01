"""A lock that ends with its process, so that nothing is trained twice at the same time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock ``path`` for as long as the block lasts.

    Args:
        path: a file that is made where it is missing.
        wait: wait for whoever holds it, instead of refusing.

    Raises:
        ValueError: another process holds the lock, and ``wait`` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ValueError(
                f"{path.parent}: another process is training here. Wait until it has ended, or "
                "stop it"
            ) from error
        yield
