"""Texts in a file, read at random, so that a pool need not fit into memory."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.files import named

_CHUNK_BYTES = 1 << 22
_PART_BYTES = 1 << 23
_PART_TEXTS = 1 << 14
_DIVIDED_AT_A_TIME = 1 << 18
_PREFIX = ".tmp-texts-"


class TextFile(Sequence[bytes]):
    """Texts one after another in a file; only their offsets are in memory.

    Reads are positioned, so any number of threads and processes may share a file, and what was
    read stays in the system's cache instead of this process.

    Args:
        path: the file.
        offsets: where each text starts, then where the last one ends, shape (texts + 1,), bytes.
    """

    def __init__(self, path: Path, offsets: NDArray[np.int64]) -> None:
        self.path = path
        self.offsets = offsets
        self._descriptor = os.open(path, os.O_RDONLY)

    @property
    def num_bytes(self) -> NDArray[np.int64]:
        """The size of each text, shape (texts,)."""
        return np.diff(self.offsets)

    def num_bytes_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes of the texts at these positions."""
        sizes: NDArray[np.int64] = self.offsets[indices + 1] - self.offsets[indices]
        return sizes

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        return self.read([index])[0]

    def read(self, indices: Iterable[int] | NDArray[np.int64]) -> list[bytes]:
        """Return the texts at these positions, in this order."""
        where = np.asarray(indices, dtype=np.int64)
        starts = self.offsets[where]
        sizes = (self.offsets[where + 1] - starts).tolist()
        return [
            _read_fully(self._descriptor, size, start)
            for size, start in zip(sizes, starts.tolist(), strict=True)
        ]

    def joined(self, indices: NDArray[np.int64]) -> bytes:
        """Return the texts at these positions one after another.

        Those that lie side by side are read at once.
        """
        (firsts,) = np.nonzero(np.diff(indices, prepend=-2) != 1)
        lasts = np.append(firsts, len(indices))[1:] - 1
        starts, ends = self.offsets[indices[firsts]], self.offsets[indices[lasts] + 1]
        sizes = (ends - starts).tolist()
        pieces = zip(sizes, starts.tolist(), strict=True)
        return b"".join([_read_fully(self._descriptor, size, start) for size, start in pieces])

    def parts(self, indices: NDArray[np.int64] | None = None) -> Iterator[list[bytes]]:
        """Return all texts, or those at these positions, in order, some megabytes at a time."""
        return (texts for _, texts in self.placed_parts(indices))

    def each(self, indices: NDArray[np.int64] | None = None) -> Iterator[bytes]:
        """Return the texts that :meth:`parts` does, one by one; some megabytes are in memory."""
        return chain.from_iterable(self.parts(indices))

    def placed_parts(
        self, indices: NDArray[np.int64] | None = None, most_bytes: int = 0
    ) -> Iterator[tuple[NDArray[np.int64], list[bytes]]]:
        """Yield what :meth:`parts` does, each part with the positions of its texts.

        Args:
            indices: the positions, None for all.
            most_bytes: of a part, some megabytes if not given.
        """
        num_texts = len(self) if indices is None else len(indices)
        # Piece by piece, as to divide texts into parts takes some fifty bytes for each.
        for start in range(0, num_texts, _DIVIDED_AT_A_TIME):
            end = min(start + _DIVIDED_AT_A_TIME, num_texts)
            where = np.arange(start, end) if indices is None else indices[start:end]
            for part in parts_of(where, self.num_bytes_of(where), most_bytes):
                yield part, self.read(part)

    def chunks(self) -> Iterator[bytes]:
        """Yield all texts joined, in pieces of a few megabytes."""
        end = int(self.offsets[-1])
        for start in range(0, end, _CHUNK_BYTES):
            yield _read_fully(self._descriptor, min(_CHUNK_BYTES, end - start), start)

    def fingerprint(self) -> str:
        """Return a hash of the texts and their borders: 32 hexadecimal digits."""
        digest = hashlib.blake2b(np.ascontiguousarray(self.offsets).data, digest_size=16)
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def close(self) -> None:
        """Close the file, which stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class TemporaryTexts(TextFile):
    """Texts in a file of their own, which goes when they are closed.

    A killed process leaves the file to :func:`zip_pipeline.files.remove_leftovers`.
    """

    @classmethod
    def write(cls, parts: Iterable[Sequence[bytes]], folder: Path | None = None) -> Self:
        """Write texts part by part to a new file in ``folder``, or where temporary files go."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
        path = Path(name)
        try:
            sizes = [np.zeros(1, dtype=np.int64)]
            with os.fdopen(descriptor, "wb") as file:
                for part in parts:
                    with named(path):
                        file.write(b"".join(part))
                        file.flush()
                    sizes.append(np.fromiter(map(len, part), np.int64, len(part)))
            offsets = np.concatenate(sizes)
            del sizes
            return cls(path, np.cumsum(offsets, out=offsets))
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Close the file and remove it."""
        super().close()
        self.path.unlink(missing_ok=True)


def parts_of(
    positions: NDArray[np.int64],
    num_bytes: NDArray[np.int64],
    most_bytes: int = 0,
    most_texts: int = 0,
) -> list[NDArray[np.int64]]:
    """Return positions in parts, of which each but a single text is within both limits.

    Args:
        positions: of texts, shape (texts,).
        num_bytes: the size of each.
        most_bytes: of a part, some megabytes if not given.
        most_texts: of a part, some thousands if not given.
    """
    most_bytes, most_texts = most_bytes or _PART_BYTES, most_texts or _PART_TEXTS
    ends = np.cumsum(num_bytes)
    parts, start = [], 0
    while start < len(positions):
        most = int(ends[start] - num_bytes[start]) + most_bytes
        end = min(max(int(np.searchsorted(ends, most, "right")), start + 1), start + most_texts)
        parts.append(positions[start:end])
        start = end
    return parts


def _read_fully(descriptor: int, size: int, start: int) -> bytes:
    """Return ``size`` bytes from ``start``; one read returns at most 2 GiB."""
    piece = os.pread(descriptor, size, start)
    if len(piece) == size:
        return piece
    pieces = [piece]
    while piece and (missing := size - sum(map(len, pieces))):
        piece = os.pread(descriptor, missing, start + size - missing)
        pieces.append(piece)
    whole = b"".join(pieces)
    if len(whole) != size:
        raise OSError(f"file of texts ends after {start + len(whole)} of {start + size} bytes")
    return whole
