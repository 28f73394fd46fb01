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

    def raw_bytes(self, num_texts: int, num_bytes: Sizes | int) -> Sizes | int:
        """Return the bytes of so many texts, one or more, of ``num_bytes`` in all."""
        around = len(self.opening) + len(self.closing)
        return num_bytes + around + len(self.separator) * (num_texts - 1)


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
        self._emitted_bytes = len(self._stream.compress(self._framing.opening))
        self._num_texts = 0
        self._num_bytes = 0

    def add(self, texts: Sequence[bytes]) -> None:
        """Append texts to the set, in order."""
        for text in texts:
            self._emitted_bytes += len(self._stream.compress(self._before_text() + text))
            self._num_texts += 1
            self._num_bytes += len(text)

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
        raw = self._framing.raw_bytes(self._num_texts + 1, self._num_bytes + num_bytes)
        return raw / self.sizes_with(texts)

    def closed_bytes(self) -> int:
        """Return the compressed bytes of the set as it is."""
        closed = self._stream.copy()
        ending = len(closed.compress(self._framing.closing)) + len(closed.flush())
        return self._emitted_bytes + ending

    def marginal_bytes(self, texts: Sequence[bytes]) -> Sizes:
        """Return by how many bytes each text, on its own, would grow the compressed set."""
        return self.sizes_with(texts) - self.closed_bytes()

    def _before_text(self) -> bytes:
        return self._framing.separator if self._num_texts else b""
