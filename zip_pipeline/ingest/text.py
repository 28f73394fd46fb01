"""Lines of any length from chunks of bytes, in bounded memory."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from zip_pipeline.ingest.rows import (
    BYTE_ORDER_MARK,
    PREFIX_BYTES,
    RawRow,
    ReadLimits,
    RejectionError,
    kept_prefix,
    parse_bytes,
    rejected_row,
    too_long,
)


class Line(NamedTuple):
    """A line, or only its beginning where ``num_bytes`` is above the limit.

    Empty lines in a row are one: its text has the line feeds between them.
    """

    text: bytes
    num_bytes: int
    num_lines: int = 1


class PendingBytes:
    """Bytes that are collected up to a limit and counted beyond it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self.num_bytes = 0

    def add(self, piece: bytes) -> None:
        """Append a piece; nothing more is kept once the limit is passed."""
        room = self._max_bytes - len(self._kept)
        self._kept += piece if len(piece) <= room else piece[:room]
        self.num_bytes += len(piece)

    def take(self) -> Line:
        """Return what was collected and start anew."""
        line = Line(bytes(self._kept), self.num_bytes)
        self._kept = bytearray()
        self.num_bytes = 0
        return line

    def prefix(self) -> str:
        """Return the beginning of what was collected, as text."""
        return kept_prefix(bytes(self._kept[:PREFIX_BYTES]))


_PIECES = re.compile(rb"\n+|[^\n]+")
_LINE_FEED = ord("\n")


def split_lines(chunks: Iterator[bytes], max_bytes: int) -> Iterator[Line]:
    """Yield the lines without their line feed; of a longer one only the first ``max_bytes``.

    Of millions of empty lines none takes a step of its own.

    Raises:
        RejectionError: as the chunks do; it carries the beginning of the unfinished line.
    """
    pending = PendingBytes(max_bytes)
    try:
        for chunk in chunks:
            for piece in _PIECES.findall(chunk):
                if piece[0] != _LINE_FEED:
                    pending.add(piece)
                    continue
                num_empty = len(piece)
                if pending.num_bytes:
                    yield pending.take()
                    num_empty -= 1
                if num_empty:
                    yield Line(piece[: min(num_empty - 1, max_bytes)], num_empty - 1, num_empty)
    except RejectionError as why:
        why.raw = pending.prefix()
        raise
    if pending.num_bytes:
        yield pending.take()


def read_json_lines(
    chunks: Iterator[bytes], source_file: str, limits: ReadLimits
) -> Iterator[RawRow]:
    """Yield the rows of a JSON lines file; blank lines count as lines but are no rows."""
    number = 0
    for line in split_lines(chunks, limits.max_row_bytes):
        number += line.num_lines
        if not line.text or line.text.isspace():
            continue
        try:
            if line.num_bytes > limits.max_row_bytes:
                raise too_long(line.num_bytes, limits, line.text)
            text, record = parse_bytes(line.text, limits)
        except RejectionError as why:
            yield from _rows_on_one_line(why, source_file, number, limits)
        else:
            yield RawRow(source_file, number, text, record)


_BETWEEN = re.compile(rf"[\s,{BYTE_ORDER_MARK}]*+")


def _rows_on_one_line(
    why: RejectionError, source_file: str, number: int, limits: ReadLimits
) -> Iterator[RawRow]:
    """Yield the rows of a line that holds several sound ones, else the one that is rejected."""
    try:
        if not why.detail.startswith("Extra data"):
            raise why
        parsed = [parse_bytes(part.encode(), limits) for part in _json_values(why.raw)]
    except (RejectionError, ValueError, RecursionError):
        yield rejected_row(source_file, number, "", why)
        return
    for text, record in parsed:
        yield RawRow(source_file, number, text, record)


def _json_values(text: str) -> Iterator[str]:
    decoder, start = json.JSONDecoder(), 0
    while start < len(text):
        _, end = decoder.raw_decode(text, start)
        yield text[start:end]
        match = _BETWEEN.match(text, end)
        start = match.end() if match else end
