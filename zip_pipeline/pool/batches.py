"""Ingested batches on disk: three tables that belong together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import polars as pl

from zip_pipeline.samples import Stage, pool_schema
from zip_pipeline.storage import DataRoot, fingerprint, read_metadata, scan_table, write_table
from zip_pipeline.stored_batches import (
    BATCH_METADATA,
    Member,
    batches_stay,
    is_compacted,
    live_members,
    scan_quarantine,
    scan_rows,
)

BATCH_DUPLICATES_SCHEMA = pl.Schema(
    {
        "sample_id": pl.String,
        "source_file": pl.String,
        "source_row": pl.Int64,
        "first_source_file": pl.String,
        "first_source_row": pl.Int64,
    }
)


@dataclass(frozen=True)
class IngestResult:
    """What became of every row of a batch.

    Args:
        samples: the pool table (``pool_schema``), in reading order.
        quarantine: the rejected rows with reason, detail and raw text.
        duplicates: the rows that repeat an earlier sample of the batch, and that sample.
        num_rows_read: all rows; each is in exactly one of the three tables.
        fingerprint: hash of the three tables' content.
    """

    samples: pl.DataFrame
    quarantine: pl.DataFrame
    duplicates: pl.DataFrame
    num_rows_read: int
    fingerprint: str

    def __post_init__(self) -> None:
        num_kept = self.samples.height + self.quarantine.height + self.duplicates.height
        assert num_kept == self.num_rows_read, f"{self.num_rows_read} rows read, {num_kept} kept"

    def metadata(self) -> dict[str, str]:
        """Return what is stored with each of the three tables."""
        counts = {
            "num_rows_read": self.num_rows_read,
            "num_samples": self.samples.height,
            "num_quarantined": self.quarantine.height,
            "num_duplicates": self.duplicates.height,
        }
        return {"fingerprint": self.fingerprint} | {k: str(v) for k, v in counts.items()}


def batch_fingerprint(
    samples: pl.DataFrame, quarantine: pl.DataFrame, duplicates: pl.DataFrame
) -> str:
    """Return the hash of a batch's content; it does not depend on times or library versions.

    Turns and scores go in through the sample ids and the raw records.
    """
    tables = (samples.select(pl.col(pl.String, pl.Int64)), quarantine, duplicates)
    return fingerprint(
        value
        for table in tables
        for column in table.iter_columns()
        for value in chain([column.name, str(len(column))], column.cast(pl.String).fill_null(""))
    )


def write_batch(root: DataRoot, stage: Stage, batch: str, result: IngestResult) -> None:
    """Write the three tables of a batch; the pool table comes last and completes the batch.

    A writer killed in between leaves tables with different fingerprints, which
    :func:`batch_metadata` refuses.
    """
    metadata = result.metadata()
    with batches_stay(root, stage):
        write_table(root.quarantine(stage, batch), result.quarantine, metadata)
        write_table(root.duplicates(stage, batch), result.duplicates, metadata)
        write_table(root.samples(stage, batch), result.samples, metadata)


def stored_metadata(root: DataRoot, stage: Stage, stored: str) -> dict[str, str]:
    """Return the metadata of the pool table of a stored batch.

    Raises:
        ValueError: there is no such stored batch, or its tables do not belong together.
    """
    paths = (
        root.samples(stage, stored),
        root.quarantine(stage, stored),
        root.duplicates(stage, stored),
    )
    remedy = _remedy(root, stage, stored)
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: the file is missing; {remedy}")
    try:
        metadata = [read_metadata(path) for path in paths]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{paths[0]}: the batch cannot be read ({error}); {remedy}") from error
    if len({m.get("fingerprint") for m in metadata}) > 1 or "fingerprint" not in metadata[0]:
        raise ValueError(
            f"{paths[0]}: the tables of the batch differ in fingerprint, as after a stopped "
            f"ingestion; {remedy}"
        )
    return metadata[0]


def _remedy(root: DataRoot, stage: Stage, stored: str) -> str:
    if not is_compacted(stored):
        return f"ingest the batch {stored!r} of {stage} again"
    if root.samples(stage, stored).exists():
        return f"remove what is left of {stored!r} and ingest the drops of {stage} again"
    return "what it held is in another compacted batch by now, so delete its partition"


def stored_in(root: DataRoot, stage: Stage, batch: str) -> str:
    """Return the stored batch that holds a batch: a compacted one, or that of its own name."""
    member = _compacted_member(root, stage, batch)
    return member.stored_in if member else batch


def _compacted_member(root: DataRoot, stage: Stage, batch: str) -> Member | None:
    if root.samples(stage, batch).exists():
        return None
    compacted = [name for name in root.batches(stage) if is_compacted(name)]
    found = live_members({name: stored_metadata(root, stage, name) for name in compacted})
    return next((member for member in found if member.batch == batch), None)


def find_member(root: DataRoot, stage: Stage, batch: str) -> Member:
    """Return where the rows of a batch lie, or all rows of a compacted batch.

    They stay there within a block of :func:`.batches_stay` only.

    Raises:
        ValueError: the batch is not ingested, or its tables do not belong together.
    """
    member = _compacted_member(root, stage, batch)
    if member is not None:
        return member
    metadata = stored_metadata(root, stage, batch)
    return Member(batch, batch, 0, {key: metadata[key] for key in BATCH_METADATA})


def batch_metadata(root: DataRoot, stage: Stage, batch: str) -> dict[str, str]:
    """Return a batch's fingerprint and counts, without reading its rows.

    Raises:
        ValueError: the batch is not ingested, or its tables do not belong together.
    """
    with batches_stay(root, stage):
        return dict(find_member(root, stage, batch).metadata)


def is_ingested(root: DataRoot, stage: Stage, batch: str) -> bool:
    """Return whether the batch is there, whole."""
    try:
        batch_metadata(root, stage, batch)
    except ValueError:
        return False
    return True


def read_batch(
    root: DataRoot, stage: Stage, batch: str, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the samples of a batch (``pool_schema``), or some of their columns.

    Raises:
        ValueError: as :func:`batch_metadata`, or the table has other columns.
    """
    with batches_stay(root, stage):
        member = find_member(root, stage, batch)
        check_columns(root, stage, member.stored_in)
        rows = scan_rows(root.samples(stage, member.stored_in), member)
        return (rows if columns is None else rows.select(columns)).collect()


def check_columns(root: DataRoot, stage: Stage, batch: str) -> None:
    """Raise ValueError where the pool table of a batch has other columns than ``pool_schema``."""
    path = root.samples(stage, batch)
    found = scan_table(path).collect_schema()
    if found != pool_schema(stage):
        remedy = f"ingest {'the drops in ' if is_compacted(batch) else ''}{batch!r} again"
        raise ValueError(f"{path}: the columns are of another release; {remedy}")


def read_quarantine(
    root: DataRoot, stage: Stage, batch: str, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the rejected rows of a batch (``QUARANTINE_SCHEMA``), or some of their columns.

    Raises:
        ValueError: as :func:`batch_metadata`.
    """
    with batches_stay(root, stage):
        rows = scan_quarantine(root, stage, find_member(root, stage, batch))
        return (rows if columns is None else rows.select(columns)).collect()
