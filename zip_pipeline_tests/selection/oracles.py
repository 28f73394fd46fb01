"""Slow and obvious selections: every ratio by compressing everything from the start."""

import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import zstandard

from zip_pipeline.compression.sets import _parameters

Cost = Callable[[int], int]
Text = TypeVar("Text", bytes, str)


def deflate_ratio(texts: Sequence[bytes]) -> float:
    """R of the concatenation."""
    joined = b"".join(texts)
    return len(joined) / len(zlib.compress(joined, 9))


def zip_oracle(
    texts: Sequence[Text],
    k: tuple[int, int, int],
    budget: int,
    cost: Cost,
    ratio: Callable[[list[Text]], float] = deflate_ratio,
) -> list[int]:
    """The paper's rounds over texts; whatever does not fit the rest of the budget is left out."""
    pi = {i: ratio([text]) for i, text in enumerate(texts)}
    selected: list[int] = []
    while True:
        left = budget - sum(map(cost, selected))
        fitting = [i for i in pi if i not in selected and cost(i) <= left]
        if not fitting or left == 0:
            return selected
        candidates = sorted(fitting, key=lambda i: (pi[i], i))[: k[0]]
        for i in candidates:
            pi[i] = ratio([texts[j] for j in [*selected, i]])
        shortlist = sorted(candidates, key=lambda i: (pi[i], i))[: k[1]]
        picks: list[int] = []
        while len(picks) < k[2]:
            left = budget - sum(map(cost, selected + picks))
            ratios = {
                i: ratio([texts[j] for j in [*picks, i]])
                for i in shortlist
                if i not in picks and cost(i) <= left
            }
            if not ratios:
                break
            picks.append(min(ratios, key=lambda i: (ratios[i], i)))
        selected += picks


def reference_oracle(records: Sequence[object], k: tuple[int, int, int], budget: int) -> list[int]:
    """The published rounds: printed records, float32, shortlists dropped, overshooting budget."""

    def ratio(indices: Sequence[int]) -> np.float32:
        printed = str([records[i] for i in indices]).encode()
        return np.float32(len(printed) / len(zlib.compress(printed, 9)))

    pi = {i: ratio([i]) for i in range(len(records))}
    selected: list[int] = []
    while len(selected) < budget and pi:
        # A stable sort by ratio keeps the earlier position first in a tie.
        candidates = sorted(pi, key=lambda i: (pi[i], i))[: k[0]]
        for i in candidates:
            pi[i] = ratio([*selected, i])
        shortlist = sorted(candidates, key=lambda i: pi[i])[: k[1]]
        for i in shortlist:
            del pi[i]
        picks: list[int] = []
        while shortlist and len(picks) < k[2]:
            best = min(shortlist, key=lambda i: ratio([*picks, i]))
            shortlist.remove(best)
            picks.append(best)
        selected += picks
    return selected


def zstd_bytes_given(text: bytes, content: bytes, level: int = 3) -> int:
    """Compressed bytes of ``text`` behind ``content``, with nothing prepared or kept."""
    parameters = _parameters(level, len(content))
    if not content:
        return len(zstandard.ZstdCompressor(compression_params=parameters).compress(text))
    dictionary = zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    dictionary.precompute_compress(compression_params=parameters)
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters)
    return len(compressor.compress(text))


def _measure_in_blocks(
    candidates: Sequence[int], k2: int, pi: dict[int, float], rho: Callable[[int], float]
) -> None:
    """Blocks of 4 k2, until the next one's known ratio is above the k2-th lowest measured."""
    for place, i in enumerate(candidates):
        measured = sorted(pi[j] for j in candidates[:place])
        if place and place % (4 * k2) == 0 and pi[i] > measured[k2 - 1]:
            return
        pi[i] = max(pi[i], rho(i))


def long_range_oracle(
    texts: Sequence[bytes],
    k: tuple[int, int, int],
    budget: int,
    cost: Cost,
    overhead_bytes: int = 24,
    weights: Sequence[float] | None = None,
) -> list[int]:
    """Lazy greedy, written with lists and fresh compressors instead of a heap and sets."""

    def rho(i: int, given: Sequence[int]) -> float:
        size = zstd_bytes_given(texts[i], b"".join(texts[j] for j in given))
        return len(texts[i]) / max(size - overhead_bytes, 1) / (weights[i] if weights else 1)

    def num_bytes(indices: Sequence[int]) -> int:
        return sum(len(texts[i]) for i in indices)

    pi = {i: rho(i, []) for i in range(len(texts))}
    selected: list[int] = []
    settled: list[int] = []
    recent: list[int] = []
    while True:
        left = budget - sum(map(cost, selected))
        fitting = [i for i in pi if i not in selected and cost(i) <= left]
        if not fitting or left == 0:
            return selected
        candidates = sorted(fitting, key=lambda i: (pi[i], i))[: k[0]]
        _measure_in_blocks(
            candidates, k[1], pi, lambda i: max(rho(i, settled), rho(i, recent) if recent else 0.0)
        )
        shortlist = sorted(candidates, key=lambda i: (pi[i], i))[: k[1]]
        outside = min((pi[i] for i in fitting if i not in shortlist), default=float("inf"))
        picks: list[int] = []
        fresh = set(shortlist)
        while shortlist and len(picks) < k[2]:
            best = min(shortlist, key=lambda i: (pi[i], i))
            if best not in fresh:
                pi[best] = max(pi[best], rho(best, picks))
                fresh.add(best)
                continue
            if pi[best] > outside:
                break
            shortlist.remove(best)
            if cost(best) <= budget - sum(map(cost, selected + picks)):
                picks.append(best)
                fresh = set()
        selected += picks
        recent.extend(picks)
        if num_bytes(recent) * 8 > num_bytes(settled):
            settled.extend(recent)
            recent.clear()
