"""Where the rows of each batch lie: in tables of its own, or in those of a compacted batch."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import polars as pl

from zip_pipeline.data_root import StageFolder
from zip_pipeline.files import locked, read_metadata, scan_table, shared_lock

BATCH_METADATA = (
    "fingerprint",
    "num_rows_read",
    "num_samples",
    "num_quarantined",
    "num_duplicates",
)
MEMBERS = "members"
GENERATION = "generation"
_COMPACTED = re.compile(r"compacted-[0-9a-f]{12}")


@dataclass(frozen=True)
class Member:
    """One batch, as slices of the stored tables that hold its rows.

    Its samples are the rows ``offset`` to ``offset + num_samples`` of the pool table of
    ``stored_in``, and so are those of the stored compression state. Readers take slices in the
    order of :func:`live_members`, never whole tables, so that the order of the pool (sorted names
    of batches, then reading order) does not depend on where a batch is stored.

    Args:
        batch: its name.
        stored_in: the stored batch whose files hold its rows: its own name, or a compacted batch.
        offset: the first row of its samples.
        metadata: its fingerprint and counts, as :func:`.batch_metadata` gives them.
        quarantine_offset: the first of its rejected rows.
        duplicates_offset: the first of its duplicates.
    """

    batch: str
    stored_in: str
    offset: int
    metadata: Mapping[str, str]
    quarantine_offset: int = 0
    duplicates_offset: int = 0

    @property
    def num_samples(self) -> int:
        """The number of its samples."""
        return int(self.metadata["num_samples"])

    @property
    def num_quarantined(self) -> int:
        """The number of its rejected rows."""
        return int(self.metadata["num_quarantined"])

    @property
    def num_duplicates(self) -> int:
        """The number of its rows that repeat one of its samples."""
        return int(self.metadata["num_duplicates"])

    @property
    def fingerprint(self) -> str:
        """The hash of its content."""
        return self.metadata["fingerprint"]


def is_compacted(name: str) -> bool:
    """Return whether a name is that of a compacted batch, which no drop may have."""
    return _COMPACTED.fullmatch(name) is not None


def compacted_name(fingerprint: str) -> str:
    """Return the name of the compacted batch of members with this fingerprint."""
    return f"compacted-{fingerprint[:12]}"


def _lock(folder: StageFolder) -> Path:
    return folder.root.path / "pool" / f".{folder.stage}.lock"


@contextmanager
def batches_stay(folder: StageFolder) -> Iterator[None]:
    """Keep stored batches from being moved into another one for as long as the block lasts.

    Whoever writes a batch, or reads rows where :class:`Member` says they lie, does so in such a
    block. Many may do so at once, and blocks may be nested.
    """
    with shared_lock(_lock(folder)):
        yield


@contextmanager
def batches_move(folder: StageFolder) -> Iterator[None]:
    """Wait until nobody reads or writes the stored batches; let nobody in before the end.

    Nothing in the block may call :func:`batches_stay`: it would wait for ever.
    """
    with locked(_lock(folder)):
        yield


def members_of(stored: str, metadata: Mapping[str, str]) -> tuple[Member, ...]:
    """Return the batches whose rows a stored batch holds, superseded ones too, in row order.

    Args:
        stored: its name.
        metadata: of its pool table.
    """
    if not is_compacted(stored):
        own = {key: value for key, value in metadata.items() if key in BATCH_METADATA}
        return (Member(stored, stored, 0, own),)
    return _parsed(stored, metadata[MEMBERS])


# Whoever asks for one batch after the other would parse the same text for each.
@lru_cache(maxsize=8)
def _parsed(stored: str, text: str) -> tuple[Member, ...]:
    found: list[Member] = []
    offset = quarantine_offset = duplicates_offset = 0
    for batch, metadata in json.loads(text).items():
        member = Member(batch, stored, offset, metadata, quarantine_offset, duplicates_offset)
        found.append(member)
        offset += member.num_samples
        quarantine_offset += member.num_quarantined
        duplicates_offset += member.num_duplicates
    return tuple(found)


def live_members(stored: Mapping[str, Mapping[str, str]]) -> list[Member]:
    """Return the batches of a pool in the order of their names, each as it counts.

    A batch with tables of its own supersedes those of its name in compacted batches, of which
    the one in the later compacted batch counts.

    Args:
        stored: metadata of the pool table of each stored batch.
    """
    found: dict[str, Member] = {}
    for name in sorted(stored, key=lambda name: _precedence(name, stored[name])):
        found |= {member.batch: member for member in members_of(name, stored[name])}
    return [found[batch] for batch in sorted(found)]


def _precedence(stored: str, metadata: Mapping[str, str]) -> tuple[bool, int]:
    return (False, int(metadata[GENERATION])) if is_compacted(stored) else (True, 0)


def stored_members(folder: StageFolder) -> list[Member]:
    """Return :func:`live_members` of a stage; whether they are complete is not looked at."""
    names = folder.batches()
    return live_members({name: read_metadata(folder.samples(name)) for name in names})


def scan_rows(table: Path, member: Member) -> pl.LazyFrame:
    """Return the rows of a batch in the pool or state table that holds them, yet to be read."""
    return scan_slice(table, member.offset, member.num_samples)


def scan_quarantine(folder: StageFolder, member: Member) -> pl.LazyFrame:
    """Return the rejected rows of a batch, yet to be read."""
    table = folder.quarantine(member.stored_in)
    return scan_slice(table, member.quarantine_offset, member.num_quarantined)


def scan_duplicates(folder: StageFolder, member: Member) -> pl.LazyFrame:
    """Return the duplicates inside a batch, yet to be read."""
    table = folder.duplicates(member.stored_in)
    return scan_slice(table, member.duplicates_offset, member.num_duplicates)


def scan_slice(table: Path, offset: int, num_rows: int) -> pl.LazyFrame:
    """Return some rows of a stored table, yet to be read."""
    return scan_table(table).slice(offset, num_rows)
