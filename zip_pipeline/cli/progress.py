"""A progress bar for people, silent where nobody watches."""

from collections.abc import Iterator
from contextlib import contextmanager

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
from rich.text import Text

from zip_pipeline.cli.console import errors
from zip_pipeline.selection.progress import Progress as RoundReport
from zip_pipeline.terminal_text import shown

# A selection that will take at least so long says so before it starts.
LONG_SECONDS = 10.0


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
    """Shows the stages of a selection, one at a time."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._phase: str | None = None

    def stage(self, description: str) -> None:
        """Show a new stage in place of the last one."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        # Columns hand rich finished text, of which it would leave some control characters out.
        self._task = self._bars.add_task(shown(description), total=None, unit="")
        self._phase = None

    def show_round(self, report: RoundReport) -> None:
        """Show how far the rounds of the current stage have come.

        A long selection says at first how long it will take, also where nobody sees the bar.
        """
        assert self._task is not None, "rounds belong to a stage"
        if report.is_estimate and (report.remaining_seconds or 0) >= LONG_SECONDS:
            self._bars.console.print(report.words())
        if self._phase != report.phase:
            # What an earlier run had picked already must not count into the rate.
            self._bars.reset(
                self._task, total=report.budget, completed=report.used, unit=report.unit
            )
            self._phase = report.phase
        description = f"{report.phase}: round {report.round}, {report.num_picked:,} samples"
        self._bars.update(self._task, completed=report.used, description=description)


@contextmanager
def stage_progress() -> Iterator[StageProgress]:
    """Show progress on standard error where that is a terminal."""
    console = errors()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        _Done(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # What others print meanwhile goes where it always goes: rich would obey its control codes.
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not console.is_terminal,
    ) as bars:
        yield StageProgress(bars)
