"""Strategies zip_fit and dsir against slow oracles and the figures of the published packages."""

import gzip
import hashlib
import math
import re
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.selection.candidates import Candidates, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.strategies.dsir import STRATEGY as dsir
from zip_pipeline.selection.strategies.dsir import gumbel_noise, log_importance, ngram_buckets
from zip_pipeline.selection.strategies.zip_fit import TargetSizes
from zip_pipeline.workflow.sources import read
from zip_pipeline_tests.selection.pools import numbered_pool
from zip_pipeline_tests.selection.test_random import select_for

_TEXTS = st.lists(
    st.one_of(
        st.binary(max_size=80),
        st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 900)).map(
            lambda p: p[0] * p[1]
        ),
        st.text("ab ", max_size=300).map(str.encode),
    ),
    min_size=1,
    max_size=5,
)


def similarity_oracle(text: bytes, target: Sequence[bytes], level: int) -> float:
    """The mean of 1 - NCD, every size by compressing everything anew."""

    def size(content: bytes) -> int:
        return len(gzip.compress(content, level))

    found = []
    for other in target:
        sizes = size(text), size(other)
        found.append(1 - (size(text + other) - min(sizes)) / max(sizes))
    return sum(found) / len(found)


@given(_TEXTS, _TEXTS, st.sampled_from([1, 6, 9]))
@settings(max_examples=60, deadline=None)
def test_similarity_equals_oracle(texts: list[bytes], target: list[bytes], level: int) -> None:
    """Copied streams with small tables give the sizes of gzip, also beyond its 32 KB."""
    sizes = TargetSizes(target, level)
    for text in [*texts, texts[0] * 60]:
        assert sizes.similarity(text) == pytest.approx(
            similarity_oracle(text, target, level), abs=1e-12
        )


def dsir_oracle(texts: Sequence[bytes], target: Sequence[bytes]) -> list[float]:
    """Log importance weights by counting n-grams in dictionaries."""

    def counts(text: bytes) -> Counter[int]:
        words = re.findall(r"\w+|[^\w\s]+", text.decode().lower())
        ngrams = words + [f"{words[i]} {words[i + 1]}" for i in range(len(words) - 1)]
        return Counter(
            int(hashlib.sha256(ngram.encode()).hexdigest(), 16) % 10_000 for ngram in ngrams
        )

    def logs(many: Sequence[bytes]) -> dict[int, float]:
        total = sum(map(counts, many), Counter())
        return {b: math.log(total[b] / sum(total.values()) + 1e-8) for b in range(10_000)}

    wanted, given_ = logs(target), logs(texts)
    return [sum(num * (wanted[b] - given_[b]) for b, num in counts(text).items()) for text in texts]


@pytest.mark.parametrize("strategy", ["zip_fit", "dsir"])
def test_picks_are_the_best_by_the_oracle(strategy: str) -> None:
    """Scores stand in the ledger, and the picks are the highest of them, in order."""
    table = numbered_pool(120)
    texts = texts_of(table, "sft")
    target = [b"user: What is 3 times 8? alpha alpha\n", b"assistant: so so 24, so.\n"]
    if strategy == "zip_fit":
        expected = [similarity_oracle(text, target, 9) for text in texts]
    else:
        noise = gumbel_noise(table["sample_id"], 5)
        expected = [w + e for w, e in zip(dsir_oracle(texts, target), noise, strict=True)]
    config = SelectionConfig(strategy=strategy, budget_samples=30, target="t.jsonl", seed=5)
    selection = select_for(table, target, config)
    assert selection.ledger["score"].to_list() == pytest.approx(expected, abs=1e-9)
    ids = table["sample_id"]
    best = sorted(range(120), key=lambda i: (-round(expected[i], 9), ids[i]))
    assert selection.picks == best[:30]
    assert selection.manifest["target"]["num_samples"] == 2
    assert select_for(table, target, config.model_copy(update={"num_shards": 3})).picks == best[:30]


def test_noise_is_gumbel_and_belongs_to_the_sample() -> None:
    """Mean 0.577 and deviation 1.283; neither the other samples nor their order matter."""
    ids = [f"{number:032x}" for number in range(20_000)]
    noise = gumbel_noise(ids, 3)
    assert noise.mean() == pytest.approx(0.5772, abs=0.03)
    assert noise.std() == pytest.approx(math.pi / math.sqrt(6), abs=0.03)
    assert gumbel_noise(ids[5:3:-1], 3).tolist() == noise[5:3:-1].tolist()
    assert gumbel_noise(ids[:9], 4).tolist() != noise[:9].tolist()


@pytest.fixture(scope="module")
def real_texts(shared_folder: Path) -> tuple[list[bytes], list[bytes]]:
    """Return 1,000 real samples and 20 of another source."""
    pool = shared_folder / "pools" / "sft"
    samples = read(pool / "alpaca_5_percent.json.gz").samples.head(1000)
    target = read(pool / "gsm8k_train.jsonl.gz").samples.head(20)
    return texts_of(samples, "sft"), texts_of(target, "sft")


def _hash(scores: np.ndarray) -> str:
    return hashlib.sha256(np.round(scores, 6).tobytes()).hexdigest()[:16]


@pytest.mark.skipif(
    zlib.ZLIB_RUNTIME_VERSION != "1.2.13", reason="other builds of DEFLATE give other sizes"
)
@pytest.mark.parametrize(
    ("level", "mean", "hash_"),
    [(9, 0.12162908345905486, "308c2a54fc4dafe5"), (6, 0.12162706096583085, "cb391d839d587e89")],
)
def test_similarities_are_those_of_the_published_package(
    real_texts: tuple[list[bytes], list[bytes]], level: int, mean: float, hash_: str
) -> None:
    """Figures of zip-fit 1.0.9 with gzip at that level."""
    texts, target = real_texts
    sizes = TargetSizes(target, level)
    scores = np.array([sizes.similarity(text) for text in texts])
    assert scores.mean() == pytest.approx(mean, abs=1e-12)
    assert _hash(scores) == hash_


def test_importance_is_measured_without_the_words_of_the_pool_in_memory() -> None:
    """100,000 samples take 60 bytes each; their words as arrays took 110 more."""
    num = 100_000
    index = pl.DataFrame({"sample_id": [f"{n:032x}" for n in range(num)]})
    zeros = np.zeros(num, np.int64)
    config = SelectionConfig(strategy="dsir", target="t.jsonl", budget_samples=1)
    with TemporaryTexts.write([[b"a word"] * 1000] * (num // 1000)) as texts:
        pool = Measured(Candidates(index, texts, target=[b"a word"]), None, zeros, zeros)
        tracemalloc.start()
        scores = dsir.scores(pool, config, workers=1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert scores.shape == (num,)
    assert peak < 100 * num


def test_importance_weights_are_those_of_the_published_package(
    real_texts: tuple[list[bytes], list[bytes]],
) -> None:
    """Figures of data-selection 1.0.3 with NLTK 3.9.1, which cuts words by Python's own \\w."""
    texts, target = real_texts
    raw = ngram_buckets(texts)
    weight = log_importance(raw, ngram_buckets(target))
    scores = np.array([weight[buckets].sum() for buckets in raw])
    assert scores.mean() == pytest.approx(-1537.9206761302748, abs=1e-9)
    assert _hash(scores) == "7e503d184a169e71"
