"""A process that measures DEFLATE sizes for another one; it ends when that one does."""

import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from zip_pipeline.compression.deflate_set import DeflateSet, Framing
from zip_pipeline.compression.text_file import TextFile


class Worker:
    """Sets by name over one file of texts."""

    def __init__(self, path: str, offsets: bytes, level: int, framing: Framing) -> None:
        self._texts = TextFile(Path(path), np.frombuffer(offsets, dtype=np.int64))
        self._level = level
        self._framing = framing
        self._sets: dict[str, DeflateSet] = {}

    def new(self, name: str) -> None:
        """Make an empty set, in place of the one of that name."""
        self._sets[name] = DeflateSet(self._level, self._framing)

    def add(self, name: str, indices: bytes) -> None:
        """Append texts to a set."""
        self._sets[name].add(self._texts.read(np.frombuffer(indices, dtype=np.int64)))

    def sizes(self, name: str, indices: bytes) -> bytes:
        """Return the compressed bytes of (set + text) for each text."""
        texts = self._texts.read(np.frombuffer(indices, dtype=np.int64))
        return self._sets[name].sizes_with(texts).tobytes()


def serve(requests: "Connection[Any, Any]", answers: "Connection[Any, Any]") -> None:
    """Answer requests ``(method, *arguments)`` in order until the other side goes away.

    The first request is the arguments of :class:`Worker`. Requests without an answer send none.
    """
    try:
        worker = Worker(*requests.recv())
        while True:
            method, *arguments = requests.recv()
            answer = getattr(worker, method)(*arguments)
            if answer is not None:
                answers.send_bytes(answer)
    except (EOFError, BrokenPipeError):
        return


def main() -> None:
    """Serve on standard input and output."""
    # Ctrl-C goes to the whole group; whoever started this process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = Connection(os.dup(1), readable=False)
    os.dup2(sys.stderr.fileno(), 1)
    serve(Connection(os.dup(0), writable=False), answers)


if __name__ == "__main__":
    main()
