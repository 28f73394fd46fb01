"""Exact DEFLATE size of a growing set with one more text, without recompressing the set."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zip_pipeline.compression.selected_set import Ratios, Sizes


@dataclass(frozen=True)
class Framing:
    """The bytes around and between the texts of a set."""

    opening: bytes = b""
    separator: bytes = b""
    closing: bytes = b""


class DeflateSet:
    """A set of texts behind one streaming compressor.

    The set is fed once. For a candidate the stream is copied, the candidate and the closing
    bytes are fed to the copy, and the lengths of all output are added up: bit-identical to
    ``len(zlib.compress(opening + separator.join(set + [text]) + closing, level))``.

    Source: ZIP, algorithm 1 (coarse and fine local selection).
    Deviation: none in the figures; the published code recompresses the whole set each time.
    """

    def __init__(self, level: int = 9, framing: Framing | None = None) -> None:
        self._framing = framing or Framing()
        self._stream = zlib.compressobj(level)
        self._raw_bytes = len(self._framing.opening)
        self._emitted_bytes = len(self._stream.compress(self._framing.opening))
        self._is_empty = True

    def add(self, texts: Sequence[bytes]) -> None:
        """Append texts to the set, in order."""
        for text in texts:
            piece = text if self._is_empty else self._framing.separator + text
            self._emitted_bytes += len(self._stream.compress(piece))
            self._raw_bytes += len(piece)
            self._is_empty = False

    def extend(self, texts: Sequence[bytes]) -> None:
        """Append texts to the set: the same as :meth:`add`, which costs nothing extra here."""
        self.add(texts)

    def sizes_with(self, texts: Sequence[bytes]) -> Sizes:
        """Return the compressed bytes of (set + text) for each text on its own."""
        copy, emitted = self._stream.copy, self._emitted_bytes
        before, closing = self._before_text(), self._framing.closing
        sizes = []
        for text in texts:
            stream = copy()
            compressed = len(stream.compress(before + text + closing))
            sizes.append(emitted + compressed + len(stream.flush()))
        return np.array(sizes, dtype=np.int64)

    def ratios_with(self, texts: Sequence[bytes]) -> Ratios:
        """Return R of (set + text), raw / compressed bytes, for each text on its own."""
        num_bytes = np.array([len(text) for text in texts], dtype=np.int64)
        return self.raw_bytes_with(num_bytes) / self.sizes_with(texts)

    def raw_bytes_with(self, num_bytes: Sizes) -> Ratios:
        """Return the raw bytes of (set + text) for texts of these sizes."""
        around = self._raw_bytes + len(self._before_text()) + len(self._framing.closing)
        return (num_bytes + around).astype(np.float64)

    def closed_bytes(self) -> int:
        """Return the compressed bytes of the set as it is."""
        closed = self._stream.copy()
        ending = len(closed.compress(self._framing.closing)) + len(closed.flush())
        return self._emitted_bytes + ending

    def marginal_bytes(self, texts: Sequence[bytes]) -> Sizes:
        """Return by how many bytes each text, on its own, would grow the compressed set."""
        return self.sizes_with(texts) - self.closed_bytes()

    def _before_text(self) -> bytes:
        return b"" if self._is_empty else self._framing.separator
