"""What every incremental redundancy state of a growing set of texts can answer."""

import logging
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import zstandard
from numpy.typing import NDArray

from zip_pipeline.compression.texts import TextFile
from zip_pipeline.errors import UserError

Sizes: TypeAlias = NDArray[np.int64]
Ratios: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

_CHUNKS_PER_WORKER = 4
_MIN_CHUNK = 16
# Results do not depend on the number of workers, and beyond the cores they only cost memory. A
# few per core let a small machine prove the first.
_MOST_PER_CORE = 4
_log = logging.getLogger(__name__)


def worker_count(
    workers: int, name: str = "workers", tell: Callable[[str], object] = _log.warning
) -> int:
    """Return how many workers to start.

    Args:
        workers: how many were asked for, 0 for one per usable core; of more than 4 per core the
            rest is not started.
        name: what the person calls the number.
        tell: is called with one line where fewer are started than were asked for.

    Raises:
        UserError: ``workers`` is negative.
    """
    if workers < 0:
        raise UserError(f"{name}: got {workers}; allowed are 0 (all cores) and above")
    num_cores = len(os.sched_getaffinity(0))
    most = _MOST_PER_CORE * num_cores
    if workers > most:
        cores = "core" if num_cores == 1 else "cores"
        tell(
            f"{name}: {workers} is more than this machine's {num_cores} {cores} can use; "
            f"{most} are used"
        )
    return min(workers or num_cores, most)


class SelectedSet(Protocol):
    """A set of texts whose compressed size with one more text is cheap to ask for."""

    def add(self, texts: Sequence[bytes]) -> None:
        """Append texts to the set, in order, and size the set."""

    def extend(self, texts: Sequence[bytes]) -> None:
        """Append texts to the set, in order, for askers of ``marginal_bytes`` alone."""

    def ratios_with(self, texts: Sequence[bytes]) -> Ratios:
        """Return R of (set + text), raw / compressed bytes, for each text on its own."""

    def marginal_bytes(self, texts: Sequence[bytes]) -> Sizes:
        """Return by how many bytes each text, on its own, would grow the compressed set."""


def sizes_in_threads(
    measure: Callable[[bytes], int], texts: Sequence[bytes], workers: int = 0
) -> Sizes:
    """Return ``measure`` of each text, in threads: for codecs that release the interpreter lock.

    Results come in the order of the texts, so they do not depend on the number of workers.
    """
    workers = worker_count(workers)
    if workers == 1 or len(texts) <= _MIN_CHUNK:
        return np.fromiter(map(measure, texts), np.int64, len(texts))
    step = max(_MIN_CHUNK, -(-len(texts) // (workers * _CHUNKS_PER_WORKER)))
    chunks = [texts[start : start + step] for start in range(0, len(texts), step)]
    with ThreadPoolExecutor(workers) as executor:
        parts = executor.map(lambda chunk: [measure(text) for text in chunk], chunks)
        return np.fromiter((size for part in parts for size in part), np.int64, len(texts))


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

    def add(self, texts: Iterable[bytes]) -> None:
        """Append texts to the set, in order."""
        for text in texts:
            self._emitted_bytes += len(self._stream.compress(self._before_text() + text))
            self._num_texts += 1
            self._num_bytes += len(text)

    def extend(self, texts: Iterable[bytes]) -> None:
        """Append texts to the set: the same as :meth:`add`, which costs nothing extra here."""
        self.add(texts)

    def sizes_with(self, texts: Iterable[bytes]) -> Sizes:
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


class RecompressedSet:
    """A set for any codec: compressed anew with each text, which takes a time that grows with it.

    Args:
        compressed_size: returns the bytes that its argument takes when compressed.
    """

    def __init__(self, compressed_size: Callable[[bytes], int]) -> None:
        self._compressed_size = compressed_size
        self._content = b""

    def add(self, texts: Sequence[bytes]) -> None:
        """Append texts to the set, in order."""
        self._content += b"".join(texts)

    extend = add

    def ratios_with(self, texts: Sequence[bytes]) -> Ratios:
        """Return R of (set + text), raw / compressed bytes, for each text on its own."""
        raw = np.array([len(self._content) + len(text) for text in texts], dtype=np.float64)
        return raw / self._sizes_with(texts)

    def marginal_bytes(self, texts: Sequence[bytes]) -> Sizes:
        """Return by how many bytes each text, on its own, would grow the compressed set."""
        alone = self._compressed_size(self._content) if self._content else 0
        return self._sizes_with(texts) - alone

    def _sizes_with(self, texts: Sequence[bytes]) -> Sizes:
        sizes = (self._compressed_size(self._content + text) for text in texts)
        return np.fromiter(sizes, np.int64, len(texts))


class IndexedSet(Protocol):
    """What :class:`.SelectedSet` answers, asked by position: texts need not move about."""

    def add(self, indices: Indices) -> None:
        """Append texts to the set, in order, and size the set."""

    def extend(self, indices: Indices) -> None:
        """Append texts to the set, in order, for askers of ``marginal_bytes`` alone."""

    def ratios_with(self, indices: Indices) -> Ratios:
        """Return R of (set + text), raw / compressed bytes, for each text on its own."""

    def marginal_bytes(self, indices: Indices) -> Sizes:
        """Return by how many bytes each text, on its own, would grow the compressed set."""


class LocalSet:
    """A set in this process that reads the texts from their file, some megabytes at a time.

    Those that are added are read at once, as they may count as one piece.
    """

    def __init__(self, texts: TextFile, inner: SelectedSet) -> None:
        self._texts = texts
        self._inner = inner

    def add(self, indices: Indices) -> None:
        """Append texts to the set, in order, and size the set."""
        self._inner.add(self._texts.read(indices))

    def extend(self, indices: Indices) -> None:
        """Append texts to the set, in order, for askers of ``marginal_bytes`` alone."""
        for part in self._texts.parts(indices):
            self._inner.extend(part)

    def ratios_with(self, indices: Indices) -> Ratios:
        """Return R of (set + text), raw / compressed bytes, for each text on its own."""
        parts = [self._inner.ratios_with(part) for part in self._texts.parts(indices)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def marginal_bytes(self, indices: Indices) -> Sizes:
        """Return by how many bytes each text, on its own, would grow the compressed set."""
        parts = [self._inner.marginal_bytes(part) for part in self._texts.parts(indices)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


# Content that the dictionary keeps; beyond it the oldest texts of the set are forgotten.
MAX_WINDOW_BYTES = 1 << 27
_MIN_WINDOW_LOG, _MIN_TABLE_LOG, _MAX_TABLE_LOG = 17, 15, 20
# Sets beyond 16 MB would forget their oldest texts with 2^20 entries.
_CONTENT_PER_ENTRY_LOG = 4
# A thread starts with tables of its own, which costs as much as measuring some 100 texts.
_MIN_PER_WORKER = 200


def _parameters(level: int, dictionary_bytes: int) -> zstandard.ZstdCompressionParameters:
    """Return magicless frames without size, checksum or dictionary id, tables as the set needs.

    A level's own tables are sized for small dictionaries: at level 3 they forget all but the
    last few hundred KB of a set of 7 MB. 2^20 entries keep nearly all of it and stay in cache;
    sets of more than 16 MB get more entries.
    """
    size_log = max(dictionary_bytes, 1).bit_length()
    most = max(_MAX_TABLE_LOG, size_log - _CONTENT_PER_ENTRY_LOG)
    table_log = min(max(size_log - 1, _MIN_TABLE_LOG), most)
    return zstandard.ZstdCompressionParameters.from_level(
        level,
        dict_size=dictionary_bytes,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        window_log=max(size_log + 1, _MIN_WINDOW_LOG),
        hash_log=table_log,
        chain_log=table_log,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )


class ZstdSet:
    """A set of texts as the raw-content dictionary in front of each candidate.

    ``marginal_bytes`` is the size of the candidate's frame given the dictionary. The size of
    the whole set follows by the chain rule: C(set + texts) = C(set) + C(texts | set), where
    the texts added together count as one piece.

    The dictionary is prepared once after each :meth:`add`, at the next question.
    """

    def __init__(
        self, workers: int, level: int = 3, max_window_bytes: int = MAX_WINDOW_BYTES
    ) -> None:
        self._workers = worker_count(workers)
        self._level = level
        self._max_window_bytes = max_window_bytes
        self._content = bytearray()
        self._raw_bytes = 0
        self._compressed_bytes = 0
        self._compressor: zstandard.ZstdCompressor | None = None

    def add(self, texts: Sequence[bytes]) -> None:
        """Append texts to the set, in order."""
        if not texts:
            return
        piece = b"".join(texts)
        self._compressed_bytes += int(self.marginal_bytes([piece])[0])
        self._append(piece)

    def extend(self, texts: Sequence[bytes]) -> None:
        """Append texts without sizing them: for askers of ``marginal_bytes`` alone."""
        self._append(b"".join(texts))

    def marginal_bytes(self, texts: Sequence[bytes]) -> Sizes:
        """Return the compressed bytes of each text given the set, each on its own."""
        if not texts:
            return np.zeros(0, dtype=np.int64)
        compressor = self._prepared()
        if self._workers == 1 or len(texts) < _MIN_PER_WORKER * self._workers:
            return np.array([len(compressor.compress(text)) for text in texts], dtype=np.int64)
        frames = compressor.multi_compress_to_buffer(list(texts), threads=self._workers)
        return np.fromiter((len(frames[i]) for i in range(len(texts))), np.int64, len(texts))

    def ratios_with(self, texts: Sequence[bytes]) -> Ratios:
        """Return R of (set + text), raw / compressed bytes, for each text on its own."""
        raw = np.array([self._raw_bytes + len(text) for text in texts], dtype=np.float64)
        return raw / (self._compressed_bytes + self.marginal_bytes(texts))

    def _append(self, piece: bytes) -> None:
        self._content += piece
        self._raw_bytes += len(piece)
        surplus = len(self._content) - self._max_window_bytes
        if surplus > 0:
            del self._content[:surplus]
        self._compressor = None

    def _prepared(self) -> zstandard.ZstdCompressor:
        if self._compressor is None:
            parameters = _parameters(self._level, len(self._content))
            if self._content:
                dictionary = zstandard.ZstdCompressionDict(
                    bytes(self._content), dict_type=zstandard.DICT_TYPE_RAWCONTENT
                )
                dictionary.precompute_compress(compression_params=parameters)
                self._compressor = zstandard.ZstdCompressor(
                    dict_data=dictionary, compression_params=parameters
                )
            else:
                self._compressor = zstandard.ZstdCompressor(compression_params=parameters)
        return self._compressor
