"""Clusters of samples by their words, for a mixture of pools whose sources are of no use."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.ngrams import words_of
from zip_pipeline.selection.candidates import Candidates, Indices
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.tables import rows_of

# Fewer samples have no clusters to speak of.
_MIN_SAMPLES = 100
_SMALL_SOURCE = 20
_MAX_CLUSTERS = 64
# Clusters are found among so many samples, by so many words: those that most of them use.
_MAX_FITTED = 10_000
_MAX_WORDS = 2048
_MAX_COUNTED = 1 << 20
_MAX_ITERATIONS = 30
_NUM_TELLING = 6
# Vectors are rounded to whole numbers and have this length. Products of two of them are whole
# numbers below 2^24, so that single precision holds them exactly, whatever the order of sums.
_LENGTH = 2048
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Clusters:
    """In which cluster each sample competes.

    Args:
        names: ``cluster 01`` and so on, the largest first, or what a signal tells; shape
            (samples,).
        words: by name, the words that weigh most in the cluster, heaviest first; none where a
            signal tells.
    """

    names: pl.Series
    words: Mapping[str, list[str]]


def clusters_for(candidates: Candidates, config: SelectionConfig) -> Clusters | None:
    """Return the clusters that stand in for sources, None where the sources serve.

    Sources are of no use where there is one, or where most samples come from sources of fewer than
    20 samples. They serve nevertheless in pools of fewer than 100 samples, and where the
    configuration names quotas or weights of sources. Where it names a signal, what that tells of a
    sample stands in for its source.
    """
    if (place := config.shares_signal) is not None:
        signal, column = place
        told = rows_of(candidates.signal_table(signal), column)[column]
        return Clusters(told.fill_null("unknown"), {})
    sources = candidates.sources
    sizes = sources.value_counts()["count"]
    num_in_small = int(sizes.filter(sizes < _SMALL_SOURCE).sum())
    are_of_use = len(sizes) > 1 and 2 * num_in_small <= len(sources)
    named = config.quotas or config.mixture_weights
    if config.resolved_mixture == "none" or named or are_of_use or len(sources) < _MIN_SAMPLES:
        return None
    return clusters_of(candidates)


def clusters_of(candidates: Candidates) -> Clusters:
    """Return sqrt(n / 2) clusters of n samples, at least 2 and at most 64, by spherical k-means.

    A sample is the vector of its words, each weighed sqrt(count) log(n / samples with the word).
    Clusters depend on ids and texts of the samples alone: they are fitted to the 10,000 lowest ids,
    which are hashes. One that stays empty is left out.

    Source: spherical k-means (Dhillon and Modha 2001), begun as k-means++ (Arthur and
    Vassilvitskii 2007).
    """
    texts = candidates.texts
    num_clusters = min(max(round(math.sqrt(len(texts) / 2)), 2), _MAX_CLUSTERS)
    fitted = candidates.by_id()[:_MAX_FITTED]
    # Twice from the file, as long texts are more than there is memory for.
    space = _Space.of(texts.each(fitted), len(fitted))
    centres = _fit(space.vectors(texts.each(fitted), len(fitted)), num_clusters)
    parts = (space.vectors(part, len(part)) for part in texts.parts())
    found = np.concatenate([_nearest(part, centres) for part in parts])
    sizes = np.bincount(found, minlength=num_clusters)
    by_size = np.argsort(-sizes, kind="stable")
    names = [f"cluster {number:02d}" for number in range(1, num_clusters + 1)]
    own = {name: centres[c] for name, c in zip(names, by_size, strict=True) if sizes[c]}
    words = {name: space.heaviest(centre) for name, centre in own.items()}
    # As categories, of which each sample keeps a number.
    categories = pl.Series(names, dtype=pl.Enum(names))
    return Clusters(categories.gather(np.argsort(by_size)[found]), words)


@dataclass(frozen=True)
class _Space:
    """The words that make vectors, and what each of them weighs."""

    words: Sequence[str]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, texts: Iterable[bytes], num_texts: int) -> "_Space":
        """Return the words that stand in most of the texts, at least in two."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(set(words_of(text)))
            # Long texts have no end of words that hardly any other has.
            if len(counts) > _MAX_COUNTED:
                counts = Counter(dict(counts.most_common(_MAX_COUNTED // 2)))
        common = sorted((-num, word) for word, num in counts.items() if num > 1)[:_MAX_WORDS]
        weights = [math.log(num_texts / -num) for num, _ in common]
        return cls([word for _, word in common], np.array(weights))

    def vectors(self, texts: Iterable[bytes], num_texts: int) -> Vectors:
        """Return the vector of each text, shape (texts, words)."""
        columns = {word: column for column, word in enumerate(self.words)}
        vectors = np.zeros((num_texts, len(columns)), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            counts = Counter(words_of(text))
            known = [word for word in counts if word in columns]
            if known:
                own = [columns[word] for word in known]
                roots = np.sqrt([counts[word] for word in known])
                vector[own] = _rounded(roots * self.weights[own])
        return vectors

    def heaviest(self, centre: Vectors) -> list[str]:
        """Return the words that weigh most in a centre, heaviest first; no signs or numbers."""
        order = (self.words[column] for column in np.argsort(-centre, kind="stable"))
        return [word for word in order if word.isalpha()][:_NUM_TELLING]


def _rounded(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a vector of the common length in whole numbers; one of zeros stays."""
    length = math.sqrt(float((vector**2).sum()))
    return np.rint(vector * (_LENGTH / max(length, 1e-9)))


def _nearest(vectors: Vectors, centres: Vectors) -> Indices:
    """Return the centre of the smallest angle to each vector; ties: lowest index."""
    nearest: Indices = (vectors @ centres.T).argmax(axis=1)
    return nearest


def _fit(vectors: Vectors, num_clusters: int) -> Vectors:
    """Return the centres of clusters, shape (clusters, words)."""
    centres, members = _first_centres(vectors, num_clusters), np.zeros(0, dtype=np.int64)
    for _ in range(_MAX_ITERATIONS):
        before, members = members, _nearest(vectors, centres)
        if np.array_equal(before, members):
            break
        own = (vectors[members == cluster] for cluster in range(num_clusters))
        sums = (part.sum(axis=0, dtype=np.float64) for part in own)
        centres = np.array([_rounded(sum_) for sum_ in sums], dtype=np.float32)
    return centres


def _first_centres(vectors: Vectors, num_clusters: int) -> Vectors:
    """Draw vectors with a chance that grows with their distance to those already drawn."""
    draws = np.random.default_rng(0).random(num_clusters)
    products = np.zeros(len(vectors), dtype=np.float32)
    chosen: list[int] = []
    for draw in draws:
        distances = np.cumsum(np.maximum(_LENGTH**2 - products, 0), dtype=np.float64)
        place = int(np.searchsorted(distances, draw * distances[-1], side="right"))
        chosen.append(min(place, len(vectors) - 1))
        products = np.maximum(products, vectors @ vectors[chosen[-1]])
    return vectors[chosen]
