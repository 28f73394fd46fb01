"""Rules of memory: a row of any size costs no more than the limit."""

import gzip
import json
import subprocess
import sys

import pytest

# Not getrusage: what it tells starts at the peak of the process that forked this one.
MEASURE = """
import sys
from pathlib import Path
from zip_pipeline.ingest.ingest import ingest
def peak_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
before = peak_bytes()
result = ingest(Path(sys.argv[1]), "sft", batch="b")
print(peak_bytes() - before, result.samples.height, *result.quarantine["reason"])
"""
MAX_GROWTH_BYTES = 120 << 20
LONG_BYTES = 100_000_000


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "b.json.gz", "a.csv.gz"])
def test_row_of_100_mb_is_skipped_in_bounded_memory(tmp_path, name):
    """A row of 100 MB goes to quarantine, the rows around it survive, memory stays bounded."""
    good = json.dumps({"prompt": "p", "completion": "1"}).encode()
    last = good.replace(b"1", b"2")
    long = b"x" * LONG_BYTES
    contents = {
        "a.jsonl.gz": b"%b\n%b\n%b\n" % (good, long, last),
        "a.json.gz": b'[%b,\n{"a": "%b"},\n%b]\n' % (good, long, last),
        "b.json.gz": b'{"v": [1],\n"data": [%b,\n{"a": "%b"},\n%b]}\n' % (good, long, last),
        "a.csv.gz": b"prompt,completion\np,1\np,%b\np,2\n" % long,
    }
    path = tmp_path / name
    path.write_bytes(gzip.compress(contents[name], 1))
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    growth_bytes, num_samples, *reasons = done.stdout.split()
    assert (num_samples, reasons) == ("2", ["row_too_long"])
    assert int(growth_bytes) < MAX_GROWTH_BYTES
