"""The drop folders: which entries are batches, and what their sidecars say."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from zip_pipeline.pool.drop_files import check_place, list_files, unreadable
from zip_pipeline.pool.formats import format_named
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot
from zip_pipeline.stored_batches import is_compacted

SIDECAR_SUFFIX = ".batch.toml"
UNFINISHED_SUFFIXES = (".tmp", ".part", ".crdownload")
RESERVED_NAME = "such a name is that of a compacted batch"
_SIDECAR_KEYS = ("format", "source")

Snapshot: TypeAlias = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Sidecar:
    """What ``NAME.batch.toml`` beside a drop sets; None is left to detection."""

    format: str | None = None
    source: str | None = None


def is_batch_name(name: str) -> bool:
    """Return whether an entry of a drop folder is a batch by its name.

    Hidden files, files still being written and sidecars are none.
    """
    return not name.startswith(".") and not name.endswith((SIDECAR_SUFFIX, *UNFINISHED_SUFFIXES))


def check_batch_name(batch: str) -> None:
    """Check that a batch name is the name of one entry of a drop folder.

    Raises:
        ValueError: it is empty, leads elsewhere or is reserved.
    """
    if is_compacted(batch):
        raise ValueError(f"batch {batch!r}: {RESERVED_NAME}; give the drop another name")
    if not batch or Path(batch).name != batch or not is_batch_name(batch):
        raise ValueError(
            f"batch {batch!r} is no name of a drop; expected the name of a file or folder in the "
            f"drop folder that does not start with a dot or end in {SIDECAR_SUFFIX} or "
            f"{', '.join(UNFINISHED_SUFFIXES)}"
        )


def list_drops(root: DataRoot, stage: Stage) -> list[str]:
    """Return the names of all batches in the drop folder, sorted."""
    folder = root.raw(stage)
    names = (entry.name for entry in folder.iterdir()) if folder.is_dir() else ()
    return sorted(name for name in names if is_batch_name(name))


def read_sidecar(root: DataRoot, stage: Stage, batch: str) -> Sidecar:
    """Return what the sidecar of a drop sets; nothing where there is none.

    Raises:
        ValueError: the sidecar is no TOML, has an unknown key, value or format, cannot be read,
            or is a link out of the drop folder.
    """
    path = root.raw(stage) / f"{batch}{SIDECAR_SUFFIX}"
    if not os.path.lexists(path):
        return Sidecar()
    check_place(path, path.parent)
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no valid TOML ({error}); correct it or remove it") from error
    for key, value in settings.items():
        if key not in _SIDECAR_KEYS or not isinstance(value, str) or not value.strip():
            allowed = " and ".join(f'{k} = "..."' for k in _SIDECAR_KEYS)
            raise ValueError(f"{path}: {key} = {value!r} is not allowed; allowed are {allowed}")
    sidecar = Sidecar(**settings)
    if sidecar.format is not None:
        try:
            format_named(sidecar.format, stage)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return sidecar


def snapshot(path: Path) -> Snapshot:
    """Return name, size, modification time and inode of every file of an entry of a drop folder.

    Nothing for an empty folder. No file is opened.

    Raises:
        ValueError: the drop or one of its files is gone, a part of it cannot be read, or a link
            leads nowhere, in a circle or out of the drop folder.
    """
    files = list_files(path, path.parent)
    try:
        stats = [(name, file.stat()) for name, file in files]
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: the file is gone; drop it again") from error
    except OSError as error:
        raise unreadable(path, error) from error
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)
