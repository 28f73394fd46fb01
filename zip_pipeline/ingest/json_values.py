"""Rows of a JSON file: the values are cut apart as bytes, then parsed one by one.

An event parser such as ijson stops for good at the first NaN, bad byte or half-written value and
holds an over-long string in full; here each costs one row.
"""

import json
import re
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TypeAlias

from zip_pipeline.ingest.json_shapes import (
    BEGINS_NESTED,
    LIST_OF_ROWS,
    check_around,
    first_item,
    is_envelope,
    is_list_of_rows,
    is_turn,
    served_row,
    table_rows,
)
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

Value: TypeAlias = Line | RejectionError

_PEEK_BYTES = 1 << 20
# Of an over-long value so much is kept before a place: what precedes a bracket tells what it is.
_LOOK_BACK_BYTES = 1 << 10
_BETWEEN = re.compile(rb"[\s,]*(?:\xef\xbb\xbf[\s,]*)*")
_COMMAS = re.compile(rb"[\s,]*")
# What may become a byte order mark when more is read.
_PARTS_OF_MARK = (b"", b"\xef", b"\xef\xbb")
# JSON has them between its parts only, never in a string.
_LINE_BREAKS = re.compile(r"[\r\n]\s*")
_EMPTY_LINES = re.compile(rb"\s*(?:\{\s*\}[ \t\r]*\n\s*)*")
# Each ends before the next mark outside strings, or before a string that does not end yet.
_TO_BRACKET = rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+'
_TO_MARK = rb'(?:[^"\[\]{},]++|"(?:[^"\\]++|\\.)*+")*+'
_STRING_REST = rb'(?:[^"\\]++|\\.)*+'
if sys.version_info < (3, 11, 5):
    # There possessive groups match wrongly (gh-106052). These match the same, with more memory.
    _TO_BRACKET = rb'(?:[^"\[\]{}]+|"[^"\\]*(?:\\.[^"\\]*)*")*'
    _TO_MARK = rb'(?:[^"\[\]{},]+|"[^"\\]*(?:\\.[^"\\]*)*")*'
    _STRING_REST = rb'[^"\\]*(?:\\.[^"\\]*)*'
TO_BRACKET, TO_MARK, STRING_REST = (
    re.compile(pattern, re.DOTALL) for pattern in (_TO_BRACKET, _TO_MARK, _STRING_REST)
)
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
        while self._mark(TO_MARK) in _CLOSERS:
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
        if self._mark(TO_MARK, ahead=True) != _OPEN_OBJECT:
            return False
        self._at += 1
        begins = self._pass(_OPEN_OBJECT, ahead=True) and is_turn(
            first_item(self._text[: self._at])
        )
        return (
            begins and self._pass(_OPEN_LIST, ahead=True) and self._at <= self._limits.max_row_bytes
        )

    def _items(self) -> Iterator[Value]:
        """Yield the items of the list whose bracket has just been cut off."""
        mark = _COMMA
        while mark != _CLOSE_LIST:
            while (mark := self._mark(TO_MARK)) not in (_COMMA, _CLOSE_LIST):
                self._at += 1
                if mark == _END or (mark in _OPENERS and not self._pass(mark)):
                    raise self._ending()
            line = self._cut()
            if mark == _COMMA and not line.text.strip():
                # However many commas have nothing between them, they are one row.
                yield self._commas()
                continue
            if line.text.strip():
                yield line
            del self._text[:1]

    def _commas(self) -> Line:
        """Cut off the commas that are here, and what is blank between them."""
        while True:
            match = _COMMAS.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or not self._fill():
                return self._cut()

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
        if is_long or not self._may_be_table or not BEGINS_NESTED.match(line.text):
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
        while (mark := self._mark(TO_BRACKET, ahead=True)) in _OPENERS:
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
        while mark := self._mark(TO_BRACKET, ahead=ahead):
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
            match = (STRING_REST if self._in_string else skipped).match(text, self._at)
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
        line = self._cut()
        detail = f"the file ends inside a list or object, {line.num_bytes} bytes after it begins"
        why = self._failure or RejectionError("invalid_json", detail)
        why.raw = (self._around + line.text).decode("utf-8", "replace")
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
        return named_so and not LIST_OF_ROWS.match(line)
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
            text, record = served_row(*parse_bytes(value.text, limits))
        except RejectionError as why:
            yield rejected_row(source_file, number, "", why)
        else:
            yield RawRow(source_file, number, _one_line(text), record)


def _too_long_value(value: Line, limits: ReadLimits) -> RejectionError:
    why = too_long(value.num_bytes, limits, value.text)
    if BEGINS_NESTED.match(value.text):
        why.detail += "; if the object is a whole table, write its rows one per line"
    return why
