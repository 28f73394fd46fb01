"""What people read: consoles, figures in words, one-line errors."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import EXTRAS, UserError, not_installed, storage_error
from zip_pipeline.secret_files import read_secret_files
from zip_pipeline.terminal_text import counted, show_control_characters, shown

if TYPE_CHECKING:
    # It loads all that selects, which takes longer than most commands do.
    from zip_pipeline.selection.run import Progress as RoundReport


class ReadableConsole(Console):
    """A console on which data is data: no control characters, no markup and no emoji codes.

    Style comes from :func:`styled` alone.
    """

    def __init__(self, stream: TextIO, width: int | None = None, **options: Any) -> None:  # noqa: ANN401
        super().__init__(
            file=stream, width=width, markup=False, emoji=False, highlight=False, **options
        )

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401
        """Return a string as rich's text; all strings come here before their width is known."""
        return super().render_str(shown(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what is written; rich's own control codes are segments of their own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))


class ReadableErrors(TyperGroup):
    """A group of commands whose user errors are one line with a remedy and exit code 2.

    Nothing that is printed, by whom it may be, sends control characters of the data.
    """

    def main(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        """Run the command line."""
        show_control_characters()
        return super().main(*arguments, **options)

    def make_context(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        """Read the options that stand before the command."""
        with _readable_usage_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run the command."""
        try:
            read_secret_files()
            with _readable_usage_errors():
                return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of our output went away, as head does; click ends quietly.
            raise
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if library not in EXTRAS:
                raise
            print_error(str(not_installed(library, f"zip-pipeline {ctx.invoked_subcommand}")))
            raise typer.Exit(2) from error
        except Exception as error:
            told = storage_error(error)
            if told is None and not isinstance(error, UserError | OSError):
                raise
            print_error(describe_error(told or error))
            raise typer.Exit(2) from error


@contextmanager
def _readable_usage_errors() -> Iterator[None]:
    """Typer prints usage errors on a console of its own, which would send what was typed."""
    try:
        yield
    except typer.TyperException as error:
        error.message = shown(error.message)
        raise


def describe_error(error: Exception) -> str:
    """Return an error as one line."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    # Some control characters count as white space.
    return " ".join(shown(str(error)).split())


def print_error(message: str) -> None:
    """Print one line to standard error."""
    errors().print(styled(("Error:", "bold red"), f" {message}"), soft_wrap=True)


def print_note(message: str) -> None:
    """Print one line to standard error that is no error."""
    errors().print(message, soft_wrap=True)


def print_json(value: object) -> None:
    """Print JSON for programs; what JSON leaves as it is and a terminal does not is escaped."""
    print(json.dumps(value, indent=2).replace("\x7f", "\\u007f"))


def output() -> Console:
    """Return the console of standard output."""
    return _console(sys.stdout)


def errors() -> Console:
    """Return the console of standard error: progress and errors, nothing that is piped on."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    # Without a terminal rich assumes 80 columns, too few for file names in logs and pipes.
    is_known = stream.isatty() or "COLUMNS" in os.environ
    return ReadableConsole(stream, None if is_known else 120)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return plain words and ``(words, style)`` pairs joined; words are never read as markup."""
    text = Text()
    for part in parts:
        words, style = (part, "") if isinstance(part, str) else part
        # rich would leave some control characters out.
        text.append(shown(words), style)
    return text


def new_table(*headers: str, left: int = 1) -> Table:
    """Return an empty table whose first ``left`` columns hold text and the others numbers."""
    table = Table(box=SIMPLE_HEAD)
    for header in headers[:left]:
        table.add_column(header, overflow="fold")
    for header in headers[left:]:
        table.add_column(header, justify="right", no_wrap=True)
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


def print_next(console: Console, steps: Mapping[str, str]) -> None:
    """Print commands that can be pasted, each with a comment that says what it is for.

    A line is never broken: what a terminal breaks itself comes back whole when it is copied.
    """
    console.rule(styled(("Next", "bold")), align="left")
    for command, meaning in steps.items():
        words = styled(("  ", ""), (command, "cyan"), (f"  # {meaning}", "dim"))
        console.print(words, soft_wrap=True)


@contextmanager
def options_as_typed(flags: Mapping[str, str]) -> Iterator[None]:
    """Let errors that begin with the name of a parameter begin with the option, as it is typed.

    Args:
        flags: the option of each parameter, as ``{"codec": "--codec"}``.
    """
    try:
        yield
    except UserError as error:
        name, colon, words = str(error).partition(":")
        raise UserError(f"{flags.get(name, name)}{colon}{words}") from None


@contextmanager
def interruption_hint(message: str) -> Iterator[None]:
    """Say how to go on when a person presses Ctrl-C, and exit with code 130."""
    try:
        yield
    except KeyboardInterrupt as error:
        print_note(f"Interrupted. {message}")
        raise typer.Exit(130) from error


DATA_ROOT_VARIABLE = "ZIP_PIPELINE_DATA"

DataRootOption = Annotated[
    Path,
    typer.Option(
        "--data-root",
        metavar="DIR",
        envvar=DATA_ROOT_VARIABLE,
        help="Folder of drops, pool and versions, or the address of a store of them.",
    ),
]
DEFAULT_DATA_ROOT = Path("data")


def existing_root(folder: Path, instead: str = "", *, is_shared: bool = True) -> DataRoot:
    """Return the data root at ``folder``; of the address of a store a copy, as new as it is.

    Args:
        folder: as it was typed.
        instead: what else can be done where there is none.
        is_shared: whether to take in what the store at an address has; the caller does it, else.

    Raises:
        UserError: there is no such folder, or the store fails.
    """
    if ":/" in str(folder):
        # What a store takes is loaded for an address alone.
        from zip_pipeline.store import local_folder
        from zip_pipeline.workflow.sharing import share

        if (copy := local_folder(folder)) != folder:
            if is_shared:
                share(DataRoot(copy), print_note, rests_on=None)
            return DataRoot(copy)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such data root; name one with --data-root or {DATA_ROOT_VARIABLE}, "
            f"{instead or f'or make one with: zip-pipeline sample-data {folder}'}"
        )
    return DataRoot(folder)


# A selection that will take at least so long says so before it starts.
_LONG_SECONDS = 10.0
# In fewer columns figures would be cut off, so there is no bar and less beside it.
_WIDE = 130
_BAR_WIDTH = 30


class _Done(ProgressColumn):
    """How much is done, and how much of it per second."""

    def render(self, task: Task) -> Text:
        """Return both in the unit of the task, empty for a task without steps."""
        if task.total is None:
            return Text("")
        rate = f", {task.speed:,.0f}/s" if task.speed else ""
        done = f"{task.completed:,.0f} of {task.total:,.0f} {task.fields['unit']}"
        return Text(f"{done}{rate}", style="cyan")


class StageProgress:
    """Shows the stages of a selection, one at a time.

    ``has_resumed`` tells whether it goes on from a checkpoint.
    """

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self.has_resumed = False
        self._task: TaskID | None = None
        self._phase: str | None = None

    def stage(self, description: str) -> None:
        """Show a new stage in place of the last one."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        # Columns hand rich finished text, of which it would leave some control characters out.
        self._task = self._bars.add_task(shown(description), total=None, unit="")
        self._phase = None

    def show_round(self, report: "RoundReport") -> None:
        """Show how far the rounds of the current stage have come.

        A long selection says at first how long it will take, also where nobody sees the bar.
        """
        assert self._task is not None, "rounds belong to a stage"
        if report.is_resumption:
            self.has_resumed = True
            self._bars.console.print(report.words(), soft_wrap=True)
        if report.is_estimate and (report.remaining_seconds or 0) >= _LONG_SECONDS:
            self._bars.console.print(report.words())
        if self._phase != report.phase:
            # What an earlier run had picked already must not count into the rate.
            self._bars.reset(
                self._task,
                total=report.budget,
                completed=report.used,
                unit=report.unit.replace("_", " "),
            )
            self._phase = report.phase
        description = f"{report.phase}: round {report.round}"
        if self._bars.console.width >= _WIDE:
            description += f", {counted(report.num_picked, 'sample')}"
        self._bars.update(self._task, completed=report.used, description=description)


@contextmanager
def stage_progress() -> Iterator[StageProgress]:
    """Show progress on standard error where that is a terminal."""
    console = errors()
    is_wide = console.width >= _WIDE
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *((BarColumn(bar_width=_BAR_WIDTH),) if is_wide else ()),
        _Done(),
        *((TimeElapsedColumn(),) if is_wide else ()),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        # What others print meanwhile goes where it always goes: rich would obey its control codes.
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not console.is_terminal,
    ) as bars:
        yield StageProgress(bars)
