"""Rows of a file of which one alone is no sample: they wait in a file, and come back together."""

import pickle
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.ingest.rows import (
    DEFAULT_LIMITS,
    Gather,
    RawRow,
    RejectionError,
    made_of,
    rejected_row,
)
from zip_pipeline.pool.parts import GrowingTable

_SCHEMA = {"raw": pl.Binary}


class Gathered:
    """The rows of one file and format; of each but its links are in a file.

    Args:
        gather: tells what they make together.
        scratch: where to make the folder of the file; None for the one of temporary files.
    """

    def __init__(self, gather: Gather, scratch: Path | None) -> None:
        self._gather = gather
        self._waiting = GrowingTable(partial(pl.DataFrame, schema=_SCHEMA), scratch)
        self._num_characters = array("q")
        self._names = array("Q")
        self._above = array("Q")

    def add(self, row: RawRow) -> None:
        """Take in a row that has a record."""
        name, above = self._gather.links(row.record or {})
        # A row without a name is one of its own; names that are mixed up only wait together.
        own = _number(f"row {len(self._names)}" if name is None else f"name {name}")
        self._names.append(own)
        self._above.append(own if above is None else _number(f"name {above}"))
        self._num_characters.append(len(row.raw))
        self._waiting.add({"raw": pickle.dumps(row, pickle.HIGHEST_PROTOCOL)})

    def rows(self) -> Iterator[RawRow]:
        """Yield what the rows make together, those first whose first row, or root, came first."""
        waiting = self._waiting.finish()
        tops = _tops(self._names, self._above)
        num_characters = np.bincount(tops, self._num_characters)
        order = pl.Series(np.argsort(tops, kind="stable"))
        blobs = (blob for part in waiting.gather(order).each() for blob in part["raw"])
        # What is read here was written above, into a folder that nobody else may enter.
        rows = (pickle.loads(blob) for blob in blobs)
        for top, group in groupby(zip(tops[order], rows, strict=True), key=itemgetter(0)):
            yield from self._together((row for _, row in group), int(num_characters[top]))

    def _together(self, rows: Iterable[RawRow], num_characters: int) -> Iterable[RawRow]:
        """Return what the rows of a group make; what one row may not, they may not together."""
        if num_characters > DEFAULT_LIMITS.max_row_bytes:
            detail = f"{num_characters} characters belong together, allowed are"
            why = RejectionError("row_too_long", f"{detail} {DEFAULT_LIMITS.max_row_bytes}")
            return (_refused(row, why) for row in rows)
        held = list(rows)
        try:
            return made_of(num_characters, self._gather.rows(held))
        except RejectionError as why:
            return [_refused(row, why) for row in held]


def _refused(row: RawRow, why: RejectionError) -> RawRow:
    return rejected_row(row.source_file, row.source_row, row.raw, why)


def _number(name: str) -> int:
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _tops(names: Sequence[int], above: Sequence[int]) -> NDArray[np.int64]:
    """Return for each row the one that it hangs from in the end, which hangs from none.

    Args:
        names: of each row; several with one name are one.
        above: the name of the row that it hangs from; its own, or one that no row has, for none.

    Returns:
        Positions, shape (rows,); where rows hang from one another in a circle, the first of them.
    """
    known, firsts, numbers = np.unique(
        np.array(names, np.uint64), return_index=True, return_inverse=True
    )
    wanted = np.array(above, np.uint64)
    places = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
    own = firsts[numbers]
    up = np.where((own == np.arange(len(own))) & (known[places] == wanted), firsts[places], own)
    lowest = np.arange(len(up))
    # After each step it looks twice as far up.
    for _ in range(len(up).bit_length() + 1):
        lowest = np.minimum(lowest, lowest[up])
        up = up[up]
    return lowest[up]
