"""The rows of a sample, in whatever tables they stand."""

from collections.abc import Sequence

import polars as pl

from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot, scan_table
from zip_pipeline.stored_batches import Member, scan_duplicates, stored_members


def pool_tables(root: DataRoot, stage: Stage) -> list[pl.LazyFrame]:
    """Return the stored samples of a stage, without those of superseded batches."""
    batches: dict[str, list[str]] = {}
    for member in stored_members(root, stage):
        batches.setdefault(member.stored_in, []).append(member.batch)
    tables = {stored: scan_table(root.samples(stage, stored)) for stored in batches}
    return [tables[name].filter(pl.col("batch").is_in(batches[name])) for name in tables]


def held_out_tables(root: DataRoot, stage: Stage) -> list[pl.LazyFrame]:
    """Return the samples kept for evaluation, nothing where there are none."""
    path = root.held_out(stage)
    return [scan_table(path)] if path.exists() else []


def ledgers(root: DataRoot, stage: Stage) -> list[pl.LazyFrame]:
    """Return the ledger of each version of a stage, ascending."""
    store = root.versions(stage)
    return [scan_table(store.path(number) / "ledger.parquet") for number in store.numbers()]


def ids_with(tables: Sequence[pl.LazyFrame], prefix: str) -> set[str]:
    """Return the sample ids in tables that start with ``prefix``."""
    names: set[str] = set()
    for table in tables:
        matches = table.filter(pl.col("sample_id").str.starts_with(prefix))
        names.update(matches.select("sample_id").collect()["sample_id"].to_list())
    return names


def rows_of(table: pl.LazyFrame, sample_id: str) -> pl.DataFrame:
    """Return the rows of a sample in a table."""
    return table.filter(pl.col("sample_id") == sample_id).collect()


def copies_in(root: DataRoot, stage: Stage, member: Member, sample_id: str) -> pl.DataFrame:
    """Return the rows that repeat a sample inside its batch."""
    if not root.duplicates(stage, member.stored_in).exists():
        return pl.DataFrame()
    return rows_of(scan_duplicates(root, stage, member), sample_id)
