"""``zip-pipeline compare``: which strategy is worth using on this pool."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

import typer

from zip_pipeline.cli.console import (
    DEFAULT_DATA_ROOT,
    DataRootOption,
    existing_root,
    interruption_hint,
    new_table,
    options_as_typed,
    output,
    print_next,
    print_note,
    words_of_seconds,
)
from zip_pipeline.cli.summary import root_option
from zip_pipeline.compression.sets import worker_count
from zip_pipeline.errors import UserError
from zip_pipeline.files import write_json
from zip_pipeline.process import ERROR_FILE_VARIABLE, FAULT
from zip_pipeline.report.comparison import words_of_skips
from zip_pipeline.samples import Stage
from zip_pipeline.selection.config import as_typed_budget
from zip_pipeline.settings import SETTINGS_FILE
from zip_pipeline.workflow.comparison import (
    FIGURES,
    compare_model,
    compare_result,
    compare_subset,
)
from zip_pipeline.workflow.comparison_plan import MAX_SEEDS, ComparisonSettings, open_comparison

# Each takes some two gigabytes.
_MOST_RUNS = 4


def _about(name: str) -> str:
    return ComparisonSettings.about(name)


def compare(
    data_root: DataRootOption = DEFAULT_DATA_ROOT,
    stage: Annotated[Stage, typer.Option(help="Whose pool, and which training.")] = "sft",
    strategies: Annotated[
        str | None, typer.Option(metavar="A,B+MIXTURE", help=_about("strategies"))
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=MAX_SEEDS, help=_about("seeds"))
    ] = None,
    budget_tokens: Annotated[
        str | None, typer.Option(metavar="N|SHARE%", help=_about("budget_tokens"))
    ] = None,
    unit: Annotated[
        Literal["tokens", "target_tokens"] | None, typer.Option(help=_about("unit"))
    ] = None,
    target: Annotated[
        Path | None, typer.Option(metavar="FILE", help=_about("target"), dir_okay=False)
    ] = None,
    evaluation_samples: Annotated[
        int | None, typer.Option(metavar="N", min=2, help=_about("evaluation_samples"))
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Runs at a time, which share the cores. If not given, one for each core and at "
            f"most {_MOST_RUNS} with the model tiny, else one.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compare strategies on a pool: equal budgets, identical training, several seeds.

    Options replace those of DIR/zip_pipeline.toml: the table comparison, for pairs
    preference_comparison. What is finished is kept under DIR/comparison: a comparison that was
    stopped goes on, and one with more strategies or seeds trains only these.
    """
    root = existing_root(data_root)
    given = {
        "strategies": tuple(map(str.strip, strategies.split(","))) if strategies else None,
        "seeds": seeds,
        "budget_tokens": as_typed_budget(budget_tokens) if budget_tokens else None,
        "unit": unit,
        "target": str(target.resolve()) if target else None,
        "evaluation_samples": evaluation_samples,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with options_as_typed({name: f"--{name.replace('_', '-')}" for name in given}):
        comparison = open_comparison(root, changes, print_note, stage=stage)
    wanted = comparison.wanted().items()
    todo = [what for run, what in wanted if not (run / FIGURES).exists()]
    usual = min(worker_count(0), _MOST_RUNS) if comparison.is_tiny else 1
    num_workers = worker_count(workers or usual, "--workers", print_note)
    run_jobs = partial(run_modules, num_threads=max(1, worker_count(0) // num_workers))
    selecting = Lock()

    def run(what: tuple[str, int]) -> dict[str, Any]:
        # One after another: a selection takes all cores, and memory for the whole pool.
        with selecting:
            compare_subset(root, *what, changes, stage=stage)
        return compare_model(root, *what, run_jobs, changes, stage=stage)

    with interruption_hint("Run the command again: what is finished is kept."):
        _run_all(todo, run, num_workers)
    result = compare_result(root, changes, stage=stage)
    for header, rows in result.shown:
        table = new_table(*header)
        for row in rows:
            table.add_row(*row)
        output().print(table)
    for line in (*words_of_skips(result.skipped), *result.notes):
        output().print(line, soft_wrap=True)
    output().print(f"\n{result.conclusion}", style="bold", soft_wrap=True)
    for line in result.certainty:
        output().print(line, soft_wrap=True)
    output().print()
    output().print(f"Tables and figures: {result.folder}", soft_wrap=True)
    if result.settings:
        file = root.path / SETTINGS_FILE
        words = f"To use it, let these lines stand in {file}, for any of their names there:"
        output().print(f"\n{words}\n\n{result.settings}", soft_wrap=True)
        command = f"zip-pipeline run --until subset{root_option(root)}"
        print_next(output(), {command: "select with them"})


def _run_all(
    todo: Sequence[tuple[str, int]],
    run: Callable[[tuple[str, int]], dict[str, Any]],
    num_workers: int,
) -> None:
    """Do all runs, some at a time, and tell of each that is done.

    One that fails does not keep the others from being done; then its error is raised.
    """
    started = time.monotonic()
    failed: list[Exception] = []
    skips: set[tuple[str, str]] = set()
    with ThreadPoolExecutor(num_workers) as executor:
        whats = {executor.submit(run, what): what for what in todo}
        try:
            for number, future in enumerate(as_completed(whats), start=1):
                name, seed = whats[future]
                try:
                    found = future.result()
                    words = "done"
                    if (reason := found.get("skipped")) is not None:
                        is_told = (name, reason) in skips
                        words = "skipped as before" if is_told else f"skipped, {reason}"
                        skips.add((name, reason))
                except (UserError, RuntimeError) as error:
                    failed.append(error)
                    words = f"failed, {error}"
                seconds = (time.monotonic() - started) / number * (len(todo) - number)
                left = f"; about {words_of_seconds(seconds)} remain" if seconds else ""
                print_note(f"{number} of {len(todo)}, {name}, seed {seed}: {words}{left}")
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
    if failed:
        raise failed[0]


def run_modules(
    module: str, jobs: Mapping[Path, Mapping[str, Any]], num_threads: int | None = None
) -> None:
    """Write job files and run ``python -m MODULE`` over them to its end; it prints nothing.

    Args:
        module: a module that takes job files.
        jobs: the contents of each file.
        num_threads: how many threads it computes with, unless the environment says so.

    Raises:
        UserError: the process says what a person can mend.
    """
    for job_file, job in jobs.items():
        write_json(job_file, job)
    command = [sys.executable, "-m", module, "--config", *map(str, jobs)]
    threads = {"OMP_NUM_THREADS": str(num_threads)} if num_threads else {}
    with tempfile.TemporaryDirectory() as folder:
        reason = Path(folder) / "error"
        done = subprocess.run(
            command,
            env=threads | os.environ | {ERROR_FILE_VARIABLE: str(reason)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode == FAULT and reason.exists():
            raise UserError(reason.read_text(encoding="utf-8"))
    if done.returncode:
        words = done.stderr.decode("utf-8", "backslashreplace")
        raise RuntimeError(f"{module} ended with exit code {done.returncode}: {words}")
