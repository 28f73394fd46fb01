"""Signal embedding: a vector for each sample, whatever is measured beside it."""

from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest

from zip_pipeline.errors import UserError
from zip_pipeline.samples import Sample, Turn
from zip_pipeline.signals import signals
from zip_pipeline.signals.embedding import EmbeddingSettings, normalised, vectors_of
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
