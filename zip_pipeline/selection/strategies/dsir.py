"""Strategy ``dsir``: resampling by importance, so that word n-grams are those of a target file."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ScoreStrategy
from zip_pipeline.selection.strategies.random import random_numbers
from zip_pipeline.tables import of_ids

NUM_BUCKETS = 10_000
_SMOOTHING = 1e-8
# As the WordPunctTokenizer of NLTK cuts texts.
_WORD = re.compile(r"\w+|[^\w\s]+")
# Most n-grams come again soon; all of them would not fit into memory.
_MOST_KNOWN = 1 << 20
Buckets = NDArray[np.uint16]


class _BucketOf(dict[str, int]):
    """The bucket of each n-gram: its SHA-256, as a number, modulo the number of buckets."""

    def __missing__(self, ngram: str) -> int:
        if len(self) >= _MOST_KNOWN:
            self.clear()
        digest = hashlib.sha256(ngram.encode()).digest()
        self[ngram] = bucket = int.from_bytes(digest, "big") % NUM_BUCKETS
        return bucket


def ngram_buckets(texts: Iterable[bytes]) -> list[Buckets]:
    """Return the buckets of all words and pairs of words of each text, one per occurrence."""
    bucket_of = _BucketOf().__getitem__
    found = []
    for text in texts:
        words = _WORD.findall(text.decode().lower())
        pairs = map(" ".join, pairwise(words))
        found.append(np.array([*map(bucket_of, words), *map(bucket_of, pairs)], dtype=np.uint16))
    return found


def log_importance(raw: Iterable[Buckets], target: Iterable[Buckets]) -> NDArray[np.float64]:
    """Return log(p_target + 1e-8) - log(p_raw + 1e-8) of each bucket, shape (buckets,)."""
    of_target, of_raw = map(_probabilities, (target, raw))
    difference: NDArray[np.float64] = np.log(of_target + _SMOOTHING) - np.log(of_raw + _SMOOTHING)
    return difference


def _probabilities(texts: Iterable[Buckets]) -> NDArray[np.float64]:
    counts = np.zeros(NUM_BUCKETS)
    for buckets in texts:
        counts += np.bincount(buckets, minlength=NUM_BUCKETS)
    shares: NDArray[np.float64] = counts / max(counts.sum(), 1)
    return shares


def gumbel_noise(sample_ids: Iterable[str], seed: int) -> NDArray[np.float64]:
    """Return Gumbel noise that depends on the ids and the seed alone, shape (samples,)."""
    uniform = (random_numbers(sample_ids, seed).astype(np.float64) + 0.5) / 2.0**64
    noise: NDArray[np.float64] = -np.log(-np.log(np.clip(uniform, 1e-300, 1 - 1e-16)))
    return noise


class Dsir(ScoreStrategy):
    """Draws without replacement with probabilities in proportion to p_target / p_pool of a text.

    The score is the log importance weight, a sum over the text's words and pairs of words, plus
    Gumbel noise; highest first.

    Source: DSIR (arXiv 2302.03169), section 4; ``data-selection`` 1.0.3 gives the same weights.
    Deviation: samples below 100 words take part, and noise comes from the sample's id.
    """

    name = "dsir"
    description = "a draw by importance, so that word n-grams are those of a target file"
    parameters = ("target", "seed")
    mixture = "none"
    words: ClassVar[Mapping[str, str]] = {
        "picked": "drawn as number {rank} with seed {seed}: log importance weight and noise are "
        "{score:.3f}",
        "never_reached": "not drawn with seed {seed}: its log importance weight and noise, "
        "{score:.3f}, were too low before the budget was used",
    }

    def scores(self, pool: Measured, config: SelectionConfig, workers: int) -> NDArray[np.float64]:
        """Return log importance weight plus noise of each sample, shape (samples,)."""
        texts = pool.candidates.texts
        # In a file, as they take up to four bytes for each of the pool.
        parts = ([of.tobytes() for of in ngram_buckets(part)] for part in texts.parts())
        with TemporaryTexts.write(parts, texts.path.parent) as file:

            def raw() -> Iterator[Buckets]:
                return (np.frombuffer(buckets, np.uint16) for buckets in file.each())

            weight = log_importance(raw(), ngram_buckets(pool.candidates.target))
            sums = (weight[buckets].sum() for buckets in raw())
            weights = np.fromiter(sums, np.float64, len(texts))
        noise = of_ids(pool.candidates.index, lambda ids: gumbel_noise(ids, config.seed))
        return np.asarray(weights + noise)


STRATEGY = Dsir()
