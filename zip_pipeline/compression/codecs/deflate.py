"""Codec ``deflate``: the zlib format, which sees 32 KB at a time."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from zip_pipeline.compression.codecs import Codec
from zip_pipeline.compression.deflate_pool import DeflateMeasurer
from zip_pipeline.compression.sets import DeflateSet, IndexedSet, SelectedSet
from zip_pipeline.compression.texts import TextFile


class Deflate(Codec):
    """The codec of the paper; sizes count the zlib header and checksum."""

    name = "deflate"
    levels = (1, 9)
    level = 9
    selection_level = 9
    measures_pool = True
    measures_subset = True

    def compressed_size(self, data: bytes, level: int) -> int:
        """Return the bytes that ``data`` takes when compressed."""
        return len(zlib.compress(data, level))

    def versions(self) -> dict[str, str]:
        """Return the version of zlib."""
        return {"zlib": zlib.ZLIB_RUNTIME_VERSION}

    def streamed_size(self, chunks: Iterable[bytes], num_bytes: int) -> int:
        """Return what :meth:`compressed_size` returns for the joined pieces."""
        stream = zlib.compressobj(self.level)
        return sum(len(stream.compress(chunk)) for chunk in chunks) + len(stream.flush())

    def new_set(self, level: int, workers: int) -> SelectedSet:
        """Return an empty set behind one streaming compressor."""
        return DeflateSet(level)

    @contextmanager
    def sets(
        self, texts: TextFile, level: int, workers: int
    ) -> Iterator[Callable[[str], IndexedSet]]:
        """Yield what makes empty sets, measured in several processes; see :class:`.Codec`."""
        with DeflateMeasurer(texts, workers, level) as measurer:
            yield measurer.new_set


CODEC = Deflate()
