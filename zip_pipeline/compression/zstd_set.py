"""Zstandard size of texts given a set: a window that holds the whole selected set."""

from collections.abc import Sequence

import numpy as np
import zstandard

from zip_pipeline.compression.selected_set import Ratios, Sizes, worker_count

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
