"""Codec ``xz``: LZMA2 with a dictionary as large as the data, up to 64 MB."""

import lzma
from collections.abc import Iterable

from zip_pipeline.compression.codecs import Codec

_MIN_DICTIONARY = 1 << 16
_MAX_DICTIONARY = 1 << 26


class Xz(Codec):
    """Reads about 2 MB a second: too slow for a whole pool."""

    name = "xz"
    levels = (0, 9)
    level = 9
    measures_subset = True

    def compressed_size(self, data: bytes, level: int) -> int:
        """Return the bytes that ``data`` takes when compressed."""
        return _size([data], len(data), level)

    def streamed_size(self, chunks: Iterable[bytes], num_bytes: int) -> int:
        """Return what :meth:`compressed_size` returns for the joined pieces."""
        return _size(chunks, num_bytes, self.level)


def _size(chunks: Iterable[bytes], num_bytes: int, level: int) -> int:
    # A dictionary beyond the data changes nothing but the encoder's memory.
    wanted = 1 << max(num_bytes - 1, 1).bit_length()
    dictionary = min(max(wanted, _MIN_DICTIONARY), _MAX_DICTIONARY)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": dictionary}]
    stream = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=filters)
    return sum(len(stream.compress(chunk)) for chunk in chunks) + len(stream.flush())


CODEC = Xz()
