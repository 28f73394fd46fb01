"""Counting tokens."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from zip_pipeline.compression import tokens
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


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=8))
def test_counts_equal_those_of_single_texts_whatever_they_are(texts: list[str]) -> None:
    """Any text has a count, alone and in a batch the same, and survives its tokens."""
    tokenizer = load_tokenizer("tiny")
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert count_tokens(texts) == [len(ids) for ids in encoded]
    assert [tokenizer.decode(ids) for ids in encoded] == texts


@given(st.lists(st.text("ab1 \n,é東", max_size=90), max_size=8))
def test_pieces_of_long_texts_count_as_the_whole(texts: list[str]) -> None:
    """A piece ends before a space between words; without one, a token may count as two."""
    whole = count_tokens(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "PIECE_LENGTH", 16)
        pieces = [list(tokens.pieces_of(text)) for text in texts]
        counts = count_tokens(texts)
    assert ["".join(parts) for parts in pieces] == texts
    for parts, count, expected in zip(pieces, counts, whole, strict=True):
        assert all(len(part) <= 16 for part in parts)
        ends = pairwise(parts)
        num_cuts = sum(not (a[-1].isalnum() and b[0] == " ") for a, b in ends)
        assert count == expected if num_cuts == 0 else abs(count - expected) <= 2 * num_cuts


def test_few_characters_are_tokenised_at_a_time() -> None:
    """Many short texts and a long one make batches of about one size, with every text in one."""
    lengths = [10] * 3000 + [tokens.PIECE_LENGTH] * 3 + [200_000] * 4 + [0] * 5
    batches = [lengths[batch] for batch in tokens.in_batches(lengths)]
    assert [length for batch in batches for length in batch] == lengths
    assert all(sum(batch) <= tokens.PIECE_LENGTH for batch in batches)
    assert len(batches) < 15
    assert list(tokens.in_batches([])) == []


def test_counts_ignore_truncation_and_padding_of_the_file(tmp_path: Path) -> None:
    """A tokenizer file that cuts and fills its texts still counts all of them."""
    path = tmp_path / "tokenizer.json"
    limited = Tokenizer.from_file(str(SHIPPED_TOKENIZERS["tiny"]))
    limited.enable_truncation(3)
    limited.enable_padding(length=10)
    limited.save(str(path))
    assert count_tokens(["1 2 3 4 5", "1"], str(path)) == [9, 1]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """The cache follows the file: another tokenizer under the same name counts anew."""
    path = tmp_path / "tokenizer.json"
    for vocabulary, count in (({"a": 0}, 2), ({"a": 0, "aa": 1}, 1)):
        merges = [("a", "a")] if "aa" in vocabulary else []
        Tokenizer(models.BPE(vocabulary, merges)).save(str(path))
        os.utime(path, ns=(count, count))
        assert count_tokens(["aa"], str(path)) == [count]


def test_forked_children_count_without_a_warning() -> None:
    """A child process neither hangs nor prints, though its parent has used the threads."""
    code = (
        "import os\n"
        "from zip_pipeline.compression.tokens import count_tokens\n"
        "texts = ['Add 3 and 4.'] * 3000\n"
        "expected = count_tokens(texts)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if count_tokens(texts) == expected else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")


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
