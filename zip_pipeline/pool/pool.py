"""The pool of a stage as a selection needs it: narrow in memory, everything else on disk."""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.state import TokenCounter, texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.data_root import StageFolder
from zip_pipeline.files import fingerprint, row_group_heights, scan_table
from zip_pipeline.pool.batches import (
    SIZES_SCHEMA,
    IngestResult,
    Metadata,
    all_batches,
    check_table,
    gone_error,
    in_small_parts,
    left_out_files,
    read_sizes,
    recorded_origins,
    refuse_gone,
    split_duplicates,
    stored_batches,
    unread_fields,
)
from zip_pipeline.pool.held_out import HeldOut, HeldOutSettings, freeze_held_out, read_held_out
from zip_pipeline.pool.ngrams import batch_ngrams
from zip_pipeline.pool.parts import Parts
from zip_pipeline.samples import TURN_COLUMNS, Stage, pool_schema, with_all_columns
from zip_pipeline.tables import TemporaryTable


@dataclass(frozen=True)
class AssembledPool:
    """The eligible samples of all batches, and what became of the other rows.

    Args:
        parts: the pool table, batches in the order of their names; of equal samples the first.
            It may have some of its columns only, then so has ``held_out``.
        duplicates: samples that repeat one of an earlier batch, and that sample.
        held_out: the samples of the batches that are kept for evaluation.
        frozen: the held-out set of the stage, None where there is none.
        fingerprints: the fingerprint of each batch.
        num_rows_read: rows of all batches.
        num_quarantined: rejected rows of all batches.
        num_batch_duplicates: rows that repeat a sample of their own batch.
        unread: fields that no format reads, and in how many samples of the batches each stands.
        left_out_files: files of the batches that are for tests or validation, and so not read.
        origins: where each batch was fetched from that was.
    """

    parts: Parts
    duplicates: pl.DataFrame
    held_out: pl.DataFrame
    frozen: HeldOut | None
    fingerprints: dict[str, str]
    num_rows_read: int
    num_quarantined: int
    num_batch_duplicates: int
    unread: Mapping[str, int]
    left_out_files: Sequence[str]
    origins: Mapping[str, Mapping[str, str]]

    def __post_init__(self) -> None:
        num_kept = self.parts.height + self.num_quarantined + self.num_duplicates
        num_kept += self.num_held_out
        assert num_kept == self.num_rows_read, f"{self.num_rows_read} rows read, {num_kept} kept"

    @cached_property
    def samples(self) -> pl.DataFrame:
        """The ``parts``, whole in memory."""
        return self.parts.frame()

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
    tables: Parts,
    metadata: Mapping[str, Metadata],
    freeze: Callable[[Parts], HeldOut | None],
) -> AssembledPool:
    """Return the samples of all batches as one pool, in their order.

    Args:
        tables: some or all columns of a pool table, at least ``sample_id`` and its place.
        metadata: fingerprint and counts of each batch.
        freeze: returns the held-out set, given all samples without duplicates.
    """
    samples, duplicates = split_duplicates(tables)
    frozen = freeze(samples)
    none = samples.schema.to_frame()
    samples, held_out = frozen.split(samples) if frozen else (samples, none)

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
        unread=unread_fields(metadata.values()),
        left_out_files=left_out_files(metadata.values()),
        origins={b: json.loads(m["origin"]) for b, m in metadata.items() if "origin" in m},
    )


def assemble_results(stage: Stage, results: Mapping[str, IngestResult]) -> AssembledPool:
    """Return the pool of batches that are in memory, in the order of the mapping."""
    tables = [pool_schema(stage).to_frame(), *(result.samples for result in results.values())]
    metadata = {batch: result.metadata() for batch, result in results.items()}
    return assemble(Parts.of(pl.concat(tables, rechunk=False)), metadata, lambda _: None)


def assemble_pool(folder: StageFolder) -> AssembledPool:
    """Return the pool of all ingested batches of a stage, whole in memory.

    Batches come in the order of their names; a sample that an earlier batch has is left out and
    recorded, so batches stay independent of one another on disk. So is what the stage holds out.

    Raises:
        UserError: a batch is incomplete, as after a stopped ingestion, or the file of held-out
            samples is wrong.
    """
    found = stored_batches(folder)
    tables = [pool_schema(folder.stage).to_frame(), *(_read(folder, batch) for batch in found)]
    whole = Parts.of(pl.concat(tables, rechunk=False))
    return assemble(whole, found, lambda _: read_held_out(folder))


def _read(folder: StageFolder, batch: str) -> pl.DataFrame:
    check_table(folder, batch)
    return with_all_columns(scan_table(folder.samples(batch)), folder.stage).collect()


def pool_fingerprint(folder: StageFolder) -> str:
    """Return the hash of the batches and their fingerprints, without reading any rows.

    Raises:
        UserError: a batch is incomplete, as after a stopped ingestion.
    """
    found = stored_batches(folder).items()
    return fingerprint(part for batch, data in found for part in (batch, data["fingerprint"]))


_PROVENANCE = ("sample_id", "batch", "source", "source_file", "source_row")
# Of names that many samples share each sample keeps a number.
_SHARED = ("batch", "source", "source_file")
_PLACE = ("batch_number", "row")


@dataclass(frozen=True)
class StoredBatch:
    """One batch of a pool that is open.

    Args:
        name: as the drop's.
        fingerprint: hash of its content.
        num_samples: its rows.
        path: its pool table.
        positions: which of its rows are of the index, ascending.
    """

    name: str
    fingerprint: str
    num_samples: int
    path: Path
    positions: NDArray[np.int64]

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(row_group_heights(self.path))

    def parts(self, start: int, end: int) -> Iterator[pl.DataFrame]:
        """Yield its rows from one on to before another, some megabytes at a time."""
        inside = self._ends[(self._ends > start) & (self._ends < end)].tolist()
        for first, last in pairwise((start, *inside, end)):
            yield from in_small_parts(scan_table(self.path).slice(first, last - first).collect())


class StoredTables:
    """The samples of all batches of a stage as they are when this is made.

    A place of a sample is the number of its batch among ``batches`` and its row in that batch,
    the columns ``batch_number`` and ``row`` of a table. The places of the whole pool ascend.

    Args:
        folder: of the stage, as ``root["sft"]``.
        links: an empty folder on the data root's disk; it gets a second name of each file, so
            that a batch that is replaced meanwhile can be read as it was.

    Raises:
        UserError: a batch is incomplete or gone (see :func:`.all_batches`), or its columns are
            of another release.
    """

    def __init__(self, folder: StageFolder, links: Path) -> None:
        self._folder = folder
        self._links = links
        self.metadata: dict[str, Metadata] = {}
        # Once more where a batch came, or came again, while the files were linked.
        while (found := all_batches(folder, self.metadata)) != self.metadata:
            self.metadata = found
            self._keep()
        self.batches = list(self.metadata)

    def _keep(self) -> None:
        """Link the files of all batches."""
        for batch in self.metadata:
            try:
                check_table(self._folder, batch)
                _link(self._folder.samples(batch), self._table(batch))
            except FileNotFoundError as error:
                raise gone_error(self._folder, [batch]) from error

    def _table(self, batch: str) -> Path:
        return self._links / f"{batch}.parquet"

    def batch(self, number: int, positions: NDArray[np.int64]) -> StoredBatch:
        """Return a batch of which the samples at some positions are of the index."""
        name = self.batches[number]
        path, metadata = self._table(name), self.metadata[name]
        num_samples = int(metadata["num_samples"])
        return StoredBatch(name, metadata["fingerprint"], num_samples, path, positions)

    def provenance(self) -> Parts:
        """Return where the samples of all batches come from, and their places."""
        provenance = (pl.col(n).cast(pl.Categorical) if n in _SHARED else n for n in _PROVENANCE)
        columns = list(provenance)
        none = pool_schema(self._folder.stage).to_frame().select(columns)
        none = none.with_columns(pl.lit(0, pl.UInt32).alias(name) for name in _PLACE)
        found = Parts(none, self._folder.root.cache)
        for number, batch in enumerate(self.batches):
            stored, start = scan_table(self._table(batch)).select(columns), 0
            for part in stored.collect_batches(maintain_order=True):
                end = start + part.height
                row = pl.int_range(start, end, dtype=pl.UInt32)
                found.append(part.with_columns(batch_number=pl.lit(number, pl.UInt32), row=row))
                start = end
        return found

    def rows(self, samples: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of the pool table (``pool_schema``) of samples at any places."""
        placed = self.rows_with(samples.select(_PLACE).with_row_index("place"))
        return placed.frame().sort("place").drop("place")

    def rows_with(self, samples: pl.DataFrame) -> Parts:
        """Return the rows of the pool table of samples at any places, as they are stored.

        Args:
            samples: their places, and columns that are put beside the rows.
        """
        ordered = samples.sort(_PLACE)
        beside = ordered.drop(_PLACE)
        columns = pool_schema(self._folder.stage)
        found = Parts(columns.to_frame().hstack(beside.clear()), self._folder.root.cache)
        start = 0
        for rows in self.parts(ordered.select(_PLACE), columns.names()):
            found.append(_own_copy(rows).hstack(beside[start : start + rows.height]))
            start += rows.height
        return found

    def said(self, samples: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Yield what is said in the samples at ascending places, some thousands at a time."""
        columns = (*TURN_COLUMNS[self._folder.stage], "tools")
        return self.parts(samples.select(_PLACE), columns)

    def parts(self, places: pl.DataFrame, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield columns of the samples at ascending places, some megabytes at a time."""
        for number, rows in _by_batch(places):
            path = self._table(self.batches[number])
            table = with_all_columns(scan_table(path), self._folder.stage).select(columns)
            ends = np.cumsum(row_group_heights(path))
            for wanted in np.split(rows, np.searchsorted(rows, ends)):
                if len(wanted):
                    first, last = int(wanted[0]), int(wanted[-1])
                    part = table.slice(first, last - first + 1).collect()
                    yield from in_small_parts(part[wanted - first])


def _by_batch(places: pl.DataFrame) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the number of each batch among ascending places, and its rows."""
    numbers, starts = np.unique(places["batch_number"].to_numpy(), return_index=True)
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


_PREFIX = ".tmp-pool-"


class SelectionPool:
    """What :func:`.assemble_pool` gives, of which only where samples lie is in memory.

    It reads the batches as they were when it was opened, whatever becomes of them.

    Args:
        folder: of the stage, as ``root["sft"]``.
        pool: the assembled pool; its samples have no turns and no raw record.
        tables: the stored samples.
    """

    def __init__(self, folder: StageFolder, pool: AssembledPool, tables: StoredTables) -> None:
        self._folder = folder
        self._tables = tables
        self.stored_index = TemporaryTable([pool.parts.scan()], folder.root.cache)
        """The provenance and place of every eligible sample, in the order of the pool."""
        self.num_samples = pool.parts.height
        self.duplicates = pool.duplicates
        """The samples that repeat one of an earlier batch, and that sample."""
        self.held_out = pool.held_out
        """The provenance of the samples that are kept for evaluation."""
        self.frozen = pool.frozen
        """The held-out set of the stage, None where there is none."""
        self.fingerprints: Mapping[str, str] = pool.fingerprints
        """The fingerprint of each batch."""
        self.counts = pool.counts
        """What became of all rows, as a version records it."""
        self.not_read: dict[str, object] = {
            "unread_fields": dict(pool.unread),
            "left_out_files": list(pool.left_out_files),
        }
        """What a version records of what was not read: fields with counts, and files."""
        self.origins = recorded_origins(pool.origins)
        """What a version records of batches that were fetched: their address and revision."""

    @property
    def _places(self) -> pl.DataFrame:
        """The place of every sample of the index, read anew: 8 bytes each."""
        return self.stored_index.lazy().select(_PLACE).collect()

    @property
    def index(self) -> pl.DataFrame:
        """The ``stored_index``, read anew: in memory it takes some 70 bytes a sample."""
        return self.stored_index.lazy().collect()

    @cached_property
    def texts(self) -> TemporaryTexts:
        """The serialised samples of the index, written to a file when first asked for."""
        parts = self._tables.said(self._places)
        texts = (texts_of(part, self._folder.stage) for part in parts)
        return TemporaryTexts.write(texts, self._folder.root.cache)

    @cached_property
    def ngrams(self) -> TemporaryTexts:
        """The n-gram counts of the index, written to a file when first asked for.

        A batch is counted once; what is counted is stored beside its state.
        """
        return TemporaryTexts.write(self._ngrams(), self._folder.root.cache)

    def _ngrams(self) -> Iterator[list[bytes]]:
        for number, rows in _by_batch(self._places):
            batch = self._tables.batches[number]
            metadata = self._tables.metadata[batch]
            row = pl.int_range(int(metadata["num_samples"]), dtype=pl.UInt32, eager=True)
            whole = pl.select(batch_number=pl.lit(number, pl.UInt32), row=row)

            def texts(whole: pl.DataFrame = whole) -> Iterator[list[bytes]]:
                return (texts_of(part, self._folder.stage) for part in self._tables.said(whole))

            start = 0
            for counts in batch_ngrams(self._folder, batch, metadata["fingerprint"], texts):
                end = start + len(counts)
                first, last = np.searchsorted(rows, (start, end))
                yield [counts[row - start] for row in rows[first:last].tolist()]
                start = end

    def batches(self) -> Iterator[StoredBatch]:
        """Yield the batches as they were when the pool was opened, in their order."""
        for number, rows in _by_batch(self._places):
            yield self._tables.batch(number, rows)

    @property
    def state(self) -> pl.DataFrame:
        """The stored compression state of each sample of the index: tokens and sizes alone.

        Raises:
            UserError: a batch has none, or one that describes an earlier form of the batch.
        """
        index, start, parts = self.stored_index.lazy(), 0, [SIZES_SCHEMA.to_frame()]
        num_of_batch = dict(self._places["batch_number"].value_counts().iter_rows())
        for number, batch in enumerate(self._tables.batches):
            num_samples = num_of_batch.get(number, 0)
            parts.append(read_sizes(self._folder, batch, index.slice(start, num_samples)))
            start += num_samples
        return pl.concat(parts)

    def count_tokens(self, tokens: TokenCounter) -> pl.DataFrame:
        """Return the tokens of each sample of the index, counted now (``TOKENS_SCHEMA``)."""
        parts = self._tables.said(self._places)
        return pl.concat(tokens.count(part, self._folder.stage) for part in parts)

    def numbers(self, field: str) -> pl.Series:
        """Return a number of each record of the index, null where it has none.

        Args:
            field: its name in the record as it came; dots lead into nested fields. Of pairs
                ``chosen_score`` and ``rejected_score`` are what was read as those.
        """
        path = "$" + "".join(f"[{json.dumps(name)}]" for name in field.split("."))
        number = pl.col("raw").str.json_path_match(path).cast(pl.Float64, strict=False)
        is_read = pool_schema(self._folder.stage).get(field) == pl.Float64
        number = pl.coalesce(field, number) if is_read else number
        columns = ["raw", field] if is_read else ["raw"]
        parts = self._tables.parts(self._places, columns)
        found = [part.select(number.alias(field))[field] for part in parts]
        return pl.concat([pl.Series(field, [], pl.Float64), *found])

    def rows(self, positions: Sequence[int] | pl.Series) -> pl.DataFrame:
        """Return the rows of the pool table at these positions of the index, in this order."""
        return self._tables.rows(self._places[positions])

    def said(self, positions: Sequence[int]) -> Iterator[pl.DataFrame]:
        """Yield what is said at ascending positions of the index, some thousands at a time."""
        return self._tables.said(self._places[positions])

    def picked_rows(self, picks: NDArray[np.int64], told: pl.DataFrame) -> Parts:
        """Return the rows at ``picks`` in pick order, with what is told of each.

        Args:
            picks: positions in the index, in pick order.
            told: of each pick its ``rank``, which ascends, and what else is known.

        Returns:
            The pool table's rows with those.
        """
        return self._tables.rows_with(self._places[picks].hstack(told)).sorted("rank")

    def close(self) -> None:
        """Remove the files that were written."""
        self.stored_index.close()
        for name in ("texts", "ngrams"):
            if name in self.__dict__:
                getattr(self, name).close()


@contextmanager
def open_selection_pool(
    folder: StageFolder, *, hold_out: HeldOutSettings | None = None
) -> Iterator[SelectionPool]:
    """Open the pool of all ingested batches of a stage; the block's end removes what it needed.

    Batches that come, or come again, within the block make no difference to what is read.

    Args:
        folder: of the stage, as ``root["sft"]``.
        hold_out: what sources that are new to the pool keep for evaluation, frozen right now
            (:func:`.freeze_held_out`); None leaves the frozen set as it is.

    Raises:
        UserError: a batch is incomplete, or gone (:func:`.all_batches`), also by the end of
            the block; the settings or the file of held-out samples are wrong.
    """
    folder.root.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder.root.cache) as links:
        tables = StoredTables(folder, Path(links))

        def freeze(samples: Parts) -> HeldOut | None:
            frozen = read_held_out(folder)
            if hold_out is None:
                return frozen
            left = frozen.split(samples)[0] if frozen else samples
            return freeze_held_out(folder, left, hold_out, tables.rows)

        # Nothing here holds what is assembled.
        opened = SelectionPool(
            folder, assemble(tables.provenance(), tables.metadata, freeze), tables
        )
        try:
            yield opened
        finally:
            opened.close()
        refuse_gone(folder, opened.fingerprints)
