"""Rows of a JSON file: the values are cut apart as bytes, then parsed one by one.

An event parser such as ijson stops for good at the first NaN, bad byte or half-written value and
holds an over-long string in full; here each costs one row.
"""

import json
import re
from collections.abc import Generator, Iterator
from itertools import chain

from zip_pipeline.pool.lines import Line, PendingBytes, read_json_lines
from zip_pipeline.pool.quarantine import RejectionError
from zip_pipeline.pool.rows import RawRow, json_text, parse_bytes, rejected_row, too_long
from zip_pipeline.pool.streams import ReadLimits

_PEEK_BYTES = 1 << 20
_KEY_BYTES = 64
_MARK = re.compile(rb'["\[\]{},]')
_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_ENVELOPE_KEY = re.compile(rb'[{,]\s*"data"\s*:\s*\Z')
_QUOTE, _BACKSLASH, _COMMA, _OPEN_LIST, _OPEN_OBJECT = b'"\\,[{'


class ValueSplitter:
    """Cuts a JSON text into its rows: the items of a list, of ``{"data": [...]}``, or values.

    A text that follows after a list is cut in the same way.
    """

    def __init__(self, max_bytes: int) -> None:
        self._pending = PendingBytes(max_bytes)
        self._in_string = False
        self._escaped = False
        self._depth = 0
        # Rows lie at depth 1 in a list, at 2 in an envelope's list, at 0 everywhere else.
        self._row_depth = 0
        self._in_envelope = False

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Yield the rows that end in this chunk."""
        start = 0
        for at in self._marks(chunk):
            mark = chunk[at]
            if mark == _COMMA:
                if self._depth == self._row_depth:
                    self._pending.add(chunk[start:at])
                    yield from self._row(keep_blank=self._depth > 0)
                    start = at + 1
            elif mark in (_OPEN_LIST, _OPEN_OBJECT):
                if mark == _OPEN_LIST and self._opens_rows(chunk, start, at):
                    yield from self._row()
                    start = at + 1
                self._depth += 1
            elif self._depth == self._row_depth or self._depth == 1:
                start = yield from self._close(chunk, start, at)
            else:
                self._depth -= 1
        self._pending.add(chunk[start:])

    def finish(self) -> Iterator[Line]:
        """Yield the rest.

        Raises:
            RejectionError: ``invalid_json`` where the text ends inside a value.
        """
        if self._depth:
            raise RejectionError(
                "invalid_json", "the file ends inside a list or object", self._pending.prefix()
            )
        yield from self._row()

    def unfinished(self) -> str:
        """Return the beginning of the row that has not ended yet."""
        return self._pending.prefix()

    def _marks(self, chunk: bytes) -> Iterator[int]:
        """Yield where structural characters outside strings are."""
        position, self._escaped = int(self._escaped), False
        while position < len(chunk):
            if self._in_string:
                match = _STRING_REST.match(chunk, position)
                position = match.end() + 1 if match else len(chunk)
                if position <= len(chunk):
                    # The match stops before a quote, or before a backslash that ends the chunk.
                    self._escaped = chunk[position - 1] == _BACKSLASH
                    self._in_string = self._escaped
                continue
            mark = _MARK.search(chunk, position)
            if mark is None:
                return
            position = mark.end()
            if chunk[mark.start()] == _QUOTE:
                self._in_string = True
            else:
                yield mark.start()

    def _opens_rows(self, chunk: bytes, start: int, at: int) -> bool:
        """Note whether the list that opens at ``at`` holds rows; pending is then what precedes."""
        if self._row_depth or self._in_envelope or self._depth > 1:
            return False
        if self._depth == 0:
            self._pending.add(chunk[start:at])
            self._row_depth = 1
            return True
        before = self._pending.ending(_KEY_BYTES) + chunk[max(start, at - _KEY_BYTES) : at]
        if _ENVELOPE_KEY.search(before) is None:
            return False
        self._pending.take()
        self._row_depth, self._in_envelope = 2, True
        return True

    def _close(self, chunk: bytes, start: int, at: int) -> Generator[Line, None, int]:
        """Handle a bracket that closes the rows, the envelope or a value between lists."""
        closes_rows = self._depth == self._row_depth > 0
        self._pending.add(chunk[start : at if closes_rows else at + 1])
        self._depth = max(self._depth - 1, 0)
        if closes_rows:
            self._row_depth = 0
            yield from self._row()
        elif self._in_envelope:
            self._in_envelope = False
            self._pending.take()
        else:
            yield from self._row()
        return at + 1

    def _row(self, *, keep_blank: bool = False) -> Iterator[Line]:
        blank = self._pending.is_blank()
        line = self._pending.take()
        if keep_blank or not blank:
            yield line


def _is_json_lines(head: bytes) -> bool:
    """Return whether the first line is a non-empty object of its own and no envelope."""
    first, line_feed, _ = head.lstrip().partition(b"\n")
    if not line_feed or not first.startswith(b"{"):
        return False
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return False
    rows = value.get("data")
    is_envelope = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    return bool(value) and not is_envelope


def _split_values(chunks: Iterator[bytes], max_bytes: int) -> Iterator[Line]:
    splitter = ValueSplitter(max_bytes)
    try:
        for chunk in chunks:
            yield from splitter.feed(chunk)
    except RejectionError as why:
        why.raw = splitter.unfinished()
        raise
    yield from splitter.finish()


def read_json(chunks: Iterator[bytes], source_file: str, limits: ReadLimits) -> Iterator[RawRow]:
    """Yield the rows of a JSON file: a list, ``{"data": [...]}`` or one object after another.

    ``source_row`` counts the items; where each line is an object of its own, the lines.

    Raises:
        RejectionError: as the chunks do, and where the file ends inside a value.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if b"\n" in head.lstrip() or len(head) > _PEEK_BYTES:
            break
    whole = chain((head,), chunks)
    if _is_json_lines(head):
        yield from read_json_lines(whole, source_file, limits)
        return
    for number, line in enumerate(_split_values(whole, limits.max_row_bytes), start=1):
        try:
            if line.num_bytes > limits.max_row_bytes:
                raise too_long(line.num_bytes, limits, line.text)
            _, record = parse_bytes(line.text, limits)
        except RejectionError as why:
            yield rejected_row(source_file, number, "", why)
        else:
            yield RawRow(source_file, number, json_text(record), record)
