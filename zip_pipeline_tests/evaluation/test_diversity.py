"""Figures of diversity against what they are by hand, or by a slow and obvious way."""

import numpy as np
import pytest

from zip_pipeline.evaluation import diversity as module
from zip_pipeline.evaluation.diversity import (
    Vectors,
    distinct_share,
    diversity,
    embeddings,
    novelsum,
    vendi_score,
)


def _unit(num: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((num, 5))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_distinct_share_counts_ngrams_inside_texts():
    """Of a b a b and a b there are 4 bigrams in all, 2 of them different."""
    words = [["a", "b", "a", "b"], ["a", "b"]]
    assert distinct_share(words, 1) == 2 / 6
    assert distinct_share(words, 2) == 2 / 4
    assert distinct_share(words, 3) == 1.0
    assert distinct_share([["a"]], 2) == 0


def test_vendi_is_the_number_of_different_texts():
    """Of vectors at right angles each counts, of equal ones a single one, however many."""
    assert vendi_score(np.eye(7)) == pytest.approx(7)
    assert vendi_score(np.tile(np.eye(7)[:2], (3, 1))) == pytest.approx(2)


def test_vendi_is_the_entropy_of_the_kernel():
    """The small covariance gives what the kernel of all pairs does."""
    vectors = _unit(9)
    eigenvalues = np.linalg.eigvalsh(vectors @ vectors.T / 9)
    kept = eigenvalues[eigenvalues > 1e-9]
    assert vendi_score(vectors) == pytest.approx(np.exp(-np.sum(kept * np.log(kept))))


def _slow_novelsum(vectors: Vectors, space: Vectors) -> float:
    def density(j: int) -> float:
        nearest = sorted(1 - float(vectors[j] @ other) for other in space)[:10]
        return (sum(nearest) / len(nearest)) ** -0.5

    novelties = []
    for i in range(len(vectors)):
        others = [j for j in range(len(vectors)) if j != i]
        others.sort(key=lambda j: 1 - vectors[i] @ vectors[j])
        terms = [
            (1 / r, density(j) * (1 - vectors[i] @ vectors[j])) for r, j in enumerate(others, 1)
        ]
        novelties.append(sum(w * d for w, d in terms) / sum(w for w, _ in terms))
    return sum(novelties) / len(novelties)


def test_novelsum_equals_the_slow_definition():
    """Ranks, densities and weights are those of the formula, pair by pair."""
    vectors, space = _unit(12), _unit(30, seed=1)
    assert novelsum(vectors, space) == pytest.approx(_slow_novelsum(vectors, space))
    assert novelsum(vectors[:1], space) == 0


def test_embeddings_are_normalised_and_know_equal_texts():
    """Equal words give equal vectors in any order, other words others, no words zero."""
    vectors = embeddings([["a", "b"], ["b", "a"], ["c"], []], np.ones(4096))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1, 0])
    assert vectors[0] @ vectors[1] == pytest.approx(1)
    assert abs(vectors[0] @ vectors[2]) < 0.3


def test_repetition_lowers_every_figure(monkeypatch: pytest.MonkeyPatch):
    """Ten texts twice are less diverse than twenty; above the limit texts are drawn."""
    topics = [f"{n} tells {n * n} of {n + 100}" for n in range(20)]
    repeated, different = diversity(topics[:10] * 2, topics), diversity(topics, topics)
    assert all(repeated[name] < different[name] for name in different)
    monkeypatch.setattr(module, "MAX_ROWS", 5)
    few = diversity(topics, topics)
    assert few["distinct_1"] == different["distinct_1"]
    assert few["vendi"] <= 5 < different["vendi"]
