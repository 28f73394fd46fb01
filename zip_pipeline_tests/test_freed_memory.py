"""Freed memory goes back to the system, or stays, as the work at hand wants it."""

import platform
import subprocess
import sys

import pytest

from zip_pipeline.process import keep_freed_memory, return_freed_memory

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

COUNT_FAULTS = """
import resource, sys
from zip_pipeline.process import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def num_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b"x" * 50_000_000
before = num_faults()
for _ in range(10):
    b"x" * 50_000_000
print(num_faults() - before)
"""
on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")


def _printed(script: str, word: str) -> int:
    command = [sys.executable, "-c", script, word]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@on_glibc
def test_large_blocks_go_back_when_small_ones_stay_between_them():
    """Of 160 MB that were freed nothing is kept; glibc left alone keeps nearly all."""
    assert _printed(MEASURE, "kept") > 100_000_000
    assert _printed(MEASURE, "returned") < 10_000_000


@on_glibc
def test_large_blocks_are_reused_where_every_step_asks_for_them():
    """Ten blocks of 50 MB are the pages of the first one; glibc left alone asks anew each time."""
    assert _printed(COUNT_FAULTS, "left alone") > 100
    assert _printed(COUNT_FAULTS, "kept") < 50


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    """Without such a setting nothing happens."""
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    return_freed_memory()
    keep_freed_memory()
