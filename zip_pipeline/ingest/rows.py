"""One raw row: its place, its text and, where it could be parsed, its record."""

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import polars as pl

from zip_pipeline.errors import UserError
from zip_pipeline.samples import AnySample, Stage

REASONS: dict[str, str] = {
    # Files that cannot be read, or not to their end; counted as one row each. Where the system
    # keeps us from reading, the drop fails instead: next time it may not.
    "unsupported_file": "the file name has none of the supported extensions",
    "truncated_archive": "the compressed file ends too early",
    "corrupt_archive": "the compressed file is damaged",
    "decompression_bomb": "the file expands beyond the limits",
    "corrupt_table": "the Parquet, Arrow or CSV file is damaged",
    "unexpected_content": "the file or row holds something that no reader here expects",
    # Rows that cannot be parsed.
    "bad_encoding": "the bytes are not of the encoding, or the text holds half a surrogate pair",
    "row_too_long": "the row is longer than the limit; only its beginning is kept",
    "nested_too_deep": "the row nests lists or objects deeper than the limit",
    "invalid_json": "the row is not valid JSON",
    "invalid_csv": "the row does not fit the CSV header or its quotes do not match",
    "not_an_object": "the row is JSON but no object with named fields",
    "mixed_object": "the object has several lists of rows, or rows and other content",
    # Rows that are no sample of their format.
    "unknown_format": "the fields match no known format of the stage",
    "missing_field": "a field that the format needs is absent",
    "wrong_type": "a field holds another type than the format allows",
    "unknown_role": "a turn has a role that is no known name of one",
    "unsupported_content": "a turn holds an image or another part that is no text",
    "printed_list": "a list of messages that a program printed cannot be read",
    "rated_record": "the record carries a rating of its own, so it belongs to preference",
    "failed_review": "the message, or one before it, failed its review or is deleted",
    "step_labels": "each step has a label of its own, which is none of the two stages",
    "no_user_turn": "no turn of the user says anything",
    "no_final_assistant": "the last turn does not come from the assistant",
    "empty_final_assistant": "the assistant's last turn is blank and calls no tool",
    "no_loss": "every turn of the assistant has weight 0, so there is nothing to learn",
    "not_a_dialogue": "the text is not in Human: / Assistant: form",
    "no_common_prompt": "chosen and rejected do not start with the same turns",
    "no_preference": "the row does not say which response is preferred",
    "tied_scores": "all responses have the same score",
    "contradicting_scores": "the chosen response has the lower score",
    "equal_responses": "chosen and rejected are the same",
}

QUARANTINE_SCHEMA = pl.Schema(
    {
        "source_file": pl.String,
        "source_row": pl.Int64,
        "reason": pl.String,
        "detail": pl.String,
        "raw": pl.String,
    }
)


DATA_ERRORS = (
    ValueError,
    ArithmeticError,
    RecursionError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
"""What odd data make libraries raise; anything else is a mistake of ours, or the system's."""


class RejectionError(Exception):
    """A row, or the rest of a file, that goes to quarantine.

    ``raw`` is what was read of it, where the place that raises knows.
    """

    def __init__(self, reason: str, detail: str = "", raw: str = "") -> None:
        assert reason in REASONS, f"unknown quarantine reason {reason!r}"
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = printable(detail)
        self.raw = raw


def unexpected(error: BaseException) -> RejectionError:
    """Return the rejection of what made a library raise one of ``DATA_ERRORS``."""
    return RejectionError("unexpected_content", f"{type(error).__name__}: {error}")


def printable(text: str) -> str:
    """Return the text with half surrogate pairs replaced, so that it can be stored as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


ROW_BYTES = 1 << 9
"""As many bytes of text take as long, and as much memory, as a row that says nothing."""


# Rows of JSON are refused in 0.1 to 0.3 ms each.
_MAX_REFUSED_ROWS = 50_000
_MIN_REFUSED_SHARE = 0.99
# Sound texts are compressed to a tenth.
_MAX_REFUSED_EXPANSION = 20.0


@dataclass
class Outcome:
    """How many rows became samples and how many were refused so far, for whoever reads them."""

    num_taken: int = 0
    num_refused: int = 0

    def since(self, earlier: "Outcome") -> "Outcome":
        """Return what came after an earlier moment."""
        return Outcome(self.num_taken - earlier.num_taken, self.num_refused - earlier.num_refused)

    def check(self, num_bytes: int, stored_bytes: int) -> None:
        """Reject the rest of a file that expands much, to rows of which nearly none is a sample.

        Args:
            num_bytes: about as much it has expanded to.
            stored_bytes: its size on disk.

        Raises:
            RejectionError: reason ``decompression_bomb``.
        """
        if (
            self.num_refused >= _MAX_REFUSED_ROWS
            and self.num_refused >= _MIN_REFUSED_SHARE * (self.num_refused + self.num_taken)
            and num_bytes > _MAX_REFUSED_EXPANSION * stored_bytes
        ):
            raise RejectionError(
                "decompression_bomb",
                f"{self.num_refused} rows of {stored_bytes} bytes are no samples, so the rest is "
                "not read; if the file is sound, mend the reason of the first rows, or drop it "
                "uncompressed",
            )


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """What a file may cost before the reader refuses it.

    Args:
        max_row_bytes: longest row; longer ones are skipped without being held in memory.
        max_depth: deepest nesting of lists and objects in a row.
        allowance_bytes: a file may expand this far at any ratio.
        max_expansion: decompressed over compressed bytes allowed beyond the allowance; a row
            counts as :data:`ROW_BYTES` or more.
        max_file_bytes: most decompressed bytes of one file, None for no limit.
    """

    max_row_bytes: int = 16 << 20
    max_depth: int = 64
    allowance_bytes: int = 256 << 20
    max_expansion: float = 200.0
    max_file_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise UserError(f"{name} must be above 0, got {value}; raise it")

    def check_expansion(self, num_bytes: int, stored_bytes: int) -> None:
        """Reject a file that has expanded to ``num_bytes`` from ``stored_bytes`` on disk.

        Raises:
            RejectionError: reason ``decompression_bomb``.
        """
        allowed_bytes = max(self.allowance_bytes, int(self.max_expansion * stored_bytes))
        if self.max_file_bytes is not None:
            allowed_bytes = min(allowed_bytes, self.max_file_bytes)
        if num_bytes > allowed_bytes:
            raise RejectionError(
                "decompression_bomb",
                f"{stored_bytes} bytes expand to more than {allowed_bytes} bytes, where a row "
                f"counts as {ROW_BYTES} or more; "
                "split the file, or raise the limits if it is sound",
            )


DEFAULT_LIMITS = ReadLimits()


Record: TypeAlias = dict[str, object]

PREFIX_BYTES = 4096
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row of a file as it came.

    ``source_row`` counts from 1. ``record`` is None exactly where ``reason`` says why there is
    none; ``raw`` is then the best text that could be had. ``left_out`` names fields of the row that
    its record does not hold, because a person mapped others.
    """

    source_file: str
    source_row: int
    raw: str
    record: Record | None
    reason: str | None = None
    detail: str = ""
    left_out: tuple[str, ...] = ()


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


def _object(pairs: list[tuple[str, object]]) -> Record:
    """Return the object of these fields; where a name comes again, the first value is kept, too.

    Under a name that no format reads, so that it is told.
    """
    record = dict(pairs)
    if len(record) < len(pairs):
        again = (pair for pair in reversed(pairs) if record[pair[0]] != pair[1])
        record |= {f"{name} (given twice)": value for name, value in again}
    return record


_DECODE = json.JSONDecoder(object_pairs_hook=_object).decode


def parse_record(text: str, limits: ReadLimits) -> Record:
    """Return the object that a JSON text holds; NaN and Infinity are read as Python does.

    A list that is a conversation is an object that holds it under ``messages``.

    Raises:
        RejectionError: ``invalid_json``, ``nested_too_deep`` or ``not_an_object``.
    """
    try:
        value = _DECODE(text)
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
    if isinstance(value, dict):
        return value
    if holds_messages(value) or holds_texts(value):
        return {"messages": value}
    raise RejectionError("not_an_object", f"the row is a JSON {type(value).__name__}")


def holds_messages(value: object) -> bool:
    """Return whether a value is a conversation: a list of objects that name their speaker."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and ("role" in item or "from" in item) for item in value)
    )


def holds_texts(value: object) -> bool:
    """Return whether a value is a list of texts, as some write the turns of a conversation."""
    return isinstance(value, list) and bool(value) and all(isinstance(i, str) for i in value)


def parse_bytes(line: bytes, limits: ReadLimits) -> tuple[str, Record]:
    """Return the text and the record of one JSON value in UTF-8.

    Raises:
        RejectionError: as :func:`parse_record`, or ``bad_encoding``; with the raw text.
    """
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raw = line.decode("utf-8", "replace").strip()
        raise RejectionError("bad_encoding", f"{error}{encoding_hint(line)}", raw) from None
    try:
        record = parse_record(text, limits)
    except RejectionError as why:
        if text.startswith(BYTE_ORDER_MARK):
            # Files that were joined have their marks inside.
            return parse_bytes(text.lstrip(BYTE_ORDER_MARK).encode(), limits)
        why.raw = text
        raise
    return (f'{{"messages": {text}}}' if text[0] == "[" else text), record


_HIGH_BYTES = re.compile(rb"[\x80-\xff]+")
# Of each encoding the characters that its texts consist of, ASCII aside; the first that fits is it.
_LOOKS = {
    "cp1251": re.compile("[\u0401\u0410-\u044f\u0451\xab\xbb\u2013\u2014\u2116]+"),
    "shift_jis": re.compile("[\u3000-\u30ff\u4e00-\u9fff\uff01-\uff60]+"),
    "gb18030": re.compile("[\u2014-\u2026\u3000-\u303f\u4e00-\u9fff\uff01-\uff60]+"),
}


def encoding_hint(text: bytes) -> str:
    """Return in words what encoding bytes that are not UTF-8 look like, and how to say so."""
    runs = _HIGH_BYTES.findall(text)
    sound = _HIGH_BYTES.findall(text.decode("utf-8", "ignore").encode())
    if 2 * sum(map(len, sound)) > sum(map(len, runs)):
        return "; most of the row is UTF-8, so its bytes are damaged"
    name = _encoding_like(text, runs)
    return (
        f'; it looks like {name}: if the file is, say encoding = "{name}" in NAME.batch.toml '
        "beside the file or folder NAME"
    )


def _encoding_like(text: bytes, runs: list[bytes]) -> str:
    # Western languages have a letter with an accent here and there, others whole words.
    if 2 * sum(len(run) < 3 for run in runs) > len(runs):
        return "cp1252"
    for name, letters in _LOOKS.items():
        others = "".join(c for c in text.decode(name, "replace") if not c.isascii())
        if letters.fullmatch(others):
            return name
    return "cp1252"


def json_text(record: Record) -> str:
    """Return a record as strict JSON that can be stored as UTF-8.

    Bytes are written in base64, NaN and infinities as null.
    """
    text = _dumps(record, ensure_ascii=False)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return _dumps(record, ensure_ascii=True)
    return text


def _dumps(value: object, *, ensure_ascii: bool) -> str:
    dumps = partial(json.dumps, ensure_ascii=ensure_ascii, allow_nan=False, default=_as_text)
    try:
        return dumps(value)
    except ValueError:
        return dumps(_finite(value))


def _finite(value: object) -> object:
    """Return a value with null in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(field) for name, field in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_text(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


_UNFOLDED = ReadLimits(max_expansion=1.0)


def made_of(num_characters: int, rows: Iterable[RawRow]) -> list[RawRow]:
    """Return the rows that are made of what has so many characters.

    Raises:
        RejectionError: ``decompression_bomb``: what they have in common makes them far too long.
    """
    made: list[RawRow] = []
    num_made = 0
    for row in rows:
        made.append(row)
        num_made += len(row.raw)
        _UNFOLDED.check_expansion(num_made, num_characters)
    return made


Unfold: TypeAlias = Callable[[RawRow, Record], Iterable[RawRow]]


@dataclass(frozen=True)
class Gather:
    """How rows of a file, of which one alone is no sample, make some together.

    Args:
        links: returns the name of a row, and that of the row that it hangs from; None for none.
        rows: returns what rows make together that hang from one another, or have one name.
    """

    links: Callable[[Record], tuple[str | None, str | None]]
    rows: Callable[[Iterable[RawRow]], Iterable[RawRow]]


@dataclass(frozen=True)
class Format:
    """A way to write a sample as a record.

    Args:
        name: what people write in a sidecar or on the command line.
        stage: the stage whose samples it holds.
        fields: the fields in words, for messages.
        matches: tells whether a record looks like this format.
        parse: returns the sample; raises ``RejectionError`` where the record holds none.
        gather: tells what the rows of a file are together, where one alone is no sample.
        unfold: returns the rows that a row holds, where it holds several samples.
        pairs: returns a row for each pair of the ranked answers of a row.
    """

    name: str
    stage: Stage
    fields: str
    matches: Callable[[Record], bool]
    parse: Callable[[Record], AnySample]
    gather: Gather | None = None
    unfold: Unfold | None = None
    pairs: Unfold | None = None
