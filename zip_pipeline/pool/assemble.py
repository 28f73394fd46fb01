"""All batches of a stage as one pool."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from zip_pipeline.pool.batches import IngestResult, check_columns
from zip_pipeline.pool.deduplicate import split_duplicates
from zip_pipeline.pool.held_out_set import HeldOut, read_held_out
from zip_pipeline.pool.members import Member, members, scan_rows
from zip_pipeline.samples import Stage, pool_schema
from zip_pipeline.storage import DataRoot, fingerprint
from zip_pipeline.stored_batches import batches_stay


@dataclass(frozen=True)
class AssembledPool:
    """The eligible samples of all batches, and what became of the other rows.

    Args:
        samples: the pool table, batches in the order of their names; of equal samples the first.
            It may have some of its columns only, then so has ``held_out``.
        duplicates: samples that repeat one of an earlier batch, and that sample.
        held_out: the samples of the batches that are kept for evaluation.
        frozen: the held-out set of the stage, None where there is none.
        fingerprints: the fingerprint of each batch.
        num_rows_read: rows of all batches.
        num_quarantined: rejected rows of all batches.
        num_batch_duplicates: rows that repeat a sample of their own batch.
    """

    samples: pl.DataFrame
    duplicates: pl.DataFrame
    held_out: pl.DataFrame
    frozen: HeldOut | None
    fingerprints: dict[str, str]
    num_rows_read: int
    num_quarantined: int
    num_batch_duplicates: int

    def __post_init__(self) -> None:
        num_kept = self.samples.height + self.num_quarantined + self.num_duplicates
        num_kept += self.num_held_out
        assert num_kept == self.num_rows_read, f"{self.num_rows_read} rows read, {num_kept} kept"

    @property
    def num_duplicates(self) -> int:
        """Return the number of exact duplicates, within batches and across them."""
        return self.num_batch_duplicates + self.duplicates.height

    @property
    def num_held_out(self) -> int:
        """Return the number of samples kept for evaluation."""
        return self.held_out.height

    @property
    def counts(self) -> dict[str, int]:
        """Return what became of all rows, as a version records it."""
        return {
            "num_rows_read": self.num_rows_read,
            "num_quarantined": self.num_quarantined,
            "num_duplicates": self.num_duplicates,
            "num_held_out": self.num_held_out,
        }


def assemble(
    tables: Iterable[pl.DataFrame],
    metadata: Mapping[str, Mapping[str, str]],
    freeze: Callable[[pl.DataFrame], HeldOut | None],
) -> AssembledPool:
    """Return tables of samples as one pool, in their order.

    Args:
        tables: some or all columns of a pool table, at least ``sample_id`` and its place.
        metadata: fingerprint and counts of each batch.
        freeze: returns the held-out set, given all samples without duplicates.
    """
    samples, duplicates = split_duplicates(pl.concat(tables, rechunk=False))
    frozen = freeze(samples)
    samples, held_out = frozen.split(samples) if frozen else (samples, samples.clear())

    def total(key: str) -> int:
        return sum(int(counts[key]) for counts in metadata.values())

    return AssembledPool(
        samples,
        duplicates,
        held_out,
        frozen,
        {batch: counts["fingerprint"] for batch, counts in metadata.items()},
        num_rows_read=total("num_rows_read"),
        num_quarantined=total("num_quarantined"),
        num_batch_duplicates=total("num_duplicates"),
    )


def assemble_results(stage: Stage, results: Mapping[str, IngestResult]) -> AssembledPool:
    """Return the pool of batches that are in memory, in the order of the mapping."""
    tables = [pool_schema(stage).to_frame(), *(result.samples for result in results.values())]
    return assemble(tables, {b: result.metadata() for b, result in results.items()}, lambda _: None)


def assemble_pool(root: DataRoot, stage: Stage) -> AssembledPool:
    """Return the pool of all ingested batches of a stage, whole in memory.

    Batches come in the order of their names; a sample that an earlier batch has is left out and
    recorded, so batches stay independent of one another on disk. So is what the stage holds out.

    Raises:
        ValueError: a batch is incomplete, as after a stopped ingestion, or the file of held-out
            samples is wrong.
    """
    with batches_stay(root, stage):
        found = members(root, stage)
        tables = [pool_schema(stage).to_frame(), *(_read(root, stage, member) for member in found)]
    metadata = {member.batch: member.metadata for member in found}
    return assemble(tables, metadata, lambda _: read_held_out(root, stage))


def _read(root: DataRoot, stage: Stage, member: Member) -> pl.DataFrame:
    check_columns(root, stage, member.stored_in)
    return scan_rows(root.samples(stage, member.stored_in), member).collect()


def pool_fingerprint(root: DataRoot, stage: Stage) -> str:
    """Return the hash of the batches and their fingerprints, without reading any rows.

    Raises:
        ValueError: a batch is incomplete, as after a stopped ingestion.
    """
    found = members(root, stage)
    return fingerprint(part for member in found for part in (member.batch, member.fingerprint))
