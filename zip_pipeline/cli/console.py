"""What people read: consoles, figures in words, one-line errors."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

_WIDTH_WITHOUT_TERMINAL = 120


class ReadableErrors(TyperGroup):
    """A group of commands whose user errors are one line with a remedy and exit code 2."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of our output went away, as head does; click ends quietly.
            raise
        except (ValueError, OSError) as error:
            print_error(describe_error(error))
            raise typer.Exit(2) from error


def describe_error(error: Exception) -> str:
    """Return an error as one line."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    return " ".join(str(error).split())


def print_error(message: str) -> None:
    """Print one line to standard error."""
    errors().print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)


def output() -> Console:
    """Return the console of standard output."""
    return _console(sys.stdout)


def errors() -> Console:
    """Return the console of standard error: progress and errors, nothing that is piped on."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    # Without a terminal rich assumes 80 columns, too few for file names in logs and pipes.
    known = stream.isatty() or "COLUMNS" in os.environ
    width = None if known else _WIDTH_WITHOUT_TERMINAL
    return Console(file=stream, highlight=False, width=width)


def new_table(*headers: str, title: str | None = None, left: int = 1) -> Table:
    """Return an empty table whose first ``left`` columns hold text and the others numbers."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for position, header in enumerate(headers):
        is_text = position < left
        table.add_column(
            header,
            justify="left" if is_text else "right",
            overflow="fold" if is_text else "ellipsis",
            no_wrap=not is_text,
        )
    return table


def new_facts() -> Table:
    """Return an empty grid of names and facts."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def words_of_bytes(num_bytes: float) -> str:
    """Return a number of bytes in decimal units, as in ``7.08 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000 or unit == "GB":
            break
        num_bytes /= 1000
    return f"{num_bytes:,.0f} bytes" if unit == "bytes" else f"{num_bytes:,.2f} {unit}"


def words_of_seconds(seconds: float) -> str:
    """Return a duration, as in ``0.4 s``, ``31 s`` or ``2 min 5 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def interruption_hint(message: str) -> Iterator[None]:
    """Say how to go on when a person presses Ctrl-C, and exit with code 130."""
    try:
        yield
    except KeyboardInterrupt as error:
        errors().print(f"Interrupted. {escape(message)}", soft_wrap=True)
        raise typer.Exit(130) from error
