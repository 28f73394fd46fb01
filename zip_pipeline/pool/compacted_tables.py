"""The tables of a stored batch: written from slices of others, and removed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from zip_pipeline.pool.states import state_of_members, states_of_members
from zip_pipeline.samples import Stage
from zip_pipeline.storage import (
    DataRoot,
    fingerprint,
    read_metadata,
    scan_table,
    sync,
    write_atomically,
)
from zip_pipeline.stored_batches import (
    BATCH_METADATA,
    GENERATION,
    MEMBERS,
    Member,
    compacted_name,
    is_compacted,
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


def table_path(root: DataRoot, stage: Stage, stored: str, kind: str) -> Path:
    """Return the file of a stored batch that one of :data:`TABLES` names."""
    places = {"pool": root.samples, "quarantine": root.quarantine, "duplicates": root.duplicates}
    return places.get(kind, root.state)(stage, stored)


def count_rows(path: Path) -> int:
    """Return the number of rows of a stored table."""
    return int(scan_table(path).select(pl.len()).collect().item())


def _scan(table: Path, offset: int, num_rows: int) -> pl.LazyFrame:
    # Slices of a thousand tables take Polars seconds to put together, the tables themselves do not.
    is_whole = offset == 0 and num_rows == count_rows(table)
    return scan_table(table) if is_whole else scan_slice(table, offset, num_rows)


def write_compacted(root: DataRoot, stage: Stage, live: Sequence[Member], generation: int) -> str:
    """Write the tables of a compacted batch; the pool table comes last and completes it.

    Args:
        root: the data root.
        stage: ``sft`` or ``preference``.
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
    state = state_of_members(pool, _states(root, stage, live))
    metadata = {"quarantine": common, "duplicates": common, "state": state, "pool": pool}
    for kind in TABLES:
        slices = [(table_path(root, stage, m.stored_in, kind), *_rows(m, kind)) for m in live]
        _write_slices(table_path(root, stage, stored, kind), slices, metadata[kind])
    return stored


def _rows(member: Member, kind: str) -> tuple[int, int]:
    """Return the first row of a member in one of its tables, and how many it has there."""
    if kind == "quarantine":
        return member.quarantine_offset, member.num_quarantined
    if kind == "duplicates":
        return member.duplicates_offset, member.num_duplicates
    return member.offset, member.num_samples


def _states(root: DataRoot, stage: Stage, live: Iterable[Member]) -> dict[str, dict[str, str]]:
    """Return the metadata of the state of each member."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for stored in {member.stored_in for member in live}:
        metadata = read_metadata(root.state(stage, stored))
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


def remove_stored(root: DataRoot, stage: Stage, stored: Iterable[str]) -> None:
    """Remove stored batches; the pool tables come first, without which the others are nothing."""
    names = list(stored)
    for kind in reversed(TABLES):
        remove_files([table_path(root, stage, name, kind) for name in names])


def remove_files(paths: Sequence[Path]) -> None:
    """Remove files; when this returns, they are gone even after a power cut."""
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths if path.parent.exists()}:
        sync(folder)
