"""Texts in a file are the texts that were written, and the file does not outlive its use."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.compression.texts import TemporaryTexts, TextFile
from zip_pipeline.data_root import DataRoot, remove_leftovers

TEXTS = [b"one", b"", "zwei \u00fc".encode(), b"three\n"]


@given(parts=st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=5))
def test_texts_come_back_as_written(parts: list[list[bytes]]) -> None:
    """Every text, in any order of asking, is the one that was written at that place."""
    flat = [text for part in parts for text in part]
    with TemporaryTexts.write(parts) as texts:
        assert list(texts) == flat
        backwards = list(range(len(flat)))[::-1]
        assert texts.read(backwards) == flat[::-1]
        assert b"".join(texts.chunks()) == b"".join(flat)
        assert texts.num_bytes.tolist() == [len(text) for text in flat]


@given(
    sizes=st.lists(st.integers(0, 30), max_size=20),
    most_bytes=st.integers(1, 60),
    most_texts=st.integers(1, 6),
)
def test_parts_hold_every_text_once_and_little_at_a_time(
    sizes: list[int], most_bytes: int, most_texts: int
) -> None:
    """In order; a part is within both limits, or a single text."""
    written = [bytes([number]) * size for number, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch, TemporaryTexts.write([written]) as texts:
        patch.setattr("zip_pipeline.compression.texts._PART_BYTES", most_bytes)
        patch.setattr("zip_pipeline.compression.texts._PART_TEXTS", most_texts)
        patch.setattr("zip_pipeline.compression.texts._DIVIDED_AT_A_TIME", 7)
        parts = list(texts.parts())
        assert [text for part in parts for text in part] == written
        for part in parts:
            assert 1 <= len(part) <= most_texts
            assert sum(map(len, part)) <= most_bytes or len(part) == 1
        some = np.arange(len(written), dtype=np.int64)[::-2]
        assert [t for part in texts.parts(some) for t in part] == written[::-2]


@given(
    texts=st.lists(st.binary(max_size=9), max_size=12),
    draw=st.data(),
)
def test_joined_texts_are_the_texts_one_after_another(
    texts: list[bytes], draw: st.DataObject
) -> None:
    """At any positions: side by side, apart, twice, or none."""
    position = st.integers(0, len(texts) - 1) if texts else st.nothing()
    where = draw.draw(st.lists(position) | st.just(list(range(len(texts)))))
    with TemporaryTexts.write([texts]) as file:
        joined = file.joined(np.array(where, dtype=np.int64))
        assert joined == b"".join(texts[index] for index in where)


def test_a_text_beyond_the_last_is_an_index_error() -> None:
    """There is no text after the last one, nor one before the first."""
    with TemporaryTexts.write([TEXTS]) as texts:
        for index in (4, -1):
            with pytest.raises(IndexError):
                texts[index]


def test_another_process_reads_the_same_file(tmp_path: Path) -> None:
    """Path and offsets are all that a second reader needs; closing it leaves the file."""
    with TemporaryTexts.write([TEXTS], tmp_path) as texts:
        with TextFile(texts.path, texts.offsets) as second:
            assert list(second) == TEXTS
        assert texts.path.exists()


def test_closing_removes_the_file(tmp_path: Path) -> None:
    """Temporary texts leave nothing behind, neither at the end nor after an error."""
    with TemporaryTexts.write([TEXTS], tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError):
        TemporaryTexts.write([[b"a"], ["no bytes"]], tmp_path)  # type: ignore[list-item]
    assert not list(tmp_path.iterdir())


def test_a_killed_process_leaves_a_leftover_that_is_cleared(tmp_path: Path) -> None:
    """In the cache of a data root the file goes with the other leftovers."""
    root = DataRoot(tmp_path)
    texts = TemporaryTexts.write([TEXTS], root.cache)
    assert remove_leftovers(root, older_than_seconds=-1) == 1
    assert not texts.path.exists()


def test_the_fingerprint_tells_texts_and_borders_apart() -> None:
    """Other texts, or the same bytes cut elsewhere, have another fingerprint."""
    prints = set()
    for parts in ([[b"ab", b"c"]], [[b"a", b"bc"]], [[b"ab", b"d"]], [[b"ab"], [b"c"]]):
        with TemporaryTexts.write(parts) as texts:
            prints.add(texts.fingerprint())
    assert len(prints) == 3


def test_a_cut_file_is_an_error(tmp_path: Path) -> None:
    """A file that is shorter than its offsets say is never read as shorter texts."""
    with TemporaryTexts.write([TEXTS], tmp_path) as texts:
        texts.path.write_bytes(b"one")
        with pytest.raises(OSError, match="ends after 3 of"):
            texts.read([2])
