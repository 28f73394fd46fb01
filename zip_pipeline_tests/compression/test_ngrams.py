"""Hashed n-gram counts against counting in dictionaries."""

import zlib
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.compression.ngrams import ngram_counts, words_of

_TEXTS = st.lists(st.text("ab C,.東京é ", max_size=60), max_size=6)
_FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)


def counts_oracle(text: str) -> list[int]:
    """Count the buckets of all n-grams, hashed one by one in Python's numbers."""
    words = [zlib.crc32(word.encode()) for word in words_of(text.encode())]
    found: Counter[int] = Counter()
    for length in (1, 2, 3):
        for start in range(len(words) - length + 1):
            value, *others = words[start : start + length]
            for word, factor in zip(others, _FACTORS[1:], strict=False):
                value = ((value ^ (value >> 32)) * factor + word) % 2**64
            found[value * _FACTORS[0] % 2**64 >> 44] += 1
    return [bucket + 2**20 * (min(num, 4) - 1) for bucket, num in sorted(found.items())]


@given(_TEXTS)
def test_counts_equal_oracle(texts: list[str]) -> None:
    """Counts of each text up to 4, by ascending bucket; no n-gram reaches into the next text."""
    counted = ngram_counts([text.encode() for text in texts])
    found = [np.frombuffer(counts, np.uint32).tolist() for counts in counted]
    assert found == [counts_oracle(text) for text in texts]


def test_an_ngram_counts_four_times_at_most() -> None:
    """Of "a" five times in a row 4 words, 4 pairs and 3 triples count."""
    numbers = np.frombuffer(ngram_counts([b"a a a a a"])[0], np.uint32)
    assert sorted(numbers // 2**20 + 1) == [3, 4, 4]


def test_counts_do_not_change_between_releases() -> None:
    """Stored counts are read by later releases: another hash needs another NGRAMS_VERSION."""
    numbers = np.frombuffer(ngram_counts([b"So, so what?"])[0], np.uint32).tolist()
    assert numbers == [
        253448, 354172, 374452, 406174, 472433, 565876, 617878, 691670, 720302, 862481, 1966214,
    ]  # fmt: skip


def test_words_of_scripts_without_spaces_are_their_signs() -> None:
    """Chinese, Japanese and Thai have features as other languages do; case makes no difference."""
    assert words_of("Don't STOP_it, 東京へ!".encode()) == [
        "don", "'", "t", "stop_it", ",", "東", "京", "へ", "!",
    ]  # fmt: skip
    assert len(words_of("ไทย".encode())) == 3
