"""How freed memory goes back to the system."""

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 22


def return_freed_memory() -> None:
    """Let the C library give large blocks back to the system as soon as they are freed.

    By itself glibc keeps what is smaller than the largest block that it has seen freed, up to
    32 MiB: with the compressors of a selection these were 150 MB. Other libraries have no such
    setting and are left alone.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
