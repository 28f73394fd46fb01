"""Ingested batches on disk: three tables that belong together."""

from dataclasses import dataclass

import polars as pl

from zip_pipeline.samples import Stage, pool_schema
from zip_pipeline.storage import DataRoot, fingerprint, read_metadata, write_table

_METADATA_KEYS = (
    "fingerprint",
    "num_rows_read",
    "num_samples",
    "num_quarantined",
    "num_duplicates",
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
        for value in (column.name, str(len(column)), *column.cast(pl.String).fill_null(""))
    )


def write_batch(root: DataRoot, stage: Stage, batch: str, result: IngestResult) -> None:
    """Write the three tables of a batch; the pool table comes last and completes the batch.

    A writer killed in between leaves tables with different fingerprints, which
    :func:`batch_metadata` refuses.
    """
    metadata = result.metadata()
    write_table(root.quarantine(stage, batch), result.quarantine, metadata)
    write_table(root.duplicates(stage, batch), result.duplicates, metadata)
    write_table(root.samples(stage, batch), result.samples, metadata)


def batch_metadata(root: DataRoot, stage: Stage, batch: str) -> dict[str, str]:
    """Return a batch's fingerprint and counts, without reading its rows.

    Raises:
        ValueError: the batch is not ingested, or its tables do not belong together.
    """
    paths = (
        root.samples(stage, batch),
        root.quarantine(stage, batch),
        root.duplicates(stage, batch),
    )
    remedy = f"ingest the batch {batch!r} of {stage} again"
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
    return {key: value for key, value in metadata[0].items() if key in _METADATA_KEYS}


def is_ingested(root: DataRoot, stage: Stage, batch: str) -> bool:
    """Return whether the batch is there, whole."""
    try:
        batch_metadata(root, stage, batch)
    except ValueError:
        return False
    return True


def read_batch(root: DataRoot, stage: Stage, batch: str) -> pl.DataFrame:
    """Return the samples of a batch (``pool_schema``).

    Raises:
        ValueError: as :func:`batch_metadata`, or the table has other columns.
    """
    batch_metadata(root, stage, batch)
    path = root.samples(stage, batch)
    table = pl.read_parquet(path, glob=False, hive_partitioning=False)
    if table.schema != pool_schema(stage):
        raise ValueError(f"{path}: the columns are of another release; ingest {batch!r} again")
    return table


def read_quarantine(root: DataRoot, stage: Stage, batch: str) -> pl.DataFrame:
    """Return the rejected rows of a batch (``QUARANTINE_SCHEMA``).

    Raises:
        ValueError: as :func:`batch_metadata`.
    """
    batch_metadata(root, stage, batch)
    return pl.read_parquet(root.quarantine(stage, batch), glob=False, hive_partitioning=False)
