"""Codec ``zstd``: a frame with long-distance matching over 128 MB."""

from collections.abc import Iterable, Sequence

import zstandard

from zip_pipeline.compression.codecs import Codec
from zip_pipeline.compression.sets import SelectedSet, Sizes, ZstdSet

_LONG_WINDOW_LOG = 27


class Zstd(Codec):
    """Sees the whole subset; alone and in sets, texts are frames without size and checksum."""

    name = "zstd"
    levels = (1, 22)
    level = 9
    selection_level = 3
    measures_pool = True
    measures_subset = True

    def compressed_size(self, data: bytes, level: int) -> int:
        """Return the bytes that ``data`` takes when compressed."""
        return len(_compressor(level).compress(data))

    def versions(self) -> dict[str, str]:
        """Return the versions of zstd and its binding."""
        zstd = ".".join(map(str, zstandard.ZSTD_VERSION))
        return {"zstd": zstd, "python-zstandard": zstandard.__version__}

    def streamed_size(self, chunks: Iterable[bytes], num_bytes: int) -> int:
        """Return about what :meth:`compressed_size` returns: blocks are cut elsewhere."""
        stream = _compressor(self.level).compressobj(size=num_bytes)
        return sum(len(stream.compress(chunk)) for chunk in chunks) + len(stream.flush())

    def alone_sizes(self, texts: Sequence[bytes], level: int, workers: int = 0) -> Sizes:
        """Return the compressed bytes of each text on its own, shape (texts,)."""
        return ZstdSet(workers, level).marginal_bytes(texts)

    def new_set(self, level: int, workers: int) -> SelectedSet:
        """Return an empty set that is the dictionary in front of each text."""
        return ZstdSet(workers, level)


def _compressor(level: int) -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, enable_ldm=True, window_log=_LONG_WINDOW_LOG
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


CODEC = Zstd()
