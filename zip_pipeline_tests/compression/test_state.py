"""The compression state of samples."""

import logging
import zlib

import polars as pl
import pytest

from zip_pipeline.compression.state import TextTokens, compression_state, state_settings, texts_of
from zip_pipeline.compression.tokens import count_tokens
from zip_pipeline_tests.selection.oracles import zstd_bytes_given
from zip_pipeline_tests.selection.pools import numbered_pool


@pytest.mark.parametrize("workers", [1, 2, 0])
def test_state_equals_measuring_sample_by_sample(workers: int) -> None:
    """Bytes, tokens, both sizes and pi are those of each text alone, for any worker count."""
    table = numbered_pool(70)
    state = compression_state(table, "sft", workers=workers)
    texts = texts_of(table, "sft")
    assert len(texts) == 70
    assert state["sample_id"].to_list() == table["sample_id"].to_list()
    assert state["num_bytes"].to_list() == [len(text) for text in texts]
    assert state["num_tokens"].to_list() == [count_tokens([t.decode()])[0] for t in texts]
    deflate = [len(zlib.compress(text, 9)) for text in texts]
    assert state["deflate_bytes"].to_list() == deflate
    assert state["zstd_bytes"].to_list() == [zstd_bytes_given(text, b"") for text in texts]
    assert state["pi"].to_list() == [
        len(text) / size for text, size in zip(texts, deflate, strict=True)
    ]


def test_too_many_workers_of_a_state_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Though it measures with two codecs."""
    table = numbered_pool(3)
    with caplog.at_level(logging.WARNING):
        state = compression_state(table, "sft", workers=100_000)
    assert state.equals(compression_state(table, "sft"))
    (line,) = caplog.messages
    assert line.startswith("workers: 100000 is more than this machine's ")


def test_state_of_no_samples_is_an_empty_table() -> None:
    """A batch whose rows were all rejected has a state with no rows and the same columns."""
    state = compression_state(numbered_pool(0), "sft")
    assert state.shape == (0, 7)
    assert state.schema["pi"] == pl.Float64
    assert state.schema == compression_state(numbered_pool(1), "sft").schema


def test_state_settings_name_levels_versions_and_tokenizer() -> None:
    """A changed tokenizer, level or library shows in the settings."""
    settings = state_settings(TextTokens("owner/mine"))
    assert settings["tokenizer"] == "owner/mine"
    assert settings["tokenizer_identity"] == "text: owner/mine"
    assert (settings["deflate_level"], settings["zstd_level"]) == ("9", "3")
    assert settings["zlib"] == zlib.ZLIB_RUNTIME_VERSION
