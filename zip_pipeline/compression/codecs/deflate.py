"""Codec ``deflate``: the zlib format, which sees 32 KB at a time.

It is measured in processes: copying a stream holds the interpreter lock, so threads would wait.
"""

import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from zip_pipeline.compression.codecs import Codec
from zip_pipeline.compression.sets import (
    DeflateSet,
    Framing,
    IndexedSet,
    Indices,
    Ratios,
    SelectedSet,
    Sizes,
    worker_count,
)
from zip_pipeline.compression.texts import TextFile

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
        self._sets[name].add(self._texts.each(np.frombuffer(indices, dtype=np.int64)))

    def sizes(self, name: str, indices: bytes, borders: list[int]) -> list[tuple[int, bytes]]:
        """Return numbers of parts, and the compressed bytes of (set + text) for their texts."""
        everyone = np.frombuffer(indices, dtype=np.int64)
        found = []
        while (number := self._next_number()) != END:
            texts = self._texts.each(everyone[borders[number] : borders[number + 1]])
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


# So many questions are answered before a process has started.
MIN_QUESTIONS = 512
# Fewer are answered here: asking would take longer.
_MIN_SHARED = 16
# Parts of a question: small, that no worker waits long for another; large, that they are few.
_PARTS_PER_WORKER = 128
# Their numbers must fit into a pipe.
_MAX_PARTS = 2048
_MIN_PART_BYTES = 1 << 12
# What a text costs beside its bytes, above all the copy of the stream.
_BYTES_PER_TEXT = 200
_PATIENCE_SECONDS = 1.0


class DeflateMeasurer:
    """Makes sets over one file of texts, measured in this process or in several others.

    The processes are started when as much was asked for as pays for them. They hold
    the streams of all sets and read texts from the file themselves; sizes do not depend on
    how many there are.

    Args:
        texts: the texts.
        workers: number of processes, 0 for all cores; 1 measures here.
        level: of DEFLATE, 1 to 9.
        framing: bytes around and between the texts of a set.
    """

    def __init__(
        self, texts: TextFile, workers: int, level: int = 9, framing: Framing | None = None
    ) -> None:
        self.texts = texts
        self._num_workers = worker_count(workers)
        self._level = level
        self.framing = framing or Framing()
        self._num_questions = 0
        self._crew: _Crew | None = None

    def new_set(self, name: str) -> IndexedSet:
        """Return an empty set; it takes the place of an earlier one of that name."""
        return _SharedSet(self, name, DeflateSet(self._level, self.framing))

    def crew(self, num_questions: int) -> "_Crew | None":
        """Return the processes, None while this one measures all, as one worker always does."""
        self._num_questions += num_questions
        is_enough = self._num_questions >= MIN_QUESTIONS and self._num_workers > 1
        if self._crew is None and is_enough:
            setting = (str(self.texts.path), self.texts.offsets.tobytes(), self._level)
            self._crew = _Crew(self._num_workers, (*setting, self.framing))
        return self._crew

    def close(self) -> None:
        """End the processes."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _SharedSet:
    """A set that lives here until there are processes, and then in each of them."""

    def __init__(self, measurer: DeflateMeasurer, name: str, inner: DeflateSet) -> None:
        self._measurer = measurer
        self._name = name
        self._inner = inner
        self._members: list[Indices] = []
        self._num_texts = 0
        self._num_bytes = 0
        # How many of the additions are known here, and in the processes.
        self._num_here = 0
        self._num_sent = -1

    def add(self, indices: Indices) -> None:
        """Append texts to the set, in order."""
        members = np.asarray(indices, dtype=np.int64)
        self._members.append(members)
        self._num_texts += len(members)
        self._num_bytes += int(self._measurer.texts.num_bytes_of(members).sum())

    def extend(self, indices: Indices) -> None:
        """Append texts to the set: the same as :meth:`add`."""
        self.add(indices)

    def ratios_with(self, indices: Indices) -> Ratios:
        """Return R of (set + text), raw / compressed bytes, for each text on its own."""
        num_bytes = self._measurer.texts.num_bytes_of(indices)
        sizes = self._sizes(indices, num_bytes)
        framing = self._measurer.framing
        return framing.raw_bytes(self._num_texts + 1, self._num_bytes + num_bytes) / sizes

    def marginal_bytes(self, indices: Indices) -> Sizes:
        """Return by how many bytes each text, on its own, would grow the compressed set."""
        sizes = self._sizes(indices, self._measurer.texts.num_bytes_of(indices))
        return sizes - self._here().closed_bytes()

    def _here(self) -> DeflateSet:
        """Return the set in this process, which is brought up to date only when it is asked."""
        for members in self._members[self._num_here :]:
            self._inner.add(self._measurer.texts.each(members))
        self._num_here = len(self._members)
        return self._inner

    def _sizes(self, indices: Indices, num_bytes: Sizes) -> Sizes:
        crew = self._measurer.crew(len(indices))
        if crew is None or len(indices) <= _MIN_SHARED:
            return self._here().sizes_with(self._measurer.texts.each(indices))
        if self._num_sent < 0:
            crew.tell("new", self._name)
            self._num_sent = 0
        for members in self._members[self._num_sent :]:
            crew.tell("add", self._name, members.tobytes())
        self._num_sent = len(self._members)
        return crew.sizes(self._name, np.asarray(indices, dtype=np.int64), num_bytes)


class _Crew:
    """Worker processes that all know the same sets.

    Each gets the whole question, and takes parts of it as fast as it can: their numbers lie in a
    pipe from which all of them read. Waking a process costs as much as measuring a text, so
    there is one message to each of them and one back, however many parts there are.
    """

    def __init__(self, num_workers: int, setting: tuple[Any, ...]) -> None:
        numbers, self._numbers = os.pipe()
        self._processes = [_start(numbers) for _ in range(num_workers)]
        os.close(numbers)
        self._requests = [Connection(_fd(p.stdin), readable=False) for p in self._processes]
        self._answers = [Connection(_fd(p.stdout), writable=False) for p in self._processes]
        self._news: list[tuple[object, ...]] = []
        self._send_to_all(setting)

    def tell(self, method: str, *arguments: object) -> None:
        """Let every worker do something that has no answer, before the next question."""
        self._news.append((method, *arguments))

    def sizes(self, name: str, indices: Indices, num_bytes: Sizes) -> Sizes:
        """Return the compressed bytes of (set + text) for each text, measured in parts."""
        order, borders = _parts(num_bytes, len(self._processes))
        numbers = [*range(len(borders) - 1), *([END] * len(self._processes))]
        os.write(self._numbers, np.array(numbers, dtype=np.int32).tobytes())
        self._send_to_all((self._news, name, indices[order].tobytes(), borders.tolist()))
        self._news = []
        sizes = np.zeros(len(indices), dtype=np.int64)
        for worker in range(len(self._processes)):
            for number, part in self._answer(worker):
                places = order[borders[number] : borders[number + 1]]
                sizes[places] = np.frombuffer(part, dtype=np.int64)
        return sizes

    def _answer(self, worker: int) -> list[tuple[int, bytes]]:
        try:
            answer: list[tuple[int, bytes]] = self._answers[worker].recv()
        except (EOFError, OSError) as error:
            raise self._died(worker) from error
        return answer

    def _send_to_all(self, message: tuple[object, ...]) -> None:
        for worker in range(len(self._processes)):
            self._send(worker, message)

    def _send(self, worker: int, message: tuple[object, ...]) -> None:
        try:
            self._requests[worker].send(message)
        except OSError as error:
            raise self._died(worker) from error

    def _died(self, worker: int) -> RuntimeError:
        code = self._processes[worker].wait()
        why = "was killed, perhaps for want of memory" if code < 0 else "failed, see its output"
        return RuntimeError(
            f"a process that measures samples {why} (exit code {code}); select again with fewer "
            "workers, or go on from the checkpoint"
        )

    def close(self) -> None:
        os.close(self._numbers)
        for connection in (*self._requests, *self._answers):
            with suppress(OSError):
                connection.close()
        for process in self._processes:
            # It notices by itself, but only after the part that it is measuring.
            try:
                process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _parts(num_bytes: Sizes, num_workers: int) -> tuple[Indices, Indices]:
    """Return positions, large texts first, and the borders of parts that cost about the same."""
    order = np.argsort(-num_bytes, kind="stable")
    cost = np.cumsum(num_bytes[order] + _BYTES_PER_TEXT)
    num_parts = min(_PARTS_PER_WORKER * num_workers, _MAX_PARTS)
    wanted = max(_MIN_PART_BYTES, int(cost[-1]) // num_parts)
    ends = np.searchsorted(cost, np.arange(wanted, cost[-1], wanted)) + 1
    return order, np.unique(np.concatenate([[0], ends, [len(order)]]))


def _start(numbers: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "zip_pipeline.compression.codecs.deflate", str(numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[numbers],
    )


def _fd(stream: Any) -> int:  # noqa: ANN401
    """Return a descriptor of our own, so that nobody else closes it."""
    descriptor = os.dup(stream.fileno())
    stream.close()
    return descriptor


class Deflate(Codec):
    """The codec of the paper; sizes count the zlib header and checksum."""

    name = "deflate"
    levels = (1, 9)
    level = 9
    selection_level = 9
    measures_pool = True
    measures_subset = True

    def compressed_size(self, data: bytes, level: int) -> int:
        """Return the bytes that ``data`` takes when compressed."""
        return len(zlib.compress(data, level))

    def versions(self) -> dict[str, str]:
        """Return the version of zlib."""
        return {"zlib": zlib.ZLIB_RUNTIME_VERSION}

    def streamed_size(self, chunks: Iterable[bytes], num_bytes: int) -> int:
        """Return what :meth:`compressed_size` returns for the joined pieces."""
        stream = zlib.compressobj(self.level)
        return sum(len(stream.compress(chunk)) for chunk in chunks) + len(stream.flush())

    def new_set(self, level: int, workers: int) -> SelectedSet:
        """Return an empty set behind one streaming compressor."""
        return DeflateSet(level)

    @contextmanager
    def sets(
        self, texts: TextFile, level: int, workers: int
    ) -> Iterator[Callable[[str], IndexedSet]]:
        """Yield what makes empty sets, measured in several processes; see :class:`.Codec`."""
        with DeflateMeasurer(texts, workers, level) as measurer:
            yield measurer.new_set


CODEC = Deflate()
