"""Exact DEFLATE sizes on all cores: copying a stream holds the interpreter lock, so processes."""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

import numpy as np

from zip_pipeline.compression.deflate_set import DeflateSet, Framing
from zip_pipeline.compression.indexed_set import IndexedSet, LocalSet
from zip_pipeline.compression.selected_set import Indices, Ratios, Sizes
from zip_pipeline.compression.text_file import TextFile

# Fewer questions than this, one after another, are answered before a process has started.
MIN_QUESTIONS = 512
_CHUNKS_PER_WORKER = 4
_MIN_CHUNK = 16
# Two answers fit into a pipe: else a worker that writes one could wait for a reader that writes.
_MAX_CHUNK = 2048
# Requests a worker has at a time: one at work, one waiting, so that it never waits itself.
_REQUESTS_AHEAD = 2
_PATIENCE_SECONDS = 1.0


class DeflateMeasurer:
    """Makes sets over one file of texts, measured in this process or in several others.

    The processes are started with the first question large enough to pay for them. They hold
    the streams of all sets and read texts from the file themselves; sizes do not depend on
    how many there are.

    Args:
        texts: the texts.
        workers: number of processes; 1 measures here.
        level: of DEFLATE, 1 to 9.
        framing: bytes around and between the texts of a set.
    """

    def __init__(
        self, texts: TextFile, workers: int, level: int = 9, framing: Framing | None = None
    ) -> None:
        self.texts = texts
        self._num_workers = workers
        self._level = level
        self._framing = framing or Framing()
        self._crew: _Crew | None = None

    def new_set(self, name: str) -> IndexedSet:
        """Return an empty set; it takes the place of an earlier one of that name."""
        inner = DeflateSet(self._level, self._framing)
        if self._num_workers == 1:
            return LocalSet(self.texts, inner)
        return _SharedSet(self, name, inner)

    def crew(self, num_questions: int) -> "_Crew | None":
        """Return the processes, None while there are none and the question is too small."""
        if self._crew is None and num_questions >= MIN_QUESTIONS:
            setting = (str(self.texts.path), self.texts.offsets.tobytes(), self._level)
            self._crew = _Crew(self._num_workers, (*setting, self._framing))
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
    """A set that lives here until there are processes, and then in each of them as well."""

    def __init__(self, measurer: DeflateMeasurer, name: str, inner: DeflateSet) -> None:
        self._measurer = measurer
        self._name = name
        self._inner = inner
        self._members: list[Indices] = []
        self._num_sent = -1

    def add(self, indices: Indices) -> None:
        """Append texts to the set, in order."""
        self._inner.add(self._measurer.texts.read(indices))
        self._members.append(np.asarray(indices, dtype=np.int64))

    def extend(self, indices: Indices) -> None:
        """Append texts to the set: the same as :meth:`add`."""
        self.add(indices)

    def ratios_with(self, indices: Indices) -> Ratios:
        """Return R of (set + text), raw / compressed bytes, for each text on its own."""
        crew = self._measurer.crew(len(indices))
        if crew is None or len(indices) <= _MIN_CHUNK:
            return self._inner.ratios_with(self._measurer.texts.read(indices))
        num_bytes = self._measurer.texts.num_bytes_of(indices)
        return self._inner.raw_bytes_with(num_bytes) / self._sizes(crew, indices, num_bytes)

    def marginal_bytes(self, indices: Indices) -> Sizes:
        """Return by how many bytes each text, on its own, would grow the compressed set."""
        crew = self._measurer.crew(len(indices))
        if crew is None or len(indices) <= _MIN_CHUNK:
            return self._inner.marginal_bytes(self._measurer.texts.read(indices))
        num_bytes = self._measurer.texts.num_bytes_of(indices)
        return self._sizes(crew, indices, num_bytes) - self._inner.closed_bytes()

    def _sizes(self, crew: "_Crew", indices: Indices, num_bytes: Sizes) -> Sizes:
        if self._num_sent < 0:
            crew.tell("new", self._name)
            self._num_sent = 0
        for members in self._members[self._num_sent :]:
            crew.tell("add", self._name, members.tobytes())
        self._num_sent = len(self._members)
        return crew.sizes(self._name, np.asarray(indices, dtype=np.int64), num_bytes)


class _Crew:
    """Worker processes that all know the same sets."""

    def __init__(self, num_workers: int, setting: tuple[Any, ...]) -> None:
        self._processes = [_start() for _ in range(num_workers)]
        self._requests = [Connection(_fd(p.stdin), readable=False) for p in self._processes]
        self._answers = [Connection(_fd(p.stdout), writable=False) for p in self._processes]
        self._send_to_all(setting)

    def tell(self, method: str, *arguments: object) -> None:
        """Let every worker do something that has no answer."""
        self._send_to_all((method, *arguments))

    def sizes(self, name: str, indices: Indices, num_bytes: Sizes) -> Sizes:
        """Return the compressed bytes of (set + text) for each text, measured in parts."""
        sizes = np.zeros(len(indices), dtype=np.int64)
        parts = _parts(num_bytes, len(self._processes))
        at_work: dict[int, deque[Indices]] = {i: deque() for i in range(len(self._processes))}
        for _ in range(_REQUESTS_AHEAD):
            for worker, waiting in at_work.items():
                self._ask(worker, name, indices, parts, waiting)
        while busy := [worker for worker, waiting in at_work.items() if waiting]:
            ready = wait([self._answers[worker] for worker in busy])
            for worker in busy:
                if self._answers[worker] in ready:
                    part = at_work[worker].popleft()
                    sizes[part] = np.frombuffer(self._answer(worker), dtype=np.int64)
                    self._ask(worker, name, indices, parts, at_work[worker])
        return sizes

    def _ask(
        self,
        worker: int,
        name: str,
        indices: Indices,
        parts: Iterator[Indices],
        waiting: deque[Indices],
    ) -> None:
        part = next(parts, None)
        if part is not None:
            self._send(worker, ("sizes", name, indices[part].tobytes()))
            waiting.append(part)

    def _answer(self, worker: int) -> bytes:
        try:
            return self._answers[worker].recv_bytes()
        except (EOFError, OSError) as error:
            raise self._died(worker) from error

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


def _parts(num_bytes: Sizes, num_workers: int) -> Iterator[Indices]:
    """Yield positions in parts that cost about the same, each with its share of large texts."""
    wanted = min(num_workers * _CHUNKS_PER_WORKER, len(num_bytes) // _MIN_CHUNK)
    num_parts = max(wanted, -(-len(num_bytes) // _MAX_CHUNK))
    order = np.argsort(-num_bytes, kind="stable")
    return iter([order[part::num_parts] for part in range(num_parts)])


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "zip_pipeline.compression.deflate_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _fd(stream: Any) -> int:  # noqa: ANN401
    """Return a descriptor of our own, so that nobody else closes it."""
    descriptor = os.dup(stream.fileno())
    stream.close()
    return descriptor
