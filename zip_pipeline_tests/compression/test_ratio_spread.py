"""The spread of R by seeded re-draws."""

import random
import statistics

import pytest

from zip_pipeline.compression.codecs import compression_ratio, compression_ratio_spread


def _texts(rng: random.Random, num_texts: int) -> list[str]:
    words = [f"w{rng.randrange(10_000)}" for _ in range(300)]
    return [" ".join(rng.choices(words, k=rng.randrange(5, 60))) for _ in range(num_texts)]


def test_spread_is_how_far_the_ratio_varies_over_subsets_drawn_anew() -> None:
    """It estimates the standard deviation of R over subsets of the same size from one source."""
    rng = random.Random(0)
    pool = _texts(rng, 4000)
    subsets = [rng.sample(pool, 200) for _ in range(40)]
    ratios = [compression_ratio("".join(subset).encode(), "deflate") for subset in subsets]
    spreads = [compression_ratio_spread(subset, "deflate") for subset in subsets]
    mean_spread = statistics.mean(spread for spread in spreads if spread is not None)
    assert mean_spread == pytest.approx(statistics.stdev(ratios), rel=0.35)


def test_spread_is_the_same_for_the_same_seed() -> None:
    """Two measurements agree; another seed draws other halves."""
    texts = _texts(random.Random(1), 50)
    first = compression_ratio_spread(texts, "zstd")
    assert first == compression_ratio_spread(texts, "zstd")
    assert first != compression_ratio_spread(texts, "zstd", seed=1)


def test_spread_of_too_few_samples_is_unknown() -> None:
    """Three samples have no halves worth the name; four have."""
    texts = _texts(random.Random(2), 4)
    assert compression_ratio_spread(texts[:3], "deflate") is None
    assert compression_ratio_spread(texts, "deflate") is not None
