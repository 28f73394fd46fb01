"""One raw row: its place, its text and, where it could be parsed, its record."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from zip_pipeline.pool.quarantine import RejectionError
from zip_pipeline.pool.streams import ReadLimits

Record: TypeAlias = dict[str, object]

PREFIX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row of a file as it came.

    ``source_row`` counts from 1. ``record`` is None exactly where ``reason`` says why there is
    none; ``raw`` is then the best text that could be had.
    """

    source_file: str
    source_row: int
    raw: str
    record: Record | None
    reason: str | None = None
    detail: str = ""


def rejected_row(source_file: str, source_row: int, raw: str, why: RejectionError) -> RawRow:
    """Return the row that carries a rejection and as much of the raw text as is known."""
    return RawRow(source_file, source_row, why.raw or raw, None, why.reason, why.detail)


def kept_prefix(text: bytes) -> str:
    """Return the beginning of an over-long row, as text."""
    return text[:PREFIX_BYTES].decode("utf-8", "replace")


def too_long(num_bytes: int, limits: ReadLimits, prefix: bytes) -> RejectionError:
    """Return the rejection of a row of ``num_bytes`` bytes whose beginning is ``prefix``."""
    raw = kept_prefix(prefix)
    return RejectionError(
        "row_too_long",
        f"{num_bytes} bytes, allowed are {limits.max_row_bytes}; "
        f"raw keeps the first {len(raw)} characters",
        raw,
    )


def nesting_depth(value: object) -> int:
    """Return how many lists and objects lie inside one another in a parsed JSON value."""
    depth = 0
    open_values: list[Iterator[object]] = [iter((value,))]
    while open_values:
        inner = next(open_values[-1], open_values)
        if inner is open_values:
            open_values.pop()
        elif isinstance(inner, list):
            open_values.append(iter(inner))
        elif isinstance(inner, dict):
            open_values.append(iter(inner.values()))
        depth = max(depth, len(open_values) - 1)
    return depth


def parse_record(text: str, limits: ReadLimits) -> Record:
    """Return the object that a JSON text holds; NaN and Infinity are read as Python does.

    Raises:
        RejectionError: ``invalid_json``, ``nested_too_deep`` or ``not_an_object``.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise RejectionError("nested_too_deep", f"allowed are {limits.max_depth} levels") from None
    except ValueError as error:
        raise RejectionError("invalid_json", str(error)) from None
    # Brackets in strings count as well here, so the exact depth is looked up only when needed.
    if text.count("[") + text.count("{") > limits.max_depth:
        depth = nesting_depth(value)
        if depth > limits.max_depth:
            detail = f"{depth} levels, allowed are {limits.max_depth}"
            raise RejectionError("nested_too_deep", detail)
    if not isinstance(value, dict):
        raise RejectionError("not_an_object", f"the row is a JSON {type(value).__name__}")
    return value


def parse_bytes(line: bytes, limits: ReadLimits) -> tuple[str, Record]:
    """Return the text and the record of one JSON value in UTF-8.

    Raises:
        RejectionError: as :func:`parse_record`, or ``bad_encoding``; with the raw text.
    """
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raw = line.decode("utf-8", "replace").strip()
        raise RejectionError("bad_encoding", str(error), raw) from None
    try:
        return text, parse_record(text, limits)
    except RejectionError as why:
        why.raw = text
        raise


def json_text(record: Record) -> str:
    """Return a record as JSON text that can be stored as UTF-8."""
    text = json.dumps(record, ensure_ascii=False, default=str)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return json.dumps(record, default=str)
    return text
