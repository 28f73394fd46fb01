"""Ingested batches on disk: three tables that belong together."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.state import (
    TOKENS_SCHEMA,
    TextTokens,
    TokenCounter,
    compression_state,
    state_settings,
    token_settings,
)
from zip_pipeline.compression.texts import parts_of
from zip_pipeline.data_root import StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.files import (
    ROWS_PER_GROUP,
    fingerprint,
    read_metadata,
    read_row_groups,
    readable,
    scan_table,
)
from zip_pipeline.pool.parts import Parts
from zip_pipeline.process import return_freed_memory
from zip_pipeline.samples import TURN_COLUMNS, pool_schema, with_all_columns

Metadata = Mapping[str, str]
BATCH_DUPLICATES_SCHEMA = pl.Schema(
    {
        "sample_id": pl.String,
        "source_file": pl.String,
        "source_row": pl.Int64,
        "first_source_file": pl.String,
        "first_source_row": pl.Int64,
    }
)


class BatchTables(NamedTuple):
    """The three tables of a batch.

    Args:
        samples: the pool table (``pool_schema``), in reading order.
        quarantine: the rejected rows with reason, detail and raw text.
        duplicates: the rows that repeat an earlier sample of the batch, and that sample.
    """

    samples: Parts
    quarantine: Parts
    duplicates: Parts


@dataclass(frozen=True)
class IngestResult:
    """What became of every row of a batch.

    Args:
        tables: what it holds, of which little is in memory.
        num_rows_read: all rows; each is in exactly one of the three tables.
        fingerprint: hash of the three tables' content.
        unread: fields that no format reads, and in how many samples they hold something.
        left_out_files: files of a folder that are for tests or validation, and so are not read.
        origin: address and revision of what was fetched for it; empty where it lay here.
    """

    tables: BatchTables
    num_rows_read: int
    fingerprint: str
    unread: Mapping[str, int] = field(default_factory=dict)
    left_out_files: tuple[str, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_kept = sum(table.height for table in self.tables)
        assert num_kept == self.num_rows_read, f"{self.num_rows_read} rows read, {num_kept} kept"

    @property
    def samples(self) -> pl.DataFrame:
        """The pool table, whole in memory."""
        return self.tables.samples.frame()

    @property
    def quarantine(self) -> pl.DataFrame:
        """The rejected rows, whole in memory."""
        return self.tables.quarantine.frame()

    @property
    def duplicates(self) -> pl.DataFrame:
        """The rows that repeat an earlier sample of the batch."""
        return self.tables.duplicates.frame()

    def in_memory(self) -> "IngestResult":
        """Return the same without files, which somebody may remove."""
        return replace(self, tables=BatchTables(*(Parts.of(t.frame()) for t in self.tables)))

    def metadata(self) -> dict[str, str]:
        """Return what is stored with each of the three tables."""
        counts = {
            "num_rows_read": self.num_rows_read,
            "num_samples": self.tables.samples.height,
            "num_quarantined": self.tables.quarantine.height,
            "num_duplicates": self.tables.duplicates.height,
        }
        return {
            "fingerprint": self.fingerprint,
            "unread": json.dumps(self.unread),
            "left_out_files": json.dumps(self.left_out_files),
            **({"origin": json.dumps(dict(self.origin))} if self.origin else {}),
            **{name: str(count) for name, count in counts.items()},
        }


def batch_fingerprint(tables: BatchTables) -> str:
    """Return the hash of a batch's content; it does not depend on times or library versions.

    Turns, tools, media and scores go in through the sample ids and the raw records, so a batch
    keeps its hash when a release adds columns for what is in them.
    """
    schema = tables.samples.schema
    of_samples = [n for n, dtype in schema.items() if dtype in (pl.String, pl.Int64)]
    wanted = (
        (tables.samples, [name for name in of_samples if name not in ("tools", "media")]),
        (tables.quarantine, tables.quarantine.schema.names()),
        (tables.duplicates, tables.duplicates.schema.names()),
    )
    return fingerprint(
        value
        for table, names in wanted
        for name, column in table.columns(names)
        for value in chain([name, str(table.height)], _texts(column))
    )


def _texts(column: Iterable[pl.Series]) -> Iterator[str]:
    """Yield the values of a column as texts, of which a few are Python objects at a time."""
    for part in column:
        for rows in part.to_frame().iter_slices(1 << 10):
            yield from rows.to_series().cast(pl.String).fill_null("")


def write_batch(folder: StageFolder, batch: str, result: IngestResult) -> None:
    """Write the three tables of a batch; the pool table comes last and completes the batch.

    A writer killed in between leaves tables with different fingerprints, which
    :func:`batch_metadata` refuses.
    """
    metadata = result.metadata()
    samples, quarantine, duplicates = result.tables
    for path, table in (
        (folder.quarantine(batch), quarantine),
        (folder.duplicates(batch), duplicates),
        (folder.samples(batch), samples),
    ):
        folder.write(path, table.row_groups(), metadata)


_COUNTS = ("num_rows_read", "num_samples", "num_quarantined", "num_duplicates")
_METADATA = ("fingerprint", *_COUNTS, "unread", "left_out_files", "origin")


def batch_metadata(folder: StageFolder, batch: str) -> dict[str, str]:
    """Return a batch's fingerprint and counts, without reading its rows.

    Raises:
        UserError: the batch is not ingested, or its tables do not belong together.
    """
    paths = (folder.samples(batch), folder.quarantine(batch), folder.duplicates(batch))
    remedy = f"ingest the batch {batch!r} of {folder.stage} again"
    metadata = []
    for path in paths:
        with readable(path, remedy):
            metadata.append(read_metadata(path))
    if len({m.get("fingerprint") for m in metadata}) > 1 or "fingerprint" not in metadata[0]:
        raise UserError(
            f"{paths[0]}: the tables of the batch differ in fingerprint, as after a stopped "
            f"ingestion; {remedy}"
        )
    if missing := [name for name in _COUNTS if not metadata[0].get(name, "").isdigit()]:
        raise UserError(f"{paths[0]}: does not tell {missing[0]}, so it is no pool table; {remedy}")
    # Batches of older releases do not tell what was not read.
    found = {key: metadata[0][key] for key in _METADATA if key in metadata[0]}
    return {"unread": "{}", "left_out_files": "[]", **found}


def unread_fields(batches: Iterable[Metadata]) -> dict[str, int]:
    """Return the fields that no format reads and in how many samples each stands, most first."""
    total: Counter[str] = Counter()
    for counts in batches:
        total.update(json.loads(counts["unread"]))
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def left_out_files(batches: Iterable[Metadata]) -> list[str]:
    """Return the files of batches that were not read, since they are for tests or validation."""
    return [name for counts in batches for name in json.loads(counts["left_out_files"])]


def origin_of(folder: StageFolder, batch: str) -> dict[str, str] | None:
    """Return where a stored batch was fetched from, None where there is none or it lay here."""
    # Of the table that completes a batch: a writer that was killed has not forgotten it.
    path = folder.samples(batch)
    stored = folder.metadata(path) if path.exists() else {}
    found: dict[str, str] | None = json.loads(stored.get("origin", "null"))
    return found


def recorded_origins(origins: Mapping[str, Mapping[str, str]]) -> dict[str, object]:
    """Return what a manifest records of batches that were fetched: address and revision."""
    names = ("address", "revision")
    found = {batch: {n: origin[n] for n in names} for batch, origin in origins.items() if origin}
    return {"origins": found} if found else {}


def is_ingested(folder: StageFolder, batch: str) -> bool:
    """Return whether the batch is there, whole."""
    try:
        batch_metadata(folder, batch)
    except UserError:
        return False
    return True


def scan_batch(folder: StageFolder, batch: str) -> pl.LazyFrame:
    """Return the samples of a batch (``pool_schema``), yet to be read.

    Raises:
        UserError: as :func:`batch_metadata`, or the table has other columns.
    """
    batch_metadata(folder, batch)
    check_table(folder, batch)
    return with_all_columns(scan_table(folder.samples(batch)), folder.stage)


def read_batch(
    folder: StageFolder, batch: str, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return what :func:`scan_batch` does, or some columns of it, in memory."""
    rows = scan_batch(folder, batch)
    return (rows if columns is None else rows.select(columns)).collect()


def read_first_sample(folder: StageFolder, batch: str) -> pl.DataFrame:
    """Return the first row of the pool table of a batch, no row where it has none."""
    return with_all_columns(scan_table(folder.samples(batch)), folder.stage).head(1).collect()


_PART_BYTES = 1 << 23


def _said_in_parts(folder: StageFolder, batch: str) -> Iterator[pl.DataFrame]:
    """Return ids and what is said in the samples of a batch, some megabytes of them at a time."""
    columns = ["sample_id", *TURN_COLUMNS[folder.stage], "tools"]
    path = folder.samples(batch)
    rows = with_all_columns(scan_table(path), folder.stage)
    return in_parts(rows.select(columns), path)


def in_parts(rows: pl.LazyFrame, path: Path) -> Iterator[pl.DataFrame]:
    """Yield rows of a file in order, some megabytes of them at a time."""
    for group in read_row_groups(rows, path):
        yield from in_small_parts(group)


def in_small_parts(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield rows in order, some megabytes of text at a time, or one row that has more.

    What is made of a part is as large as it again and again, and long rows may follow short ones.
    """
    if rows.estimated_size() <= _PART_BYTES:
        yield rows
        return
    for places in parts_of(np.arange(rows.height), _num_bytes(rows), _PART_BYTES):
        yield rows.slice(int(places[0]), len(places))


def _num_bytes(rows: pl.DataFrame) -> NDArray[np.int64]:
    """Return how much text each row has in its columns and in its lists of turns."""
    sizes = []
    for name, dtype in rows.schema.items():
        if dtype == pl.String:
            sizes.append(pl.col(name).str.len_bytes())
        elif isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
            texts = [field.name for field in dtype.inner.fields if field.dtype == pl.String]
            of_turn = [pl.element().struct.field(text).str.len_bytes() for text in texts]
            sizes.append(pl.col(name).list.eval(pl.sum_horizontal(of_turn)).list.sum())
    return rows.select(pl.sum_horizontal(sizes).cast(pl.Int64)).to_series().to_numpy()


def check_table(folder: StageFolder, batch: str) -> None:
    """Raise UserError where the pool table of a batch was changed, or is of another release.

    This reads the whole table, once per process.
    """
    path = folder.samples(batch)
    folder.check(path)
    found = with_all_columns(scan_table(path), folder.stage).collect_schema()
    if found != pool_schema(folder.stage):
        raise UserError(f"{path}: the columns are of another release; ingest {batch!r} again")


def read_quarantine(
    folder: StageFolder, batch: str, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the rejected rows of a batch (``QUARANTINE_SCHEMA``), or some of their columns.

    Raises:
        UserError: as :func:`batch_metadata`.
    """
    batch_metadata(folder, batch)
    rows = folder.scan(folder.quarantine(batch))
    return (rows if columns is None else rows.select(columns)).collect()


PLACE = ("batch", "source_file", "source_row")

DUPLICATES_SCHEMA = pl.Schema(
    {
        "sample_id": pl.String,
        "batch": pl.String,
        "source_file": pl.String,
        "source_row": pl.Int64,
        "first_batch": pl.String,
        "first_source_file": pl.String,
        "first_source_row": pl.Int64,
    }
)


def split_duplicates(samples: Parts) -> tuple[Parts, pl.DataFrame]:
    """Split a pool table into the first sample of each ``sample_id`` and those that repeat it.

    Args:
        samples: a pool table; its row order decides which sample is the first.

    Returns:
        The first samples, and a table with one row per other sample that names it and the first
        (:data:`DUPLICATES_SCHEMA`), in the order of the input.
    """
    is_first, is_repeated = find_duplicates(samples)
    if is_first.all():
        return samples, DUPLICATES_SCHEMA.to_frame()
    firsts = samples.filter(is_first & is_repeated, "sample_id", *PLACE).frame()
    repeats = samples.filter(~is_first, "sample_id", *PLACE).frame()
    return samples.filter(is_first), with_firsts(repeats, firsts)


def find_duplicates(samples: Parts) -> tuple[pl.Series, pl.Series]:
    """Return whether each sample is the first of its id, and whether its id is there again.

    Of each id a hash is in memory, 8 bytes; the ids are compared where a hash is there twice.
    """
    parts = [_hashes(part["sample_id"]) for part in samples.each("sample_id")]
    hashes = np.concatenate(parts)
    ordered = np.sort(hashes)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    is_suspect = np.concatenate([_are_among(part, twice) for part in parts])
    ids = samples.filter(pl.Series(is_suspect), "sample_id").frame()["sample_id"]
    is_first, is_repeated = ~is_suspect, np.zeros(len(hashes), dtype=np.bool_)
    is_first[is_suspect] = ids.is_first_distinct().to_numpy()
    is_repeated[is_suspect] = ids.is_duplicated().to_numpy()
    return pl.Series(is_first), pl.Series(is_repeated)


def _hashes(sample_ids: pl.Series) -> NDArray[np.uint64]:
    return sample_ids.hash().to_numpy()


def _are_among(values: NDArray[np.uint64], ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(values), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    among: NDArray[np.bool_] = ascending[places] == values
    return among


def with_firsts(repeats: pl.DataFrame, firsts: pl.DataFrame) -> pl.DataFrame:
    """Return samples that repeat others, each with the first (:data:`DUPLICATES_SCHEMA`).

    Args:
        repeats: ``sample_id`` and ``PLACE`` of samples.
        firsts: of those that they repeat, and perhaps of others.
    """
    named = firsts.rename({name: f"first_{name}" for name in PLACE})
    duplicates = repeats.join(named, on="sample_id", how="left", maintain_order="left")
    # What a pool keeps as categories are words here.
    return duplicates.select(DUPLICATES_SCHEMA.names()).cast(DUPLICATES_SCHEMA)


SIZES_SCHEMA = pl.Schema(dict.fromkeys((*TOKENS_SCHEMA, "deflate_bytes", "zstd_bytes"), pl.Int64))


def write_state(
    folder: StageFolder,
    batch: str,
    *,
    tokens: TokenCounter | None = None,
    workers: int = 0,
) -> None:
    """Compute and store the compression state of an ingested batch.

    Tokens are counted by ``tokens``, else as :func:`.compression_state` does by itself.

    Raises:
        UserError: the batch is not ingested, or only half of it is.
    """
    pool_fingerprint = batch_metadata(folder, batch)["fingerprint"]
    return_freed_memory()
    check_table(folder, batch)
    tokens, stage = tokens or TextTokens(), folder.stage
    none = pool_schema(stage).to_frame()
    state = Parts(compression_state(none, stage, tokens=tokens, workers=1), folder.root.cache)
    # Part by part: a tokenizer takes some fifty bytes for each of a text.
    for part in _said_in_parts(folder, batch):
        state.append(compression_state(part, stage, tokens=tokens, workers=workers))
    _write_state(folder, batch, state, pool_fingerprint, state_settings(tokens))


def _write_state(
    folder: StageFolder,
    batch: str,
    state: Parts,
    pool_fingerprint: str,
    settings: Mapping[str, str],
) -> None:
    def csv() -> Iterator[str]:
        yield state.schema.to_frame().write_csv()
        yield from (part.write_csv(include_header=False) for part in state.each())

    described = {
        **settings,
        "pool_fingerprint": pool_fingerprint,
        "fingerprint": fingerprint([csv, *settings.values()]),
    }
    folder.write(folder.state(batch), state.row_groups(), described)


def counted_otherwise(folder: StageFolder, tokens: TokenCounter) -> dict[str, str]:
    """Return the batches whose stored tokens another counter counted, and whose tokens they are."""
    stored = {batch: state_metadata(folder, batch) or {} for batch in folder.batches()}
    return {
        batch: settings["tokenizer"]
        for batch, settings in stored.items()
        if "tokenizer" in settings and settings.get("tokenizer_identity") != tokens.identity
    }


def recount_tokens(folder: StageFolder, batch: str, tokens: TokenCounter) -> None:
    """Count the tokens of a batch's stored state anew; its sizes stay.

    Raises:
        UserError: there is no state, or it describes an earlier form of the batch.
    """
    stored, settings = scan_state(folder, batch), state_metadata(folder, batch)
    assert settings is not None
    check_table(folder, batch)
    kept_sizes = stored.drop(TOKENS_SCHEMA.names(), strict=False)
    none = tokens.count(pool_schema(folder.stage).to_frame(), folder.stage)
    state = Parts(kept_sizes.collect_schema().to_frame().hstack(none), folder.root.cache)
    for part in _said_in_parts(folder, batch):
        sizes = kept_sizes.slice(state.height, part.height).collect()
        if not part["sample_id"].equals(sizes["sample_id"]):
            raise _no_state(folder, batch)
        state.append(sizes.hstack(tokens.count(part, folder.stage)))
    of_file = ("pool_fingerprint", "fingerprint")
    kept = {name: value for name, value in settings.items() if name not in of_file}
    described = kept | token_settings(tokens)
    _write_state(folder, batch, state, settings["pool_fingerprint"], described)


def state_metadata(folder: StageFolder, batch: str) -> dict[str, str] | None:
    """Return the metadata of a batch's stored state, None where there is none."""
    path = folder.state(batch)
    return folder.metadata(path) if path.exists() else None


def measured_batches(folder: StageFolder) -> set[str]:
    """Return the batches that have a stored state, whichever form of them it describes."""
    paths = folder.state("any").parent.glob("[!.]*.parquet")
    return {path.name.removesuffix(".parquet") for path in paths}


def is_current(folder: StageFolder, batch: str) -> bool:
    """Return whether a batch's state describes the samples that are stored now."""
    state, samples = state_metadata(folder, batch), batch_metadata(folder, batch)
    return state is not None and state.get("pool_fingerprint") == samples["fingerprint"]


def read_state(folder: StageFolder, batch: str) -> pl.DataFrame:
    """Return the compression state of a batch, one row per sample in the same order.

    Raises:
        UserError: there is none, or it describes an earlier form of the batch.
    """
    return scan_state(folder, batch).collect()


def read_sizes(folder: StageFolder, batch: str, samples: pl.LazyFrame) -> pl.DataFrame:
    """Return tokens and compressed bytes alone of some samples of a batch.

    Args:
        folder: of the stage, as ``root["sft"]``.
        batch: its name.
        samples: ``row`` in the batch, ascending, and ``sample_id`` of each.

    Returns:
        Tokens, ``deflate_bytes`` and ``zstd_bytes`` of each of them (``SIZES_SCHEMA``). The target
        tokens of a state of an older release are null.

    Raises:
        UserError: there is no state, or it describes an earlier form of the batch.
    """
    stored = scan_state(folder, batch)
    missing = [n for n in TOKENS_SCHEMA if n not in stored.collect_schema()]
    known = stored.with_columns(pl.lit(None, pl.Int64).alias(name) for name in missing)
    state = known.select("sample_id", *SIZES_SCHEMA)
    rows = samples.select("row").collect()["row"].to_numpy()
    sample_ids = samples.select("sample_id")
    found, first, start = [SIZES_SCHEMA.to_frame()], 0, 0
    for part in state.collect_batches(chunk_size=ROWS_PER_GROUP, maintain_order=True):
        end = int(np.searchsorted(rows, first + part.height))
        wanted = part[rows[start:end] - first]
        # Not all ids at once, as they take 48 bytes each.
        if not wanted.select("sample_id").equals(sample_ids.slice(start, end - start).collect()):
            break
        found.append(wanted.select(SIZES_SCHEMA.names()))
        first, start = first + part.height, end
    if start < len(rows):
        raise _no_state(folder, batch)
    return pl.concat(found)


def scan_state(folder: StageFolder, batch: str) -> pl.LazyFrame:
    """Return what :func:`read_state` does, yet to be read."""
    if not is_current(folder, batch):
        raise _no_state(folder, batch)
    folder.check(folder.state(batch))
    return scan_table(folder.state(batch))


def _no_state(folder: StageFolder, batch: str) -> UserError:
    return UserError(
        f"{folder.state(batch)}: no compression state for the samples that batch {batch!r} holds "
        f"now; materialise {folder.stage}/compression_state for the partition {batch!r}"
    )


def stored_batches(folder: StageFolder) -> dict[str, Metadata]:
    """Return fingerprint and counts of all batches of a stage, in the order of their names.

    Raises:
        UserError: a batch is incomplete, as after a stopped ingestion.
    """
    return {batch: batch_metadata(folder, batch) for batch in folder.batches()}


def whole_batches(folder: StageFolder) -> dict[str, Metadata]:
    """Return :func:`stored_batches` without those that are incomplete."""
    found: dict[str, Metadata] = {}
    for batch in folder.batches():
        with contextlib.suppress(UserError):
            found[batch] = batch_metadata(folder, batch)
    return found


def all_batches(folder: StageFolder, before: Iterable[str] = ()) -> dict[str, Metadata]:
    """Return :func:`stored_batches`, of which none is missing.

    Args:
        folder: of the stage, as ``root["sft"]``.
        before: batches that were there a moment ago.

    Raises:
        UserError: a batch is incomplete; or it is gone, though it was there a moment ago or has
            a compression state, which is never written before its samples.
    """
    # The states first: a batch that comes meanwhile is missing in neither.
    wanted = {*before, *measured_batches(folder)}
    found = stored_batches(folder)
    if gone := wanted - found.keys():
        raise gone_error(folder, gone)
    return found


def refuse_gone(folder: StageFolder, batches: Iterable[str]) -> None:
    """Raise UserError where one of these batches is not in the pool of a stage any more.

    One that is replaced right now, and so is incomplete, is there.
    """
    if gone := set(batches) - set(folder.batches()):
        raise gone_error(folder, gone)


def gone_error(folder: StageFolder, gone: Iterable[str]) -> UserError:
    """Return what to say of batches that are not in the pool of a stage any more."""
    first, *others = sorted(gone)
    words = f"batch {first!r} is" if not others else f"batch {first!r} and {len(others):,} more are"
    return UserError(
        f"{folder.samples(first).parent}: {words} gone from the pool of {folder.stage}; ingest "
        f"what is missing again, or, to do without it, remove it from {folder.state(first).parent} "
        "as well"
    )
