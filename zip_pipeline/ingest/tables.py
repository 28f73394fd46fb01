"""Rows of CSV and Parquet files."""

import csv
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import polars as pl

from zip_pipeline.files import scan_table
from zip_pipeline.ingest.rows import (
    PREFIX_BYTES,
    RawRow,
    ReadLimits,
    Record,
    RejectionError,
    json_text,
    rejected_row,
    too_long,
)
from zip_pipeline.ingest.text import split_lines

_Convert: TypeAlias = Callable[[Any], object]

_EPOCH = datetime(1970, 1, 1)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS = {"ms": 1_000_000, "us": 1_000, "ns": 1}
_DAY = 86_400_000_000
_CYCLE_YEARS = 400
# The Gregorian calendar repeats after 400 years.
_CYCLE = 146_097 * _DAY


def _moment(microseconds: int, zone: tzinfo | None) -> datetime:
    if zone is None:
        return _EPOCH + timedelta(microseconds=microseconds)
    return (_EPOCH_UTC + timedelta(microseconds=microseconds)).astimezone(zone)


def _moment_text(microseconds: int, zone: tzinfo | None) -> str:
    """Return a moment as ISO 8601 with a blank; other years than 0 to 9999 have a sign."""
    try:
        return str(_moment(microseconds, zone))
    except OverflowError:
        cycles, rest = divmod(microseconds, _CYCLE)
        moment = _moment(rest, zone)
        year = moment.year + cycles * _CYCLE_YEARS
        words = f"+{year}" if year > 9999 else f"{year:0{5 if year < 0 else 4}}"
        return words + str(moment)[4:]


def _date_text(days: int) -> str:
    return _moment_text(days * _DAY, None).removesuffix(" 00:00:00")


def _datetime_text(value: int, nanoseconds: int, zone: tzinfo | None) -> str:
    return _moment_text(value * nanoseconds // 1000, zone)


def _duration_text(value: int, nanoseconds: int) -> str:
    # Towards zero, as Polars does.
    microseconds = abs(value) * nanoseconds // 1000 * (1 if value > 0 else -1)
    try:
        return str(timedelta(microseconds=microseconds))
    except OverflowError:
        days, rest = divmod(microseconds, _DAY)
        return f"{days} days, {timedelta(microseconds=rest)}"


def _text_of(dtype: pl.DataType) -> _Convert | None:
    """Return what writes a value of a type that is a date, a time of a day or a duration."""
    if isinstance(dtype, pl.Date):
        return _date_text
    if isinstance(dtype, pl.Datetime):
        zone = ZoneInfo(dtype.time_zone) if dtype.time_zone else None
        return partial(_datetime_text, nanoseconds=_NANOSECONDS[dtype.time_unit], zone=zone)
    if isinstance(dtype, pl.Duration):
        return partial(_duration_text, nanoseconds=_NANOSECONDS[dtype.time_unit])
    return None


def _each_item(convert: _Convert, items: list[object]) -> object:
    return [None if item is None else convert(item) for item in items]


def _each_field(converts: dict[str, _Convert], fields: Record) -> Record:
    return fields | {
        name: convert(value)
        for name, convert in converts.items()
        if (value := fields[name]) is not None
    }


def _as_integers(dtype: Any) -> tuple[pl.DataType, _Convert | None]:  # noqa: ANN401
    """Return the type with integers for dates and times, and what makes texts of these.

    None where there is nothing to convert.
    """
    if isinstance(dtype, pl.List | pl.Array):
        inner, convert = _as_integers(dtype.inner)
        outer = pl.Array(inner, dtype.size) if isinstance(dtype, pl.Array) else pl.List(inner)
        return outer, partial(_each_item, convert) if convert else None
    if isinstance(dtype, pl.Struct):
        fields = {field.name: _as_integers(field.dtype) for field in dtype.fields}
        converts = {name: convert for name, (_, convert) in fields.items() if convert}
        struct = pl.Struct({name: plain for name, (plain, _) in fields.items()})
        return struct, partial(_each_field, converts) if converts else None
    convert = _text_of(dtype)
    return (pl.Int64(), convert) if convert else (dtype, None)


def iter_records(table: pl.DataFrame) -> Iterator[Record]:
    """Yield the rows of a table as records, with dates, times and durations as text.

    The text is that of ``str`` for what Python can hold, such as ``2024-02-29 12:00:00+09:00``;
    further years are written alike, such as ``+56728-02-22``. Nanoseconds are cut off.
    """
    found = {name: _as_integers(dtype) for name, dtype in table.schema.items()}
    converts = {name: convert for name, (_, convert) in found.items() if convert}
    plain = table.cast({name: found[name][0] for name in converts})
    for record in plain.iter_rows(named=True):
        yield _each_field(converts, record) if converts else record


# Columns whose cells hold lists of objects, which CSV can only carry as JSON text.
_MESSAGE_COLUMNS = ("conversations", "conversation", "messages", "completions", "tool_calls")
_TEXT_OR_MESSAGE_COLUMNS = ("prompt", "completion", "chosen", "rejected")
_FIRST_SLICE_ROWS = 256
_MAX_SLICE_ROWS = 1 << 14
_SLICE_BYTES = 16 << 20


class _CsvLines:
    """Feeds ``csv.reader`` with text lines and keeps those of the record at hand."""

    def __init__(self, chunks: Iterator[bytes], limits: ReadLimits) -> None:
        self._lines = split_lines(chunks, limits.max_row_bytes)
        self._limits = limits
        self._taken: list[bytes] = []
        self._num_bytes = 0

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._num_bytes += line.num_bytes
        self._taken.append(line.text)
        if self._num_bytes > self._limits.max_row_bytes:
            raise too_long(self._num_bytes, self._limits, self._taken[0])
        # Bytes that are not UTF-8 must not end the record in the middle of its quotes.
        return line.text.decode("utf-8", "surrogateescape") + "\n"

    def begin_record(self) -> None:
        """Forget the lines of the last record."""
        self._taken.clear()
        self._num_bytes = 0

    def raw(self) -> str:
        """Return the text of the record at hand."""
        return b"\n".join(self._taken).decode("utf-8", "replace").rstrip("\r")


def _holds_messages(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict) and ("role" in item or "from" in item) for item in value
    )


def _cell_value(column: str, cell: str) -> object:
    """Return the parsed JSON of a cell that holds messages, else the text."""
    if column not in _MESSAGE_COLUMNS + _TEXT_OR_MESSAGE_COLUMNS or not cell.startswith("["):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return value if column in _MESSAGE_COLUMNS or _holds_messages(value) else cell


def _csv_record(header: list[str], cells: list[str]) -> Record:
    if len(cells) != len(header):
        raise RejectionError("invalid_csv", f"{len(cells)} cells, the header has {len(header)}")
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError:
        raise RejectionError("bad_encoding", "the row holds bytes that are not UTF-8") from None
    return {column: _cell_value(column, cell) for column, cell in zip(header, cells, strict=True)}


def _csv_header(cells: list[str] | RejectionError) -> list[str]:
    if isinstance(cells, RejectionError):
        raise RejectionError("corrupt_table", f"the CSV header is damaged: {cells.detail}")
    header = [name.strip() for name in cells]
    twice = [name for name, following in pairwise(sorted(header)) if name == following]
    if twice:
        raise RejectionError("corrupt_table", f"the CSV header names {twice[0]!r} twice")
    return header


def _csv_records(lines: _CsvLines) -> Iterator[list[str] | RejectionError]:
    """Yield the cells of each record that is not blank, or why there are none."""
    reader = csv.reader(lines, strict=True)
    while True:
        lines.begin_record()
        try:
            if cells := next(reader):
                yield cells
        except StopIteration:
            return
        except csv.Error as error:
            yield RejectionError("invalid_csv", str(error))
        except RejectionError as why:
            if why.reason != "row_too_long":
                raise
            yield why


def read_csv(chunks: Iterator[bytes], source_file: str, limits: ReadLimits) -> Iterator[RawRow]:
    """Yield the rows of a CSV file with a header; the first row after it is row 1.

    Raises:
        RejectionError: as the chunks do, or ``corrupt_table`` where the header is damaged.
    """
    # The csv module has one limit for the process; records are bounded before it is reached.
    csv.field_size_limit(max(csv.field_size_limit(), limits.max_row_bytes))
    lines = _CsvLines(chunks, limits)
    records = _csv_records(lines)
    header = _csv_header(next(records, []))
    for number, cells in enumerate(records, start=1):
        try:
            if isinstance(cells, RejectionError):
                raise cells
            record = _csv_record(header, cells)
            yield RawRow(source_file, number, json_text(record), record)
        except RejectionError as why:
            yield rejected_row(source_file, number, lines.raw(), why)


def _slices(path: Path) -> Iterator[pl.DataFrame]:
    """Yield the table in slices of about ``_SLICE_BYTES``."""
    table = scan_table(path)
    num_rows = table.select(pl.len()).collect().item()
    offset, slice_rows = 0, _FIRST_SLICE_ROWS
    while offset < num_rows:
        part = table.slice(offset, slice_rows).collect()
        if part.is_empty():
            raise RejectionError("corrupt_table", f"{offset} of {num_rows} rows are there")
        yield part
        offset += part.height
        row_bytes = max(part.estimated_size() / part.height, 1)
        slice_rows = min(max(int(_SLICE_BYTES / row_bytes), 1), _MAX_SLICE_ROWS)


def read_parquet(path: Path, source_file: str, limits: ReadLimits) -> Iterator[RawRow]:
    """Yield the rows of a Parquet file, read in slices; dates and times come as text.

    Raises:
        RejectionError: ``corrupt_table``, or ``decompression_bomb`` where the rows expand beyond
            the limits.
        OSError: the system does not let it be read.
    """
    number = num_bytes = 0
    try:
        stored_bytes = path.stat().st_size
        for part in _slices(path):
            for record in iter_records(part):
                number += 1
                raw = json_text(record)
                num_bytes += len(raw)
                limits.check_expansion(num_bytes, stored_bytes)
                if len(raw) > limits.max_row_bytes:
                    why = too_long(len(raw), limits, raw[:PREFIX_BYTES].encode())
                    yield rejected_row(source_file, number, raw, why)
                else:
                    yield RawRow(source_file, number, raw, record)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        detail = f"{error}; write the file again"
        raise RejectionError("corrupt_table", detail) from error
