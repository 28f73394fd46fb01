"""Processes of this machine, as tests and benchmarks look for them."""

from pathlib import Path


def processes_with(words: str) -> list[int]:
    """Return the processes whose command line has ``words`` in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words in path.read_bytes().decode(errors="replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
