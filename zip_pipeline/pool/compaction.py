"""Many old batches become one stored batch; no sample, id or later selection changes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from zip_pipeline.data_root import StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint, read_metadata, scan_table, sync, write_atomically
from zip_pipeline.pool.batches import (
    check_columns,
    state_of_members,
    states_of_members,
    stored_metadata,
)
from zip_pipeline.stored_batches import (
    BATCH_METADATA,
    GENERATION,
    MEMBERS,
    Member,
    batches_move,
    compacted_name,
    is_compacted,
    live_members,
    members_of,
    scan_slice,
)

# What a stored batch consists of, and what counts the rows. The pool table completes the batch.
TABLES = {
    "quarantine": "num_quarantined",
    "duplicates": "num_duplicates",
    "state": "num_samples",
    "pool": "num_samples",
}
# Whoever reads one member decodes the groups of rows that it lies in.
_ROWS_PER_GROUP = 1 << 10
_PAGE_BYTES = 1 << 22
_Slice = tuple[Path, int, int]


def table_path(folder: StageFolder, stored: str, kind: str) -> Path:
    """Return the file of a stored batch that one of :data:`TABLES` names."""
    places = {
        "pool": folder.samples,
        "quarantine": folder.quarantine,
        "duplicates": folder.duplicates,
    }
    return places.get(kind, folder.state)(stored)


def count_rows(path: Path) -> int:
    """Return the number of rows of a stored table."""
    return int(scan_table(path).select(pl.len()).collect().item())


def _scan(table: Path, offset: int, num_rows: int) -> pl.LazyFrame:
    # Slices of a thousand tables take Polars seconds to put together, the tables themselves do not.
    is_whole = offset == 0 and num_rows == count_rows(table)
    return scan_table(table) if is_whole else scan_slice(table, offset, num_rows)


def write_compacted(folder: StageFolder, live: Sequence[Member], generation: int) -> str:
    """Write the tables of a compacted batch; the pool table comes last and completes it.

    Args:
        folder: of the stage, as ``root["sft"]``.
        live: the batches that it is to hold, in the order of their names.
        generation: a higher number than that of each compacted batch before it.

    Returns:
        Its name, which the names and contents of its members determine.
    """
    content = fingerprint(part for member in live for part in (member.batch, member.fingerprint))
    stored = compacted_name(content)
    counts = {
        key: str(sum(int(member.metadata[key]) for member in live)) for key in BATCH_METADATA[1:]
    }
    common = {"fingerprint": content, **counts}
    listed = json.dumps({member.batch: dict(member.metadata) for member in live})
    pool = {**common, GENERATION: str(generation), MEMBERS: listed}
    state = state_of_members(pool, _states(folder, live))
    metadata = {"quarantine": common, "duplicates": common, "state": state, "pool": pool}
    for kind in TABLES:
        slices = [(table_path(folder, m.stored_in, kind), *_rows(m, kind)) for m in live]
        _write_slices(table_path(folder, stored, kind), slices, metadata[kind])
    return stored


def _rows(member: Member, kind: str) -> tuple[int, int]:
    """Return the first row of a member in one of its tables, and how many it has there."""
    if kind == "quarantine":
        return member.quarantine_offset, member.num_quarantined
    if kind == "duplicates":
        return member.duplicates_offset, member.num_duplicates
    return member.offset, member.num_samples


def _states(folder: StageFolder, live: Iterable[Member]) -> dict[str, dict[str, str]]:
    """Return the metadata of the state of each member."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for stored in {member.stored_in for member in live}:
        metadata = read_metadata(folder.state(stored))
        metadata.pop("ARROW:schema", None)
        found[stored] = states_of_members(metadata) if is_compacted(stored) else {stored: metadata}
    return {member.batch: found[member.stored_in][member.batch] for member in live}


def _write_slices(path: Path, slices: Sequence[_Slice], metadata: Mapping[str, str]) -> None:
    rows = pl.concat([_scan(*part) for part in _merged(slices)])

    def write(temporary: Path) -> None:
        rows.sink_parquet(
            temporary,
            compression="zstd",
            row_group_size=_ROWS_PER_GROUP,
            data_page_size=_PAGE_BYTES,
            metadata=dict(metadata),
        )
        num_expected = sum(num_rows for _, _, num_rows in slices)
        assert count_rows(temporary) == num_expected, f"{path}: {num_expected} rows to be written"

    write_atomically(path, write)


def _merged(slices: Sequence[_Slice]) -> list[_Slice]:
    """Return slices of which those that follow one another in a table are one."""
    merged = [slices[0]]
    for table, offset, num_rows in slices[1:]:
        last, start, length = merged[-1]
        if (table, offset) == (last, start + length):
            merged[-1] = (table, start, length + num_rows)
        else:
            merged.append((table, offset, num_rows))
    return merged


def remove_stored(folder: StageFolder, stored: Iterable[str]) -> None:
    """Remove stored batches; the pool tables come first, without which the others are nothing."""
    names = list(stored)
    for kind in reversed(TABLES):
        remove_files([table_path(folder, name, kind) for name in names])


def remove_files(paths: Sequence[Path]) -> None:
    """Remove files; when this returns, they are gone even after a power cut."""
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths if path.parent.exists()}:
        sync(folder)


KEEP_LATEST = 50


@dataclass(frozen=True)
class CompactionResult:
    """What a compaction did.

    Args:
        stored: the compacted batch.
        folded: the stored batches that went into it, earlier compacted ones among them.
        num_batches: batches that it holds.
        num_samples: their samples.
        left_alone: old batches that could not be folded, and why.
    """

    stored: str
    folded: tuple[str, ...]
    num_batches: int
    num_samples: int
    left_alone: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """What was folded, in words."""
        return (
            f"{len(self.folded):,} stored batches folded into {self.stored}, which holds "
            f"{self.num_batches:,} batches with {self.num_samples:,} samples"
        )


def compact(folder: StageFolder, *, keep_latest: int = KEEP_LATEST) -> CompactionResult | None:
    """Fold the old batches of a stage, and what was folded before, into one stored batch.

    It waits until nobody reads or writes the stored batches, and whoever wants to waits for it.
    Killed at any moment it loses no sample and counts none twice; the next call goes on. Memory
    holds a few groups of rows, however large the pool is.

    Args:
        folder: of the stage, as ``root["sft"]``.
        keep_latest: how many of the batches ingested last stay on their own.

    Returns:
        What was done; None where there are fewer than two stored batches to fold.

    Raises:
        UserError: ``keep_latest`` is negative, or a compacted batch is damaged.
    """
    if keep_latest < 0:
        raise UserError(f"keep_latest: got {keep_latest}; allowed are whole numbers from 0")
    if not folder.batches():
        return None
    with batches_move(folder):
        metadata = _all_metadata(folder)
        _remove_remains(folder, metadata)
        reasons = {name: _why_not(folder, name) for name in _old(folder, keep_latest)}
        fold = [name for name, reason in reasons.items() if reason is None]
        if len(fold) < 2:
            return None
        live = [member for member in live_members(metadata) if member.stored_in in fold]
        stored = write_compacted(folder, live, 1 + _last_generation(metadata))
        remove_stored(folder, [name for name in fold if name != stored])
        return CompactionResult(
            stored,
            tuple(sorted(fold)),
            len(live),
            sum(member.num_samples for member in live),
            {name: reason for name, reason in reasons.items() if reason is not None},
        )


def _all_metadata(folder: StageFolder) -> dict[str, dict[str, str]]:
    """Return the metadata of each stored batch, none of half a batch, which no one can read."""
    found: dict[str, dict[str, str]] = {}
    for name in folder.batches():
        try:
            found[name] = stored_metadata(folder, name)
        except UserError:
            if is_compacted(name):
                raise
            found[name] = {}
    return found


def _last_generation(metadata: Mapping[str, Mapping[str, str]]) -> int:
    return max(
        (int(metadata[name][GENERATION]) for name in metadata if is_compacted(name)), default=0
    )


def _old(folder: StageFolder, keep_latest: int) -> list[str]:
    """Return the compacted batches, then the others from the first ingested, but for the latest."""
    stored = folder.batches()
    single = [name for name in stored if not is_compacted(name)]
    single.sort(key=lambda name: (folder.samples(name).stat().st_mtime_ns, name))
    return [*filter(is_compacted, stored), *single[: max(0, len(single) - keep_latest)]]


def _why_not(folder: StageFolder, stored: str) -> str | None:
    """Return why a stored batch cannot be folded, None where it can."""
    try:
        pool = stored_metadata(folder, stored)
        check_columns(folder, stored)
        path = folder.state(stored)
        state = read_metadata(path) if path.exists() else {}
    except (UserError, OSError, pl.exceptions.PolarsError) as error:
        return str(error)
    if state.get("pool_fingerprint") != pool["fingerprint"]:
        return (
            "it has no compression state for the samples that it holds now; materialise "
            f"{folder.stage}/compression_state for the partition {stored!r}"
        )
    for kind, key in TABLES.items():
        path = table_path(folder, stored, kind)
        if (num_rows := count_rows(path)) != int(pool[key]):
            return f"{path}: has {num_rows} rows, must have {pool[key]}; ingest it again"
    return None


def _remove_remains(folder: StageFolder, metadata: dict[str, dict[str, str]]) -> None:
    """Remove what a killed compaction left, from disk and from ``metadata``.

    That are compacted batches whose members all lie elsewhere, and tables without a pool table.
    """
    used = {member.stored_in for member in live_members(metadata)}
    superseded = [name for name in metadata if name not in used]
    remove_stored(folder, superseded)
    for name in superseded:
        del metadata[name]
    compacted = filter(is_compacted, metadata)
    folded = {m.batch for name in compacted for m in members_of(name, metadata[name])}
    for kind in TABLES:
        found = table_path(folder, "any", kind).parent.glob("*.parquet")
        tables = {path.name.removesuffix(".parquet"): path for path in found}
        remains = [n for n in tables if n not in metadata and (n in folded or is_compacted(n))]
        remove_files([tables[name] for name in remains])
