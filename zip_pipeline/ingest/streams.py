"""Files to decompressed bytes and text, in bounded chunks and within limits."""

import bz2
import codecs
import gzip
import lzma
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import zstandard

from zip_pipeline.errors import UserError
from zip_pipeline.ingest.rows import DEFAULT_LIMITS, ReadLimits, RejectionError

_CHUNK_BYTES = 1 << 20
# A block of 128 KiB may take 4 bytes of a zstd frame: 256 input bytes give at most 8 MiB.
_ZSTD_PIECE_BYTES = 256
_ZSTD_WINDOW_BYTES = 1 << 31


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
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
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


def _xz_chunks(file: BinaryIO) -> Iterator[bytes]:
    with lzma.LZMAFile(file) as stream:
        while chunk := stream.read1(_CHUNK_BYTES):
            yield chunk


def _bz2_chunks(file: BinaryIO) -> Iterator[bytes]:
    with bz2.BZ2File(file) as stream:
        while chunk := stream.read1(_CHUNK_BYTES):
            yield chunk


COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
_Decoder = Callable[[BinaryIO], Iterator[bytes]]
_DECODERS: dict[re.Pattern[bytes], _Decoder] = {
    re.compile(rb"\x1f\x8b\x08"): _gzip_chunks,
    # The second is a frame that holds no content, as parallel compressors write it first.
    re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"): _zstd_chunks,
    re.compile(rb"\xfd7zXZ\0"): _xz_chunks,
    re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"): _bz2_chunks,
}
_MAGIC_BYTES = 10


def _decoder(file: BinaryIO) -> _Decoder:
    """Return the decoder that the first bytes show, whatever the file is called."""
    head = file.read(_MAGIC_BYTES)
    file.seek(0)
    return next((d for magic, d in _DECODERS.items() if magic.match(head)), _plain_chunks)


def compression_of(path: Path) -> str:
    """Return how a file is compressed, as gzip, zstd, xz or bz2; empty where it is not."""
    with path.open("rb") as file:
        name = _decoder(file).__name__.removeprefix("_").removesuffix("_chunks")
    return "" if name == "plain" else name


def read_chunks(path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """Yield the decompressed bytes of a file in bounded chunks.

    Everything before a damaged place is yielded first.

    Raises:
        RejectionError: the file is damaged or expands beyond the limits.
        OSError: the system does not let it be read; with the name of the file.
        MemoryError: there is too little memory to decompress it.
    """
    num_bytes = 0
    try:
        with path.open("rb") as file:
            stored_bytes = path.stat().st_size
            for chunk in _decoder(file)(file):
                num_bytes += len(chunk)
                limits.check_expansion(num_bytes, stored_bytes)
                if chunk:
                    yield chunk
    except EOFError as error:
        raise RejectionError("truncated_archive", f"{error}; copy the file again") from error
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, lzma.LZMAError) as error:
        if "Allocation error" in str(error):
            # As zstd says that there is too little memory, which may pass.
            raise MemoryError(str(error)) from error
        raise RejectionError("corrupt_archive", f"{error}; copy the file again") from error
    except OSError as error:
        # bz2 tells damage so; what the system says has a number.
        if error.errno is None:
            raise RejectionError("corrupt_archive", f"{error}; copy the file again") from error
        error.filename = error.filename or str(path)
        raise


# What the first bytes show; UTF-32 before UTF-16, whose mark it begins with.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
HEAD_BYTES = 256


def check_encoding_name(encoding: str) -> str:
    """Return the name of a text encoding as Python writes it.

    Raises:
        UserError: Python knows no text encoding of this name.
    """
    try:
        b" ".decode(encoding, "ignore")
    except (LookupError, ValueError):
        raise UserError(
            f"encoding: {encoding!r} is no text encoding; expected a name such as utf-8, cp1252, "
            "latin-1, shift_jis or gb18030"
        ) from None
    return codecs.lookup(encoding).name


def _wide_encoding(head: bytes) -> str | None:
    """Return the encoding of a text without a mark whose zero bytes show it, else None.

    Most texts are ASCII in good part, and each such character has its zero bytes at the same
    places; text of other encodings has none.
    """
    zeros = [head[place::4].count(0) for place in range(4)]
    quarter = len(head) // 4
    if quarter == 0:
        return None
    if zeros[2] == zeros[3] == quarter and not zeros[0]:
        return "utf-32-le"
    if zeros[0] == zeros[1] == quarter and not zeros[3]:
        return "utf-32-be"
    even, odd = zeros[0] + zeros[2], zeros[1] + zeros[3]
    least = max(quarter, 2)
    if not even and odd >= least:
        return "utf-16-le"
    return "utf-16-be" if not odd and even >= least else None


def _as_utf8(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Yield text of another encoding in UTF-8; what it cannot hold stays undecodable.

    Raises:
        RejectionError: as the chunks do; ``bad_encoding`` where nothing more can be told apart.
    """
    errors = "surrogatepass" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", errors)
        yield decoder.decode(b"", final=True).encode("utf-8", errors)
    except UnicodeError as error:
        raise RejectionError("bad_encoding", f"the file is no sound {encoding}: {error}") from None


def text_chunks(chunks: Iterator[bytes], encoding: str | None = None) -> Iterator[bytes]:
    """Yield a text in UTF-8, without its byte order mark.

    Args:
        chunks: the bytes of the text.
        encoding: of a text without byte order mark, as Python calls it; None for UTF-8, or UTF-16
            and UTF-32 where the zero bytes show them.

    Raises:
        RejectionError: as the chunks do; ``bad_encoding`` where UTF-16 or UTF-32 breaks.
    """
    head, whole = peek(chunks, lambda head: len(head) >= HEAD_BYTES)
    mark, found = text_encoding(head, encoding)
    text = chain((next(whole, b"")[len(mark) :],), whole)
    yield from text if found == "utf-8" else _as_utf8(text, found)


def text_encoding(head: bytes, encoding: str | None = None) -> tuple[bytes, str]:
    """Return the byte order mark with which a text begins, and its encoding.

    Args:
        head: the first bytes, :data:`HEAD_BYTES` or more where there are so many.
        encoding: as for :func:`text_chunks`.
    """
    mark = next((mark for mark in _MARKS if head.startswith(mark)), b"")
    return mark, _MARKS.get(mark) or encoding or _wide_encoding(head[:HEAD_BYTES]) or "utf-8"


def peek(
    chunks: Iterator[bytes], is_enough: Callable[[bytes], bool]
) -> tuple[bytes, Iterator[bytes]]:
    """Return the beginning of a stream, as far as it takes, and the whole stream."""
    head = b""
    try:
        for chunk in chunks:
            head += chunk
            if is_enough(head):
                break
    except RejectionError as why:
        return head, _failing(head, why)
    return head, chain((head,), chunks)


def _failing(head: bytes, why: RejectionError) -> Iterator[bytes]:
    yield head
    raise why


@contextmanager
def decompressed_file(path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> Iterator[Path]:
    """Give a path that allows random access: the file itself, or a decompressed temporary copy.

    Raises:
        RejectionError: as :func:`read_chunks`.
        OSError: as :func:`read_chunks`, or the temporary folder has no room.
    """
    with path.open("rb") as file:
        is_plain = _decoder(file) is _plain_chunks
    if is_plain:
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
