"""How diverse a set of texts is, by the figures that others trust: n-grams, Vendi, NovelSum."""

import re
import zlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float64]

MAX_ROWS = 2_000
"""Vendi and NovelSum compare each text with each other: of more texts so many are drawn."""
_BUCKETS, _DIMENSIONS, _NEIGHBOURS = 4_096, 256, 10
_WORD = re.compile(r"\w+|[^\w\s]")


def diversity(texts: Sequence[str], reference: Sequence[str]) -> dict[str, float]:
    """Return the diversity figures of texts; higher = more diverse in all of them.

    Args:
        texts: one or more.
        reference: texts that are the same for all sets that are compared. They tell how common a
            word is, and where texts lie dense.

    Returns:
        ``distinct_1`` to ``distinct_3``: different word n-grams / all of them, 0 to 1;
        ``vendi`` (1 to 256, the effective number of different texts) and ``novelsum``.
    """
    words = [_words(text) for text in texts]
    drawn, around = _at_most(words), _at_most([_words(text) for text in reference])
    weights = _inverse_frequency(around)
    vectors, space = embeddings(drawn, weights), embeddings(around, weights)
    return {
        **{f"distinct_{n}": distinct_share(words, n) for n in (1, 2, 3)},
        "vendi": vendi_score(vectors),
        "novelsum": novelsum(vectors, space),
    }


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _at_most(rows: list[list[str]]) -> list[list[str]]:
    if len(rows) <= MAX_ROWS:
        return rows
    drawn = np.random.default_rng(0).choice(len(rows), MAX_ROWS, replace=False)
    return [rows[place] for place in sorted(drawn)]


def distinct_share(words: Sequence[Sequence[str]], n: int) -> float:
    """Return different n-grams / all n-grams, none of which goes from text to text; 0 of none."""
    grams = [gram for row in words for gram in zip(*(row[i:] for i in range(n)), strict=False)]
    return len(set(grams)) / max(1, len(grams))


def _counts(words: Sequence[str]) -> NDArray[np.int64]:
    buckets = [zlib.crc32(word.encode("utf-8", "surrogatepass")) % _BUCKETS for word in words]
    return np.bincount(np.array(buckets, dtype=np.int64), minlength=_BUCKETS)


def _inverse_frequency(rows: Sequence[Sequence[str]]) -> Vectors:
    num_with: Vectors = np.zeros(_BUCKETS)
    for row in rows:
        num_with += _counts(row) > 0
    weights: Vectors = np.log((1 + len(rows)) / (1 + num_with)) + 1
    return weights


def embeddings(rows: Sequence[Sequence[str]], weights: Vectors) -> Vectors:
    """Return hashed TF-IDF vectors, projected at random (always alike) and normalised.

    Args:
        rows: the words of each text.
        weights: of the buckets that words are hashed to, shape (4096,).

    Returns:
        Shape (rows, 256); a text without words is the zero vector.
    """
    projection = np.random.default_rng(0).standard_normal((_BUCKETS, _DIMENSIONS))
    counts = np.array([_counts(row) for row in rows]).reshape(-1, _BUCKETS)
    vectors = (np.log1p(counts) * weights) @ projection
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalised: Vectors = vectors / np.where(lengths > 0, lengths, 1)
    return normalised


def vendi_score(vectors: Vectors) -> float:
    """Return exp of the entropy of the eigenvalues of K / n, K the cosines of n vectors.

    Source: Vendi score (arXiv 2210.02410), definition 3.1, order 1.
    """
    # The covariance has the same eigenvalues as the n by n kernel, but for zeros.
    eigenvalues = np.linalg.eigvalsh(vectors.T @ vectors / len(vectors))
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def novelsum(vectors: Vectors, space: Vectors) -> float:
    """Return the mean novelty of normalised vectors; 0 for fewer than two.

    The novelty of i is the mean over the others j of (density of j) (1 - cos), weighted by
    1 / (rank of j by distance from i, nearest first). The density of j is the root of the inverse
    mean distance to its 10 nearest of the space.

    Source: NovelSum (arXiv 2502.17184), section 4; exponents 1 and 0.5.
    Deviation: the space is a sample of the pool, not all of it.
    """
    if len(vectors) < 2:
        return 0.0
    nearest = np.sort(np.clip(1 - vectors @ space.T, 0, None), axis=1)[:, :_NEIGHBOURS]
    density = 1 / np.sqrt(np.maximum(nearest.mean(axis=1), 1e-3))
    distances = np.clip(1 - vectors @ vectors.T, 0, None)
    # Nobody is his own neighbour: ranks begin behind oneself.
    np.fill_diagonal(distances, -1)
    order = np.argsort(distances, axis=1, kind="stable")[:, 1:]
    novel = np.take_along_axis(distances * density, order, axis=1)
    weights = 1 / np.arange(1, len(vectors))
    return float((novel @ weights / weights.sum()).mean())
