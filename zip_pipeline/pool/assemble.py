"""All batches of a stage as one pool."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from zip_pipeline.pool.batches import IngestResult, batch_metadata, read_batch
from zip_pipeline.pool.deduplicate import split_duplicates
from zip_pipeline.pool.held_out_set import HeldOut, read_held_out
from zip_pipeline.samples import Stage, pool_schema
from zip_pipeline.storage import DataRoot, fingerprint


@dataclass(frozen=True)
class AssembledPool:
    """The eligible samples of all batches, and what became of the other rows.

    Args:
        samples: the pool table, batches in the order of their names; of equal samples the first.
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


def _assemble(
    stage: Stage,
    tables: Mapping[str, pl.DataFrame],
    metadata: Mapping[str, Mapping[str, str]],
    frozen: HeldOut | None = None,
) -> AssembledPool:
    parts = [pool_schema(stage).to_frame(), *tables.values()]
    samples, duplicates = split_duplicates(pl.concat(parts, rechunk=False))
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
    tables = {batch: result.samples for batch, result in results.items()}
    return _assemble(stage, tables, {b: result.metadata() for b, result in results.items()})


def assemble_pool(root: DataRoot, stage: Stage) -> AssembledPool:
    """Return the pool of all ingested batches of a stage.

    Batches come in the order of their names; a sample that an earlier batch has is left out and
    recorded, so batches stay independent of one another on disk. So is what the stage holds out.

    Raises:
        ValueError: a batch is incomplete, as after a stopped ingestion, or the file of held-out
            samples is wrong.
    """
    batches = root.batches(stage)
    metadata = {batch: batch_metadata(root, stage, batch) for batch in batches}
    tables = {batch: read_batch(root, stage, batch) for batch in batches}
    return _assemble(stage, tables, metadata, read_held_out(root, stage))


def pool_fingerprint(root: DataRoot, stage: Stage) -> str:
    """Return the hash of the batches and their fingerprints, without reading any rows.

    Raises:
        ValueError: a batch is incomplete, as after a stopped ingestion.
    """
    batches = root.batches(stage)
    metadata = [batch_metadata(root, stage, batch) for batch in batches]
    pairs = zip(batches, metadata, strict=True)
    return fingerprint(part for batch, m in pairs for part in (batch, m["fingerprint"]))
