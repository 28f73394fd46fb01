"""Progress and results to whoever started the process: Dagster through Pipes, or a terminal."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from zip_pipeline.job_process import PIPES_VARIABLE
from zip_pipeline.terminal_text import shown


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
        from dagster_pipes import open_dagster_pipes

        with open_dagster_pipes() as context:
            yield PipesReporter(context)
    else:
        yield PlainReporter()
