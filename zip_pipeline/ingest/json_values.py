"""Rows of a JSON file: the values are cut apart as bytes, then parsed one by one.

An event parser such as ijson stops for good at the first NaN, bad byte or half-written value and
holds an over-long string in full; here each costs one row.

The rows of an envelope are its list ``data``, a list of objects or lists. Beside it an envelope
has only metadata: numbers, null, and texts under the names in ``METADATA_KEYS``, at any depth.
Metadata is left out, so whatever could be a row must not count as metadata. An object that
without its list is a row of a known format is a row. One with further lists of rows is rejected.
One with other texts is an envelope only if its list begins with a row of a known format; then
what is around the list is rejected on its own. Else the object is a row.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeAlias

from zip_pipeline.ingest.formats import FORMATS
from zip_pipeline.ingest.rows import (
    PREFIX_BYTES,
    RawRow,
    ReadLimits,
    Record,
    RejectionError,
    parse_bytes,
    rejected_row,
    too_long,
)
from zip_pipeline.ingest.text import Line, read_json_lines

_METADATA_NAMES = """
name description version license author authors citation homepage url date created created_at
language split source
"""
METADATA_KEYS = frozenset(_METADATA_NAMES.split())
_TURNS = ({"role", "content"}, {"from", "value"})
_LIST_OF_ROWS = re.compile(rb"\[\s*+[\[{\]]")
_FIRST_BYTES = 1 << 20


def is_list_of_rows(items: bytes | bytearray) -> bool:
    """Return whether the list that begins here is empty, or begins with a list or object.

    A list that begins with a turn of a conversation holds none.
    """
    first = _first_item(items)
    is_turn = isinstance(first, dict) and _is_turn(first)
    return _LIST_OF_ROWS.match(items) is not None and not is_turn


def is_envelope(around: bytes, items: bytes, limits: ReadLimits) -> bool:
    """Return whether an object is an envelope; else it is a row.

    Args:
        around: the object with an empty list in place of its rows.
        items: the list of rows, or its beginning.
        limits: what a row may cost.

    Raises:
        RejectionError: ``mixed_object`` where it holds other lists of rows.
    """
    try:
        text, record = parse_bytes(around, limits)
    except RejectionError:
        # The rows may be sound; what is broken is rejected after them.
        return True
    if _is_known(record):
        return False
    own = _own_fields(text)
    if own and all(own.values()):
        raise _mixed(own)
    return not own or _is_known(_first_item(items))


def check_around(around: bytes, limits: ReadLimits) -> None:
    """Check that only metadata is around the rows of an envelope.

    Raises:
        RejectionError: ``mixed_object``, or as :func:`~zip_pipeline.ingest.rows.parse_bytes`; with
            the raw text.
    """
    text, record = parse_bytes(around, limits)
    own = _own_fields(text)
    if own or _is_known(record):
        why = _mixed(own or record)
        why.raw = text
        raise why


def _mixed(fields: Iterable[str]) -> RejectionError:
    names = ", ".join(json.dumps(name) for name in list(fields)[:20])
    return RejectionError(
        "mixed_object",
        f'the object has {names} beside its list of rows "data"; '
        "put each list into a file of its own, other fields into none",
    )


def _first_item(items: bytes | bytearray) -> object:
    """Return the first item of a list, None where it is broken or very long."""
    text = items[1:_FIRST_BYTES].decode("utf-8", "replace").lstrip()
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _is_known(value: object) -> bool:
    return isinstance(value, dict) and any(f.matches(value) for f in FORMATS.values())


def _is_turn(record: Record) -> bool:
    return any(fields <= record.keys() for fields in _TURNS)


def _own_fields(text: str) -> dict[str, bool]:
    """Return the fields of an object that are no metadata, and whether each is a list of rows."""
    # Objects become pairs, so that of a name that comes twice no value is missed.
    pairs = json.loads(text, object_pairs_hook=tuple)
    return {name: _holds_rows(value) for name, value in pairs if not _is_metadata(name, value)}


def _is_metadata(name: str, value: object) -> bool:
    if isinstance(value, tuple):
        record: Record = dict(value)
        return not _is_known(record) and all(_is_metadata(*pair) for pair in value)
    if isinstance(value, list):
        return all(_is_metadata(name, item) for item in value)
    return not isinstance(value, str) or not value.strip() or name.lower() in METADATA_KEYS


def _holds_rows(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, tuple) and not _is_turn(dict(item)) for item in value
    )


Value: TypeAlias = Line | RejectionError

_PEEK_BYTES = 1 << 20
# Of an over-long value so much is kept before a place: what precedes a bracket tells what it is.
_LOOK_BACK_BYTES = 1 << 10
_BETWEEN = re.compile(rb"[\s,]*+")
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
_DATA_KEY = b'"data"'
_END = 0


class ValueSplitter:
    """Cuts a JSON text into its rows: the items of lists and envelopes, and single objects.

    Brackets are counted, whatever stands between them, so that every byte lands in a row or in
    what is around the rows of an envelope. In an object a bracket follows a colon; one that follows
    a comma or begins a line shows that the object has lost its end, and ends it.
    """

    def __init__(self, chunks: Iterator[bytes], limits: ReadLimits) -> None:
        self._chunks = chunks
        self._limits = limits
        # What is not cut off yet; it begins with a value, which is read up to ``_at``.
        self._text = bytearray()
        self._at = 0
        self._in_string = False
        # Of an over-long value only the beginning is kept.
        self._num_kept = min(limits.max_row_bytes, PREFIX_BYTES)
        self._num_left_out = 0
        self._around = b""
        self._failure: RejectionError | None = None

    def split(self) -> Iterator[Value]:
        """Yield the rows, and the rejections of what is no row.

        Raises:
            RejectionError: as the chunks do; ``invalid_json`` where the text ends inside a value.
        """
        while self._has_value():
            if self._text[0] == _OPEN_LIST:
                del self._text[:1]
                yield from self._items()
            elif self._text[0] == _OPEN_OBJECT:
                yield from self._object()
            else:
                yield self._junk()
        if self._failure:
            raise self._failure

    def _has_value(self) -> bool:
        """Go to the next value outside lists and return whether there is one."""
        while True:
            match = _BETWEEN.match(self._text)
            del self._text[: match.end() if match else 0]
            if self._text or not self._fill():
                return bool(self._text)

    def _junk(self) -> Line:
        """Cut off what is neither list nor object."""
        while self._mark(_TO_MARK) in _CLOSERS:
            self._at += 1
        return self._cut()

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
        yield refused or line

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
            is_data = in_reach and not rows and mark == _OPEN_LIST and self._follows_data()
            self._at += 1
            is_whole = self._pass(mark, ahead=True)
            if is_data and is_list_of_rows(
                self._text[start : min(self._at, self._limits.max_row_bytes)]
            ):
                rows = slice(start, self._at)
            if not is_whole:
                return rows, False
        self._at += 1
        return rows, mark != _END and self._at <= self._limits.max_row_bytes

    def _is_envelope(self, rows: slice) -> bool:
        around = self._text[: rows.start] + b"[]" + self._text[rows.stop : self._at]
        return is_envelope(bytes(around), bytes(self._text[rows]), self._limits)

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
            check_around(around, self._limits)
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

    def _follows_data(self) -> bool:
        """Return whether what lies here is under the key ``data``."""
        colon = self._end_before(self._at) - 1
        key = self._end_before(colon)
        opener = self._end_before(key - len(_DATA_KEY)) - 1
        is_data = self._text[colon : colon + 1] == b":" and self._text.endswith(_DATA_KEY, 0, key)
        # A key that ends in \"data" has a backslash here.
        return is_data and self._text[opener] in b"{,"

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


def _is_json_lines(head: bytes, limits: ReadLimits) -> bool:
    """Return whether the first line is an object of its own and no envelope."""
    first, line_feed, _ = head.partition(b"\n")
    if not line_feed or not first.startswith(b"{"):
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    line = first.rstrip()
    return list(ValueSplitter(iter((line,)), limits).split()) == [Line(line, len(line))]


def _peek(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return what holds the first telling line, if that is not very long, and all chunks."""
    head = b""
    try:
        for chunk in chunks:
            head += chunk
            if b"\n" in _skip_empty_objects(head) or len(head) > _PEEK_BYTES:
                break
    except RejectionError as why:
        return head, _failing(head, why)
    return head, chain((head,), chunks)


def _failing(head: bytes, why: RejectionError) -> Iterator[bytes]:
    yield head
    raise why


def _one_line(text: str) -> str:
    """Return a JSON text with the same content in one line."""
    return _LINE_BREAKS.sub(" ", text) if "\n" in text or "\r" in text else text


def read_json(chunks: Iterator[bytes], source_file: str, limits: ReadLimits) -> Iterator[RawRow]:
    """Yield the rows of a JSON file: a list, ``{"data": [...]}`` or one object after another.

    ``source_row`` counts the items; where each line is an object of its own, the lines.

    Raises:
        RejectionError: as the chunks do, and where the file ends inside a value.
    """
    head, whole = _peek(chunks)
    if _is_json_lines(_skip_empty_objects(head), limits):
        yield from read_json_lines(whole, source_file, limits)
        return
    for number, value in enumerate(ValueSplitter(whole, limits).split(), start=1):
        try:
            if isinstance(value, RejectionError):
                raise value
            if value.num_bytes > limits.max_row_bytes:
                raise too_long(value.num_bytes, limits, value.text)
            text, record = parse_bytes(value.text, limits)
        except RejectionError as why:
            yield rejected_row(source_file, number, "", why)
        else:
            yield RawRow(source_file, number, _one_line(text), record)
