"""One raw row: its place, its text and, where it could be parsed, its record."""

import gzip
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import polars as pl
import zstandard

from zip_pipeline.errors import UserError
from zip_pipeline.samples import AnySample, Stage

REASONS: dict[str, str] = {
    # Files that cannot be read, or not to their end; counted as one row each. Where the system
    # keeps us from reading, the drop fails instead: next time it may not.
    "unsupported_file": "the file name has none of the supported extensions",
    "truncated_archive": "the compressed file ends too early",
    "corrupt_archive": "the compressed file is damaged or not of the named kind",
    "decompression_bomb": "the file expands beyond the limits",
    "corrupt_table": "the Parquet or CSV file is damaged",
    "unexpected_content": "the file or row holds something that no reader here expects",
    # Rows that cannot be parsed.
    "bad_encoding": "the bytes are not UTF-8, or the text holds half a surrogate pair",
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


_CHUNK_BYTES = 1 << 20
# A block of 128 KiB may take 4 bytes of a zstd frame: 256 input bytes give at most 8 MiB.
_ZSTD_PIECE_BYTES = 256
_UTF8_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """What a file may cost before the reader refuses it.

    Args:
        max_row_bytes: longest row; longer ones are skipped without being held in memory.
        max_depth: deepest nesting of lists and objects in a row.
        allowance_bytes: a file may expand this far at any ratio.
        max_expansion: decompressed over compressed bytes allowed beyond the allowance.
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
                f"{stored_bytes} bytes expand to more than {allowed_bytes} bytes; "
                "split the file, or raise the limits if it is sound",
            )


DEFAULT_LIMITS = ReadLimits()


def _plain_chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _gzip_chunks(file: BinaryIO) -> Iterator[bytes]:
    # read1 hands out what it has before it meets the damage; read would lose it.
    with gzip.GzipFile(fileobj=file) as stream:
        while chunk := stream.read1(_CHUNK_BYTES):
            yield chunk


def _zstd_chunks(file: BinaryIO) -> Iterator[bytes]:
    # zstandard's stream_reader takes a truncated frame for a complete one, so count frames here.
    decompressor = zstandard.ZstdDecompressor()
    frame, inside = decompressor.decompressobj(), False
    while piece := file.read(_ZSTD_PIECE_BYTES):
        while piece:
            inside = True
            yield frame.decompress(piece)
            piece = frame.unused_data
            if frame.eof:
                frame, inside = decompressor.decompressobj(), False
    if inside:
        raise EOFError("the last zstd frame is not complete")


_Decoder = Callable[[BinaryIO], Iterator[bytes]]
_DECODERS: dict[str, tuple[bytes, _Decoder]] = {
    ".gz": (b"\x1f\x8b", _gzip_chunks),
    ".zst": (b"\x28\xb5\x2f\xfd", _zstd_chunks),
}
COMPRESSIONS = tuple(_DECODERS)


def _decoder(path: Path, file: BinaryIO) -> _Decoder:
    """Return the decoder that the extension names, else the one that the first bytes show."""
    if path.suffix.lower() in _DECODERS:
        return _DECODERS[path.suffix.lower()][1]
    head = file.read(4)
    file.seek(0)
    return next((d for magic, d in _DECODERS.values() if head.startswith(magic)), _plain_chunks)


def read_chunks(path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """Yield the decompressed bytes of a file in bounded chunks.

    Everything before a damaged place is yielded first.

    Raises:
        RejectionError: the file is damaged or expands beyond the limits.
        OSError: the system does not let it be read; with the name of the file.
    """
    num_bytes = 0
    try:
        with path.open("rb") as file:
            stored_bytes = path.stat().st_size
            for chunk in _decoder(path, file)(file):
                num_bytes += len(chunk)
                limits.check_expansion(num_bytes, stored_bytes)
                if chunk:
                    yield chunk
    except EOFError as error:
        raise RejectionError("truncated_archive", f"{error}; copy the file again") from error
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise RejectionError("corrupt_archive", f"{error}; copy the file again") from error
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def read_text_chunks(path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """Yield the bytes of a text file without its byte order mark.

    Raises:
        RejectionError: as :func:`read_chunks`; ``bad_encoding`` where a byte order mark shows
            UTF-16 or UTF-32.
    """
    chunks = read_chunks(path, limits)
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= len(_WIDE_BOMS[-1]):
            break
    if head.startswith(_WIDE_BOMS):
        raise RejectionError("bad_encoding", "the file is UTF-16 or UTF-32; save it as UTF-8")
    yield head.removeprefix(_UTF8_BOM)
    yield from chunks


@contextmanager
def decompressed_file(path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> Iterator[Path]:
    """Give a path that allows random access: the file itself, or a decompressed temporary copy.

    Raises:
        RejectionError: as :func:`read_chunks`.
        OSError: as :func:`read_chunks`, or the temporary folder has no room.
    """
    if path.suffix.lower() not in _DECODERS:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.parquet")
        _decompress(path, copy, limits)
        yield copy


def _decompress(path: Path, copy: Path, limits: ReadLimits) -> None:
    try:
        with copy.open("wb") as file:
            for chunk in read_chunks(path, limits):
                file.write(chunk)
    except OSError as error:
        if error.filename is None:
            reason = f"{error.strerror}; TMPDIR can name another folder"
            raise OSError(error.errno, reason, str(copy)) from error
        raise


Record: TypeAlias = dict[str, object]

PREFIX_BYTES = 4096


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


@dataclass(frozen=True)
class Format:
    """A way to write a sample as a record.

    Args:
        name: what people write in a sidecar or on the command line.
        stage: the stage whose samples it holds.
        fields: the fields in words, for messages.
        matches: tells whether a record looks like this format.
        parse: returns the sample; raises ``RejectionError`` where the record holds none.
    """

    name: str
    stage: Stage
    fields: str
    matches: Callable[[Record], bool]
    parse: Callable[[Record], AnySample]
