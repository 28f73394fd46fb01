"""Rows of a JSON file: the values are cut apart as bytes, then parsed one by one.

An event parser such as ijson stops for good at the first NaN, bad byte or half-written value and
holds an over-long string in full; here each costs one row.

The rows of an envelope are its list ``data`` or ``rows``, a list of objects or, for ``data``,
lists. Beside it an envelope
has only metadata: numbers, null, and texts under the names in ``METADATA_KEYS``, at any depth.
Metadata is left out, so whatever could be a row must not count as metadata. An object that
without its list is a row of a known format is a row. One with further lists of rows is rejected.
One with other texts is an envelope only if its list begins with a row of a known format; then
what is around the list is rejected on its own. Else the object is a row, or a whole table: see
:func:`table_rows`. A list that begins with a turn is a conversation, which is a row.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeAlias

from zip_pipeline.ingest.formats import FORMATS
from zip_pipeline.ingest.rows import (
    PREFIX_BYTES,
    RawRow,
    ReadLimits,
    Record,
    RejectionError,
    holds_messages,
    json_text,
    parse_bytes,
    rejected_row,
    too_long,
)
from zip_pipeline.ingest.streams import peek
from zip_pipeline.ingest.text import Line, read_json_lines

_METADATA_NAMES = """
name description version license author authors citation homepage url date created created_at
language split source
"""
METADATA_KEYS = frozenset(_METADATA_NAMES.split())
_TURNS = ({"role", "content"}, {"from", "value"})
_LIST_OF_ROWS = re.compile(rb"\[\s*+[\[{\]]")
_FIRST_BYTES = 1 << 20
_SERVED_KEYS = {"row_idx", "row", "truncated_cells"}


def is_list_of_rows(items: bytes | bytearray, key: str) -> bool:
    """Return whether the list that begins here is empty, or begins with a list or object.

    A list that begins with a turn of a conversation holds none. Under ``rows`` tables have their
    cells as lists, so a list does not count there.
    """
    first = _first_item(items)
    if _is_turn(first) or (key == "rows" and isinstance(first, list)):
        return False
    return _LIST_OF_ROWS.match(items) is not None


def is_envelope(around: bytes, items: bytes, limits: ReadLimits, key: str) -> bool:
    """Return whether an object is an envelope; else it is a row.

    Args:
        around: the object with an empty list in place of its rows.
        items: the list of rows, or its beginning.
        limits: what a row may cost.
        key: the name of the list.

    Raises:
        RejectionError: ``mixed_object`` where it holds other lists of rows.
    """
    try:
        text, record = parse_bytes(around, limits)
    except RejectionError:
        # The rows may be sound; what is broken is rejected after them.
        return True
    if is_known(record):
        return False
    own = _own_fields(text)
    if own and all(own.values()):
        raise _mixed(own, key)
    return not own or is_known(_first_item(items))


def check_around(around: bytes, limits: ReadLimits, key: str) -> None:
    """Check that only metadata is around the rows of an envelope.

    Raises:
        RejectionError: ``mixed_object``, or as :func:`~zip_pipeline.ingest.rows.parse_bytes`; with
            the raw text.
    """
    text, record = parse_bytes(around, limits)
    own = _own_fields(text)
    if own or is_known(record):
        why = _mixed(own or record, key)
        why.raw = text
        raise why


def _mixed(fields: Iterable[str], key: str) -> RejectionError:
    names = ", ".join(json.dumps(name) for name in list(fields)[:20])
    return RejectionError(
        "mixed_object",
        f'the object has {names} beside its list of rows "{key}"; '
        "put each list into a file of its own, other fields into none",
    )


def _first_item(items: bytes | bytearray) -> object:
    """Return the first item of a list, None where it is broken or very long."""
    text = items[1:_FIRST_BYTES].decode("utf-8", "replace").lstrip()
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def is_known(value: object) -> bool:
    """Return whether a value is a record that looks like one of the formats."""
    return isinstance(value, dict) and any(f.matches(value) for f in FORMATS.values())


def _is_turn(value: object) -> bool:
    return isinstance(value, dict) and any(fields <= value.keys() for fields in _TURNS)


def _own_fields(text: str) -> dict[str, bool]:
    """Return the fields of an object that are no metadata, and whether each is a list of rows."""
    # Objects become pairs, so that of a name that comes twice no value is missed.
    pairs = json.loads(text, object_pairs_hook=tuple)
    return {
        name: _holds_rows(value)
        for name, value in pairs
        if not _is_metadata(name, value) and not _is_schema(name, value)
    }


def _is_metadata(name: str, value: object) -> bool:
    if isinstance(value, tuple):
        record: Record = dict(value)
        return not is_known(record) and all(_is_metadata(*pair) for pair in value)
    if isinstance(value, list):
        return all(_is_metadata(name, item) for item in value)
    return not isinstance(value, str) or not value.strip() or name.lower() in METADATA_KEYS


def _is_schema(name: str, value: object) -> bool:
    """Return whether a field is what the datasets server tells of the columns."""
    items = value if name == "features" and isinstance(value, list) else [None]
    return all(isinstance(item, tuple) and "feature_idx" in dict(item) for item in items)


def _holds_rows(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, tuple) and not _is_turn(dict(item)) for item in value
    )


_CONVERSATIONS = ("messages", "conversations", "conversation")
_BEGINS_NESTED = re.compile(rb'\{\s*+"(?:[^"\\]++|\\.)*+"\s*+:\s*+[\[{]')


def table_rows(text: bytes, *, is_alone: bool) -> Iterator[Record] | None:
    """Return the rows of an object that is a whole table, None where it is a row itself.

    A table is an object of columns, lists or objects by row number, all with as many cells; what
    Pandas writes with ``orient="split"``; or an object that holds rows by their ids.

    Args:
        text: the object.
        is_alone: whether nothing else is in the file; only then fields of no known format count.
    """
    if not _BEGINS_NESTED.match(text):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    for shape in (_rows_of_columns, _rows_of_split, _rows_by_id):
        if rows := shape(value, is_alone):
            return rows
    return None


def _unique(pairs: list[tuple[str, object]]) -> Record:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a name comes twice")
    return record


def _rows_of_columns(value: Record, is_alone: bool) -> Iterator[Record] | None:
    indices = [list(column) for column in value.values() if isinstance(column, dict)]
    if indices and indices != [indices[0]] * len(value):
        return None
    columns = [_cells(column) for column in value.values()]
    num_rows = {len(cells) for cells in columns}
    if len(columns) < 2 or len(num_rows) > 1 or num_rows == {0}:
        return None
    first = {name: cells[0] for name, cells in zip(value, columns, strict=True)}
    is_row = any(
        holds_messages(cells) or (name in _CONVERSATIONS and not _may_hold_turns(cells[0]))
        for name, cells in zip(value, columns, strict=True)
    )
    is_plain = not any(isinstance(cell, dict | list) for cell in first.values())
    if is_row or not (is_known(first) or (is_alone and num_rows != {1} and is_plain)):
        return None
    return (dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True))


def _cells(column: object) -> list[object]:
    """Return the cells of a column; none where it is no column."""
    if isinstance(column, dict) and all(name.isdecimal() for name in column):
        return list(column.values())
    return column if isinstance(column, list) else []


def _may_hold_turns(cell: object) -> bool:
    return isinstance(cell, list) or (isinstance(cell, str) and cell.lstrip().startswith("["))


def _rows_of_split(value: Record, is_alone: bool) -> Iterator[Record] | None:
    names, rows = value.get("columns"), value.get("data")
    if not isinstance(names, list) or not isinstance(rows, list) or not is_alone:
        return None
    if value.keys() - {"columns", "index", "data"} or len(set(map(str, names))) < len(names):
        return None
    if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return None
    return (dict(zip(map(str, names), row, strict=True)) for row in rows)


def _rows_by_id(value: Record, is_alone: bool) -> Iterator[Record] | None:
    rows = [row for row in value.values() if isinstance(row, dict) and not _is_turn(row)]
    if len(rows) < len(value) or is_known(value):
        return None
    is_alike = len(rows) > 1 and all(row.keys() == rows[0].keys() for row in rows)
    if not all(map(is_known, rows)) and not (is_alone and is_alike and rows[0]):
        return None
    return (dict[str, object](id=key) | row for key, row in zip(value, rows, strict=True))


Value: TypeAlias = Line | RejectionError

_PEEK_BYTES = 1 << 20
# Of an over-long value so much is kept before a place: what precedes a bracket tells what it is.
_LOOK_BACK_BYTES = 1 << 10
_BETWEEN = re.compile(rb"(?:[\s,]++|\xef\xbb\xbf)*+")
# What may become a byte order mark when more is read.
_PARTS_OF_MARK = (b"", b"\xef", b"\xef\xbb")
# JSON has them between its parts only, never in a string.
_LINE_BREAKS = re.compile(r"[\r\n]\s*")
_EMPTY_LINES = re.compile(rb"\s*+(?:\{\s*+\}[ \t\r]*+\n\s*+)*+")
# Each ends before the next mark outside strings, or before a string that does not end yet.
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_TO_MARK = re.compile(rb'(?:[^"\[\]{},]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_QUOTE, _BACKSLASH, _COMMA, _OPEN_LIST, _CLOSE_LIST, _OPEN_OBJECT, _CLOSE_OBJECT = b'"\\,[]{}'
_OPENERS, _CLOSERS = (_OPEN_LIST, _OPEN_OBJECT), (_CLOSE_LIST, _CLOSE_OBJECT)
_WHITE_SPACE = b" \t\r\n"
_KEYS_OF_ROWS = (b'"data"', b'"rows"')
_END = 0


class ValueSplitter:
    """Cuts a JSON text into its rows: the items of lists and envelopes, and single objects.

    Brackets are counted, whatever stands between them, so that every byte lands in a row or in
    what is around the rows of an envelope. In an object a bracket follows a colon; one that follows
    a comma or begins a line shows that the object has lost its end, and ends it.
    """

    def __init__(
        self, chunks: Iterator[bytes], limits: ReadLimits, *, is_whole: bool = True
    ) -> None:
        self._chunks = chunks
        # Whether the chunks are all of the file.
        self._is_whole = is_whole
        # Of many objects the first tells for all, so that they are not parsed twice.
        self._may_be_table = True
        self._limits = limits
        # What is not cut off yet; it begins with a value, which is read up to ``_at``.
        self._text = bytearray()
        self._at = 0
        self._in_string = False
        # Of an over-long value only the beginning is kept.
        self._num_kept = min(limits.max_row_bytes, PREFIX_BYTES)
        self._num_left_out = 0
        self._around = b""
        self._key = ""
        self._failure: RejectionError | None = None

    def split(self) -> Iterator[Value]:
        """Yield the rows, and the rejections of what is no row.

        Raises:
            RejectionError: as the chunks do; ``invalid_json`` where the text ends inside a value.
        """
        while self._has_value():
            if self._text[0] == _OPEN_LIST:
                yield from self._list()
            elif self._text[0] == _OPEN_OBJECT:
                yield from self._object()
            else:
                yield self._junk()
            self._is_whole = False
        if self._failure:
            raise self._failure

    def _has_value(self) -> bool:
        """Go to the next value outside lists and return whether there is one."""
        while True:
            match = _BETWEEN.match(self._text)
            del self._text[: match.end() if match else 0]
            if self._text not in _PARTS_OF_MARK or not self._fill():
                return bool(self._text)

    def _junk(self) -> Line:
        """Cut off what is neither list nor object."""
        while self._mark(_TO_MARK) in _CLOSERS:
            self._at += 1
        return self._cut()

    def _list(self) -> Iterator[Value]:
        """Yield the items of a list, or the list as one row where it is a conversation."""
        if self._is_conversation():
            yield self._cut()
            return
        self._at, self._in_string = 0, False
        del self._text[:1]
        yield from self._items()

    def _is_conversation(self) -> bool:
        """Return whether a list begins with a turn and is no longer than a row; go to its end."""
        self._at = 1
        if self._mark(_TO_MARK, ahead=True) != _OPEN_OBJECT:
            return False
        self._at += 1
        begins = self._pass(_OPEN_OBJECT, ahead=True) and _is_turn(_first_item(self._text))
        return (
            begins and self._pass(_OPEN_LIST, ahead=True) and self._at <= self._limits.max_row_bytes
        )

    def _items(self) -> Iterator[Value]:
        """Yield the items of the list whose bracket has just been cut off."""
        mark = _COMMA
        while mark != _CLOSE_LIST:
            while (mark := self._mark(_TO_MARK)) not in (_COMMA, _CLOSE_LIST):
                self._at += 1
                if mark == _END or (mark in _OPENERS and not self._pass(mark)):
                    raise self._ending()
            line = self._cut()
            if mark == _COMMA or line.text.strip():
                yield line
            del self._text[:1]

    def _object(self) -> Iterator[Value]:
        """Yield the rows of an envelope, or the object as one row.

        An object longer than a row may be is an envelope if it has a list of rows.
        """
        rows, is_whole = self._look_ahead()
        refused = None
        if rows and is_whole:
            try:
                rows = rows if self._is_envelope(rows) else None
            except RejectionError as why:
                refused, rows = why, None
        if rows:
            yield from self._envelope(rows)
            return
        if not is_whole:
            self._at, self._in_string = 1, False
            if not self._pass(_OPEN_OBJECT):
                raise self._ending()
        line = self._cut()
        if refused:
            refused.raw = line.text.decode("utf-8", "replace")
            yield refused
        elif rows_of_table := self._table(line):
            yield from rows_of_table
        else:
            yield line

    def _table(self, line: Line) -> Iterator[Value] | None:
        """Return the rows of an object that is a whole table, None where it is a row."""
        is_long = line.num_bytes > self._limits.max_row_bytes
        if is_long or not self._may_be_table or not _BEGINS_NESTED.match(line.text):
            return None
        is_alone = self._is_whole and not self._has_value()
        rows = table_rows(line.text, is_alone=is_alone)
        self._may_be_table = rows is not None
        return self._rows(rows, line.num_bytes) if rows else None

    def _rows(self, rows: Iterator[Record], stored_bytes: int) -> Iterator[Value]:
        num_bytes = 0
        for row in rows:
            text = json_text(row).encode()
            num_bytes += len(text)
            # Names of columns are repeated in each row.
            self._limits.check_expansion(num_bytes, stored_bytes)
            yield Line(text, len(text))

    def _look_ahead(self) -> tuple[slice | None, bool]:
        """Go to the end of an object, or as far as a row may reach; nothing is cut off.

        Returns:
            where its list of rows lies, and whether the object ends.
        """
        rows = None
        self._at = 1
        while (mark := self._mark(_TO_BRACKET, ahead=True)) in _OPENERS:
            if self._has_lost_end():
                return rows, self._at <= self._limits.max_row_bytes
            start = self._at
            # What lies further than a row may reach is not looked at, however much is read.
            in_reach = start <= self._limits.max_row_bytes
            may_hold = in_reach and not rows and mark == _OPEN_LIST
            key = self._key_of_rows() if may_hold else None
            self._at += 1
            is_whole = self._pass(mark, ahead=True)
            if key and is_list_of_rows(
                self._text[start : min(self._at, self._limits.max_row_bytes)], key
            ):
                rows, self._key = slice(start, self._at), key
            if not is_whole:
                return rows, False
        self._at += 1
        return rows, mark != _END and self._at <= self._limits.max_row_bytes

    def _is_envelope(self, rows: slice) -> bool:
        around = self._text[: rows.start] + b"[]" + self._text[rows.stop : self._at]
        return is_envelope(bytes(around), bytes(self._text[rows]), self._limits, self._key)

    def _envelope(self, rows: slice) -> Iterator[Value]:
        """Yield the rows of an envelope, and the rejection of more than metadata around them."""
        self._at, self._in_string = rows.start, False
        before = self._cut().text
        del self._text[:1]
        self._around = before + b"["
        yield from self._items()
        self._around += b"]"
        if not self._pass(_OPEN_OBJECT):
            raise self._ending()
        after = self._cut()
        around, self._around = self._around + after.text, b""
        num_bytes = len(before) + len(b"[]") + after.num_bytes
        try:
            if num_bytes > self._limits.max_row_bytes:
                raise too_long(num_bytes, self._limits, around)
            check_around(around, self._limits, self._key)
        except RejectionError as why:
            yield why

    def _pass(self, opener: int, *, ahead: bool = False) -> bool:
        """Go behind the end of the value whose opening bracket is passed; False if it has none."""
        depth = 1
        while mark := self._mark(_TO_BRACKET, ahead=ahead):
            if mark in _CLOSERS:
                depth -= 1
            elif depth == 1 and opener == _OPEN_OBJECT and self._has_lost_end():
                return True
            else:
                depth += 1
            self._at += 1
            if depth == 0:
                return True
        return False

    def _has_lost_end(self) -> bool:
        """Return whether the bracket here cannot lie in an object; if so, go where that ends."""
        before = self._end_before(self._at)
        last = self._text[before - 1 : before]
        if last == b",":
            self._at = before - 1
            return True
        return last != b":" and b"\n" in self._text[before : self._at]

    def _key_of_rows(self) -> str | None:
        """Return under which of the keys of rows lies what is here, None where under another."""
        colon = self._end_before(self._at) - 1
        end = self._end_before(colon)
        key = next((key for key in _KEYS_OF_ROWS if self._text.endswith(key, 0, end)), None)
        if key is None or self._text[colon : colon + 1] != b":":
            return None
        opener = self._end_before(end - len(key)) - 1
        # A key that ends in \"data" has a backslash here.
        return key[1:-1].decode() if self._text[opener] in b"{," else None

    def _end_before(self, at: int) -> int:
        """Return where the text before a place ends but for white space."""
        while at > 0 and self._text[at - 1] in _WHITE_SPACE:
            at -= 1
        return at

    def _mark(self, skipped: re.Pattern[bytes], *, ahead: bool = False) -> int:
        """Go to the next mark outside strings and return it, ``_END`` where there is none."""
        text = self._text
        while True:
            match = (_STRING_REST if self._in_string else skipped).match(text, self._at)
            self._at = match.end() if match else self._at
            # In a string the match also stops before a backslash that ends the text.
            mark = text[self._at] if self._at < len(text) else _BACKSLASH
            if mark == _QUOTE:
                self._in_string = not self._in_string
                self._at += 1
            elif mark != _BACKSLASH:
                return mark
            elif not self._fill(ahead=ahead):
                return _END

    def _fill(self, *, ahead: bool = False) -> bool:
        """Take in one more chunk; False at the end, or ``ahead`` of more than a row may have."""
        if self._at > self._limits.max_row_bytes:
            if ahead:
                return False
            num_left_out = max(self._at - self._num_kept - _LOOK_BACK_BYTES, 0)
            del self._text[self._num_kept : self._num_kept + num_left_out]
            self._num_left_out += num_left_out
            self._at -= num_left_out
        try:
            chunk = next(self._chunks, None)
        except RejectionError as why:
            # What came before is read first.
            self._failure, chunk = why, None
        self._text += chunk or b""
        return chunk is not None

    def _cut(self) -> Line:
        """Cut off and return what was passed; of an over-long value only the beginning."""
        num_bytes = self._at + self._num_left_out
        is_kept = num_bytes <= self._limits.max_row_bytes
        line = Line(bytes(self._text[: self._at if is_kept else self._num_kept]), num_bytes)
        del self._text[: self._at]
        self._at, self._num_left_out, self._in_string = 0, 0, False
        return line

    def _ending(self) -> RejectionError:
        """Return the rejection of what the text ends inside."""
        self._at = len(self._text)
        text, num_bytes = self._cut()
        detail = f"the file ends inside a list or object, {num_bytes} bytes after it begins"
        why = self._failure or RejectionError("invalid_json", detail)
        why.raw = (self._around + text).decode("utf-8", "replace")
        return why


def _skip_empty_objects(head: bytes) -> bytes:
    match = _EMPTY_LINES.match(head)
    return head[match.end() if match else 0 :]


def _is_json_lines(head: bytes, limits: ReadLimits, *, named_so: bool) -> bool:
    """Return whether each line is a row of its own, told from the first line.

    Args:
        head: the beginning of the file.
        limits: what a row may cost.
        named_so: whether the file is called so; that decides where the first line is broken.
    """
    first, _, rest = head.partition(b"\n")
    line = first.strip()
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        # What is printed over several lines begins so.
        is_open = line.startswith(b"[") or line.endswith((b"{", b"[", b","))
        return named_so and not is_open
    if not isinstance(value, dict) and not holds_messages(value):
        return named_so and not _LIST_OF_ROWS.match(line)
    splitter = ValueSplitter(iter((line,)), limits, is_whole=not rest.strip())
    values = list(islice(splitter.split(), 2))
    return [v.num_bytes for v in values if isinstance(v, Line)] == [len(line)]


def _shows_first_line(head: bytes) -> bool:
    _, _, rest = _skip_empty_objects(head).partition(b"\n")
    return bool(rest.strip()) or len(head) > _PEEK_BYTES


def _one_line(text: str) -> str:
    """Return a JSON text with the same content in one line."""
    return _LINE_BREAKS.sub(" ", text) if "\n" in text or "\r" in text else text


def read_json(
    chunks: Iterator[bytes], source_file: str, limits: ReadLimits, *, is_lines: bool = False
) -> Iterator[RawRow]:
    """Yield the rows of a JSON file: lines, a list, ``{"data": [...]}`` or one after another.

    ``source_row`` counts the items; where each line is a row of its own, the lines.

    Args:
        chunks: the text.
        source_file: the name of the file in its drop.
        limits: what a row may cost.
        is_lines: whether the file is called a file of JSON lines; the contents tell more.

    Raises:
        RejectionError: as the chunks do, and where the file ends inside a value.
    """
    head, whole = peek(chunks, _shows_first_line)
    if _is_json_lines(_skip_empty_objects(head), limits, named_so=is_lines):
        yield from read_json_lines(whole, source_file, limits)
        return
    for number, value in enumerate(ValueSplitter(whole, limits).split(), start=1):
        try:
            if isinstance(value, RejectionError):
                raise value
            if value.num_bytes > limits.max_row_bytes:
                raise _too_long_value(value, limits)
            text, record = _served_row(*parse_bytes(value.text, limits))
        except RejectionError as why:
            yield rejected_row(source_file, number, "", why)
        else:
            yield RawRow(source_file, number, _one_line(text), record)


def _too_long_value(value: Line, limits: ReadLimits) -> RejectionError:
    why = too_long(value.num_bytes, limits, value.text)
    if _BEGINS_NESTED.match(value.text):
        why.detail += "; if the object is a whole table, write its rows one per line"
    return why


def _served_row(text: str, record: Record) -> tuple[str, Record]:
    """Return a row without what the datasets server puts around it.

    Raises:
        RejectionError: ``unexpected_content`` where the server has cut cells.
    """
    row = record.get("row")
    is_served = isinstance(record.get("row_idx"), int) and not record.keys() - _SERVED_KEYS
    if not is_served or not isinstance(row, dict):
        return text, record
    if cut := record.get("truncated_cells"):
        detail = f"the datasets server has cut the cells {cut}; download the data set instead"
        raise RejectionError("unexpected_content", detail, text)
    return json_text(row), row
