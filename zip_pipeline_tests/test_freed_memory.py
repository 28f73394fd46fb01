"""Freed memory goes back to the system."""

import platform
import subprocess
import sys

import pytest

from zip_pipeline.process import return_freed_memory

MEASURE = """
import sys
from pathlib import Path
from zip_pipeline.process import return_freed_memory
def held_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
if sys.argv[1] == "returned":
    return_freed_memory()
largest = b"x" * 30_000_000
del largest
before = held_bytes()
blocks = [(b"x" * 8_000_000, b"x" * 10_000) for _ in range(20)]
small = [last for _, last in blocks]
del blocks
print(held_bytes() - before)
"""


def _kept_bytes(word: str) -> int:
    command = [sys.executable, "-c", MEASURE, word]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc keeps freed memory")
def test_large_blocks_go_back_when_small_ones_stay_between_them():
    """Of 160 MB that were freed nothing is kept; glibc left alone keeps nearly all."""
    assert _kept_bytes("kept") > 100_000_000
    assert _kept_bytes("returned") < 10_000_000


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    """Without such a setting nothing happens."""
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    return_freed_memory()
