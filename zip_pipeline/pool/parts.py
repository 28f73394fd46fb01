"""A table that may be larger than memory, in parts that lie in files."""

import shutil
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from zip_pipeline.files import ROWS_PER_GROUP, TEMPORARY, named

_PART_BYTES = 1 << 23
# The list of all of them is read again and again.
_MOST_ROW_GROUPS = 1 << 11
_NUM_BUFFERED_ROWS = 1 << 12
_BUFFERED_CHARACTERS = 1 << 23

Rows: TypeAlias = list[dict[str, Any]]


class Parts:
    """A table in parts of some megabytes; all but the last lie in files until nobody holds it.

    Args:
        none: the table without rows.
        scratch: where to make the folder of the files; None for the one of temporary files.
    """

    def __init__(self, none: pl.DataFrame, scratch: Path | None = None) -> None:
        self.schema = none.schema
        self.height = 0
        self._scratch = scratch
        self._folder: Path | None = None
        self._stored: list[Path] = []
        self._rows = [none]
        self._num_bytes = 0

    @classmethod
    def of(cls, table: pl.DataFrame) -> "Parts":
        """Return a table that is in memory."""
        parts = cls(table)
        parts.height = table.height
        return parts

    def append(self, rows: pl.DataFrame) -> None:
        """Add rows; what has become a part goes to a file."""
        self.height += rows.height
        self._rows.append(rows)
        self._num_bytes += int(rows.estimated_size())
        if self._num_bytes >= _PART_BYTES:
            part = pl.concat(self._rows)
            self._stored.append(self._store(part, f"{len(self._stored)}"))
            self._rows, self._num_bytes = [part.clear()], 0

    def _store(self, rows: pl.DataFrame, name: str) -> Path:
        if self._folder is None:
            if self._scratch is not None:
                self._scratch.mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(prefix=f"{TEMPORARY}ingest-", dir=self._scratch)
            self._folder = Path(folder)
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        path = self._folder / name
        with named(path):
            rows.write_ipc(path)
        return path

    def scan(self) -> pl.LazyFrame:
        """Return all rows, yet to be read; this table must be held meanwhile."""
        rest = pl.concat(self._rows, rechunk=False)
        if not self._stored:
            return rest.lazy()
        # As one scan of files: what polars concatenates it holds whole.
        if rest.height:
            self._stored.append(self._store(rest, f"{len(self._stored)}"))
            self._rows, self._num_bytes = [rest.clear()], 0
        return pl.scan_ipc(self._stored, glob=False)

    def select(self, *columns: str | pl.Expr) -> pl.DataFrame:
        """Return columns of all rows."""
        return self.scan().select(columns).collect()

    def frame(self) -> pl.DataFrame:
        """Return all rows."""
        return self.scan().collect()

    def each(self, *columns: str) -> Iterator[pl.DataFrame]:
        """Yield the parts, or columns of them, in order."""
        stored = (pl.scan_ipc(path, glob=False) for path in self._stored)
        for part in (*stored, pl.concat(self._rows, rechunk=False).lazy()):
            yield (part.select(columns) if columns else part).collect()

    def columns(self, names: Sequence[str]) -> Iterator[tuple[str, Iterator[pl.Series]]]:
        """Yield each of some columns, in parts."""
        for name in names:
            yield name, map(itemgetter(name), self.each(name))

    def map(self, change: Callable[[pl.DataFrame], pl.DataFrame], *columns: str) -> "Parts":
        """Return what a function makes of each part, or of columns of it."""
        changed: Parts | None = None
        for part in self.each(*columns):
            rows = change(part)
            changed = changed or Parts(rows.clear(), self._scratch)
            changed.append(rows)
        assert changed is not None
        return changed

    def filter(self, mask: pl.Series, *columns: str) -> "Parts":
        """Return the rows at which ``mask`` is true, or columns of them."""
        if mask.all() and not columns:
            return self
        kept = Parts(self.schema.to_frame().select(columns or pl.all()), self._scratch)
        # Most pools have no duplicates, and need not be read for them.
        if not mask.any():
            return kept
        start = 0
        for part in self.each(*columns):
            kept.append(part.filter(mask[start : start + part.height]))
            start += part.height
        return kept

    def sorted(self, *by: str) -> "Parts":
        """Return the rows in the order of some columns, equal ones as they are.

        See :meth:`gather`.
        """
        order = self.select(*by).select(pl.arg_sort_by(by, maintain_order=True)).to_series()
        return self.gather(order)

    def gather(self, order: pl.Series) -> "Parts":
        """Return the rows at some positions, each of them once, in this order.

        A few parts are in memory at a time: rows go to the file of their place, by the bytes of
        their column ``raw``, and each file is put in order by itself.
        """
        if order.is_sorted():
            return self
        if not self._stored:
            return Parts.of(self.frame()[order])
        found = Parts(self.schema.to_frame(), self._scratch)
        place = order.arg_sort()
        num_bytes = self.select(pl.col("raw").cast(pl.Binary).bin.size().cast(pl.Int64))["raw"]
        bucket = (num_bytes[order].cum_sum() // _PART_BYTES)[place]
        places = pl.DataFrame({"place": place, "bucket": bucket})
        files: dict[int, list[Path]] = defaultdict(list)
        start = 0
        for number, part in enumerate(self.each()):
            rows = part.hstack(places[start : start + part.height])
            start += part.height
            for inside in rows.partition_by("bucket"):
                into = inside["bucket"][0]
                files[into].append(found._store(inside, f"{into}-{number}"))
        for _, pieces in sorted(files.items()):
            rows = pl.scan_ipc(pieces, glob=False).sort("place").collect()
            found.append(rows.select(self.schema.names()))
        return found

    def row_groups(self) -> Iterator[pl.DataFrame]:
        """Yield all rows, some megabytes at a time; more of a table of many gigabytes."""
        num_bytes = sum(path.stat().st_size for path in self._stored)
        most_rows = max(ROWS_PER_GROUP, self.height // _MOST_ROW_GROUPS)
        rows = self.schema.to_frame()
        for part in self.each():
            rows.vstack(part, in_place=True)
            if rows.estimated_size() >= num_bytes // _MOST_ROW_GROUPS:
                yield from rows.iter_slices(most_rows)
                rows = rows.clear()
        yield from rows.iter_slices(most_rows)
        if not self.height:
            yield rows


class GrowingTable:
    """A table that grows by rows, a few thousand of which are Python objects at a time.

    Args:
        frame_of_rows: returns rows, of which each has ``raw``, as a table.
        scratch: as for :class:`Parts`.
    """

    def __init__(self, frame_of_rows: Callable[[Rows], pl.DataFrame], scratch: Path | None) -> None:
        self._frame_of_rows = frame_of_rows
        self._parts = Parts(frame_of_rows([]), scratch)
        self._rows: Rows = []
        self._num_characters = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self._rows.append(row)
        self._num_characters += len(row["raw"])
        is_long = self._num_characters >= _BUFFERED_CHARACTERS
        if is_long or len(self._rows) >= _NUM_BUFFERED_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._parts.append(self._frame_of_rows(self._rows))
        self._rows, self._num_characters = [], 0

    def finish(self) -> Parts:
        """Return all rows."""
        self._flush()
        return self._parts
