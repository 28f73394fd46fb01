"""A drop to a batch: every row becomes a sample, a duplicate or a quarantined row."""

import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain, groupby, zip_longest
from operator import attrgetter, itemgetter
from pathlib import Path

import polars as pl

from zip_pipeline.data_root import StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.drops import (
    check_batch_name,
    is_drop_file,
    read_drop_file,
    read_sidecar,
    snapshot,
)
from zip_pipeline.ingest.formats import FORMATS, describe_unknown, detect_format, format_named
from zip_pipeline.ingest.gathering import Gathered
from zip_pipeline.ingest.options import AS_FOUND, ReadOptions
from zip_pipeline.ingest.readers import check_place, left_out_splits, plain_name, read_rows
from zip_pipeline.ingest.remote import Fetched, fetch
from zip_pipeline.ingest.rows import (
    DATA_ERRORS,
    DEFAULT_LIMITS,
    QUARANTINE_SCHEMA,
    Format,
    Outcome,
    RawRow,
    ReadLimits,
    Record,
    RejectionError,
    Unfold,
    made_of,
    rejected_row,
    unexpected,
)
from zip_pipeline.ingest.turns import (
    Reading,
    check_encoding,
    check_sample,
    media_of,
    peek,
    tools_of,
)
from zip_pipeline.pool.batches import (
    BATCH_DUPLICATES_SCHEMA,
    PLACE,
    BatchTables,
    IngestResult,
    batch_fingerprint,
    batch_metadata,
    find_duplicates,
    origin_of,
    read_batch,
    with_firsts,
    write_batch,
)
from zip_pipeline.pool.parts import GrowingTable, Parts, Rows
from zip_pipeline.process import return_freed_memory
from zip_pipeline.samples import (
    AnySample,
    Stage,
    frame_of,
    sample_columns,
    sample_id,
    serialise,
)

__all__ = [
    "IngestResult",
    "batch_metadata",
    "ingest",
    "ingest_drop",
    "read_batch",
    "write_batch",
]

_NUM_DETECTION_ROWS = 20
_DETECTION_CHARACTERS = 1 << 24
# Fewer rows may well come from as many sources.
_MIN_ROWS_OF_SOURCES = 20
# Whatever its length, a row takes some eighty bytes of memory while a strategy picks.
_MOST_SHORT_ROWS = 8_000_000
_SHORT_CHARACTERS = 128
_SOURCE_FIELDS = ("source", "dataset")
# Rows may have fields with names of their own, such as ids: those that no format reads are kept in
# memory and with the batch, and so are sources.
_MAX_UNREAD = 1_000
_MAX_NAME = 200
_MAX_SOURCES = 100_000
_FURTHER = f"fields beyond the first {_MAX_UNREAD:,}"


def _quarantine_of(rows: Rows) -> pl.DataFrame:
    """Return rejected rows as a table, in which the same words lie once in memory."""
    numbers = {detail: n for n, detail in enumerate(dict.fromkeys(row["detail"] for row in rows))}
    details = pl.Series("detail", list(numbers), dtype=pl.String)
    table = pl.DataFrame(rows, schema=QUARANTINE_SCHEMA, orient="row")
    places = pl.Series([numbers[row["detail"]] for row in rows], dtype=pl.UInt32)
    return table.with_columns(details.gather(places))


class _Ingestion:
    """The state of one batch while its rows come in."""

    def __init__(
        self,
        stage: Stage,
        batch: str,
        options: ReadOptions,
        scratch: Path | None,
        outcome: Outcome,
    ) -> None:
        self._stage: Stage = stage
        self._batch = batch
        self._options = options
        self._unread: Counter[str] = Counter()
        # By file: how many of its rows name a source.
        self._own_sources: Counter[str] = Counter()
        self._samples = GrowingTable(partial(frame_of, stage), scratch)
        self._quarantine = GrowingTable(_quarantine_of, scratch)
        self._num_rows = self._num_short = 0
        self._outcome = outcome

    def add(self, row: RawRow, record_format: Format | None) -> None:
        """Take a row into the samples or into quarantine."""
        self._num_rows += 1
        self._num_short += len(row.raw) < _SHORT_CHARACTERS
        if self._num_short > _MOST_SHORT_ROWS:
            raise UserError(
                f"{self._batch}: got more than {_MOST_SHORT_ROWS:,} rows of fewer than "
                f"{_SHORT_CHARACTERS} characters, which take too much memory at once; split it "
                "into several drops"
            )
        try:
            if row.record is None:
                raise RejectionError(row.reason or "", row.detail)
            if record_format is None:
                raise RejectionError("unknown_format", describe_unknown(row.record, self._stage))
            self._add_sample(row, row.record, record_format)
        except RejectionError as why:
            self._reject(row, why)
        except DATA_ERRORS as error:
            self._reject(row, unexpected(error))

    def _reject(self, row: RawRow, why: RejectionError) -> None:
        self._outcome.num_refused += 1
        place = {"source_file": row.source_file, "source_row": row.source_row, "raw": row.raw}
        self._quarantine.add(place | {"reason": why.reason, "detail": why.detail})

    def _add_sample(self, row: RawRow, record: Record, record_format: Format) -> None:
        reading = Reading(record, self._options.roles)
        sample = self._sample(reading, record_format)
        own_source = _record_source(reading)
        source = self._options.source or own_source or _plain_name(row.source_file)
        check_encoding((serialise(sample), source))
        provenance = {
            "sample_id": sample_id(sample),
            "batch": self._batch,
            "source": source,
            "source_file": row.source_file,
            "source_row": row.source_row,
            "format": record_format.name,
            "raw": row.raw,
        }
        self._samples.add(provenance | sample_columns(sample))
        self._outcome.num_taken += 1
        if own_source and not self._options.source:
            self._own_sources[row.source_file] += 1
        if unread := {_short(name) for name in (*reading.unread(), *row.left_out)}:
            self._count_unread(unread)

    def _count_unread(self, names: set[str]) -> None:
        """Count a row for each field of it that no format reads, and once for those too many."""
        new = sorted(name for name in names if name not in self._unread)
        further = new[max(0, _MAX_UNREAD - len(self._unread)) :]
        self._unread.update(names.difference(further))
        if further:
            self._unread[_FURTHER] += 1

    def _sample(self, reading: Reading, record_format: Format) -> AnySample:
        parsed: AnySample = record_format.parse(reading)
        sample, tools, media = parsed, tools_of(reading), media_of(reading)
        if tools or media:
            sample = replace(parsed, tools=tools, media=media)
        if sample.media and self._options.media == "quarantine":
            raise RejectionError(
                "unsupported_content",
                f'pictures or sound ({sample.media[:200]}); media = "keep" in the sidecar keeps '
                "such rows, with their text measured",
            )
        check_sample(sample)
        return sample

    def finish(self) -> IngestResult:
        """Return the three tables with their fingerprint."""
        taken = self._with_sources(self._samples.finish())
        is_first, is_repeated = find_duplicates(taken)
        firsts = taken.filter(is_first & is_repeated, "sample_id", *PLACE).frame()
        repeats = taken.filter(~is_first, "sample_id", *PLACE)
        self._unread.update(_differences(taken, firsts["sample_id"], self._unread))
        # Rows that wait for their file's format to be told come late; this is reading order.
        quarantine = self._quarantine.finish().sorted("source_file", "source_row")
        duplicates = repeats.map(
            lambda part: with_firsts(part, firsts).select(BATCH_DUPLICATES_SCHEMA.names())
        )
        tables = BatchTables(taken.filter(is_first), quarantine, duplicates)
        content = batch_fingerprint(tables)
        unread = dict(sorted(self._unread.items(), key=lambda item: (-item[1], item[0])))
        return IngestResult(tables, self._num_rows, content, unread)

    def _with_sources(self, samples: Parts) -> Parts:
        """Return the samples with their file as source where too many rows name one of their own.

        An address of each row is no source: to group by it would mean to group nothing.
        """
        named = {n: num for n, num in self._own_sources.items() if num >= _MIN_ROWS_OF_SOURCES}
        if not named:
            return samples
        plain = _by_file({file: _plain_name(file) for file in named})
        # A row that names none has the name of its file.
        own = samples.scan().filter(pl.col("source") != plain)
        found = own.group_by("source_file").agg(pl.col("source").n_unique())
        nums = found.collect(engine="streaming").iter_rows()
        most = {file: min(num / 2, _MAX_SOURCES) for file, num in named.items()}
        files = {file: _plain_name(file) for file, num in nums if num > most[file]}
        if not files:
            return samples
        self._unread["source"] += sum(named[file] for file in files)
        source = pl.coalesce(_by_file(files), "source")
        return samples.map(lambda part: part.with_columns(source=source))


def _by_file(names: Mapping[str, str]) -> pl.Expr:
    """Return the name of each row's file, null where it has none."""
    return pl.col("source_file").replace_strict(names, default=None, return_dtype=pl.String)


@lru_cache
def _plain_name(file: str) -> str:
    return plain_name(Path(file).name)


def _differences(taken: Parts, repeated: pl.Series, unread: Iterable[str]) -> Counter[str]:
    """Return the fields that no format reads, and in how many duplicates each is another.

    They say the same as the first, but a person may mean the difference.
    """
    paths = set(unread)
    found: Counter[str] = Counter()
    if repeated.is_empty() or not paths:
        return found
    is_repeated = pl.col("sample_id").is_in(repeated.implode())
    raws = taken.map(lambda part: part.filter(is_repeated), "sample_id", "raw")
    alike = chain.from_iterable(part.iter_rows() for part in raws.sorted("sample_id").each())
    for _, copies in groupby(alike, key=itemgetter(0)):
        records = (json.loads(raw) for _, raw in copies)
        first = next(records)
        for other in records:
            differing = set(_differing(first, other, "", paths))
            found.update(f"{path} (differs between duplicates)" for path in differing)
    return found


def _differing(one: object, other: object, path: str, wanted: set[str]) -> Iterator[str]:
    """Yield the wanted paths, such as ``messages[].name``, at which two values differ."""
    if one == other:
        return
    if f"{path}[1:]" in wanted:
        yield f"{path}[1:]"
    if path in wanted:
        yield path
    elif isinstance(one, list) or isinstance(other, list):
        items, others = (value if isinstance(value, list) else [] for value in (one, other))
        for item, counterpart in zip_longest(items, others):
            yield from _differing(item, counterpart, f"{path}[]", wanted)
    elif isinstance(one, dict) or isinstance(other, dict):
        first, second = (value if isinstance(value, dict) else {} for value in (one, other))
        for name in first.keys() | second.keys():
            inner = f"{path}.{name}" if path else name
            yield from _differing(first.get(name), second.get(name), inner, wanted)


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…"


def _record_source(record: Record) -> str | None:
    for field in _SOURCE_FIELDS:
        value = peek(record, field)
        name = value.strip() if isinstance(value, str) else ""
        if 0 < len(name) <= _MAX_NAME:
            record.get(field)
            return name
    return None


def said_in(record: Record) -> Record:
    """Return the fields that hold something: joined tables have those of all their parts."""
    return {name: value for name, value in record.items() if value not in (None, "", [])}


def _row_format(record: Record | None, stage: Stage, file_format: Format | None) -> Format | None:
    """Return the format of the file, or the record's own where sources are mixed in the file."""
    if record is None:
        return file_format
    said = said_in(record)
    if file_format is not None and file_format.matches(said):
        return file_format
    return detect_format([said], stage) or file_format or detect_format([record], stage)


def _with_formats(
    rows: Iterable[RawRow], stage: Stage, options: ReadOptions
) -> Iterator[tuple[RawRow, Format | None]]:
    """Yield each row with its format, told from the first rows of its file."""
    override = format_named(options.format, stage) if options.format is not None else None
    for _, file_rows in groupby(rows, key=attrgetter("source_file")):
        head: deque[RawRow] = deque()
        num_characters = 0
        for row in file_rows:
            # A row without a record needs no format, so a broken beginning does not count.
            if row.record is None:
                yield row, None
                continue
            head.append(row)
            num_characters += len(row.raw)
            if len(head) == _NUM_DETECTION_ROWS or num_characters > _DETECTION_CHARACTERS:
                break
        file_format = override or _format_of([row.record for row in head], stage)
        # Long rows must not stay until the file ends.
        for row in chain((head.popleft() for _ in range(len(head))), file_rows):
            yield row, override or _row_format(row.record, stage, file_format)


def _format_of(records: Iterable[Record | None], stage: Stage) -> Format | None:
    known = [record for record in records if record is not None]
    # Where all rows lack what their format needs, the names of the fields tell it still.
    said = [said_in(record) for record in known]
    return detect_format(said, stage) or detect_format(known, stage)


def _unfolded(
    rows: Iterable[tuple[RawRow, Format | None]], pairs: str, scratch: Path | None
) -> Iterator[tuple[RawRow, Format | None]]:
    """Yield the rows that hold several samples, and those that make some together, as samples."""
    for _, file_rows in groupby(rows, key=lambda item: item[0].source_file):
        gathered: dict[str, Gathered] = {}
        for row, found in file_rows:
            if found is None or row.record is None:
                yield row, found
            elif found.gather:
                if found.name not in gathered:
                    gathered[found.name] = Gathered(found.gather, scratch)
                gathered[found.name].add(row)
            elif found.unfold or found.pairs:
                yield from ((one, found) for one in _parts(row, found, pairs))
            else:
                yield row, found
        for name, held in gathered.items():
            for row in held.rows():
                yield from ((one, FORMATS[name]) for one in _parts(row, FORMATS[name], pairs))


def _parts(row: RawRow, found: Format, pairs: str) -> Iterable[RawRow]:
    unfoldings = (found.unfold, found.pairs if pairs == "all" else None)
    rows = [row]
    for unfold in filter(None, unfoldings):
        rows = [part for one in rows for part in _unfold(one, unfold)]
    return rows


def _unfold(row: RawRow, unfold: Unfold) -> Iterable[RawRow]:
    if row.record is None:
        return [row]
    try:
        return made_of(len(row.raw), unfold(row, row.record))
    except RejectionError as why:
        return [rejected_row(row.source_file, row.source_row, row.raw, why)]
    except DATA_ERRORS as error:
        return [rejected_row(row.source_file, row.source_row, row.raw, unexpected(error))]


def ingest(
    path: Path,
    stage: Stage,
    *,
    batch: str,
    options: ReadOptions = AS_FOUND,
    limits: ReadLimits = DEFAULT_LIMITS,
    within: Path | None = None,
    scratch: Path | None = None,
) -> IngestResult:
    """Read a file or folder; nothing is written but temporary files.

    Args:
        path: the file, or the folder with the files, of the batch.
        stage: ``sft`` or ``preference``.
        batch: the name of the batch, stored with each sample.
        options: how to read it. Without a format it is told for each file from its first rows,
            and for a record that looks otherwise from the record; without a source it is a
            record's own ``source`` or ``dataset``, else the file name without extensions.
        limits: what a row and a file may cost.
        within: the folder that links may not leave; None follows ``path`` wherever it leads, and
            links in a folder inside of it.
        scratch: holds what is more than some megabytes, for as long as the result is held; None
            for the folder of temporary files.

    Returns:
        The samples, the quarantined rows and the duplicates; together they are all rows read.

    Raises:
        UserError: there is no such file, the folder is empty, the format is unknown, a link
            leads out of bounds, the system does not let a file be read, or millions of rows are
            shorter than a sentence or two.
    """
    outcome = Outcome()
    rows = read_rows(
        path,
        limits,
        within=within,
        encoding=options.encoding,
        separator=options.separator,
        outcome=outcome,
    )
    result = ingest_rows(
        rows, stage, batch=batch, options=options, scratch=scratch, outcome=outcome
    )
    return replace(result, left_out_files=tuple(left_out_splits(path, within)))


def ingest_fetched(
    fetched: Fetched,
    stage: Stage,
    *,
    batch: str,
    options: ReadOptions = AS_FOUND,
    limits: ReadLimits = DEFAULT_LIMITS,
    scratch: Path | None = None,
) -> IngestResult:
    """Read what was fetched as :func:`ingest` reads what lies here."""
    result = ingest(
        fetched.path, stage, batch=batch, options=options, limits=limits, scratch=scratch
    )
    left_out = (*fetched.left_out, *result.left_out_files)
    return replace(result, left_out_files=left_out, origin=fetched.origin)


def ingest_rows(
    rows: Iterable[RawRow],
    stage: Stage,
    *,
    batch: str,
    options: ReadOptions = AS_FOUND,
    scratch: Path | None = None,
    outcome: Outcome | None = None,
) -> IngestResult:
    """Take rows in as :func:`ingest` does those of a file; ``outcome`` tells what becomes of them.

    Raises:
        UserError: the format is unknown, or millions of rows are shorter than a sentence or two.
    """
    ingestion = _Ingestion(stage, batch, options, scratch, outcome or Outcome())
    found = _with_formats(options.applied(rows), stage, options)
    for row, record_format in _unfolded(found, options.pairs, scratch):
        ingestion.add(row, record_format)
    return ingestion.finish()


def ingest_drop(
    folder: StageFolder, batch: str, *, limits: ReadLimits = DEFAULT_LIMITS
) -> IngestResult:
    """Read a drop of the drop folder as its sidecar says, and write its batch.

    What a drop file names is fetched first. As long as it names the same address, the revision
    that its batch was read at is read again, whatever has come there since.

    Args:
        folder: of the stage, as ``root["sft"]``.
        batch: the full name of the file or folder in the drop folder.
        limits: what a row and a file may cost.

    Raises:
        UserError: the drop is missing, empty or changed while it was read, a part of it cannot
            be read or fetched, a link leads out of the drop folder, or its sidecar is wrong;
            nothing is written then.
    """
    check_batch_name(batch)
    return_freed_memory()
    path = folder.raw / batch
    options = read_sidecar(folder, batch)
    before = snapshot(path)
    if is_drop_file(path):
        result = _ingest_drop_file(folder, batch, options, limits)
    else:
        result = ingest(
            path,
            folder.stage,
            batch=batch,
            options=options,
            limits=limits,
            within=folder.raw,
            scratch=folder.root.cache,
        )
    if snapshot(path) != before:
        raise UserError(
            f"{path}: the drop changed while it was read; drop it again when it is complete, "
            "best by renaming it into place"
        )
    write_batch(folder, batch, result)
    return result


def _ingest_drop_file(
    folder: StageFolder, batch: str, options: ReadOptions, limits: ReadLimits
) -> IngestResult:
    path = check_place(folder.raw / batch, folder.raw)
    address, own = read_drop_file(path, folder.stage)
    fetched = fetch(address, folder.root.cache / "remote", origin_of(folder, batch))
    return ingest_fetched(
        fetched,
        folder.stage,
        batch=batch,
        options=own.over(options),
        limits=limits,
        scratch=folder.root.cache,
    )
