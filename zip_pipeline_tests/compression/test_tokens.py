"""Counting tokens."""

import shutil
from pathlib import Path

import pytest

from zip_pipeline.compression.tokens import SHIPPED_TOKENIZERS, count_tokens, load_tokenizer


def test_counts_equal_encoding_one_text_at_a_time() -> None:
    """Batches change nothing; no special token is counted, and text that spells one is text."""
    texts = ["", "a", "Add 3 and 4.", "東京 " * 50, "<|eos|>", "x" * 5000] * 400
    tokenizer = load_tokenizer("tiny")
    expected = [len(tokenizer.encode(text, add_special_tokens=False)) for text in texts[:6]]
    counts = count_tokens(texts)
    assert len(counts) == 2400
    assert counts == expected * 400
    assert counts[0] == 0
    assert counts[4] > 1


def test_a_tokenizer_may_be_a_file_or_a_folder(tmp_path: Path) -> None:
    """tokenizer.json by path, or the folder that holds it."""
    shutil.copy(SHIPPED_TOKENIZERS["tiny"], tmp_path / "tokenizer.json")
    expected = count_tokens(["Sort the words."])
    assert expected[0] > 0
    for name in (tmp_path, tmp_path / "tokenizer.json"):
        assert count_tokens(["Sort the words."], str(name)) == expected


@pytest.mark.parametrize("name", ["", "./absent.json", "folder/tokenizer.json", "a/b/c"])
def test_an_unknown_tokenizer_is_refused_with_what_is_allowed(name: str) -> None:
    """The message names what came and the remedy."""
    with pytest.raises(ValueError, match="tokenizer"):
        count_tokens(["x"], name)


def test_a_broken_tokenizer_file_is_refused(tmp_path: Path) -> None:
    """A file that is no tokenizer is an error that names it."""
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=str(tmp_path)):
        count_tokens(["x"], str(tmp_path / "tokenizer.json"))
