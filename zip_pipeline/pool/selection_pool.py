"""The pool of a stage as a selection needs it: narrow in memory, everything else on disk."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import polars as pl

from zip_pipeline.compression.text_file import TemporaryTexts
from zip_pipeline.pool.assemble import AssembledPool, assemble
from zip_pipeline.pool.held_out import HeldOutSettings, freeze_held_out
from zip_pipeline.pool.held_out_set import HeldOut, read_held_out
from zip_pipeline.pool.members import refuse_gone
from zip_pipeline.pool.states import SIZES_SCHEMA, read_sizes
from zip_pipeline.pool.stored_tables import StoredTables
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot

_PREFIX = ".tmp-pool-"


class SelectionPool:
    """What :func:`.assemble_pool` gives, of which only where samples come from is in memory.

    It reads the batches as they were when it was opened, whatever becomes of them.

    Args:
        root: the data root.
        stage: ``sft`` or ``preference``.
        pool: the assembled pool; its samples have no turns and no raw record.
        tables: the stored samples.
    """

    def __init__(
        self, root: DataRoot, stage: Stage, pool: AssembledPool, tables: StoredTables
    ) -> None:
        self._root = root
        self._stage: Stage = stage
        self._pool = pool
        self._tables = tables

    @property
    def index(self) -> pl.DataFrame:
        """The provenance of every eligible sample, in the order of the pool."""
        return self._pool.samples

    @property
    def duplicates(self) -> pl.DataFrame:
        """The samples that repeat one of an earlier batch, and that sample."""
        return self._pool.duplicates

    @property
    def held_out(self) -> pl.DataFrame:
        """The provenance of the samples that are kept for evaluation."""
        return self._pool.held_out

    @property
    def frozen(self) -> HeldOut | None:
        """The held-out set of the stage, None where there is none."""
        return self._pool.frozen

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """The fingerprint of each batch."""
        return self._pool.fingerprints

    @property
    def counts(self) -> dict[str, int]:
        """What became of all rows, as a version records it."""
        return self._pool.counts

    @cached_property
    def texts(self) -> TemporaryTexts:
        """The serialised samples of the index, written to a file when first asked for."""
        return TemporaryTexts.write(self._tables.texts(self.index), self._root.cache)

    @property
    def state(self) -> pl.DataFrame:
        """The stored compression state of each sample of the index: tokens and sizes alone.

        Raises:
            ValueError: a batch has none, or one that describes an earlier form of the batch.
        """
        index, start, parts = self.index, 0, [SIZES_SCHEMA.to_frame()]
        num_of_member = dict(index["member"].value_counts().iter_rows())
        for number, member in enumerate(self._tables.members):
            sample_ids = index["sample_id"].slice(start, num_of_member.get(number, 0))
            parts.append(read_sizes(self._root, self._stage, member, sample_ids))
            start += len(sample_ids)
        return pl.concat(parts)

    def rows(self, positions: Sequence[int] | pl.Series) -> pl.DataFrame:
        """Return the rows of the pool table at these positions of the index, in this order."""
        return self._tables.rows(self.index[positions])

    def picked_rows(self, picks: Sequence[int], ledger: pl.DataFrame) -> pl.DataFrame:
        """Return the rows at ``picks`` with what the ledger of the index tells of each.

        Args:
            picks: positions in the index, in pick order.
            ledger: a table whose row i describes row i of the index.

        Returns:
            The pool table's rows with ``rank``, ``round`` and ``pi``.
        """
        return self.rows(picks).hstack(ledger[picks].select("rank", "round", "pi"))

    def close(self) -> None:
        """Remove the texts, where they were written."""
        if "texts" in self.__dict__:
            self.texts.close()


@contextmanager
def open_selection_pool(
    root: DataRoot, stage: Stage, *, hold_out: HeldOutSettings | None = None
) -> Iterator[SelectionPool]:
    """Open the pool of all ingested batches of a stage; the block's end removes what it needed.

    Batches that come, or come again, within the block make no difference to what is read.

    Args:
        root: the data root.
        stage: ``sft`` or ``preference``.
        hold_out: what sources that are new to the pool keep for evaluation, frozen right now
            (:func:`.freeze_held_out`); None leaves the frozen set as it is.

    Raises:
        ValueError: a batch is incomplete, or gone (:func:`.all_members`), also by the end of
            the block; the settings or the file of held-out samples are wrong.
    """
    root.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=root.cache) as folder:
        tables = StoredTables(root, stage, Path(folder))

        def freeze(samples: pl.DataFrame) -> HeldOut | None:
            frozen = read_held_out(root, stage)
            if hold_out is None:
                return frozen
            left = frozen.split(samples)[0] if frozen else samples
            return freeze_held_out(root, stage, left, hold_out, tables.rows)

        metadata = {member.batch: member.metadata for member in tables.members}
        pool = assemble(tables.provenance(), metadata, freeze)
        opened = SelectionPool(root, stage, pool, tables)
        try:
            yield opened
        finally:
            opened.close()
        refuse_gone(root, stage, pool.fingerprints)
