"""Codec ``xz``: LZMA2 with a dictionary as large as the data, up to 64 MB."""

import lzma

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
        # A dictionary beyond the data changes nothing but the encoder's memory.
        wanted = 1 << max(len(data) - 1, 1).bit_length()
        dictionary = min(max(wanted, _MIN_DICTIONARY), _MAX_DICTIONARY)
        filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": dictionary}]
        return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters))


CODEC = Xz()
