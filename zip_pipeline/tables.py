"""Tables and matrices in temporary files, of which what is asked for is in memory."""

import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.files import ROWS_PER_GROUP, TEMPORARY, named, scan_table, write_row_groups


class TemporaryTable:
    """A table in files of its own, which go when nobody holds this.

    A killed process leaves them to :func:`.remove_leftovers`.

    Args:
        parts: the table, one below the other; a little of one is in memory at a time. What comes
            in parts itself has at least one.
        folder: of the files.
    """

    def __init__(
        self, parts: Sequence[pl.LazyFrame | Iterable[pl.DataFrame]], folder: Path
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        own = tempfile.mkdtemp(prefix=f"{TEMPORARY}table-", dir=folder)
        self._remove = weakref.finalize(self, shutil.rmtree, own, ignore_errors=True)
        self._paths = [Path(own) / f"{number}" for number in range(len(parts))]
        # Each in its file: what polars concatenates it holds whole (*measured*: 70 bytes a row).
        for path, rows in zip(self._paths, parts, strict=True):
            with named(path):
                if isinstance(rows, pl.LazyFrame):
                    rows.sink_parquet(path, row_group_size=ROWS_PER_GROUP)
                else:
                    write_row_groups(path, rows, {})

    def lazy(self) -> pl.LazyFrame:
        """Return the table, yet to be read; this must be held meanwhile."""
        return scan_table(*self._paths)

    def close(self) -> None:
        """Remove the files."""
        self._remove()


class TemporaryMatrix:
    """A matrix in a file of its own, which goes when nobody holds this; zeros until written.

    Rows are read at random, and what was read stays in the system's cache instead of this process.

    Args:
        shape: its rows and columns.
        dtype: of its numbers.
        folder: of the file.
    """

    def __init__(self, shape: tuple[int, int], dtype: type[np.generic], folder: Path) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._folder = folder
        self._file = _file_without_name(folder)
        self._file.truncate(math.prod(shape) * self.dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Return some rows, shape (rows, columns), as a slice or by their numbers."""
        numbers = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        found = np.empty((len(numbers), self.shape[1]), self.dtype)
        # Those that lie side by side are read at once.
        (firsts,) = np.nonzero(np.diff(numbers, prepend=-2) != 1)
        starts = (numbers[firsts] * found.strides[0]).tolist()
        ends = np.append(firsts, len(numbers))[1:].tolist()
        for first, end, start in zip(firsts.tolist(), ends, starts, strict=True):
            _fill(self._file.fileno(), found[first:end], start)
        return found

    def write(self, rows: NDArray[np.int64], numbers: NDArray[Any], first_column: int = 0) -> None:
        """Write numbers of some rows from a column on, shape (rows, columns)."""
        width = self.shape[1] * self.dtype.itemsize
        starts = (rows * width + first_column * self.dtype.itemsize).tolist()
        with named(self._folder):
            for start, own in zip(starts, np.ascontiguousarray(numbers, self.dtype), strict=True):
                _write(self._file.fileno(), own, start)


class Buckets:
    """Rows of numbers in a file of its own, by ranges of a key, each of which is read by itself.

    Args:
        dtype: of a row.
        num_keys: keys are at least 0, and below this.
        folder: of the file.
    """

    def __init__(self, dtype: np.dtype[Any], num_keys: int, folder: Path) -> None:
        self._dtype, self._folder = dtype, folder
        self.width = max(-(-num_keys // _MOST_BUCKETS), _LEAST_KEYS)
        """keys of a bucket: the n-th has those from n times this on"""
        self._num_buckets = -(-num_keys // self.width)
        # Of each time that rows came the rows of each bucket, which lie one after another.
        self._sizes: list[NDArray[np.int32]] = []
        self._file = _file_without_name(folder)

    def add(self, keys: NDArray[Any], rows: NDArray[Any]) -> None:
        """Add rows, each to the bucket of its key."""
        bucket = (keys // self.width).astype(np.uint16)
        rows = rows[np.argsort(bucket, kind="stable")]
        with named(self._folder):
            _write(self._file.fileno(), rows.view(np.uint8), self._file.seek(0, os.SEEK_END))
        self._sizes.append(np.bincount(bucket, minlength=self._num_buckets).astype(np.int32))

    def each(self, least: int = 0) -> Iterator[NDArray[Any]]:
        """Yield the rows of each bucket, or of as many as have so many rows."""
        sizes = np.array(self._sizes, np.int32).reshape(len(self._sizes), self._num_buckets)
        ends = sizes.cumsum(dtype=np.int64).reshape(sizes.shape)
        first = 0
        for bucket in range(self._num_buckets):
            own = slice(first, bucket + 1)
            num_rows = int(sizes[:, own].sum())
            if num_rows < least and bucket + 1 < self._num_buckets:
                continue
            found, filled = np.empty(num_rows, self._dtype), 0
            for each in range(first, bucket + 1):
                (came,) = np.nonzero(sizes[:, each])
                for end, size in zip(ends[came, each].tolist(), sizes[came, each], strict=True):
                    rows = found[filled : filled + size]
                    start = (end - int(size)) * self._dtype.itemsize
                    _fill(self._file.fileno(), rows.view(np.uint8), start)
                    filled += int(size)
            first = bucket + 1
            yield found


_MOST_BUCKETS = 1 << 10
_LEAST_KEYS = 1 << 13


def _file_without_name(folder: Path) -> BinaryIO:
    """Return a new file of which a killed process leaves nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with named(folder):
        return tempfile.TemporaryFile(dir=folder, buffering=0)


def _bytes_of(numbers: NDArray[Any]) -> memoryview:
    return numbers.data.cast("B") if numbers.size else memoryview(b"")


def _write(descriptor: int, numbers: NDArray[Any], start: int) -> None:
    left = _bytes_of(numbers)
    while left:
        written = os.pwrite(descriptor, left, start)
        left, start = left[written:], start + written


def _fill(descriptor: int, numbers: NDArray[Any], start: int) -> None:
    """Read numbers that a file holds from ``start`` on; one read returns at most 2 GiB."""
    left = _bytes_of(numbers)
    while left:
        num_read = os.preadv(descriptor, [left], start)
        if not num_read:
            raise OSError(f"file of numbers ends {len(left)} bytes too early")
        left, start = left[num_read:], start + num_read


WholeTable: TypeAlias = pl.DataFrame | TemporaryTable


@dataclass(frozen=True)
class PartOfTable:
    """Some rows of a table, read when they are asked for.

    Args:
        whole: the table.
        positions: the rows, in their order.
    """

    whole: WholeTable
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, table: "Table", positions: NDArray[np.int64]) -> "PartOfTable":
        """Return the rows at some positions of a table, or of a part of one."""
        if isinstance(table, PartOfTable):
            return cls(table.whole, table.positions[positions])
        return cls(table, positions)


Table: TypeAlias = WholeTable | PartOfTable


def whole_of(table: Table) -> WholeTable:
    """Return a table, or that of which it is a part."""
    return table.whole if isinstance(table, PartOfTable) else table


def lazy_rows(table: Table, *columns: str) -> pl.LazyFrame:
    """Return the rows of a table, or some columns of them, yet to be read."""
    rows = whole_of(table).lazy().select(columns or pl.all())
    if isinstance(table, PartOfTable):
        return rows.select(pl.all().gather(pl.Series(table.positions)))
    return rows


def rows_of(table: Table, *columns: str) -> pl.DataFrame:
    """Return the rows of a table, or some columns of them, read anew."""
    return lazy_rows(table, *columns).collect()


def rows_in_parts(
    table: WholeTable, *columns: str, num_rows: int = ROWS_PER_GROUP
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a table, or some columns of them, of which so many are in memory."""
    rows = table.lazy().select(columns or pl.all())
    return rows.collect_batches(chunk_size=num_rows, maintain_order=True)


def of_ids(table: Table, make: Callable[[pl.Series], NDArray[Any]]) -> NDArray[Any]:
    """Return what a function makes of the ids of a table, a few of which are in memory at a time.

    Args:
        table: with the column ``sample_id``.
        make: returns an array for some ids, shape (ids, ...).
    """
    parts = (part.to_series() for part in rows_in_parts(whole_of(table), "sample_id"))
    found = np.concatenate([make(pl.Series([], dtype=pl.String)), *map(make, parts)])
    return found[table.positions] if isinstance(table, PartOfTable) else found


def id_numbers(table: Table) -> NDArray[np.uint64]:
    """Return a number for each id, shape (rows,): in their order where they are hashes."""
    with suppress(ValueError):
        return of_ids(table, _first_halves)
    return of_ids(table, lambda ids: ids.hash().to_numpy())


def positions_by_id(table: Table) -> NDArray[np.int64]:
    """Return the positions of all rows in the order of their ids."""
    # As ids are hashes, halves of them are in the same order, and take a sixth of the memory.
    with suppress(ValueError):
        halves = of_ids(table, _first_halves)
        order = np.argsort(halves)
        halves = halves[order]
        if (halves[1:] != halves[:-1]).all():
            return order
    return rows_of(table, "sample_id")["sample_id"].arg_sort().to_numpy().astype(np.int64)


def _first_halves(sample_ids: pl.Series) -> NDArray[np.uint64]:
    """Return the first half of ids of 32 hexadecimal digits as a number each, shape (ids,)."""
    digits = "".join(sample_ids)
    if len(digits) != 32 * len(sample_ids):
        raise ValueError("ids of other lengths")
    return np.frombuffer(bytes.fromhex(digits), ">u8")[::2].astype(np.uint64)
