"""``zip-pipeline ratio``."""

import gzip
import lzma
import zlib
from pathlib import Path

import pytest

from zip_pipeline_tests.cli.commands import call_badly, call_well
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl


def test_ratio_is_raw_over_compressed_bytes(tmp_path: Path):
    """R is raw bytes / compressed bytes; DEFLATE level 9 is the default."""
    content = b"abc " * 500
    (tmp_path / "x.txt").write_bytes(content)
    num_compressed = len(zlib.compress(content, 9))
    text = call_well("ratio", tmp_path / "x.txt")
    assert f"{num_compressed}" in text
    assert f"{2000 / num_compressed:.3f}" in text


def test_ratio_of_several_files_measures_them_joined(tmp_path: Path):
    """The last line compresses all files as one, which finds what they share."""
    contents = [bytes(range(256)) * 2, bytes(range(256)) * 3]
    for name, content in zip("ab", contents, strict=True):
        (tmp_path / name).write_bytes(content)
    lines = call_well("ratio", tmp_path / "a", tmp_path / "b").splitlines()
    (last,) = [line for line in lines if "all together" in line]
    together = 1280 / len(zlib.compress(b"".join(contents), 9))
    assert last.split()[-1] == f"{together:.3f}"


@pytest.mark.parametrize("codec", ["zstd", "xz"])
def test_ratio_knows_other_codecs(tmp_path: Path, codec: str):
    """zstd and xz are measured as well, and named."""
    (tmp_path / "x").write_bytes(b"abc " * 500)
    assert f"R {codec}" in call_well("ratio", tmp_path / "x", "--codec", codec)


def test_ratio_level_reaches_the_codec(tmp_path: Path):
    """A level other than the default gives that level's size."""
    content = "".join(f"{n * n} " for n in range(2000)).encode()
    (tmp_path / "x").write_bytes(content)
    text = call_well("ratio", tmp_path / "x", "--level", "1")
    assert f"{len(content) / len(zlib.compress(content, 1)):.3f}" in text


def test_ratio_of_a_text_field_joins_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """--text-field measures that field of all rows, one per line; a.b reaches inside."""
    monkeypatch.chdir(tmp_path)  # a long path would wrap the table
    records = [{"a": {"b": f"text {n}"}} for n in range(40)]
    path = write_jsonl(Path("x.jsonl"), records)
    content = "".join(f"text {n}\n" for n in range(40)).encode()
    wanted = len(content) / len(lzma.compress(content, preset=9))
    text = call_well("ratio", path, "--codec", "xz", "--text-field", "a.b")
    assert f"{len(content):,}" in text
    assert abs(float(text.split()[-1]) - wanted) < 0.1


def test_ratio_of_a_text_field_reaches_through_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All contents of a conversation, one per line; a turn that only calls a tool has none."""
    monkeypatch.chdir(tmp_path)  # a long path would wrap the table
    turns = [{"content": f"text {n}"} for n in range(3)]
    calls = [{"content": None, "tool_calls": []}, {"role": "user"}]
    path = write_jsonl(Path("x.jsonl"), [{"messages": [*turns, *calls]}, {"messages": turns}])
    text = call_well("ratio", path, "--text-field", "messages.content")
    assert "x.jsonl" in text
    assert f"{2 * len('text 0 text 1 text 2 ')}" in text
    write_jsonl(path, [{"messages": [{"content": ["no text", {"a": 1}]}]}])
    assert "row 1: no text in field 'messages.content'" in call_badly(
        "ratio", path, "--text-field", "messages.content"
    )


def test_ratio_refuses_in_one_line(tmp_path: Path):
    """Folders, missing files, missing fields, broken rows and wrong levels are told."""
    path = write_jsonl(tmp_path / "x.jsonl", [*sft_records(1), "{"])
    assert "no such file; give files" in call_badly("ratio", tmp_path)
    assert "no such file" in call_badly("ratio", tmp_path / "no")
    missing = call_badly("ratio", path, "--text-field", "text")
    assert missing.startswith(
        "x.jsonl, row 1: no text in field 'text' (--text-field); fields are instruction,"
    )
    broken = call_badly("ratio", path, "--text-field", "output")
    assert broken.startswith("x.jsonl, row 2: invalid_json")
    assert call_badly("ratio", path, "--level", "77").startswith("--level: got 77")
    message = call_badly("ratio", path, "--codec", "lz4")
    assert message == "--codec: got 'lz4'; allowed are deflate, xz, zstd"


def test_ratio_measures_what_lies_in_compressed_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A .gz file counts with its contents; a damaged one is an error that names it."""
    monkeypatch.chdir(tmp_path)  # a long path would wrap the table
    content = b"abc " * 500
    (tmp_path / "x.txt").write_bytes(content)
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))
    lines = call_well("ratio", "x.txt", "x.gz").splitlines()
    measures = [line.split()[-3:] for line in lines if "x.txt" in line or "x.gz" in line]
    assert len(measures) == 2
    assert measures[0] == measures[1]
    (tmp_path / "x.gz").write_bytes(gzip.compress(content)[:-9])
    assert "truncated_archive" in call_badly("ratio", tmp_path / "x.gz")
