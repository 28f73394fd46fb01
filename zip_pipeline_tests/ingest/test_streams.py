"""Rules of decompression."""

import errno
import gzip
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from zip_pipeline.ingest.rows import (
    ReadLimits,
    RejectionError,
    decompressed_file,
    read_chunks,
    read_text_chunks,
)
from zip_pipeline_tests.pool.files import BROKEN_FILE, COMPRESSIONS, needs_broken_file, write

TEXT = b"".join(b"line %d of many\n" % n for n in range(20_000))


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("named", [True, False])
def test_chunks_give_back_the_content(tmp_path, suffix, named):
    """Content comes back from each compression, named by the extension or not."""
    path = write(tmp_path / f"a{suffix}", TEXT)
    path = path if named else path.rename(tmp_path / "plain")
    assert b"".join(read_chunks(path)) == TEXT


@pytest.mark.parametrize(("suffix", "compress"), list(COMPRESSIONS.items())[1:])
def test_chunks_give_back_several_frames(tmp_path, suffix, compress):
    """Compressed files that were joined are read to their end; an empty file is empty."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(compress(b"a") + compress(b"") + compress(b"b"))
    assert b"".join(read_chunks(path)) == b"ab"
    path.write_bytes(b"")
    assert b"".join(read_chunks(path)) == b""


def read_until_rejected(path, limits: ReadLimits) -> tuple[bytes, str]:
    """Return what could be read, and why no more."""
    found: list[bytes] = []
    with pytest.raises(RejectionError) as caught:
        found.extend(read_chunks(path, limits))
    return b"".join(found), caught.value.reason


@pytest.mark.parametrize(("suffix", "compress"), list(COMPRESSIONS.items())[1:])
def test_truncated_archive_gives_what_comes_before(tmp_path, suffix, compress):
    """A compressed file that ends too early gives its first half, then is rejected."""
    noise = b"".join(os.urandom(8).hex().encode() + b"\n" for _ in range(60_000))
    content = compress(noise)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content[: len(content) // 2])
    found, reason = read_until_rejected(path, ReadLimits())
    assert reason == "truncated_archive"
    assert len(found) > len(noise) // 4
    assert noise.startswith(found)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_archive_of_another_kind_is_rejected(tmp_path, suffix):
    """A file that is not compressed as its name says is rejected."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"plain text")
    assert read_until_rejected(path, ReadLimits()) == (b"", "corrupt_archive")


def test_damaged_archive_is_rejected(tmp_path):
    """A checksum that does not fit is damage."""
    content = bytearray(gzip.compress(TEXT))
    content[-6] ^= 1
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    assert read_until_rejected(path, ReadLimits()) == (TEXT, "corrupt_archive")


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_bomb_is_rejected_at_the_limit(tmp_path, compress):
    """A file that expands beyond allowance and expansion is rejected, in bounded chunks."""
    path = tmp_path / "a"
    path.write_bytes(compress(b"\0" * (64 << 20)))
    limits = ReadLimits(allowance_bytes=1 << 20, max_expansion=200.0)
    found, reason = read_until_rejected(path, limits)
    assert reason == "decompression_bomb"
    assert len(found) <= max(1 << 20, 200 * path.stat().st_size)


def test_expansion_within_allowance_or_ratio_is_sound():
    """Either the allowance or the expansion covers a file; the absolute limit covers all."""
    limits = ReadLimits(allowance_bytes=1000, max_expansion=10)
    limits.check_expansion(1000, 1)
    limits.check_expansion(5000, 500)
    for num_bytes, stored_bytes in ((1001, 1), (5001, 500)):
        with pytest.raises(RejectionError, match="decompression_bomb"):
            limits.check_expansion(num_bytes, stored_bytes)
    with pytest.raises(RejectionError, match="more than 100 bytes"):
        ReadLimits(max_file_bytes=100).check_expansion(101, 101)


def test_limits_must_be_positive():
    """A limit of nothing is refused by name."""
    with pytest.raises(ValueError, match="max_depth must be above 0, got 0"):
        ReadLimits(max_depth=0)


def test_text_loses_its_byte_order_mark(tmp_path):
    """UTF-8 comes without its mark; UTF-16 and UTF-32 are rejected with the remedy."""
    path = tmp_path / "a"
    path.write_bytes("é".encode("utf-8-sig"))
    assert b"".join(read_text_chunks(path)) == "é".encode()
    for encoding in ("utf-16", "utf-32"):
        path.write_bytes("text".encode(encoding))
        with pytest.raises(RejectionError, match=r"bad_encoding: .* save it as UTF-8"):
            list(read_text_chunks(path))


@needs_broken_file
@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_what_the_system_withholds_is_an_error_that_names_the_file(tmp_path, suffix):
    """A file that cannot be opened, or not be read, is no damage: the error passes on."""
    path = tmp_path / f"a{suffix}"
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*/a"):
        list(read_chunks(path))
    path.symlink_to(BROKEN_FILE)
    with pytest.raises(OSError, match=r"Input/output error: .*/a") as caught:
        list(read_chunks(path))
    assert caught.value.filename == str(path)


def test_decompressed_file_is_the_file_or_a_copy(tmp_path):
    """A compressed file is copied for as long as it is needed, another is used as it is."""
    plain = write(tmp_path / "a.parquet", TEXT)
    with decompressed_file(plain) as path:
        assert path == plain
    with decompressed_file(write(tmp_path / "a.parquet.gz", TEXT)) as path:
        assert path.read_bytes() == TEXT
    assert not path.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device without room")
def test_a_full_temporary_folder_is_an_error_that_names_it(tmp_path, monkeypatch):
    """Where the copy finds no room, the error names the copy and how to have it elsewhere."""

    @contextmanager
    def full_folder():
        (tmp_path / "copy.parquet").symlink_to("/dev/full")
        yield str(tmp_path)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full_folder)
    path = write(tmp_path / "a.parquet.gz", TEXT)
    with pytest.raises(OSError, match="TMPDIR can name another folder") as caught:
        decompressed_file(path).__enter__()
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "copy.parquet")
