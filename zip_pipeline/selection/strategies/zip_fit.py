"""Strategy ``zip_fit``: the samples that compress best together with those of a target file."""

import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ScoreStrategy

_NUM_PROBES = 16
# What DEFLATE looks ahead, which its window must hold besides the text.
_LOOKAHEAD = 262
_GZIP = 16


class TargetSizes:
    """The gzip bytes of texts followed by each text of a target.

    A text is compressed once. For each text of the target the stream is copied, and that text is
    fed to the copy: bit-identical to ``len(gzip.compress(text + other, level))``.

    Args:
        target: the texts of the target.
        level: of gzip, 1 to 9.
    """

    def __init__(self, target: Sequence[bytes], level: int) -> None:
        self._target = target
        self._level = level
        self._longest = max(map(len, target))
        self.alone = np.array([self._sizes(b"", [text])[0] for text in target])

    def similarity(self, text: bytes) -> float:
        """Return the mean over the target of 1 - NCD, at most about 1; higher = more alike.

        NCD = (C(text + other) - min(C(text), C(other))) / max(C(text), C(other)), C in bytes.
        """
        own, *joint = self._sizes(text, [b"", *self._target])
        least, most = np.minimum(own, self.alone), np.maximum(own, self.alone)
        return float(np.mean(1 - (np.array(joint) - least) / most))

    def _sizes(self, text: bytes, others: Sequence[bytes]) -> list[int]:
        stream = zlib.compressobj(self._level, zlib.DEFLATED, *self._tables(len(text)))
        copy, before = stream.copy, len(stream.compress(text))
        sizes = []
        for other in others:
            joint = copy()
            sizes.append(before + len(joint.compress(other)) + len(joint.flush()))
        return sizes

    def _tables(self, num_bytes: int) -> tuple[int, int]:
        """Return the least window and memory by which the sizes are those of the usual ones.

        A copy costs as much as its tables. A window that holds all bytes loses no match, and a
        buffer for as many symbols ends no block early.
        """
        longest = num_bytes + self._longest
        window = min(max((longest + _LOOKAHEAD).bit_length(), 9), 15)
        # Fewer hashes make longer chains, which only level 9 follows to their end.
        memory = min(max((longest + 1).bit_length() - 6, 1), 8) if self._level == 9 else 8
        return _GZIP + window, memory


class ZipFit(ScoreStrategy):
    """Highest mean similarity to the target first.

    Source: ZIP-FIT (arXiv 2410.18194), equations 1 and 2; ``zip-fit`` 1.0.9 gives the same figures
    at the same level.
    Deviation: level 9; the published default is 0, which compresses nothing and so ranks by size.
    """

    name = "zip_fit"
    description = "what compresses best together with a target file"
    parameters = ("target", "level")
    mixture = "none"
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: its mean similarity to the target, by compressed "
        "sizes, is {score:.4f}",
        "never_reached": "its mean similarity to the target, {score:.4f}, was too low before the "
        "budget was used",
    }

    def scores(self, pool: Measured, config: SelectionConfig, workers: int) -> NDArray[np.float64]:
        """Return the mean similarity of each sample to the target, shape (samples,)."""
        sizes = TargetSizes(pool.candidates.target, config.resolved_level)
        with ThreadPoolExecutor(workers) as executor:
            found = (
                list(executor.map(sizes.similarity, part, chunksize=64))
                for part in pool.candidates.texts.parts()
            )
            return np.array([score for part in found for score in part], dtype=np.float64)

    def estimate(self, pool: Measured, config: SelectionConfig, workers: int) -> float:
        """Return roughly how many seconds it takes, by measuring some samples now."""
        num_samples = len(pool.num_bytes)
        which = np.linspace(0, num_samples - 1, min(_NUM_PROBES, num_samples)).astype(np.int64)
        started = time.perf_counter()
        sizes = TargetSizes(pool.candidates.target, config.resolved_level)
        for position in which.tolist():
            sizes.similarity(pool.candidates.texts[position])
        return (time.perf_counter() - started) / max(len(which), 1) * num_samples


STRATEGY = ZipFit()
