"""What a person gives to select from: files, tables or records, read as one pool."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TypeAlias

import polars as pl

from zip_pipeline.compression.state import texts_of
from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint, scan_table, user_cache
from zip_pipeline.ingest.drops import SIDECAR_SUFFIX, is_drop_file, read_drop_file, read_sidecar
from zip_pipeline.ingest.ingest import (
    IngestResult,
    ingest,
    ingest_fetched,
    ingest_rows,
    write_batch,
)
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.ingest.readers import plain_name, read_rows, rows_in_memory
from zip_pipeline.ingest.remote import Fetched, fetch, is_address, shown
from zip_pipeline.ingest.rows import DATA_ERRORS, QUARANTINE_SCHEMA, RawRow
from zip_pipeline.pool.batches import DUPLICATES_SCHEMA, recorded_origins
from zip_pipeline.pool.pool import (
    AssembledPool,
    SelectionPool,
    assemble_results,
    open_selection_pool,
)
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.terminal_text import counted

RECORDS = "records"
"""The batch of what a program holds in memory."""
Source: TypeAlias = "str | os.PathLike[str] | Pool | Iterable[object]"
"""A file, folder or address, or a list of these; a table; records; or a pool read before."""
Part: TypeAlias = Path | Fetched | IngestResult | Iterable[RawRow]
"""A batch before it is read: a file or folder, what was read before, or rows in memory."""


def parts_of(source: Source, tell: Callable[[str], None] = lambda _: None) -> dict[str, Part]:
    """Return what a source consists of by batch name; rows in memory can be read once.

    Args:
        source: what a person gave.
        tell: called with each address before it is fetched.

    Raises:
        UserError: no kind of source, a file that does not exist or is given twice, or an address
            that cannot be fetched.
    """
    if isinstance(source, Pool):
        return dict(source.batches)
    if isinstance(source, str) and not source:
        raise UserError("source: got an empty path; name a file or folder")
    if isinstance(source, str | os.PathLike):
        return {**name_inputs([located(source, tell)])}
    if isinstance(source, list | tuple) and source and all(map(_is_path, source)):
        return {**name_inputs([located(path, tell) for path in source])}
    if (table := _as_table(source)) is not None:
        return {RECORDS: rows_in_memory(table, RECORDS)}
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise UserError(
            f"source: got a {type(source).__name__}; allowed are files, folders and addresses, "
            "a table (Polars, pandas, Arrow, datasets.Dataset), and records, as a list of dicts"
        )
    return {RECORDS: rows_in_memory(source, RECORDS)}


def _is_path(item: object) -> bool:
    return isinstance(item, str | os.PathLike)


def _as_table(source: object) -> pl.DataFrame | None:
    """Return a table of Polars, Arrow, pandas or datasets as one of Polars; None for no table."""
    try:
        if isinstance(source, pl.LazyFrame):
            return source.collect()
        if to_polars := getattr(source, "to_polars", None):
            table: pl.DataFrame = to_polars()
            return table
        return pl.DataFrame(source) if hasattr(source, "__arrow_c_stream__") else None
    except (TypeError, *DATA_ERRORS) as error:
        # Arrow has columns of one type and of different names only.
        raise UserError(
            f"source: this {type(source).__name__} cannot be read as a table ({error}); give its "
            "rows as a list of dicts"
        ) from error


def located(
    source: str | os.PathLike[str], tell: Callable[[str], None] = lambda _: None
) -> Path | Fetched:
    """Return a local path, or what an address or a drop file names, fetched.

    Raises:
        UserError: it cannot be fetched, or the drop file is wrong.
    """
    options = ReadOptions()
    address = str(source)
    if not is_address(source):
        path = Path(source)
        if not is_drop_file(path):
            return path
        address, options = read_drop_file(path)
    tell(shown(address))
    return replace(fetch(address, user_cache() / "remote"), options=options)


def name_inputs(inputs: Sequence[Path | Fetched]) -> dict[str, Path | Fetched]:
    """Return the inputs by batch name: the file name, the whole path where names collide.

    Raises:
        UserError: an input that does not exist or is given twice.
    """
    wanted = [path for path in inputs if not path.name.endswith(SIDECAR_SUFFIX)]
    missing = [str(path) for path in wanted if isinstance(path, Path) and not path.exists()]
    if missing:
        raise UserError(f"{missing[0]}: no such file or folder")
    places = (path.resolve() if isinstance(path, Path) else str(path) for path in wanted)
    twice = [place for place, num in Counter(places).items() if num > 1]
    if twice:
        raise UserError(f"{twice[0]}: given twice; give each input once")
    names = Counter(path.name for path in wanted)
    return {path.name if names[path.name] == 1 else str(path): path for path in wanted}


@dataclass(frozen=True, repr=False)
class Pool:
    """The samples of a source, and what became of its other records.

    Every record that was read is a sample, an exact duplicate of one, or in quarantine with the
    reason. ``len`` is the number of samples; a notebook shows the counts.

    Args:
        stage: ``sft`` or ``preference``.
        batches: what was read of each file or folder, or of the records in memory.
    """

    stage: Stage
    batches: Mapping[str, IngestResult]

    @cached_property
    def _assembled(self) -> AssembledPool:
        return assemble_results(self.stage, self.batches)

    @property
    def samples(self) -> pl.DataFrame:
        """One row per sample: id, place, source, format, turns, and ``raw``, the record as JSON."""
        return self._assembled.samples

    @property
    def duplicates(self) -> pl.DataFrame:
        """One row per record that repeats a sample turn by turn, with the place of that sample."""
        inside = [_inside(batch, result.duplicates) for batch, result in self.batches.items()]
        return pl.concat([*inside, self._assembled.duplicates])

    @property
    def quarantine(self) -> pl.DataFrame:
        """One row per record that is no sample: batch, file, row, reason, detail, raw text."""
        return quarantine_of({b: result.quarantine for b, result in self.batches.items()})

    @property
    def unread(self) -> dict[str, int]:
        """The fields that no format reads, and in how many samples each stands."""
        return dict(self._assembled.unread)

    @property
    def counts(self) -> dict[str, int]:
        """How many rows were read, and how many of them are samples, quarantined or duplicates."""
        assembled = self._assembled
        return {
            "rows read": assembled.num_rows_read,
            "samples": assembled.samples.height,
            "quarantined": assembled.num_quarantined,
            "duplicates": assembled.num_duplicates,
        }

    def __len__(self) -> int:
        return self.samples.height

    def __repr__(self) -> str:
        counts = ", ".join(f"{num:,} {name}" for name, num in self.counts.items())
        return f"<Pool of {self.stage}: {counts}>"

    def _repr_html_(self) -> str:
        reasons = self.quarantine["reason"].value_counts(sort=True).iter_rows()
        facts = [(name, f"{num:,}") for name, num in self.counts.items()]
        facts += [(f"quarantined: {reason}", f"{num:,}") for reason, num in reasons]
        facts += [(f"not read: {field}", f"{num:,}") for field, num in self.unread.items()]
        return html_table(f"Pool of {self.stage}", facts)


def quarantine_of(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return the rejected rows of batches, with the batch in front."""
    schema = pl.Schema({"batch": pl.String(), **QUARANTINE_SCHEMA})
    parts = [
        table.select(pl.lit(batch).alias("batch"), pl.all()) for batch, table in tables.items()
    ]
    return pl.concat([schema.to_frame(), *parts])


def html_table(title: str, facts: Iterable[tuple[str, str]]) -> str:
    """Return names and facts as a table for notebooks; nothing in them is read as HTML."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(fact)}</td></tr>" for name, fact in facts
    )
    return f"<table><caption>{escape(title)}</caption>{rows}</table>"


def read(
    source: Source,
    stage: Stage = "sft",
    format: str | None = None,
    reading: ReadOptions | None = None,
) -> Pool:
    """Read files, a table or records as a pool of samples.

    Args:
        source: a file or folder, or a list of these (JSONL, JSON, Parquet, CSV; ``.gz`` and
            ``.zst`` of each), also by address, as ``hf://datasets/ORG/NAME@main:train`` or
            ``s3://bucket/x.jsonl``; a table (Polars, pandas, Arrow, ``datasets.Dataset``); or
            records, such as a list of dicts.
        stage: what the records are: ``sft`` for conversations, ``preference`` for pairs.
        format: the format of the records, such as ``alpaca``; None to detect it.
        reading: more of how to read them, such as ``ReadOptions(map={"user": "q"})``.

    Returns:
        The pool. Of exact duplicates the first one is its sample.

    Raises:
        UserError: the source cannot be read, or there is no such stage or format.

    Example:
        >>> from zip_pipeline import read
        >>> pool = read([
        ...     {"instruction": "Name a river.", "output": "The Nile."},
        ...     {"instruction": "Name a river.", "output": "The Nile."},
        ...     {"instruction": "Name a lake."},
        ... ])
        >>> pool
        <Pool of sft: 3 rows read, 1 samples, 1 quarantined, 1 duplicates>
        >>> pool.quarantine["reason"].to_list()
        ['missing_field']
    """
    check_stage(stage)
    options = read_options(format, reading)
    read = {b: _ingest(b, part, stage, options) for b, part in parts_of(source).items()}
    return Pool(stage, {batch: result.in_memory() for batch, result in read.items()})


def target_texts(config: SelectionConfig, stage: Stage, folder: Path = Path()) -> list[bytes]:
    """Return the serialised samples of the target file, none where the strategy heeds no target.

    Args:
        config: names the file; of samples that stand in it twice one counts.
        stage: what its records are.
        folder: where a relative path starts.

    Raises:
        UserError: the file cannot be read, or one of its rows is no sample.
    """
    if (named := config.heeded("target")) is None:
        return []
    return texts_of(target_samples(folder / named, stage), stage)


def trusted_texts(config: SelectionConfig, stage: Stage, folder: Path = Path()) -> list[bytes]:
    """Return the serialised samples of the trusted file, none without one; as target_texts."""
    if config.trusted is None:
        return []
    return texts_of(target_samples(folder / config.trusted, stage, "trusted"), stage)


def target_samples(path: Path, stage: Stage, option: str = "target") -> pl.DataFrame:
    """Return the samples of a file that an option names, all of whose rows must be samples.

    Raises:
        UserError: see :func:`target_texts`.
    """
    try:
        pool = read(path, stage)
    except UserError as error:
        raise UserError(f"{option}: {error}") from error
    for row in pool.quarantine.head(1).iter_rows(named=True):
        raise UserError(
            f"{option}: {row['source_file']}, row {row['source_row']} is no sample: "
            f"{row['reason']} ({row['detail']}), and so {pool.quarantine.height:,} of "
            f"{pool.counts['rows read']:,} rows; mend or remove them"
        )
    if not len(pool):
        raise UserError(f"{option}: no sample in {path}; name a file that has some")
    return pool.samples


_TEXTS = pl.Schema({"row": pl.Int64, "prompt": pl.String, "answer": pl.String})


def question_texts(path: Path) -> pl.DataFrame:
    """Return what each row of a file asks and answers: ``row`` from 1, ``prompt``, ``answer``.

    Benchmarks often have questions alone, which are no samples. Of a row that is none, all texts of
    more than a word are the prompt; the turns of MT-bench are a row each, of the same number.

    Raises:
        UserError: the file cannot be read.
    """
    pool = read(path, "sft")
    content = pl.element().struct.field("content")
    is_answer = pl.element().struct.field("role") == "assistant"
    sides = {"prompt": ~is_answer, "answer": is_answer}
    samples = pool.samples.select(
        pl.col("source_row").alias("row"),
        *(pl.col("turns").list.eval(content.filter(f)).list.join("\n").alias(n)
          for n, f in sides.items()),
    )  # fmt: skip
    others = [
        (row, "\n".join(_texts_in(part)), "")
        for row, raw in pool.quarantine.select("source_row", "raw").iter_rows()
        for part in _questions_in(_parsed(raw))
    ]
    return pl.concat([samples, pl.DataFrame(others, schema=_TEXTS, orient="row")]).sort(
        "row", maintain_order=True
    )


def _questions_in(record: object) -> list[object]:
    turns = record.get("turns") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(turns, list):
        return [record]
    return [*turns, [value for name, value in record.items() if name != "turns"]]


def _parsed(raw: str) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        return raw


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str) and len(value.split()) > 1:
        yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _texts_in(part)


def read_options(format: str | None, reading: ReadOptions | None) -> ReadOptions:
    """Return how to read, with the format that is given on its own."""
    if format is not None and reading is not None:
        raise UserError("got format and reading; give the format as reading.format")
    return reading or ReadOptions(format=format)


def check_stage(stage: str) -> None:
    """Raise UserError where there is no such stage."""
    if stage not in STAGES:
        raise UserError(f"stage: got {stage!r}; allowed are {', '.join(STAGES)}")


@dataclass(frozen=True)
class InputPool:
    """The samples of all inputs without exact duplicates, and what became of the other rows."""

    pool: SelectionPool
    duplicates: pl.DataFrame
    quarantine: pl.DataFrame
    counts: Mapping[str, int]
    fingerprints: Mapping[str, str]


@contextmanager
def open_inputs(
    folder: Path,
    parts: Mapping[str, Part],
    stage: Stage,
    options: ReadOptions,
    tell: Callable[[str], None],
) -> Iterator[InputPool]:
    """Ingest the parts as one pool; of exact duplicates the first one in their order is kept.

    Args:
        folder: holds what was ingested, in a folder that goes with the block.
        parts: by batch name, in order.
        stage: ``sft`` or ``preference``.
        options: how to read them; a sidecar counts where they say nothing.
        tell: called with the name of each part before it is read.

    Raises:
        UserError: a part that cannot be read, or no sample in all of them.
    """
    with tempfile.TemporaryDirectory(prefix="pool-", dir=folder) as place:
        root = DataRoot(Path(place))
        stored = [_stored_name(number) for number in range(len(parts))]
        for name, (batch, part) in zip(stored, parts.items(), strict=True):
            tell(batch)
            result = _ingest(batch, part, stage, options, root.cache)
            write_batch(root[stage], name, result)
        with open_selection_pool(root[stage]) as pool:
            yield _input_pool(root[stage], dict(zip(parts, stored, strict=True)), pool)


def _stored_name(number: int) -> str:
    """Return the file name of an input: batches are sorted by name, and may be called anything."""
    return f"{number:09d}"


def _ingest(
    batch: str, part: Part, stage: Stage, options: ReadOptions, scratch: Path | None = None
) -> IngestResult:
    if isinstance(part, IngestResult):
        return part
    if isinstance(part, Fetched):
        own = options.over(part.options)
        own.check_stage(stage)
        return ingest_fetched(part, stage, batch=batch, options=own, scratch=scratch)
    options.check_stage(stage)
    if not isinstance(part, Path):
        return ingest_rows(part, stage, batch=batch, options=options, scratch=scratch)
    own = options.over(sidecar_of(part, stage))
    return ingest(part, stage, batch=batch, options=own, scratch=scratch)


def _input_pool(folder: StageFolder, stored: Mapping[str, str], pool: SelectionPool) -> InputPool:
    quarantine = quarantine_of(
        {batch: scan_table(folder.quarantine(name)).collect() for batch, name in stored.items()}
    )
    if not pool.num_samples:
        words = words_of_quarantine(quarantine) or "none"
        raise UserError(
            f"no sample in {', '.join(stored)}: {counted(pool.counts['num_rows_read'], 'row')} "
            f"read, quarantined: {words}; check stage and format"
        )
    counts = {name: num for name, num in pool.counts.items() if name != "num_held_out"}
    inside = [
        _inside(batch, scan_table(folder.duplicates(name)).collect())
        for batch, name in stored.items()
    ]
    duplicates = pl.concat([*inside, pool.duplicates])
    fingerprints = dict(zip(stored, pool.fingerprints.values(), strict=True))
    return InputPool(pool, duplicates, quarantine, counts, fingerprints)


_NUM_PLACES = 3


def words_of_quarantine(quarantine: pl.DataFrame) -> str:
    """Return how many rows were rejected for each reason, most frequent first, and the first rows.

    Args:
        quarantine: the rejected rows (``QUARANTINE_SCHEMA``).
    """
    told = []
    for reason, num in (
        quarantine["reason"]
        .value_counts(sort=True)
        .sort("count", "reason", descending=[True, False])
        .iter_rows()
    ):
        rows = quarantine.filter(reason=reason)
        file = rows["source_file"][0]
        places = rows.filter(source_file=file)["source_row"].head(_NUM_PLACES).to_list()
        more = ", …" if num > len(places) else ""
        noun = "row" if num == 1 else "rows"
        words = f"{file} {noun} {', '.join(map(str, places))}{more}"
        told.append(f"{num:,} {reason.replace('_', ' ')} ({words})")
    return ", ".join(told)


def sidecar_of(path: Path, stage: Stage) -> ReadOptions:
    """Return what the sidecar says of an input that lies in the drop folder of a data root."""
    path = path.resolve()
    root = DataRoot(path.parent.parent.parent)
    in_drop_folder = path.parent == root[stage].raw
    return read_sidecar(root[stage], path.name) if in_drop_folder else ReadOptions()


def _inside(batch: str, found: pl.DataFrame) -> pl.DataFrame:
    """Return the duplicates inside a batch with the columns of those across batches."""
    named = found.with_columns(batch=pl.lit(batch), first_batch=pl.lit(batch))
    return named.select(DUPLICATES_SCHEMA.names())


@dataclass(frozen=True)
class RawPool:
    """Every row of the inputs as it came: records beside their provenance and JSON text."""

    records: list[object]
    rows: pl.DataFrame
    fingerprints: Mapping[str, str]


def read_as_they_come(parts: Mapping[str, Part]) -> RawPool:
    """Return every row of the parts: nothing is quarantined, no duplicate dropped.

    ``sample_id`` is the hash of the record's JSON text, since a row need not be a sample.

    Raises:
        UserError: a row that is no record, or no row at all.
    """
    read = [(batch, row) for batch, part in parts.items() for row in _raw_rows(part)]
    for _, row in read:
        if row.reason is not None:
            raise UserError(
                f"{row.source_file}, row {row.source_row}: {row.reason} ({row.detail}); "
                "reference_compat takes every row as it comes: repair or remove the row, or "
                "leave reference_compat off"
            )
    if not read:
        raise UserError(f"no row in {', '.join(parts)}; give files that hold records")
    columns = ("sample_id", "batch", "source", "source_file", "raw")
    schema = pl.Schema(dict.fromkeys(columns, pl.String) | {"source_row": pl.Int64})
    rows = pl.DataFrame([_raw_columns(batch, row) for batch, row in read], schema=schema)
    fingerprints = {batch: fingerprint(group["raw"]) for (batch,), group in rows.group_by("batch")}
    return RawPool([row.record for _, row in read], rows, fingerprints)


def _raw_columns(batch: str, row: RawRow) -> dict[str, object]:
    fields = row.record or {}
    named = [fields[name] for name in ("source", "dataset") if isinstance(fields.get(name), str)]
    return {
        "sample_id": fingerprint([row.raw]),
        "batch": batch,
        "source": named[0] if named else plain_name(Path(row.source_file).name),
        "source_file": row.source_file,
        "source_row": row.source_row,
        "raw": row.raw,
    }


def _raw_rows(part: Part) -> Iterable[RawRow]:
    if isinstance(part, IngestResult):
        raise UserError(
            "reference_compat: got a pool; the published implementation takes every row as it "
            "comes, so give the files or records themselves"
        )
    if isinstance(part, Fetched):
        return read_rows(part.path)
    return read_rows(part) if isinstance(part, Path) else part


def origins_of(parts: Mapping[str, Part]) -> dict[str, object]:
    """Return what a manifest records of parts that were fetched: their address and revision."""
    fetched = {b: part for b, part in parts.items() if isinstance(part, Fetched | IngestResult)}
    return recorded_origins({batch: part.origin for batch, part in fetched.items()})
