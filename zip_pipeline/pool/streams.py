"""Bytes of a file, decompressed, in bounded pieces; damage and bombs become rejections."""

import gzip
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from zip_pipeline.pool.quarantine import RejectionError

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
                raise ValueError(f"{name} must be above 0, got {value}; raise it")

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
