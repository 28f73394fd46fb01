"""Processes of this machine and their sockets, as tests and benchmarks look for them."""

import ipaddress
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LISTENS = "0A"


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


def process_tree(process_id: int) -> list[int]:
    """Return a process, the processes that it started, those that they started, and so on."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name of the program, in parentheses, may have anything in it.
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [process_id]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found


@dataclass(frozen=True)
class Usage:
    """What a process has in memory now, and the processor time that it and others took so far.

    The others are the processes that it started and that have ended.
    """

    memory_mb: float
    cpu_seconds: float
    ended_cpu_seconds: float


def usage(process_id: int) -> Usage:
    """Return what a process of this machine takes."""
    of_process = Path("/proc", str(process_id))
    fields = (of_process / "stat").read_text().rpartition(")")[2].split()
    own, ended = (sum(map(int, fields[i : i + 2])) / os.sysconf("SC_CLK_TCK") for i in (11, 13))
    pages = int((of_process / "statm").read_text().split()[1])
    return Usage(round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1), own, ended)


def peak_bytes(process_id: int | str = "self") -> int:
    """Return the most memory that a process has had, in bytes, 0 for one that is gone.

    Not by getrusage: what it tells starts at the peak of the process that forked this one.
    """
    with suppress(OSError):
        lines = Path("/proc", str(process_id), "status").read_text().splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return 0


def listeners(process_ids: Iterable[int]) -> list[str]:
    """Return the addresses at which TCP sockets of these processes listen, one per socket."""
    inodes = {inode for process_id in process_ids for inode in _sockets(process_id)}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS and fields[9] in inodes:
                found.append(_address(fields[1].partition(":")[0]))
    return sorted(found)


def is_loopback(address: str) -> bool:
    """Return whether nobody outside this machine reaches an address."""
    return ipaddress.ip_address(address).is_loopback


def _sockets(process_id: int) -> Iterable[str]:
    for path in Path(f"/proc/{process_id}/fd").glob("*"):
        try:
            target = str(path.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target.removeprefix("socket:[").removesuffix("]")


def _address(digits: str) -> str:
    """Return an address that the kernel writes as words in the order of this machine's bytes."""
    words = bytes.fromhex(digits)
    if sys.byteorder == "little":
        words = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
    found = ipaddress.ip_address(words)
    return str(getattr(found, "ipv4_mapped", None) or found)
