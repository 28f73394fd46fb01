"""The pool as a selection sees it: narrow columns, texts in a file, sizes and costs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.codecs import codecs, pool_levels
from zip_pipeline.compression.sets import Sizes
from zip_pipeline.compression.texts import TextFile
from zip_pipeline.compression.tokens import count_tokens
from zip_pipeline.selection.budget import Indices
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.strategies import strategies

_TEXTS_AT_A_TIME = 1 << 14


@dataclass(frozen=True)
class Candidates:
    """Every sample that may be picked: row i of the index, text i and row i of the state.

    Args:
        index: ``sample_id``, ``batch``, ``source``, ``source_file``, ``source_row``, without
            exact duplicates; other columns are left alone.
        texts: the serialised samples.
        state: ``num_tokens``, ``deflate_bytes``, ``zstd_bytes``; None to measure what is needed.
    """

    index: pl.DataFrame
    texts: TextFile
    state: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.index), len(self.texts)}
        if self.state is not None:
            lengths.add(len(self.state))
        assert len(lengths) == 1, f"index, texts and state differ in length: {lengths}"


@dataclass(frozen=True)
class Measured:
    """Candidates with what a strategy needs to know of each, every array of shape (samples,).

    ``costs`` are in the budget's unit; ``pi`` is the initial redundancy state, higher = more
    redundant; ``num_tokens`` is None where nobody asked for them.
    """

    candidates: Candidates
    num_bytes: Indices
    num_tokens: pl.Series | None
    pi: NDArray[np.float64]
    costs: Indices


def marginal_ratios(
    raw_bytes: Sequence[int] | Sizes, marginal_bytes: Sizes, overhead_bytes: int
) -> NDArray[np.float64]:
    """Return rho = raw bytes / (marginal bytes - overhead); higher = more redundant.

    The overhead is what any piece costs whatever it says (frame, entropy tables); counting it
    makes tiny samples look new. At least one byte is left in the denominator.
    """
    return np.asarray(raw_bytes, np.float64) / np.maximum(marginal_bytes - overhead_bytes, 1)


def measure(
    candidates: Candidates, config: SelectionConfig, tokenizer: str, workers: int
) -> Measured:
    """Return sizes, costs and the initial redundancy state of all candidates."""
    texts, state = candidates.texts, candidates.state
    num_bytes = texts.num_bytes
    codec, level = config.resolved_codec, config.resolved_level
    if state is not None and pool_levels().get(codec) == level:
        sizes = state[f"{codec}_bytes"].to_numpy()
    else:
        parts = [codecs[codec].alone_sizes(part, level, workers) for part in _parts(texts)]
        sizes = np.concatenate([np.zeros(0, np.int64), *parts])
    tokens = None if state is None else state["num_tokens"]
    if tokens is None and config.unit == "tokens":
        counts = [count_tokens([t.decode() for t in part], tokenizer) for part in _parts(texts)]
        tokens = pl.Series([num for part in counts for num in part], dtype=pl.Int64)
    overhead = config.overhead_bytes if strategies[config.strategy].uses("overhead_bytes") else 0
    pi = marginal_ratios(num_bytes, sizes, overhead)
    return Measured(candidates, num_bytes, tokens, pi, _costs(num_bytes, tokens, config))


def _parts(texts: TextFile) -> Iterator[list[bytes]]:
    """Yield the texts, some thousands of them at a time."""
    for start in range(0, len(texts), _TEXTS_AT_A_TIME):
        yield texts.read(range(start, min(start + _TEXTS_AT_A_TIME, len(texts))))


def _costs(num_bytes: Indices, tokens: pl.Series | None, config: SelectionConfig) -> Indices:
    if config.unit == "samples":
        return np.ones(len(num_bytes), dtype=np.int64)
    if config.unit == "bytes":
        return num_bytes
    assert tokens is not None
    return tokens.to_numpy()


def picked_tokens(texts: Sequence[bytes], picks: Sequence[int], tokenizer: str) -> pl.Series:
    """Return the number of tokens of each pick, null for all other texts."""
    counts: list[int | None] = [None] * len(texts)
    numbers = count_tokens([texts[i].decode() for i in picks], tokenizer)
    for index, num in zip(picks, numbers, strict=True):
        counts[index] = num
    return pl.Series(counts, dtype=pl.Int64)
