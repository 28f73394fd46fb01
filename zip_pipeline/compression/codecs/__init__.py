"""General-purpose codecs: how many bytes a byte string takes when compressed."""

import random
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from zip_pipeline.compression.sets import (
    IndexedSet,
    LocalSet,
    RecompressedSet,
    SelectedSet,
    Sizes,
    sizes_in_threads,
)
from zip_pipeline.compression.texts import TextFile
from zip_pipeline.errors import UserError
from zip_pipeline.registry import Registry


class Codec(ABC):
    """A codec; name, levels and :meth:`compressed_size` are enough to measure ratios.

    A codec with a ``selection_level`` also measures redundancy in selections. What is needed for
    that is there for every codec; one that can do it faster overrides it.
    """

    name: ClassVar[str]
    """what people type to choose it"""
    levels: ClassVar[tuple[int, int]]
    """lowest and highest level"""
    level: ClassVar[int]
    """the level of ratios, where none is given"""
    selection_level: ClassVar[int | None] = None
    """the level of selections, where none is given; None: it is too slow for selections"""
    measures_pool: ClassVar[bool] = False
    """whether manifests tell R of the pool by it, and states the sizes of samples alone"""
    measures_subset: ClassVar[bool] = False
    """whether manifests tell R of what was picked by it"""

    @abstractmethod
    def compressed_size(self, data: bytes, level: int) -> int:
        """Return the bytes that ``data`` takes when compressed."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries on whose build compressed sizes depend."""
        return {}

    def streamed_size(self, chunks: Iterable[bytes], num_bytes: int) -> int:
        """Return the compressed size of ``num_bytes`` that come in pieces, at ``level``."""
        return self.compressed_size(b"".join(chunks), self.level)

    def alone_sizes(self, texts: Sequence[bytes], level: int, workers: int = 0) -> Sizes:
        """Return the compressed bytes of each text on its own, shape (texts,)."""
        return sizes_in_threads(lambda text: self.compressed_size(text, level), texts, workers)

    def new_set(self, level: int, workers: int) -> SelectedSet:
        """Return an empty set of texts."""
        return RecompressedSet(lambda data: self.compressed_size(data, level))

    @contextmanager
    def sets(
        self, texts: TextFile, level: int, workers: int
    ) -> Iterator[Callable[[str], IndexedSet]]:
        """Yield what makes empty sets of texts of a file, by name.

        Args:
            texts: the serialised samples.
            level: of the codec.
            workers: threads or processes; no size depends on their number.
        """
        yield lambda _: LocalSet(texts, self.new_set(level, workers))


codecs: Registry[Codec] = Registry("codec", "zip_pipeline.codecs", __name__, default="deflate")


def check_codec(codec: str, level: int) -> None:
    """Raise unless ``codec`` is known and has that ``level``.

    Raises:
        UserError: unknown codec, or a level outside the codec's range.
    """
    low, high = codecs[codec].levels
    if not low <= level <= high:
        raise UserError(f"level: got {level}; codec {codec!r} allows {low} to {high}")


def compressed_bytes(data: bytes, codec: str = "deflate", level: int | None = None) -> int:
    """Return the compressed size of ``data`` in bytes.

    Args:
        data: the bytes to measure.
        codec: name of a codec.
        level: None for the codec's default.

    Raises:
        UserError: unknown codec, or a level outside the codec's range.
    """
    level = codecs[codec].level if level is None else level
    check_codec(codec, level)
    return codecs[codec].compressed_size(data, level)


def compression_ratio(data: bytes, codec: str = "deflate", level: int | None = None) -> float:
    """Return raw bytes / compressed bytes; higher = more redundant, 0 for no bytes at all.

    Source: ZIP (arXiv 2407.06645), section 3: R = bits(D) / bits(C(D)).

    Raises:
        UserError: unknown codec, or a level outside the codec's range.
    """
    return len(data) / compressed_bytes(data, codec, level)


def selection_codecs() -> tuple[str, ...]:
    """Return the names of the codecs that measure redundancy in selections."""
    return tuple(codec.name for codec in codecs if codec.selection_level is not None)


def pool_levels() -> dict[str, int]:
    """Return the codecs by which every pool is measured, and the level of sizes alone."""
    levels = {codec.name: codec.selection_level for codec in codecs if codec.measures_pool}
    return {name: level for name, level in levels.items() if level is not None}


def codec_versions(codec: str = codecs.default) -> dict[str, str]:
    """Return the versions on which states, and selections by a codec, depend."""
    versions: dict[str, str] = {}
    for name in (*pool_levels(), codec):
        versions |= codecs[name].versions()
    return versions


NUM_DRAWS = 10


def compression_ratio_spread(texts: Sequence[str], codec: str, seed: int = 0) -> float | None:
    """Return the standard error of the compression ratio R of a subset, by seeded re-draws.

    R is computed of halves drawn without replacement, kept in order. Of a mean, the standard
    deviation over such halves is the standard error of the whole: drawing n / 2 of n leaves
    sigma * sqrt((1 - 1/2) / (n / 2)) = sigma / sqrt(n).

    Args:
        texts: the serialised samples, in the order of the subset.
        codec: the codec of R.
        seed: of the draws.

    Returns:
        The standard deviation over the halves, None where there are fewer than 4 samples.

    Source: half-sample replication (McCarthy 1969).
    """
    if len(texts) < 4:
        return None
    rng = random.Random(seed)
    places = range(len(texts))
    halves = (sorted(rng.sample(places, len(texts) // 2)) for _ in range(NUM_DRAWS))
    ratios = (
        compression_ratio("".join(texts[place] for place in half).encode(), codec)
        for half in halves
    )
    return statistics.stdev(ratios)
