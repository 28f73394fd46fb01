"""Rows of CSV, Parquet and Arrow files."""

import csv
import errno
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from zoneinfo import ZoneInfo

import polars as pl

from zip_pipeline.errors import UserError
from zip_pipeline.files import scan_table
from zip_pipeline.ingest.json_shapes import is_known
from zip_pipeline.ingest.rows import (
    PREFIX_BYTES,
    RawRow,
    ReadLimits,
    Record,
    RejectionError,
    encoding_hint,
    holds_messages,
    json_text,
    rejected_row,
    too_long,
)
from zip_pipeline.ingest.streams import peek
from zip_pipeline.ingest.text import Line, split_lines

_Convert: TypeAlias = Callable[[Any], object]

# Columns whose cells hold lists of objects, which CSV can only carry as JSON text.
_MESSAGE_COLUMNS = ("conversations", "conversation", "messages", "completions", "tool_calls")
_TEXT_OR_MESSAGE_COLUMNS = ("prompt", "completion", "chosen", "rejected")
_COLUMNS_OF_TURNS = _MESSAGE_COLUMNS + _TEXT_OR_MESSAGE_COLUMNS
_SPEAKERS = {"role", "from"}
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


def _value_of_json(text: str) -> object:
    """Return what a value of Arrow's type of JSON text holds, as ``datasets`` stores messages."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _each_item(convert: _Convert, items: list[object]) -> object:
    return [None if item is None else convert(item) for item in items]


def _each_field(converts: dict[str, _Convert], fields: Record) -> Record:
    return fields | {
        name: convert(value)
        for name, convert in converts.items()
        if (value := fields[name]) is not None
    }


def _present_fields(converts: dict[str, _Convert], fields: Record) -> Record:
    """Return the fields that are not null.

    A column has one type, so each object in it gets the fields of all of them, null where it had
    none: the arguments of one tool those of another.
    """
    present = {name: value for name, value in fields.items() if value is not None}
    return _each_field({name: converts[name] for name in converts if name in present}, present)


def _turns_of_lists(convert: _Convert | None, lists: Record) -> object:
    """Return turns that are kept as one list for each of their fields as a list of turns."""
    plain = convert(lists) if convert else lists
    columns = list(plain.values()) if isinstance(plain, dict) else []
    if None in columns or len(set(map(len, columns))) != 1:
        return plain
    return [dict(zip(lists, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _holds_lists_of_turns(dtype: pl.DataType) -> bool:
    return (
        isinstance(dtype, pl.Struct)
        and any(field.name in _SPEAKERS for field in dtype.fields)
        and all(isinstance(field.dtype, pl.List | pl.Array) for field in dtype.fields)
    )


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
        if fields.keys() & _SPEAKERS:
            # A turn without content is no turn; one whose content is null is empty.
            return struct, partial(_each_field, converts) if converts else None
        return struct, partial(_present_fields, converts)
    if dtype.is_extension() and dtype.ext_name() == "arrow.json":
        return dtype, _value_of_json
    convert = _text_of(dtype)
    return (pl.Int64(), convert) if convert else (dtype, None)


def iter_records(table: pl.DataFrame) -> Iterator[Record]:
    """Yield the rows of a table as records, with dates, times and durations as text.

    The text is that of ``str`` for what Python can hold, such as ``2024-02-29 12:00:00+09:00``;
    further years are written alike, such as ``+56728-02-22``. Nanoseconds are cut off. Values of
    Arrow's type of JSON text come as what they hold. Objects inside of a column come without
    their null fields, conversations as lists of turns.
    """
    found = {name: _as_integers(dtype) for name, dtype in table.schema.items()}
    converts = {name: convert for name, (_, convert) in found.items() if convert}
    plain = table.cast({name: found[name][0] for name in converts})
    for name, dtype in table.schema.items():
        if name in _COLUMNS_OF_TURNS and _holds_lists_of_turns(dtype):
            converts[name] = partial(_turns_of_lists, converts.get(name))
    for record in plain.iter_rows(named=True, buffer_size=_num_rows_at_once(plain)):
        yield _each_field(converts, record) if converts else record


def _num_rows_at_once(table: pl.DataFrame) -> int:
    """Return how many rows of a table may be Python objects at a time.

    Rows that share a text in a table, by a dictionary, each have one of their own in Python.
    """
    sizes = [_num_text_bytes(pl.col(name), dtype) for name, dtype in table.schema.items()]
    texts = [size for size in sizes if size is not None]
    most = table.select(pl.sum_horizontal(texts).max()).item() if texts else 0
    return max(min(_SLICE_BYTES // max(most or 0, 1), _MAX_BUFFERED_ROWS), 1)


def _num_text_bytes(value: pl.Expr, dtype: Any) -> pl.Expr | None:  # noqa: ANN401
    """Return the bytes of all texts in a value, None where its type holds none."""
    if isinstance(dtype, pl.String):
        return value.str.len_bytes().cast(pl.Int64)
    if isinstance(dtype, pl.List):
        inner = _num_text_bytes(pl.element(), dtype.inner)
        return None if inner is None else value.list.eval(inner).list.sum()
    if isinstance(dtype, pl.Struct):
        fields = [_num_text_bytes(value.struct.field(f.name), f.dtype) for f in dtype.fields]
        texts = [size for size in fields if size is not None]
        return pl.sum_horizontal(texts) if texts else None
    return None


_SEPARATORS = (",", "\t", ";", "|")
_SAMPLE_BYTES = 1 << 16
_NUM_SAMPLE_LINES = 100
MAGIC_BYTES = 8
_FIRST_SLICE_ROWS = 256
_MAX_SLICE_ROWS = 1 << 14
_SLICE_BYTES = 16 << 20
_MAX_BUFFERED_ROWS = 512


class _CsvLines:
    """Feeds ``csv.reader`` with text lines and keeps those of the record at hand."""

    def __init__(self, chunks: Iterator[bytes], limits: ReadLimits) -> None:
        self._lines = split_lines(chunks, limits.max_row_bytes)
        self._limits = limits
        self._taken: list[bytes] = []
        self._num_bytes = 0
        # Lines to be read again, as short as they may be; then one that did not fit into a record.
        self._given_back: deque[bytes] = deque()
        self._pending: Line | None = None
        # So much may be read again; it grows with what is read, so that the time is linear.
        self._budget_bytes = limits.max_row_bytes

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        is_again = bool(self._given_back)
        line = self._next_line()
        if self._taken and self._num_bytes + line.num_bytes > self._limits.max_row_bytes:
            if is_again:
                self._given_back.appendleft(line.text)
            else:
                self._pending = line
            raise too_long(self._num_bytes + line.num_bytes, self._limits, self._taken[0])
        if not self._taken:
            # Empty lines between records are none, however many they are.
            line = Line(b"", 0) if line.num_lines > 1 else line
        self._num_bytes += line.num_bytes
        self._taken.append(line.text)
        if self._num_bytes > self._limits.max_row_bytes:
            raise too_long(self._num_bytes, self._limits, self._taken[0])
        # Bytes that are not UTF-8 must not end the record in the middle of its quotes.
        return line.text.decode("utf-8", "surrogateescape") + "\n"

    def _next_line(self) -> Line:
        if self._given_back:
            text = self._given_back.popleft()
            return Line(text, len(text), 1 + text.count(b"\n"))
        if line := self._pending:
            self._pending = None
            return line
        line = next(self._lines)
        self._budget_bytes += 2 * line.num_bytes
        return line

    def begin_record(self) -> None:
        """Forget the lines of the last record."""
        self._taken.clear()
        self._num_bytes = 0

    def raw(self) -> str:
        """Return the text of the record at hand."""
        return b"\n".join(self._taken).decode("utf-8", "replace").rstrip("\r")

    def rejected(self, why: RejectionError, num_cells: int, separator: str) -> RejectionError:
        """Return the rejection of the record at hand with how many lines it took in.

        Where they look like records, they are read again, for a quote has not been closed.
        """
        swallowed = self._taken[1:]
        if not swallowed or why.reason not in ("invalid_csv", "row_too_long"):
            return why
        words = f"{why.detail}; a quote opens in the first of {len(self._taken)} lines"
        self._budget_bytes -= self._num_bytes
        if self._budget_bytes < 0 or not _look_like_records(swallowed, num_cells, separator):
            return RejectionError(why.reason, f"{words}, which all went into this row", why.raw)
        self._given_back.extendleft(reversed(swallowed))
        del self._taken[1:]
        detail = f"{words} and does not close in it; the others are read as rows of their own"
        return RejectionError("invalid_csv", detail, self.raw())


def _look_like_records(lines: list[bytes], num_cells: int, separator: str) -> bool:
    """Return whether half of the first lines have as many cells as the header, above one."""
    texts = [line.decode("utf-8", "surrogateescape") for line in lines[:_NUM_SAMPLE_LINES]]
    counts = [_num_cells(text, separator) for text in texts if text.strip()]
    return num_cells > 1 and 2 * counts.count(num_cells) >= max(len(counts), 1)


def _num_cells(line: str, separator: str) -> int:
    """Return how many cells a line has, 0 where it is no record."""
    try:
        return len(next(csv.reader([line], delimiter=separator, strict=True)))
    except csv.Error:
        return 0


def check_separator(separator: str) -> str:
    """Return a separator of CSV cells.

    Raises:
        UserError: it is not a single character, or one that has a meaning of its own.
    """
    if len(separator) != 1 or separator in '"\r\n':
        raise UserError(
            f"separator: {separator!r} cannot separate cells; expected one character, "
            'such as "," or ";" or "\\t"'
        )
    return separator


def _separator_of(head: bytes, first_guess: str) -> str:
    """Return what separates the cells, told from the first records.

    It splits the header, and of the first records as many as possible into as many cells; of equal
    ones it is ``first_guess``, then the first of comma, tab, semicolon and bar.
    """
    lines = [f"{line}\n" for line in head.decode("utf-8", "replace").split("\n")]
    guesses = dict.fromkeys((first_guess, *_SEPARATORS))
    return max(guesses, key=lambda separator: _agreement(lines, separator))


def _agreement(lines: list[str], separator: str) -> float:
    try:
        records = list(islice(csv.reader(lines, delimiter=separator), _NUM_SAMPLE_LINES))
    except csv.Error:
        return 0.0
    # The last line may be cut off.
    counts = [len(cells) for cells in records if cells][: max(len(records) - 1, 1)]
    return counts.count(counts[0]) / len(counts) if counts and counts[0] > 1 else 0.0


def _cell_value(column: str, cell: str) -> object:
    """Return the parsed JSON of a cell that holds messages, else the text."""
    if column not in _MESSAGE_COLUMNS + _TEXT_OR_MESSAGE_COLUMNS or not cell.startswith("["):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return value if column in _MESSAGE_COLUMNS or holds_messages(value) else cell


def _csv_record(header: list[str], cells: list[str]) -> Record:
    if len(cells) != len(header):
        raise RejectionError("invalid_csv", f"{len(cells)} cells, the header has {len(header)}")
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError:
        text = " ".join(cells).encode("utf-8", "surrogateescape")
        detail = f"the row holds bytes that are not UTF-8{encoding_hint(text)}"
        raise RejectionError("bad_encoding", detail) from None
    return {column: _cell_value(column, cell) for column, cell in zip(header, cells, strict=True)}


def _csv_header(cells: list[str] | RejectionError) -> list[str]:
    if isinstance(cells, RejectionError):
        raise RejectionError("corrupt_table", f"the CSV header is damaged: {cells.detail}")
    header = [name.strip() for name in cells]
    text = ",".join(header).encode("utf-8", "surrogateescape")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        detail = f"the CSV header holds bytes that are not UTF-8{encoding_hint(text)}"
        raise RejectionError("bad_encoding", detail) from None
    twice = [name for name, following in pairwise(sorted(header)) if name == following]
    if twice:
        raise RejectionError("corrupt_table", f"the CSV header names {twice[0]!r} twice")
    lower = [name if name.lower() in header else name.lower() for name in header]
    return lower if is_known(dict.fromkeys(lower, "")) else header


def _csv_records(lines: _CsvLines, separator: str) -> Iterator[list[str] | RejectionError]:
    """Yield the cells of each record that is not blank, or why there are none."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
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


_SEPARATOR_LINE = re.compile(rb"sep=([\t -~])\r?\n", re.IGNORECASE)


def read_csv(
    chunks: Iterator[bytes],
    source_file: str,
    limits: ReadLimits,
    *,
    separator: str | None = None,
    first_guess: str = ",",
) -> Iterator[RawRow]:
    """Yield the rows of a CSV file with a header; the first row after it is row 1.

    Args:
        chunks: the text.
        source_file: the name of the file in its drop.
        limits: what a row may cost.
        separator: between cells; None tells it from the first records.
        first_guess: the separator where the records do not tell.

    Raises:
        RejectionError: as the chunks do, or ``corrupt_table`` where the header is damaged.
    """
    # The csv module has one limit for the process; records are bounded before it is reached.
    csv.field_size_limit(max(csv.field_size_limit(), limits.max_row_bytes))
    head, chunks = peek(chunks, lambda head: len(head) >= _SAMPLE_BYTES)
    if b"\r" in head and b"\n" not in head:
        # As old Macs end lines.
        chunks = (chunk.replace(b"\r", b"\n") for chunk in chunks)
        head = head.replace(b"\r", b"\n")
    # Excel reads such a first line as the separator.
    if match := _SEPARATOR_LINE.match(head):
        separator = separator or match[1].decode()
        chunks = chain((next(chunks, b"")[match.end() :],), chunks)
    if separator is None:
        separator = _separator_of(head[:_SAMPLE_BYTES], first_guess)
    lines = _CsvLines(chunks, limits)
    records = _csv_records(lines, separator)
    header = _csv_header(next(records, []))
    for number, cells in enumerate(records, start=1):
        try:
            if isinstance(cells, RejectionError):
                raise cells
            record = _csv_record(header, cells)
            yield RawRow(source_file, number, json_text(record), record)
        except RejectionError as error:
            why = lines.rejected(error, len(header), separator)
            yield rejected_row(source_file, number, lines.raw(), why)


_ARROW_FILE = b"ARROW1\0\0"
_ARROW_MESSAGE = b"\xff\xff\xff\xff"
_RECORD_BATCH = 3


def is_table(head: bytes) -> bool:
    """Return whether a file that begins so is a Parquet or Arrow file, whatever its name."""
    return head.startswith((b"PAR1\x15", _ARROW_FILE, _ARROW_MESSAGE))


_VALUE_BYTES = 32
"""What a value costs at least as Python holds it."""


class _Thrift:
    """Reads values of Thrift's compact protocol: structs as their fields by number.

    Source: Apache Thrift, "Thrift compact protocol".
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self) -> dict[int, Any]:
        """Return the fields of a struct; texts and fractions, which nobody asks for, as None."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 15)
        return fields

    def _value(self, kind: int) -> Any:  # noqa: ANN401
        if kind in (1, 2):  # true and false, which have no bytes in a struct
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind in (7, 8):
            return self._skip(8 if kind == 7 else self._size())
        if kind in (9, 10):
            head = self._byte()
            size = self._size() if head >> 4 == 15 else head >> 4
            inner = 3 if head & 15 in (1, 2) else head & 15
            return [self._value(inner) for _ in range(size)]
        if kind == 12:
            return self.struct()
        raise ValueError(f"no field of Parquet has the type {kind}")

    def _byte(self) -> int:
        self._skip(1)
        return self._data[self._at - 1]

    def _skip(self, num_bytes: int) -> None:
        self._at += num_bytes
        if self._at > len(self._data):
            raise ValueError("the data end inside a value")

    def _size(self) -> int:
        size = shift = 0
        while (byte := self._byte()) & 0x80:
            size |= (byte & 0x7F) << shift
            shift += 7
        return size | byte << shift

    def _integer(self) -> int:
        size = self._size()
        return (size >> 1) ^ -(size & 1)


def _check_footer(path: Path, limits: ReadLimits) -> None:
    """Refuse a Parquet file whose footer tells that it expands beyond the limits.

    A cell of a gigabyte, or a list of a hundred million zeros, lies in some kilobytes, and Polars
    decodes a row as a whole. What is wrong with a damaged footer Polars tells.

    Source: Apache Parquet, ``parquet.thrift``: FileMetaData, RowGroup, ColumnChunk, ColumnMetaData.

    Raises:
        RejectionError: ``decompression_bomb``.
    """
    with path.open("rb") as file:
        stored_bytes = file.seek(0, io.SEEK_END)
        file.seek(max(stored_bytes - MAGIC_BYTES, 0))
        size, mark = int.from_bytes(file.read(4), "little"), file.read()
        if mark != b"PAR1" or size > stored_bytes - 2 * MAGIC_BYTES:
            return
        file.seek(stored_bytes - MAGIC_BYTES - size)
        footer = _Thrift(file.read(size))
    try:
        chunks = [column[3] for group in footer.struct()[4] for column in group[1]]
        num_bytes = sum(chunk[6] + _VALUE_BYTES * chunk[5] for chunk in chunks)
    except (LookupError, TypeError, ValueError, RecursionError):
        return
    limits.check_expansion(num_bytes, stored_bytes)


def _parts(path: Path) -> Iterator[pl.DataFrame]:
    """Yield the rows of a Parquet file, or of an Arrow file or stream, a part at a time."""
    with path.open("rb") as file:
        head = file.read(MAGIC_BYTES)
    if head.startswith(_ARROW_MESSAGE):
        return _batches(path)
    if head.startswith(b"FEA1"):
        detail = "this is the first version of Feather; write the file again as Arrow"
        raise RejectionError("corrupt_table", detail)
    is_arrow = head.startswith(_ARROW_FILE)
    return _slices(pl.scan_ipc(path, glob=False) if is_arrow else scan_table(path))


def _batches(path: Path) -> Iterator[pl.DataFrame]:
    """Yield the batches of an Arrow stream.

    Polars reads a stream as a whole or not at all, so each batch is given to it as a stream of its
    own, after the schema and the dictionaries.
    """
    before = b""
    with path.open("rb") as file:
        for kind, message in _messages(file, path.stat().st_size):
            if kind != _RECORD_BATCH:
                before += message
                continue
            yield pl.read_ipc_stream(io.BytesIO(before + message + _ARROW_MESSAGE + bytes(4)))


def _messages(file: BinaryIO, num_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the bytes of each message of an Arrow stream.

    Source: Arrow Columnar Format, "Encapsulated message format".
    """
    while prefix := file.read(MAGIC_BYTES):
        size = int.from_bytes(prefix[4:], "little")
        if prefix == _ARROW_MESSAGE + bytes(4):
            return
        metadata = file.read(min(size, num_bytes))
        kind, body_bytes = _kind_and_body_bytes(metadata)
        is_whole = len(metadata) == size and 0 <= body_bytes <= num_bytes - file.tell()
        if not prefix.startswith(_ARROW_MESSAGE) or not is_whole:
            raise RejectionError("corrupt_table", "an Arrow batch is cut off or damaged")
        yield kind, prefix + metadata + file.read(body_bytes)


def _kind_and_body_bytes(metadata: bytes) -> tuple[int, int]:
    """Return the fields ``header_type`` and ``bodyLength`` of a message, 0 where they are absent.

    Source: FlatBuffers Internals; Arrow's ``format/Message.fbs``, where they are fields 1 and 3.
    """

    def number(at: int, size: int) -> int:
        return int.from_bytes(metadata[at : at + size], "little", signed=True)

    def value(field: int, size: int) -> int:
        # The offsets of fields follow two sizes, of the offsets' own table and of the values'.
        at = 4 + 2 * field
        offset = number(offsets + at, 2) if at < number(offsets, 2) else 0
        return number(table + offset, size) if offset else 0

    table = number(0, 4)
    offsets = table - number(table, 4)
    return value(1, 1), value(3, 8)


def _slices(table: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the table in slices of about ``_SLICE_BYTES``."""
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


def read_table(path: Path, source_file: str, limits: ReadLimits) -> Iterator[RawRow]:
    """Yield the rows of a Parquet or Arrow file, part by part; dates and times come as text.

    Raises:
        RejectionError: ``corrupt_table``, or ``decompression_bomb`` where the rows expand beyond
            the limits.
        OSError: the system does not let it be read.
    """
    number = num_bytes = 0
    try:
        stored_bytes = path.stat().st_size
        _check_footer(path, limits)
        for part in _parts(path):
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
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        if isinstance(error, OSError) and _is_of_system(error):
            raise
        detail = f"{error}; write the file again"
        raise RejectionError("corrupt_table", detail) from error


def _is_of_system(error: OSError) -> bool:
    """Return whether the system withholds a file, which has a number, unlike damage.

    But where damage names a place that no file has, the system finds that invalid.
    """
    told = re.search(r"os error (\d+)", str(error))
    number = error.errno or (told and int(told[1]))
    return number not in (None, errno.EINVAL)
