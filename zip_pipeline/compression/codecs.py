"""General-purpose codecs: how many bytes a byte string takes when compressed."""

import lzma
import random
import statistics
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import zstandard

from zip_pipeline.errors import UserError

CODECS = ("deflate", "zstd", "xz")
DEFAULT_LEVELS = {"deflate": 9, "zstd": 9, "xz": 9}
_LEVEL_RANGES = {"deflate": (1, 9), "zstd": (1, 22), "xz": (0, 9)}
_XZ_MIN_DICTIONARY = 1 << 16
_XZ_MAX_DICTIONARY = 1 << 26
_ZSTD_LONG_WINDOW_LOG = 27


def check_codec(codec: str, level: int) -> None:
    """Raise unless ``codec`` is known and has that ``level``.

    Raises:
        UserError: unknown codec, or a level outside the codec's range.
    """
    if codec not in CODECS:
        raise UserError(f"codec: got {codec!r}; allowed are {', '.join(CODECS)}")
    low, high = _LEVEL_RANGES[codec]
    if not low <= level <= high:
        raise UserError(f"level: got {level}; codec {codec!r} allows {low} to {high}")


def compressed_bytes(data: bytes, codec: str = "deflate", level: int | None = None) -> int:
    """Return the compressed size of ``data`` in bytes.

    ``deflate`` is the zlib format (32 KB window), ``zstd`` a frame with long-distance matching
    over 128 MB, ``xz`` LZMA2 with a dictionary as large as the data, up to 64 MB.

    Args:
        data: the bytes to measure.
        codec: one of ``deflate``, ``zstd``, ``xz``.
        level: None for the codec's default (9 for each).

    Raises:
        UserError: unknown codec, or a level outside the codec's range.
    """
    level = DEFAULT_LEVELS.get(codec, 0) if level is None else level
    check_codec(codec, level)
    if codec == "deflate":
        return len(zlib.compress(data, level))
    if codec == "zstd":
        return len(_zstd_compressor(level).compress(data))
    # A dictionary beyond the data changes nothing but the encoder's memory.
    wanted = 1 << max(len(data) - 1, 1).bit_length()
    dictionary = min(max(wanted, _XZ_MIN_DICTIONARY), _XZ_MAX_DICTIONARY)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": dictionary}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters))


def streamed_bytes(chunks: Iterable[bytes], num_bytes: int, codec: str) -> int:
    """Return the compressed size of data that comes in pieces, at the codec's default level.

    It is that of :func:`compressed_bytes` for ``deflate``; for ``zstd`` it may differ by some
    bytes, as blocks are cut elsewhere.

    Args:
        chunks: the data.
        num_bytes: its size.
        codec: ``deflate`` or ``zstd``.
    """
    assert codec in ("deflate", "zstd"), codec
    stream: Any = (
        zlib.compressobj(DEFAULT_LEVELS[codec])
        if codec == "deflate"
        else _zstd_compressor(DEFAULT_LEVELS[codec]).compressobj(size=num_bytes)
    )
    return sum(len(stream.compress(chunk)) for chunk in chunks) + len(stream.flush())


def _zstd_compressor(level: int) -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, enable_ldm=True, window_log=_ZSTD_LONG_WINDOW_LOG
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def compression_ratio(data: bytes, codec: str = "deflate", level: int | None = None) -> float:
    """Return raw bytes / compressed bytes; higher = more redundant, 0 for no bytes at all.

    Source: ZIP (arXiv 2407.06645), section 3: R = bits(D) / bits(C(D)).

    Raises:
        UserError: unknown codec, or a level outside the codec's range.
    """
    return len(data) / compressed_bytes(data, codec, level)


def codec_versions() -> dict[str, str]:
    """Return the versions of the libraries on whose build compressed lengths depend."""
    return {
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "zstd": ".".join(map(str, zstandard.ZSTD_VERSION)),
        "python-zstandard": zstandard.__version__,
    }


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
