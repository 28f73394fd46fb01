"""What a process that was started for one job owes to whoever started it."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol, TypeAlias

from zip_pipeline.terminal_text import shown

ERROR_FILE_VARIABLE = "ZIP_PIPELINE_ERROR_FILE"
"""Names the file into which whoever starts the process wants the reason, besides stderr."""
FAULT = 2
"""Exit code of a job that cannot be done as it was given."""
BLOCKED = 3
"""Exit code of a headless run: all went well, but the law keeps a version from being trained."""
Step: TypeAlias = Literal["ingest", "subset", "probe", "law"]
"""How far a headless run goes."""
PIPES_VARIABLE = "DAGSTER_PIPES_CONTEXT"
"""Is set where Dagster started the process."""
_PARENT_DEATH_SIGNAL = 1


def report_error(error: Exception) -> int:
    """Print why a job cannot be done, write it down where that is wanted, and return FAULT."""
    print(f"Error: {shown(str(error))}", file=sys.stderr, flush=True)
    if path := os.environ.get(ERROR_FILE_VARIABLE):
        Path(path).write_text(str(error), encoding="utf-8")
    return FAULT


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Let the kernel send a signal to this process when its parent dies, however that dies.

    Does nothing where there is no such service (it is Linux's).
    """
    _tell_libc("prctl", _PARENT_DEATH_SIGNAL, number, 0, 0, 0)


def _tell_libc(function: str, *arguments: int) -> None:
    """Call a function of the C library, where it has one of that name."""
    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL(None), function)(*arguments)


# glibc's names for mallopt: from which size a block is one of the system's own, and how much
# freed memory is kept.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1


def return_freed_memory() -> None:
    """Let the C library give large blocks back to the system as soon as they are freed.

    By itself glibc keeps what is smaller than the largest block that it has seen freed, up to
    32 MiB: with the compressors of a selection these were 150 MB. Other libraries have no such
    setting and are left alone.
    """
    _tell_libc("mallopt", _MMAP_THRESHOLD, 1 << 22)


def keep_freed_memory() -> None:
    """Let the C library reuse large blocks instead of returning them at every training step.

    Each step of a small model frees and asks for the same tens of megabytes; faulting them in
    again takes longer than computing (*measured*: loss and gradient over a vocabulary of 4,096
    in 0.23 s instead of 0.75 s).
    """
    _tell_libc("mallopt", _MMAP_THRESHOLD, 1 << 30)
    _tell_libc("mallopt", _TRIM_THRESHOLD, (1 << 31) - 1)


class Reporter(Protocol):
    """Takes lines for people and records for programs."""

    def line(self, text: str) -> None:
        """Show a line."""

    def record(self, values: Mapping[str, Any]) -> None:
        """Hand over plain values."""


class PlainReporter:
    """Prints lines; records are in the files that the process writes."""

    def line(self, text: str) -> None:
        """Print a line at once."""
        print(shown(text), flush=True)

    def record(self, values: Mapping[str, Any]) -> None:
        """Do nothing."""


class SilentReporter(PlainReporter):
    """Says nothing: all processes of a group but the first."""

    def line(self, text: str) -> None:
        """Do nothing."""


class PipesReporter:
    """Sends lines to the run's log, records as custom messages."""

    def __init__(self, context: Any) -> None:  # noqa: ANN401  PipesContext
        self._context = context

    def line(self, text: str) -> None:
        """Log a line."""
        self._context.log.info(text)

    def record(self, values: Mapping[str, Any]) -> None:
        """Send a custom message."""
        self._context.report_custom_message(dict(values))


@contextmanager
def reporter() -> Iterator[Reporter]:
    """Yield the reporter of this process, open for as long as the block lasts."""
    if os.environ.get("RANK", "0") != "0":
        yield SilentReporter()
    elif PIPES_VARIABLE in os.environ:
        from dagster_pipes import PipesContext, open_dagster_pipes

        if PipesContext.is_initialized():
            # Opened, and closed, by whoever runs this as one step of several.
            yield PipesReporter(PipesContext.get())
            return
        with open_dagster_pipes() as context:
            yield PipesReporter(context)
    else:
        yield PlainReporter()


GRACE_SECONDS = 8.0


class StopRequest:
    """Notices SIGINT (which Dagster sends on cancel) and SIGTERM.

    Inside the training loop the current step is finished and saved first; a step that takes
    longer than the grace time is lost. Outside the loop the process ends at once.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self.signal_number = 0
        self.in_loop = False
        self._grace_seconds = grace_seconds

    @property
    def exit_code(self) -> int:
        """Return what a shell would report: 128 plus the number of the signal."""
        return 128 + self.signal_number

    def install(self) -> "StopRequest":
        """Handle the signals from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, _: FrameType | None) -> None:
        again, self.signal_number = self.signal_number != 0, number
        if not self.in_loop or again:
            raise SystemExit(self.exit_code)
        timer = threading.Timer(self._grace_seconds, os._exit, (self.exit_code,))
        timer.daemon = True
        timer.start()
