"""What measures the redundancy of samples, by strategy and codec."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zip_pipeline.compression.deflate_pool import DeflateMeasurer
from zip_pipeline.compression.sets import IndexedSet, LocalSet, ZstdSet
from zip_pipeline.compression.texts import TextFile
from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import Engine
from zip_pipeline.selection.strategies.long_range import LongRangeEngine
from zip_pipeline.selection.strategies.zip import ZipEngine


@contextmanager
def new_sets(
    texts: TextFile, config: SelectionConfig, workers: int
) -> Iterator[Callable[[str], IndexedSet]]:
    """Yield what makes empty sets of the configured codec, by name.

    Args:
        texts: the serialised samples.
        config: codec and level.
        workers: threads (zstd) or processes (DEFLATE); no size depends on their number.
    """
    level = config.resolved_level
    if config.resolved_codec == "zstd":
        yield lambda _: LocalSet(texts, ZstdSet(workers, level))
        return
    with DeflateMeasurer(texts, workers, level) as measurer:
        yield measurer.new_set


@contextmanager
def engine_for(pool: Measured, config: SelectionConfig, workers: int) -> Iterator[Engine]:
    """Yield the engine of strategy ``zip`` or ``long_range``; see :func:`new_sets`."""
    with new_sets(pool.candidates.texts, config, workers) as new_set:
        if config.strategy == "long_range":
            yield LongRangeEngine(pool.num_bytes, new_set, config.overhead_bytes)
        else:
            yield ZipEngine(new_set, pool.pi)
