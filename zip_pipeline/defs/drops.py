"""What lies in a drop folder, told by names, sizes and modification times alone."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from zip_pipeline.pool.drop_files import unreadable
from zip_pipeline.pool.drops import RESERVED_NAME, SIDECAR_SUFFIX, is_batch_name, snapshot
from zip_pipeline.storage import fingerprint
from zip_pipeline.stored_batches import is_compacted

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
        ValueError: the folder cannot be read.
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
        except ValueError as error:
            drops.unusable[path.name] = str(error)
    return drops


def fingerprint_of(drop: Path) -> str | None:
    """Return a hash of the names, sizes and times of a drop's files and of its sidecar.

    None where there is nothing (yet): no such entry, or a folder without files.

    Raises:
        ValueError: a part of it cannot be read, or a link leads nowhere or out of the drop folder.
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
    if forbidden:
        return f"the name contains {', '.join(map(repr, forbidden))}"
    return RESERVED_NAME if is_compacted(name) else None
