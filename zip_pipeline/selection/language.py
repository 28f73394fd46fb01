"""How characters and words follow one another in a pool, and how usual that is in a text."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.compression.texts import TextFile
from zip_pipeline.selection.candidates import Indices, Mask

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Floats = NDArray[np.float64]

PART_BYTES = 1 << 21
# A larger pool's language is learnt from texts of so many bytes, spread evenly.
_MODEL_BYTES = 1 << 25
# How usual a text is shows in so much of it.
EXCERPT_BYTES, _NUM_STRETCHES = 1 << 20, 4
_END = b"\0\0"

# Printable ASCII is 1 to 95, and all space is one; what is not judged by it is 0.
_NUM_SYMBOLS = 96
_SYMBOLS = np.zeros(256, np.int32)
_SYMBOLS[32:127] = np.arange(1, _NUM_SYMBOLS)
_SYMBOLS[[9, 10, 13]] = 1
_SYMBOL_PRIOR = 40.0
_MIN_CONTEXT, _MIN_CONTEXTS = 50, 1200

# Runs of one kind are a token: letters, digits, operators; 0 is what stands between tokens.
_LETTER, NUMBER, _OPERATOR = 1, 2, 3
KINDS = np.zeros(256, np.int8)
KINDS[65:91] = KINDS[97:123] = KINDS[128:] = KINDS[ord("'")] = _LETTER
KINDS[48:58] = NUMBER
KINDS[np.frombuffer(b"=+-*/<>{}()[];%&|$#", np.uint8)] = _OPERATOR
_LOWER = np.arange(1, 257, dtype=np.uint64)
_LOWER[65:91] += np.uint64(32)
_BASE = 0x9E3779B97F4A7C15
_WORD_BITS, _PAIR_BITS = 20, 24
_PAIR_PRIOR = 50.0
_MIN_WORD = 5
_MIN_WORDS = 100_000
# By how much of the text the other orders are shifted.
_SHIFTS = (0.382, 0.618, 0.146, 0.854, 0.5, 0.236)


class Order(NamedTuple):
    """How words follow one another in texts, every array of shape (texts,)."""

    gain: Floats
    """bits per known pair of neighbours by which their order is likelier than others"""
    num_known: Indices
    """pairs with one space between of which the pool knows both words"""
    num_pairs: Indices


class Language:
    """How characters and words follow one another in a pool.

    Args:
        texts: the pool.
    """

    def __init__(self, texts: TextFile) -> None:
        num_bytes = int(np.minimum(texts.num_bytes, EXCERPT_BYTES).sum())
        step = max(1.0, num_bytes / _MODEL_BYTES)
        self._counted = np.arange(0, len(texts), step).astype(np.int64)
        triples = np.zeros(_NUM_SYMBOLS**3, np.int64)
        self._words = np.zeros(1 << _WORD_BITS, np.int32)
        self._pairs = np.zeros(1 << _PAIR_BITS, np.int32)
        self._powers = _Powers()
        # Of the same type, as numpy is many times slower with any other.
        one = np.int32(1)
        for _, part in texts.placed_parts(self._counted, PART_BYTES):
            joined = Joined([excerpt(text) for text in part])
            triples += np.bincount(_triples(joined.bytes), minlength=len(triples))
            words = _Words(joined.bytes, self._powers)
            np.add.at(self._words, _bucket(words.hashes, _WORD_BITS), one)
            np.add.at(self._pairs, _bucket_of_pair(words.left, words.right), one)
        self._num_words = max(1, int(self._words.sum()))
        self._bits, num_contexts = _bits_of(triples)
        self.knows_words = self._num_words >= _MIN_WORDS
        """whether there are enough words to tell an order from none"""
        self.knows_characters = num_contexts >= _MIN_CONTEXTS
        """whether its texts are of enough kinds to tell a rare one from random characters"""

    def familiarity(self, texts: "Joined") -> tuple[Floats, Indices]:
        """Return by how many bits a character each text is likelier than random ones, and of how
        many characters that is the mean.

        Judged is ASCII of which the two characters before are frequent in the pool. Random
        characters are below 0, text of the pool at 2 to 4, foreign text and code at 1 to 3.
        """
        bits = self._bits[_triples(texts.bytes)]
        num = texts.sums(bits != 0)
        return texts.sums(bits) / np.maximum(num, 1), num.astype(np.int64)

    def order(self, texts: "Joined", samples: Sequence[int]) -> Order:
        """Return how much likelier the words of each text are in their order than in others.

        Of neighbours a, b it is log2 p(b | a) / p(b) by the pool without the sample's own pair,
        less the mean of that over the same words in other orders. Without an order that is 0 with
        a standard deviation of about 5 bits / sqrt(pairs), in text of the pool 4 to 8.

        Args:
            texts: what to judge.
            samples: the sample of the pool that each text is from.
        """
        words = _Words(texts.bytes, self._powers)
        of_pair = np.searchsorted(texts.starts, words.starts_of_left, side="right") - 1
        is_own = np.isin(np.asarray(samples, np.int64), self._counted)[of_pair]
        num_left = self._words[_bucket(words.left, _WORD_BITS)] - is_own
        num_right = self._words[_bucket(words.right, _WORD_BITS)] - is_own
        known = np.flatnonzero(np.minimum(num_left, num_right) >= _MIN_WORD)
        text, left, right = of_pair[known], words.left[known], words.right[known]
        expected = num_right[known] / self._num_words

        def bits(partner: Indices, own: Mask | int) -> Floats:
            seen = self._pairs[_bucket_of_pair(left, right[partner])] - own
            ratio = np.maximum(seen, 0) / expected[partner] + _PAIR_PRIOR
            result: Floats = np.log2(ratio / (num_left[known] + _PAIR_PRIOR))
            return result

        num_texts = len(texts.starts)
        num = np.bincount(text, minlength=num_texts)
        place = np.arange(len(known))
        first, size = (np.cumsum(num) - num)[text], num[text]
        gain: Floats = bits(place, is_own[known])
        for shift in _SHIFTS:
            step = np.maximum(1, (shift * size).astype(np.int64))
            partner = first + (place - first + step) % size
            gain -= bits(partner.astype(np.int64), 0) / len(_SHIFTS)
        sums = np.bincount(text, weights=gain, minlength=num_texts)
        return Order(sums / np.maximum(num, 1), num, np.bincount(of_pair, minlength=num_texts))


class Joined:
    """Texts one after another, and where each starts."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.bytes: Bytes = np.frombuffer(_END.join(texts) + _END, np.uint8)
        self.sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        self.starts = np.cumsum(self.sizes + len(_END)) - self.sizes - len(_END)

    def sums(self, values: NDArray[np.generic]) -> Floats:
        """Return the sum over each text of values, one per byte."""
        if not len(self.starts):
            return np.zeros(0)
        # Only the last text has less than all of its end.
        sums: Floats = np.add.reduceat(values, self.starts, dtype=np.float64)
        return sums


def excerpt(text: bytes) -> bytes:
    """Return a text, or of a long one four stretches, as each byte that is judged takes 100."""
    if len(text) <= EXCERPT_BYTES:
        return text
    size = EXCERPT_BYTES // _NUM_STRETCHES
    starts = np.linspace(0, len(text) - size, _NUM_STRETCHES).astype(int).tolist()
    return b" ".join(text[start : start + size] for start in starts)


def _triples(joined: Bytes) -> Indices:
    """Return the number of the three characters that start at each byte but the last two."""
    symbols = _SYMBOLS[joined]
    triples: Indices = (symbols[:-2] * _NUM_SYMBOLS + symbols[1:-1]) * _NUM_SYMBOLS + symbols[2:]
    return triples


def _bits_of(triples: Indices) -> tuple[NDArray[np.float32], int]:
    """Return log2 of how much likelier than any other each third character is, 0 if not judged,
    and how many pairs of characters are frequent.
    """
    counts = triples.reshape([_NUM_SYMBOLS] * 3)[:, :, 1:]
    contexts = counts.sum(axis=2)
    is_frequent = contexts >= _MIN_CONTEXT
    is_frequent[0] = is_frequent[:, 0] = False
    # One less: what is judged is among what was counted.
    seen = np.maximum(counts[is_frequent] - 1, 0) * (_NUM_SYMBOLS - 1) + _SYMBOL_PRIOR
    bits = np.zeros([_NUM_SYMBOLS] * 3, np.float32)
    bits[is_frequent, 1:] = np.log2(seen / (contexts[is_frequent, None] - 1 + _SYMBOL_PRIOR))
    return bits.ravel(), int(is_frequent.sum())


class _Powers:
    """Powers of an odd number, and their inverses, modulo 2^64: as many as a text has needed."""

    def __init__(self) -> None:
        self._known = self._first(0)

    def first(self, num: int) -> tuple[Hashes, Hashes]:
        """Return the first ``num`` powers or more, 16 bytes for each."""
        if len(self._known[0]) < num:
            self._known = self._first(num)
        return self._known

    def _first(self, num: int) -> tuple[Hashes, Hashes]:
        powers, inverses = (
            np.full(num, base, np.uint64) for base in (_BASE, pow(_BASE, -1, 1 << 64))
        )
        return np.cumprod(powers, dtype=np.uint64), np.cumprod(inverses, dtype=np.uint64)


class _Words:
    """The tokens of joined texts as hashes, and those left and right of a single space.

    Numbers are all one token, and two of them are no pair.
    """

    def __init__(self, joined: Bytes, of_base: _Powers) -> None:
        kinds = np.pad(KINDS[joined], 1)
        edges = np.flatnonzero(kinds[1:] != kinds[:-1])
        is_token = kinds[edges[:-1] + 1] > 0
        starts, ends = edges[:-1][is_token], edges[1:][is_token]
        # Sums of bytes times powers differ by the token's own, and the start is divided out.
        powers, inverses = of_base.first(len(joined))
        sums = np.zeros(len(joined) + 1, np.uint64)
        np.cumsum(_LOWER[joined] * powers[: len(joined)], out=sums[1:])
        kinds = KINDS[joined[starts]]
        is_number = kinds == NUMBER
        hashes = _mixed((sums[ends] - sums[starts]) * inverses[starts])
        self.hashes: Hashes = np.where(is_number, np.uint64(_BASE), hashes)
        is_pair = (starts[1:] - ends[:-1] == 1) & (joined[ends[:-1]] == ord(" "))
        is_pair &= ~(is_number[1:] & is_number[:-1])
        # Codes, as e4 or Nf3, are no words.
        is_code = (starts[1:] == ends[:-1]) & (is_number[1:] != is_number[:-1])
        is_code &= (kinds[1:] != _OPERATOR) & (kinds[:-1] != _OPERATOR)
        is_pair[1:] &= ~is_code[:-1]
        is_pair[:-1] &= ~is_code[1:]
        first = np.flatnonzero(is_pair)
        self.left, self.right = self.hashes[first], self.hashes[first + 1]
        self.starts_of_left: Indices = starts[first]


def _mixed(hashes: Hashes) -> Hashes:
    hashes = (hashes ^ (hashes >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return hashes ^ (hashes >> np.uint64(32))


def _bucket(hashes: Hashes, bits: int) -> Indices:
    return (hashes >> np.uint64(64 - bits)).astype(np.int64)


def _bucket_of_pair(left: Hashes, right: Hashes) -> Indices:
    return _bucket(_mixed(left * np.uint64(0x94D049BB133111EB) + right), _PAIR_BITS)
