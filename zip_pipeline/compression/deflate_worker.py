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

# In place of the number of a part: the question has no more.
END = -1
_NUMBER_BYTES = 4


class Worker:
    """Sets by name over one file of texts.

    Args:
        numbers: the pipe that it takes numbers of parts from, as others do.
        path: the file, and what makes a :class:`.DeflateSet`.
        offsets: where its texts lie.
        level: of DEFLATE.
        framing: bytes around and between the texts of a set.
    """

    def __init__(
        self, numbers: int, path: str, offsets: bytes, level: int, framing: Framing
    ) -> None:
        self._numbers = numbers
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

    def sizes(self, name: str, indices: bytes, borders: list[int]) -> list[tuple[int, bytes]]:
        """Return numbers of parts, and the compressed bytes of (set + text) for their texts."""
        everyone = np.frombuffer(indices, dtype=np.int64)
        found = []
        while (number := self._next_number()) != END:
            texts = self._texts.read(everyone[borders[number] : borders[number + 1]])
            found.append((number, self._sets[name].sizes_with(texts).tobytes()))
        return found

    def _next_number(self) -> int:
        number = os.read(self._numbers, _NUMBER_BYTES)
        if not number:
            raise EOFError
        return int.from_bytes(number, sys.byteorder, signed=True)


def serve(requests: "Connection[Any, Any]", answers: "Connection[Any, Any]", numbers: int) -> None:
    """Answer questions in order until the other side goes away.

    The first message has the arguments of :class:`Worker` after ``numbers``; each later one news,
    ``(method, *arguments)`` each, then the arguments of :meth:`Worker.sizes`.
    """
    try:
        worker = Worker(numbers, *requests.recv())
        while True:
            news, *question = requests.recv()
            for method, *arguments in news:
                getattr(worker, method)(*arguments)
            answers.send(worker.sizes(*question))
    except (EOFError, BrokenPipeError):
        return


def main() -> None:
    """Serve on standard input and output."""
    # Ctrl-C goes to the whole group; whoever started this process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = Connection(os.dup(1), readable=False)
    os.dup2(sys.stderr.fileno(), 1)
    serve(Connection(os.dup(0), writable=False), answers, int(sys.argv[1]))


if __name__ == "__main__":
    main()
