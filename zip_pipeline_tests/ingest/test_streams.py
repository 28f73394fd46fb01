"""Rules of decompression."""

import bz2
import errno
import gzip
import lzma
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from zip_pipeline.errors import UserError
from zip_pipeline.ingest import streams
from zip_pipeline.ingest.rows import ReadLimits, RejectionError
from zip_pipeline.ingest.streams import (
    check_encoding_name,
    decompressed_file,
    read_chunks,
    text_chunks,
)
from zip_pipeline_tests.ingest.test_text import cut
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
    noise = b"".join(os.urandom(8).hex().encode() + b"\n" for _ in range(150_000))
    content = compress(noise)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content[: len(content) // 2])
    found, reason = read_until_rejected(path, ReadLimits())
    assert reason == "truncated_archive"
    assert len(found) > len(noise) // 4
    assert noise.startswith(found)


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("compress", COMPRESSIONS.values())
def test_contents_tell_the_compression(tmp_path, suffix, compress):
    """A file is read as what it is, compressed or not, whatever it is called."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(compress(b"plain text"))
    assert b"".join(read_chunks(path)) == b"plain text"


def test_too_little_memory_is_no_damage(tmp_path, monkeypatch):
    """What may pass is no fault of the file."""

    def out_of_memory(_):
        raise zstandard.ZstdError("zstd decompressor error: Allocation error : not enough memory")
        yield b""

    monkeypatch.setattr(streams, "_decoder", lambda _: out_of_memory)
    with pytest.raises(MemoryError, match="Allocation error"):
        list(read_chunks(write(tmp_path / "a", b"text")))


def test_zstd_windows_may_be_as_long_as_the_format_allows(tmp_path):
    """Frames that were made with --long=31 are read, and those that begin without content."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=31)
    long = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    empty = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    path = tmp_path / "a"
    path.write_bytes(empty + long.compress(b"text") + long.flush())
    assert b"".join(read_chunks(path)) == b"text"


def test_damaged_archive_is_rejected(tmp_path):
    """A checksum that does not fit is damage."""
    content = bytearray(gzip.compress(TEXT))
    content[-6] ^= 1
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    assert read_until_rejected(path, ReadLimits()) == (TEXT, "corrupt_archive")


@pytest.mark.parametrize("compress", [lzma.compress, bz2.compress])
def test_archive_with_damage_inside_is_rejected(tmp_path, compress):
    """Bytes that were overwritten are damage, whatever kind of archive it is."""
    content = bytearray(compress(os.urandom(200_000)))
    content[20:40] = bytes(20)
    path = tmp_path / "a"
    path.write_bytes(content)
    assert read_until_rejected(path, ReadLimits())[1] == "corrupt_archive"


@pytest.mark.parametrize("compress", list(COMPRESSIONS.values())[1:])
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


def utf8(content: bytes, encoding: str | None = None, size: int = 1 << 20) -> bytes:
    """Return a text that comes in pieces, in UTF-8."""
    return b"".join(text_chunks(iter(cut(content, size)), encoding))


WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-8", *WIDE])
def test_text_loses_its_byte_order_mark(encoding, size):
    """A mark at the beginning tells the encoding and is no text."""
    text = '{"prompt": "Größe 😀"}\n'
    assert utf8(f"\ufeff{text}".encode(encoding), size=size) == text.encode()
    assert utf8("\ufeff".encode(encoding), size=size) == b""
    assert utf8(f"\ufeff{text}".encode(encoding), "cp1252", size) == text.encode()


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("encoding", WIDE)
def test_zero_bytes_tell_an_encoding_without_a_mark(encoding, size):
    """Texts that are ASCII in good part need no mark."""
    for text in ('{"prompt":"é","completion":"日本語"}\n', "名,answer\né,b\n" * 50, "a,b"):
        assert utf8(text.encode(encoding), size=size) == text.encode()


@pytest.mark.parametrize("content", [b"", b"a", b"\0", b"\0{}\n", b"a\0b,c\n1,2\n", b"a\0"])
def test_a_zero_byte_alone_tells_nothing(content):
    """What is UTF-8 with a zero byte somewhere stays as it is."""
    assert utf8(content) == content


def test_declared_encoding_is_read():
    """Text comes in UTF-8; a byte that the encoding does not have stays undecodable."""
    assert utf8("café; ok".encode("cp1252"), "cp1252") == "café; ok".encode()
    assert check_encoding_name("Shift-JIS") == "shift_jis"
    assert utf8("日本語".encode("shift_jis"), "shift_jis", size=1) == "日本語".encode()
    assert utf8(b"a\x81b", "cp1252") == b"a\x81b"
    for name in ("klingon", "hex", ""):
        message = "encoding: .* is no text encoding; expected a name such as utf-8, cp1252"
        with pytest.raises(UserError, match=message):
            check_encoding_name(name)


def test_broken_wide_text_is_rejected_where_it_breaks():
    """What comes before is read; half a surrogate pair is left to its row."""
    half = "\ufeffab\ud800c".encode("utf-16-le", "surrogatepass")
    assert utf8(half) == b"ab\xed\xa0\x80c"
    found = []
    with pytest.raises(RejectionError, match="bad_encoding: the file is no sound utf-16-le: "):
        found.extend(text_chunks(iter(cut("\ufeffab\n".encode("utf-16-le") + b"c", 4))))
    assert b"".join(found) == b"ab\n"


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
    with decompressed_file(write(tmp_path / "a.parquet.gz", TEXT).rename(tmp_path / "b")) as path:
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
