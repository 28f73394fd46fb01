"""Word n-grams of texts as hashed counts: what a text is about, in numbers that add up."""

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.compression.texts import parts_of

NUM_BUCKETS = 1 << 20
"""how many buckets the n-grams share"""
MAX_COUNT = 4
"""how often an n-gram counts within one text"""
NGRAMS_VERSION = "1"
"""changes when the counts of a text do"""
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f"
)
"""scripts without spaces between words, as a class of a regular expression: each sign is a word"""
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")
_BUCKET_BITS = 20
# Odd numbers whose multiples spread over all bits, and from which bits the bucket comes.
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
_TOP_BITS = np.uint64(64 - _BUCKET_BITS)
_HALF = np.uint64(32)
# What so many texts need fits into the processor's cache, or nearly; it is 30 times their bytes.
_TEXTS_AT_A_TIME = 1 << 9
_BYTES_AT_A_TIME = 1 << 20

Hashes = NDArray[np.uint64]


def words_of(text: bytes) -> list[str]:
    """Return the words of a text in lower case; other signs stand by themselves.

    Example:
        >>> words_of("Don't go, 東京!".encode())
        ['don', "'", 't', 'go', ',', '東', '京', '!']
    """
    return _WORD.findall(text.decode().lower())


@lru_cache(1 << 18)
def _word_hash(word: str) -> int:
    return zlib.crc32(word.encode())


def ngram_counts(texts: Sequence[bytes]) -> list[bytes]:
    """Return the hashed counts of all word 1-, 2- and 3-grams of each text.

    Returns:
        For each text unsigned 32-bit numbers, as bytes: ``(count - 1) * 2**20 + bucket``, by
        ascending bucket, counts above 4 as 4. As an index into a table of 4 rows of 2^20 columns
        such a number finds what the bucket adds with its count.
    """
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    parts = parts_of(np.arange(len(texts)), sizes, _BYTES_AT_A_TIME, _TEXTS_AT_A_TIME)
    return [counts for part in parts for counts in _counts_of(texts[part[0] : part[-1] + 1])]


def _counts_of(texts: Sequence[bytes]) -> list[bytes]:
    words = [words_of(text) for text in texts]
    hashes = np.fromiter(map(_word_hash, chain.from_iterable(words)), np.uint64)
    owners = np.repeat(np.arange(len(words), dtype=np.uint64), [len(own) for own in words])
    # The text above, the bucket below: sorted, equal n-grams of a text stand together.
    keys = np.concatenate([*_keys(hashes, owners)])
    keys.sort()
    firsts = np.flatnonzero(np.diff(keys, prepend=np.uint64(1 << 63)))
    counts = np.minimum(np.diff(firsts, append=len(keys)), MAX_COUNT)
    buckets = keys[firsts] & np.uint64(NUM_BUCKETS - 1)
    numbers = (buckets + (counts.astype(np.uint64) - 1) * NUM_BUCKETS).astype(np.uint32)
    borders = np.arange(len(words) + 1, dtype=np.uint64)
    ends = np.searchsorted(keys[firsts] >> _BUCKET_BITS, borders).tolist()
    return [numbers[start:end].tobytes() for start, end in pairwise(ends)]


def _keys(hashes: Hashes, owners: Hashes) -> list[Hashes]:
    """Return text number and bucket of each n-gram, for n from 1 to 3."""
    found, ngrams = [], hashes
    for length, factor in enumerate(_FACTORS):
        if length:
            ngrams = (ngrams[:-1] ^ (ngrams[:-1] >> _HALF)) * factor + hashes[length:]
        buckets = (ngrams * _FACTORS[0]) >> _TOP_BITS
        is_whole = owners[length:] == owners[: len(owners) - length]
        found.append(((owners[length:] << _BUCKET_BITS) | buckets)[is_whole])
    return found


def numbers_of(counts: bytes) -> NDArray[np.uint32]:
    """Return the numbers of :func:`ngram_counts` from their bytes."""
    return np.frombuffer(counts, dtype=np.uint32)
