"""Signal embedding: a vector for each sample, whatever is measured beside it."""

import random
from importlib.util import find_spec
from itertools import chain

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.errors import UserError
from zip_pipeline.samples import Sample, Turn
from zip_pipeline.signals import embedding, signals
from zip_pipeline.signals.embedding import EmbeddingSettings, embedder, normalised, vectors_of
from zip_pipeline.workflow.signals import preset_model
from zip_pipeline_tests.selection.pools import numbered_pool, pool_table

needs_wordllama = pytest.mark.skipif(find_spec("wordllama") is None, reason="needs wordllama")
EMBEDDING = signals["embedding"]


def measured(*blocks: pl.DataFrame) -> pl.DataFrame:
    """Return the signal of blocks of samples, one after another."""
    with EMBEDDING.open(EmbeddingSettings(), "sft", preset_model) as measure:
        return pl.concat([measure(block).cast(EMBEDDING.columns) for block in blocks])


@needs_wordllama
def test_a_vector_does_not_depend_on_its_block() -> None:
    """It is the same alone, in a small block, and among all; and it has length 1."""
    table = numbered_pool(70)
    vectors = vectors_of(measured(table))
    for size in (1, 33):
        parts = [table.slice(start, size) for start in range(0, 70, size)]
        assert vectors_of(measured(*parts)).tolist() == vectors.tolist()
    turned = vectors_of(measured(table.reverse()))
    assert turned[::-1].tolist() == vectors.tolist()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(70), abs=1e-6)


@needs_wordllama
def test_a_long_text_is_looked_at_in_pieces() -> None:
    """Its vector is the mean over all of them, next to that of the whole."""
    rng = random.Random(1)
    words = [" ".join(rng.choices(("harbour", "stone", "monk", "sea"), k=k)) for k in (9, 30_000)]
    short, long = words
    assert len(long) > 2 * embedding._PIECE
    embed = embedder(EmbeddingSettings())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_PIECE", len(long))
        whole = embed([long])[0]
    found = embed([short, long, short])
    assert np.abs(found[1] - whole).max() < 1e-3
    assert found[[0, 2]].tolist() == embed([short, short]).tolist()


@given(st.lists(st.integers(0, 90), max_size=40))
def test_texts_are_looked_at_together_while_they_are_short(sizes: list[int]) -> None:
    """A long one alone; the others as many as fit, each counted as the longest."""
    texts = ["x" * size for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_PIECE", 60)
        patch.setattr(embedding, "_MOST_CHARACTERS", 150)
        groups = list(embedding._of_like_memory(texts))
    assert list(chain(*groups)) == texts
    for group in groups:
        assert len(group) == 1 or max(map(len, group)) * len(group) <= 150
        assert len(group) == 1 or max(map(len, group)) <= 60


@needs_wordllama
def test_a_sample_without_a_word_has_no_vector() -> None:
    """Null in the table, zeros in the matrix, and its neighbours are what they are."""
    empty = Sample((Turn("user", ""), Turn("assistant", "")))
    said = Sample((Turn("user", "Say a word."), Turn("assistant", "Word.")))
    found = measured(pool_table([said, empty]))
    assert found["vector"].is_null().to_list() == [False, True]
    vectors = vectors_of(found)
    assert not vectors[1].any()
    assert vectors[0].tolist() == vectors_of(measured(pool_table([said])))[0].tolist()


def test_a_hub_id_needs_a_revision() -> None:
    """The message says what it was taken for, and what to add."""
    settings = EmbeddingSettings(model="org/name")
    with pytest.raises(UserError, match="'org/name' is no folder, so it is taken for a hub id, wh"):
        EMBEDDING.identity(settings, preset_model)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1.0, 2.0], None, [3.0, 4.0]], [[1, 2], [0, 0], [3, 4]]),
        ([None, None], [[], []]),
        ([], []),
    ],
)
def test_a_table_becomes_a_matrix(rows: list, expected: list) -> None:
    """With zeros where there is no vector, of no width where there is none at all."""
    table = pl.DataFrame({"vector": pl.Series(rows, dtype=pl.List(pl.Float32))})
    vectors = vectors_of(table)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == expected


def test_vectors_without_a_length_stay_zeros() -> None:
    """As do numbers that are none."""
    found = normalised(np.array([[0.0, 0.0], [3.0, 4.0], [np.nan, 2.0]]))
    assert found.tolist() == [[0, 0], [pytest.approx(0.6), pytest.approx(0.8)], [0, 1]]
