"""Secrets that come as files, as containers and service managers hand them over."""

import os
import re
import shutil
import sys
from collections.abc import MutableMapping
from pathlib import Path

from zip_pipeline.errors import UserError

# Others end with _FILE, too, and mean a file: SSL_CERT_FILE.
_SECRET = re.compile(r"(\w+_(?:KEY|PASSWORD|SECRET|TOKEN|WEBHOOK))_FILE")
_MAX_BYTES = 1 << 16


def read_secret_files(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set ``NAME`` to what is in the file that ``NAME_FILE`` names, without the end of its line.

    ``NAME`` ends with KEY, PASSWORD, SECRET, TOKEN or WEBHOOK. One that is set stays, and an empty
    file sets nothing.

    Raises:
        UserError: a file cannot be read, or is no text of at most 64 KiB.
    """
    for variable in list(environment):
        found = _SECRET.fullmatch(variable)
        if found and environment[variable] and not environment.get(found[1]):
            secret = _read(variable, Path(environment[variable]))
            if secret:
                environment[found[1]] = secret


def _read(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"{variable}: {path}: {error.strerror}; name a file that this user may read, or unset "
            "the variable"
        ) from None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if len(content) > _MAX_BYTES or "\0" in text:
        raise UserError(f"{variable}: {path}: is no secret, which is a text of at most 64 KiB")
    return text.rstrip("\r\n")


def main() -> None:
    """Run the command in the arguments with its secrets set: what containers begin with."""
    try:
        read_secret_files()
    except UserError as error:
        raise SystemExit(f"Error: {error}") from None
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    program = shutil.which(sys.argv[1], path=os.pathsep.join(places)) or sys.argv[1]
    os.execv(program, sys.argv[1:])


if __name__ == "__main__":
    main()
