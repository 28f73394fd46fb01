"""Sizes and ratios of byte strings."""

import lzma
import random
import zlib
from collections.abc import Sequence

import numpy as np
import pytest

from zip_pipeline.compression.codecs import (
    codec_versions,
    codecs,
    compressed_bytes,
    compression_ratio,
)
from zip_pipeline.compression.texts import TemporaryTexts


@pytest.mark.parametrize("codec", ["deflate", "zstd", "xz"])
def test_ratio_is_raw_over_compressed_and_higher_means_more_redundant(codec: str) -> None:
    """One repeated line compresses well, noise does not."""
    repeated, noise = b"the same line\n" * 500, random.Random(1).randbytes(7000)
    assert compression_ratio(repeated, codec) == 7000 / compressed_bytes(repeated, codec)
    assert compression_ratio(repeated, codec) > 40
    assert 0.95 < compression_ratio(noise, codec) < 1.01


def test_deflate_is_the_size_of_a_zlib_stream() -> None:
    """Header and checksum count, level 9 by default."""
    text = bytes(range(256)) * 40
    assert compressed_bytes(text) == len(zlib.compress(text, 9))
    assert compressed_bytes(text, "deflate", 1) == len(zlib.compress(text, 1))


def test_xz_with_a_fitted_dictionary_equals_the_preset() -> None:
    """A dictionary no larger than the data saves memory and changes no size."""
    text = " ".join(str(n * n) for n in range(30_000)).encode()
    size = compressed_bytes(text, "xz")
    assert abs(size - len(lzma.compress(text, preset=9))) <= 8


def test_zstd_finds_a_copy_far_away() -> None:
    """Long-distance matching sees a repetition 8 MB back."""
    text = random.Random(2).randbytes(8_000_000)
    assert compressed_bytes(text + text[:1_000_000], "zstd", 3) < 8_010_000


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("codec", ["deflate", "zstd", "xz"])
def test_few_texts_are_in_memory_at_a_time(
    codec: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long texts are more than there is memory for; what is measured is as if all were there."""
    draw = random.Random(4)
    flat = [b" ".join(b"%d" % draw.randrange(50) for _ in range(200)) for _ in range(30)]
    expected = codecs[codec].new_set(3, workers=1)
    read, sizes = TemporaryTexts.read, []

    def noted(texts: TemporaryTexts, indices: Sequence[int]) -> list[bytes]:
        found = read(texts, indices)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(TemporaryTexts, "read", noted)
    monkeypatch.setattr("zip_pipeline.compression.texts._PART_BYTES", 1_500)
    everyone, members = np.arange(30), np.array([7, 3, 20, 21])
    with TemporaryTexts.write([flat]) as texts, codecs[codec].sets(texts, 3, workers) as new_set:
        found = new_set("picked")
        assert found.ratios_with(everyone).tolist() == expected.ratios_with(flat).tolist()
        # Of zstd they are one piece where they are added.
        found.extend(members)
        expected.extend([flat[n] for n in members])
        assert found.marginal_bytes(everyone).tolist() == expected.marginal_bytes(flat).tolist()
        assert found.marginal_bytes(everyone[:0]).tolist() == []
    assert max(sizes) < 5


def test_an_empty_string_has_ratio_zero() -> None:
    """Nothing compresses to a header."""
    assert [compression_ratio(b"", codec) for codec in codecs.names()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("codec", "level", "message"),
    [
        ("lz4", None, "codec: got 'lz4'; allowed are deflate, xz, zstd"),
        ("deflate", 12, "level: got 12; codec 'deflate' allows 1 to 9"),
        ("xz", -1, "level: got -1; codec 'xz' allows 0 to 9"),
    ],
)
def test_unknown_codecs_and_levels_are_refused(codec: str, level: int, message: str) -> None:
    """The message names what came and what is allowed."""
    with pytest.raises(ValueError, match=message):
        compressed_bytes(b"x", codec, level)


def test_versions_name_the_libraries_that_lengths_depend_on() -> None:
    """zlib's runtime version and both zstd versions are recorded."""
    assert codec_versions()["zlib"] == zlib.ZLIB_RUNTIME_VERSION
    assert set(codec_versions()) == {"zlib", "zstd", "python-zstandard"}


@pytest.mark.parametrize(
    ("codec", "num_words"), [("deflate", 80_000), ("zstd", 400_000), ("xz", 80_000)]
)
def test_streamed_sizes_are_those_of_the_whole(codec: str, num_words: int) -> None:
    """Data in pieces compresses to the size of the same data at once (zstd: within 0.1%)."""
    rng = np.random.default_rng(3)
    data = b"".join(b"word%d " % n for n in rng.integers(0, 5000, num_words))
    chunks = [data[start : start + 30_001] for start in range(0, len(data), 30_001)]
    whole = compressed_bytes(data, codec)
    streamed = codecs[codec].streamed_size(chunks, len(data))
    assert len(chunks) > 20
    assert abs(streamed - whole) <= (whole / 1000 if codec == "zstd" else 0)
    assert codecs[codec].streamed_size([], 0) == compressed_bytes(b"", codec)
