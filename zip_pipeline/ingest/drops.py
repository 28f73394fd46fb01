"""The drop folders: which entries are batches, and what their sidecars say."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from zip_pipeline.data_root import StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint, read_toml
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.ingest.readers import check_place, list_files, unreadable
from zip_pipeline.ingest.remote import DROP_SUFFIX, EXAMPLE, is_address
from zip_pipeline.samples import Stage

SIDECAR_SUFFIX = ".batch.toml"
UNFINISHED_SUFFIXES = (".tmp", ".part", ".crdownload")

Snapshot: TypeAlias = tuple[tuple[str, int, int, int], ...]


def is_batch_name(name: str) -> bool:
    """Return whether an entry of a drop folder is a batch by its name.

    Hidden files, files still being written and sidecars are none.
    """
    return not name.startswith(".") and not name.endswith((SIDECAR_SUFFIX, *UNFINISHED_SUFFIXES))


def check_batch_name(batch: str) -> None:
    """Check that a batch name is the name of one entry of a drop folder.

    Raises:
        UserError: it is empty or leads elsewhere.
    """
    if not batch or Path(batch).name != batch or not is_batch_name(batch):
        raise UserError(
            f"batch {batch!r} is no name of a drop; expected the name of a file or folder in the "
            f"drop folder that does not start with a dot or end in {SIDECAR_SUFFIX} or "
            f"{', '.join(UNFINISHED_SUFFIXES)}"
        )


def read_sidecar(folder: StageFolder, batch: str) -> ReadOptions:
    """Return what the sidecar of a drop sets; nothing where there is none.

    Raises:
        UserError: the sidecar is no TOML, has an unknown key, value or format, cannot be read,
            or is a link out of the drop folder.
    """
    path = folder.raw / f"{batch}{SIDECAR_SUFFIX}"
    if not os.path.lexists(path):
        return ReadOptions()
    check_place(path, path.parent)
    return _options(path, read_toml(path), folder.stage)


def read_drop_file(path: Path, stage: Stage | None = None) -> tuple[str, ReadOptions]:
    """Return the address that a drop file ``NAME.drop.toml`` names, and how to read it.

    Raises:
        UserError: as :func:`read_sidecar`, or it names no address.
    """
    settings = read_toml(path)
    address = settings.pop("from", None)
    if not is_address(address):
        words = "it names no address" if address is None else f"from: got {address!r}"
        raise UserError(f'{path}: {words}; write from = "{EXAMPLE}", or another address')
    return address, _options(path, settings, stage)


def _options(path: Path, settings: dict[str, Any], stage: Stage | None) -> ReadOptions:
    try:
        options = ReadOptions(**settings)
        if stage is not None:
            options.check_stage(stage)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return options


def is_drop_file(path: Path) -> bool:
    """Return whether a file names where a drop lies, instead of holding it."""
    return path.name.endswith(DROP_SUFFIX) and path.is_file()


def snapshot(path: Path) -> Snapshot:
    """Return name, size, modification time and inode of every file of an entry of a drop folder.

    Nothing for an empty folder. No file is opened.

    Raises:
        UserError: the drop or one of its files is gone, a part of it cannot be read, or a link
            leads nowhere, in a circle or out of the drop folder.
    """
    files = list_files(path, path.parent)
    try:
        stats = ((name, file.stat()) for name, file in files)
        return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: the file is gone; drop it again") from error
    except OSError as error:
        raise unreadable(path, error) from error


# What Dagster forbids in a partition key, and what a file name has no room for.
FORBIDDEN_IN_KEYS = ("...", "\a", "\b", "\f", "\n", "\r", "\t", "\v", "\0")
MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class Drops:
    """The entries of a drop folder.

    ``found`` maps each batch to its stat fingerprint; ``unusable`` maps each entry whose name
    cannot be a batch, or that cannot be read or may not, to the reason and the remedy.
    """

    found: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)


def list_drops(folder: Path) -> Drops:
    """List the drops of a folder without opening any file.

    Hidden entries, unfinished ones, empty folders and sidecars are no drops; a sidecar
    ``NAME.batch.toml`` counts into the fingerprint of NAME.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise unreadable(folder, error) from error
    drops = Drops()
    for path in entries:
        if not is_batch_name(path.name):
            continue
        if reason := _why_unusable(path.name):
            drops.unusable[path.name] = f"{reason}; rename it"
            continue
        try:
            if stat_fingerprint := fingerprint_of(path):
                drops.found[path.name] = stat_fingerprint
        except UserError as error:
            drops.unusable[path.name] = str(error)
    return drops


def fingerprint_of(drop: Path) -> str | None:
    """Return a hash of the names, sizes and times of a drop's files and of its sidecar.

    None where there is nothing (yet): no such entry, or a folder without files.

    Raises:
        UserError: a part of it cannot be read, or a link leads nowhere or out of the drop folder.
    """
    sidecar = drop.with_name(drop.name + SIDECAR_SUFFIX)
    files = snapshot(drop) if os.path.lexists(drop) else ()
    beside = snapshot(sidecar) if os.path.lexists(sidecar) else ()
    return fingerprint([repr(files), repr(beside)]) if files else None


def _why_unusable(name: str) -> str | None:
    try:
        num_bytes = len(name.encode())
    except UnicodeEncodeError:
        return "the name is not valid UTF-8"
    if num_bytes > MAX_NAME_BYTES:
        return f"the name has {num_bytes} bytes, allowed are {MAX_NAME_BYTES}"
    forbidden = [part for part in FORBIDDEN_IN_KEYS if part in name]
    return f"the name contains {', '.join(map(repr, forbidden))}" if forbidden else None
