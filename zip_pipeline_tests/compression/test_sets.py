"""Incremental redundancy states against compressing everything again."""

import os
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.compression.sets import (
    DeflateSet,
    Framing,
    ZstdSet,
    _parameters,
    worker_count,
)
from zip_pipeline_tests.selection.oracles import zstd_bytes_given

pieces = st.lists(
    st.sampled_from([b"abc ", b"hello ", b"\x00\xff", b"12345", b"long " * 40]), min_size=1
)
texts = st.lists(pieces.map(b"".join), max_size=8)
FRAMINGS = [Framing(), Framing(b"[", b", ", b"]")]


def _framed(parts: list[bytes], framing: Framing) -> bytes:
    return framing.opening + framing.separator.join(parts) + framing.closing


@given(st.lists(texts, max_size=3), texts, st.sampled_from(FRAMINGS))
@settings(max_examples=80, deadline=None)
def test_deflate_set_equals_recompressing_everything(
    added: list[list[bytes]], candidates: list[bytes], framing: Framing
) -> None:
    """Size and ratio with each candidate are bit-identical to compressing the whole anew."""
    state = DeflateSet(9, framing)
    for group in added:
        state.add(group)
    members = [text for group in added for text in group]
    whole = [_framed([*members, text], framing) for text in candidates]
    sizes = [len(zlib.compress(text, 9)) for text in whole]
    assert state.sizes_with(candidates).tolist() == sizes
    ratios = [len(text) / size for text, size in zip(whole, sizes, strict=True)]
    assert state.ratios_with(candidates).tolist() == ratios
    alone = len(zlib.compress(_framed(members, framing), 9))
    assert state.marginal_bytes(candidates).tolist() == [size - alone for size in sizes]


def test_deflate_set_is_exact_beyond_its_window_and_blocks() -> None:
    """400 KB of members, more than 32 KB of window and several blocks."""
    rng = np.random.default_rng(0)
    words = [b"w%d " % n for n in rng.integers(0, 3000, 200)]
    members = [b"".join(rng.choice(words, 300)) for _ in range(300)]
    candidates = [b"".join(rng.choice(words, n)) for n in rng.integers(1, 300, 70)]
    joined = b"".join(members)
    expected = [len(zlib.compress(joined + text, 9)) for text in candidates[:12]]
    state = DeflateSet()
    state.add(members)
    sizes = state.sizes_with(candidates)
    assert len(joined) > 400_000
    assert len(sizes) == 70
    assert sizes[:12].tolist() == expected


@given(st.lists(texts, max_size=3), texts.filter(all), st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_zstd_set_equals_a_fresh_dictionary(
    added: list[list[bytes]], candidates: list[bytes], workers: int
) -> None:
    """Marginal bytes equal those behind a dictionary made on the spot, for any worker count."""
    state = ZstdSet(workers)
    total = 0
    content = b""
    for group in added:
        state.add(group)
        if group:
            total += zstd_bytes_given(b"".join(group), content)
            content += b"".join(group)
    expected = [zstd_bytes_given(text, content) for text in candidates]
    assert state.marginal_bytes(candidates).tolist() == expected
    ratios = [
        (len(content) + len(text)) / (total + size)
        for text, size in zip(candidates, expected, strict=True)
    ]
    assert state.ratios_with(candidates).tolist() == ratios


def test_zstd_set_measures_many_texts_with_threads_as_with_none() -> None:
    """Enough texts for every thread give the sizes that one thread finds."""
    rng = np.random.default_rng(1)
    texts = [rng.bytes(40).hex().encode() * int(n) for n in rng.integers(1, 4, 700)]
    sizes = []
    for workers in (1, 3):
        state = ZstdSet(workers)
        state.extend(texts[:50])
        sizes.append(state.marginal_bytes(texts).tolist())
    assert sizes[0] == sizes[1]
    assert max(sizes[0][:50]) < min(sizes[0][50:])


def test_zstd_set_remembers_the_oldest_of_seven_megabytes() -> None:
    """A copy of the first of 7,000 texts costs a few bytes, where DEFLATE pays for it in full."""
    members = [np.random.default_rng(row).bytes(500).hex().encode() for row in range(7000)]
    zstd = ZstdSet(1)
    zstd.extend(members)
    oldest, newest, new = zstd.marginal_bytes(
        [members[0], members[-1], np.random.default_rng(-1 % 2**32).bytes(500).hex().encode()]
    )
    assert max(oldest, newest) < 60
    assert new > 450
    deflate = DeflateSet()
    deflate.extend(members[:100])
    forgotten, remembered = deflate.marginal_bytes([members[0], members[99]])
    assert forgotten > 450
    assert remembered < 60


def test_zstd_tables_grow_with_large_sets() -> None:
    """2^20 entries up to 16 MB, then one per 16 to 32 bytes of the set."""
    logs = [_parameters(3, size).hash_log for size in (7 << 20, 15 << 20, 33 << 20, 100 << 20)]
    assert logs == [20, 20, 22, 23]


def test_zstd_set_forgets_only_beyond_its_window() -> None:
    """With a window of 4 KB the oldest text is new again."""
    members = [np.random.default_rng(row).bytes(500).hex().encode() for row in range(10)]
    state = ZstdSet(1, max_window_bytes=4000)
    state.extend(members)
    oldest, newest = state.marginal_bytes([members[0], members[-1]])
    assert oldest > 450
    assert newest < 60


def test_worker_count_is_all_cores_for_zero() -> None:
    """0 means all usable cores, a negative number is refused."""
    assert worker_count(0) >= 1
    assert worker_count(3) == 3
    with pytest.raises(ValueError, match="workers: got -1; allowed are 0"):
        worker_count(-1)


def test_worker_count_is_at_most_four_per_core_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More would gain nothing; what is not started is told in one line, in the person's words."""
    said: list[str] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5})
    assert [worker_count(n, tell=said.append) for n in (0, 1, 8)] == [2, 1, 8]
    assert said == []
    assert worker_count(9, tell=said.append) == 8
    assert worker_count(100_000, "--workers", said.append) == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert worker_count(5, tell=said.append) == 4
    assert said == [
        "workers: 9 is more than this machine's 2 cores can use; 8 are used",
        "--workers: 100000 is more than this machine's 2 cores can use; 8 are used",
        "workers: 5 is more than this machine's 1 core can use; 4 are used",
    ]


def test_threads_are_at_most_four_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes threads directly gets no more either."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    # Enough texts for 4 threads, by far too few for 100,000 of them.
    texts = [b"text %d" % n for n in range(2000)]
    noted: list[int] = []
    state = ZstdSet(100_000)
    inner = state._prepared()

    class Noting:
        def multi_compress_to_buffer(self, given: list[bytes], threads: int) -> object:
            noted.append(threads)
            return inner.multi_compress_to_buffer(given, threads=threads)

    monkeypatch.setattr(state, "_prepared", Noting)
    assert state.marginal_bytes(texts).tolist() == ZstdSet(1).marginal_bytes(texts).tolist()
    assert noted == [4]
