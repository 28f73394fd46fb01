"""The graph in a process of its own: the command line never imports Dagster."""

import codecs
import os
import selectors
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TextIO

from zip_pipeline.cli.console import interruption_hint
from zip_pipeline.job_process import Step

_GRAPH = "zip_pipeline.defs.headless"
_SECONDS_TO_END = 0.25
_SECONDS_BETWEEN_LOOKS = 0.5
_CHUNK_BYTES = 65536


def run_graph(data_root: Path, until: Step = "law") -> int:
    """Run the graph over a data root once; return its exit code, 128 and up for a signal.

    What the process and those that it starts print goes through this process, which shows
    control characters.
    """
    command = [sys.executable, "-m", _GRAPH, "--data-root", str(data_root), "--until", until]
    pipe = subprocess.PIPE
    with (
        interruption_hint("Run the command again: what is finished is kept."),
        subprocess.Popen(command, stdout=pipe, stderr=pipe) as process,
    ):
        try:
            _pass_on(process)
        except KeyboardInterrupt:
            # It reaches the process too, which has a moment to end by itself.
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
            process.kill()
            _pass_on(process)
            raise
        except OSError:
            # Nobody reads any more.
            process.kill()
            raise
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _pass_on(process: "subprocess.Popen[bytes]") -> None:
    """Print what a process prints as it comes, until it has ended and what it said is read."""
    with selectors.DefaultSelector() as pipes:
        for pipe, stream in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            assert pipe is not None
            pipes.register(pipe, selectors.EVENT_READ, _Copier(pipe, stream))
        # A process that outlives the graph may hold a pipe open.
        while pipes.get_map():
            has_ended = process.poll() is not None
            ready = pipes.select(0 if has_ended else _SECONDS_BETWEEN_LOOKS)
            if has_ended and not ready:
                break
            for key, _ in ready:
                if not key.data.copy():
                    pipes.unregister(key.fileobj)


class _Copier:
    """Copies a pipe of UTF-8 to a stream; bytes that are not are half surrogate pairs there."""

    def __init__(self, pipe: IO[bytes], stream: TextIO) -> None:
        self._descriptor = pipe.fileno()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def copy(self) -> bool:
        """Copy what has come; return whether more can come."""
        chunk = os.read(self._descriptor, _CHUNK_BYTES)
        self._stream.write(self._decoder.decode(chunk, final=not chunk))
        self._stream.flush()
        return bool(chunk)
