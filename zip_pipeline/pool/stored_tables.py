"""The stored samples of a stage, read a few megabytes at a time."""

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.state import texts_of
from zip_pipeline.pool.batches import check_columns
from zip_pipeline.pool.members import Member, all_members, gone_error, scan_rows
from zip_pipeline.samples import Stage, pool_schema
from zip_pipeline.storage import DataRoot
from zip_pipeline.stored_batches import batches_stay

_PROVENANCE = ("sample_id", "batch", "source", "source_file", "source_row")
_PLACE = ("member", "row")
_FIRST_NUM_ROWS = 1 << 9
_MOST_ROWS = 10_000
_PART_BYTES = 1 << 23


class StoredTables:
    """The samples of all batches of a stage as they are when this is made.

    A place of a sample is the number of its batch among ``members`` and its row in that batch,
    the columns ``member`` and ``row`` of a table. The places of the whole pool ascend.

    Args:
        root: the data root.
        stage: ``sft`` or ``preference``.
        folder: an empty folder on the data root's disk; it gets a second name of each file, so
            that a batch that is replaced or moved meanwhile can be read as it was.

    Raises:
        ValueError: a batch is incomplete or gone (see :func:`.all_members`), or its columns are
            of another release.
    """

    def __init__(self, root: DataRoot, stage: Stage, folder: Path) -> None:
        self._stage: Stage = stage
        self._folder = folder
        self.members: list[Member] = []
        with batches_stay(root, stage):
            # Once more where a batch came, or came again, while the files were linked.
            while (found := all_members(root, stage, self.members)) != self.members:
                self.members = found
                self._keep(root)

    def _keep(self, root: DataRoot) -> None:
        """Link the files of all members."""
        for stored in {member.stored_in for member in self.members}:
            try:
                check_columns(root, self._stage, stored)
                _link(root.samples(self._stage, stored), self._table(stored))
            except FileNotFoundError as error:
                gone = [member.batch for member in self.members if member.stored_in == stored]
                raise gone_error(root, self._stage, gone) from error

    def _table(self, stored: str) -> Path:
        return self._folder / f"{stored}.parquet"

    def provenance(self) -> Iterator[pl.DataFrame]:
        """Yield where the samples of each batch come from, and their places."""
        none = pool_schema(self._stage).to_frame().select(_PROVENANCE)
        yield none.with_columns(pl.lit(0, pl.UInt32).alias(name) for name in _PLACE)
        for number, member in enumerate(self.members):
            rows = scan_rows(self._table(member.stored_in), member).select(_PROVENANCE).collect()
            row = pl.int_range(pl.len(), dtype=pl.UInt32)
            yield rows.with_columns(member=pl.lit(number, pl.UInt32), row=row)

    def rows(self, samples: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of the pool table (``pool_schema``) of samples at any places."""
        places = samples.select(_PLACE)
        order = places.select(pl.arg_sort_by(_PLACE)).to_series()
        parts = map(_own_copy, self._parts(places[order], pool_schema(self._stage).names()))
        rows = pl.concat([pool_schema(self._stage).to_frame(), *parts], rechunk=False)
        return rows[order.arg_sort()]

    def texts(self, samples: pl.DataFrame) -> Iterator[list[bytes]]:
        """Yield the serialised samples at ascending places, some thousands at a time."""
        turns = [n for n, kind in pool_schema(self._stage).items() if isinstance(kind, pl.List)]
        for part in self._parts(samples.select(_PLACE), turns):
            yield texts_of(part, self._stage)

    def _parts(self, places: pl.DataFrame, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield columns of the samples at ascending places, from slices of some megabytes."""
        num_rows = _FIRST_NUM_ROWS
        for member, rows in _by_member(places):
            table = self._table(self.members[member].stored_in)
            start = 0
            while start < len(rows):
                end = int(np.searchsorted(rows, rows[start] + num_rows))
                wanted = rows[start:end] - rows[start]
                stored = scan_rows(table, self.members[member])
                part = stored.slice(int(rows[start]), int(wanted[-1]) + 1).select(columns).collect()
                yield part[wanted]
                start, num_rows = end, _next_num_rows(num_rows, part)


def _next_num_rows(num_rows: int, read: pl.DataFrame) -> int:
    """Return how many rows to read next, given the number before and what that read."""
    fitting = int(_PART_BYTES * read.height / max(1, read.estimated_size()))
    return max(1, min(2 * num_rows, fitting, _MOST_ROWS))


def _by_member(places: pl.DataFrame) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the number of each batch among ascending places, and its rows."""
    numbers, starts = np.unique(places["member"].to_numpy(), return_index=True)
    rows = places["row"].cast(pl.Int64).to_numpy()
    yield from zip(numbers.tolist(), np.split(rows, starts)[1:], strict=True)


def _own_copy(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows that do not keep alive the table that they were taken from."""
    # Taken rows share the buffers of the whole table, which no other call copies out of lists.
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="uncompressed")
    buffer.seek(0)
    return pl.read_parquet(buffer, glob=False)


def _link(path: Path, link: Path) -> None:
    """Give a file a second name, or copy it where the file system has no such thing."""
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        shutil.copyfile(path, link)
