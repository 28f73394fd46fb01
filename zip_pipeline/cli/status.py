"""``versions``, ``status``, ``sync``, ``verify`` and ``quarantine``: what a data root holds."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.text import Text

from zip_pipeline.cli.console import (
    DEFAULT_DATA_ROOT,
    DataRootOption,
    existing_root,
    new_facts,
    new_table,
    output,
    print_error,
    print_next,
    print_note,
    styled,
)
from zip_pipeline.cli.history import AnyStage
from zip_pipeline.cli.summary import root_option, words_of_budget, words_of_verdict
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.terminal_text import counted
from zip_pipeline.workflow import integrity
from zip_pipeline.workflow.sharing import (
    clean_store,
    no_store,
    remove_batch,
    share,
    store_status,
)
from zip_pipeline.workflow.sources import words_of_quarantine
from zip_pipeline.workflow.status import (
    StageStatus,
    StoredRow,
    prometheus_text,
    quarantined,
    stage_status,
    stored,
)

_GRAPH = "zip_pipeline.defs.headless"
_SECONDS_FOR_HISTORY = 30
_NUM_NAMES = 5
_NUM_CHARACTERS = 160


def versions(stage: AnyStage = None, data_root: DataRootOption = DEFAULT_DATA_ROOT) -> None:
    """List all versions: date, strategy, budget, R, L, Z and the law's verdict.

    R is raw / compressed bytes of the subset, higher = more redundant; L the loss of the probe,
    higher = less consistent; Z the quality of the trained model, higher = better.
    """
    root, console = existing_root(data_root), output()
    for one in STAGES if stage is None else (stage,):
        console.rule(styled((one, "bold")), align="left")
        rows = stored(root, one)
        if not rows:
            console.print("No version was selected yet.\n")
            continue
        table = new_table("", "of", "strategy", "budget", left=4)
        for name in ("R", "L", "Z"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("verdict", overflow="fold")
        for row in rows:
            table.add_row(*_version(row))
        console.print(table)
        for before, after in itertools.pairwise(rows[-2:]):
            pair = f"{before.number} {after.number} --stage {one}"
            command = f"zip-pipeline diff {pair}{root_option(root)}"
            print_next(console, {command: "what came in and what went out"})


def _version(row: StoredRow) -> tuple[str | Text, ...]:
    law = row.law or {}
    measures = (row.redundancy, law.get("L"), law.get("Z"))
    return (
        str(row.number),
        row.created_at[:10],
        row.strategy,
        words_of_budget(row.budget),
        *("-" if value is None else f"{value:.3f}" for value in measures),
        words_of_verdict(law) if law.get("verdict") else "-",
    )


Prometheus = Annotated[
    bool, typer.Option("--prometheus", help="Print figures as Prometheus reads them instead.")
]


def status(
    stage: AnyStage = None,
    data_root: DataRootOption = DEFAULT_DATA_ROOT,
    prometheus: Prometheus = False,
) -> None:
    """Say what is pending: drops, a new version, probe and training; and what failed last."""
    root, console = existing_root(data_root), output()
    if prometheus:
        typer.echo(prometheus_text(root, STAGES if stage is None else (stage,)), nl=False)
        return
    due = False
    for one in STAGES if stage is None else (stage,):
        found = stage_status(root, one)
        console.rule(styled((one, "bold")), align="left")
        facts = new_facts()
        for name, words in (("Drops", _drops(found)), ("Pool", _pool(found)), *_newest(found)):
            facts.add_row(name, words)
        console.print(facts)
        due |= found.is_due
    for line in _store(root):
        console.print(styled(("Store", "bold"), f" {line}"), soft_wrap=True)
    for line in _failures(root):
        console.print(styled(("Failed", "bold red"), f" {line}"), soft_wrap=True)
    if due:
        command = f"zip-pipeline run{root_option(root)}"
        print_next(console, {command: "do what is pending"})


def _drops(found: StageStatus) -> str:
    parts = [
        f"{counted(len(names), 'drop')} {words}: {_some(names)}"
        for words, names in (
            ("not ingested", found.new_drops),
            ("changed since its ingestion", found.changed_drops),
            ("unusable", [f"{name} ({why})" for name, why in found.unusable.items()]),
        )
        if names
    ]
    return "; ".join(parts) or "all are ingested"


def _some(names: list[str]) -> str:
    more = ", …" if len(names) > _NUM_NAMES else ""
    return ", ".join(names[:_NUM_NAMES]) + more


def _pool(found: StageStatus) -> str:
    quarantined = f", {found.num_quarantined:,} quarantined" if found.num_quarantined else ""
    size = f"{counted(found.num_samples, 'sample')} in {counted(found.num_batches, 'batch')}"
    return f"{size}{quarantined}"


def _newest(found: StageStatus) -> list[tuple[str, str | Text]]:
    if found.newest is None:
        return [("Version", "none yet")]
    law, what = found.newest.law or {}, f"{found.newest.number} of {found.newest.created_at[:10]}"
    state: tuple[str, str] = ("current", "green")
    if found.trouble:
        state = (f"unknown whether current: {found.trouble}", "red")
    elif not found.is_current:
        state = ("not current: pool or settings changed since, a new one is due", "yellow")
    verdict = words_of_verdict(law) if law.get("verdict") else "not asked yet"
    quality = "not trained" if law.get("Z") is None else f"trained, Z {law['Z']:.3f}"
    return [("Version", styled(f"{what}, ", state)), ("Law", verdict), ("Model", quality)]


def _store(root: DataRoot) -> Iterator[str]:
    """Yield how the data root stands to its store, nothing where it has none."""
    try:
        found = store_status(root)
    except UserError as error:
        yield f"unknown: {error}"
        return
    if found is not None:
        behind = counted(found.num_behind, "step") + " behind" if found.num_behind else "up to date"
        waiting = f"; not published yet: {_some([*found.waiting])}" if found.waiting else ""
        yield f"{found.url}: {behind}{waiting}"


def _failures(root: DataRoot) -> list[str]:
    """Return what failed last by Dagster's history, nothing where there is none at hand."""
    has_history = "DAGSTER_HOME" in os.environ or Path(".dagster").is_dir()
    if not has_history or find_spec("dagster") is None:
        return []
    command = [sys.executable, "-m", _GRAPH, "--data-root", str(root.path), "--failures"]
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=_SECONDS_FOR_HISTORY
        )
    except subprocess.TimeoutExpired:
        return [f"unknown: the history did not answer within {_SECONDS_FOR_HISTORY} s"]
    if done.returncode:
        reason = done.stderr.decode("utf-8", "backslashreplace").strip().rpartition("\n")[2]
        return [f"unknown: {reason}"]
    return done.stdout.decode("utf-8", "backslashreplace").splitlines()


Remove = Annotated[
    str | None,
    typer.Option(
        metavar="DROP",
        help="Take the batch of a drop out of the pool, here and for all who share the store.",
        show_default=False,
    ),
]
Clean = Annotated[
    bool,
    typer.Option("--clean", help="Remove files of the store that nothing has named for two days."),
]


def sync(
    data_root: DataRootOption = DEFAULT_DATA_ROOT,
    remove: Remove = None,
    stage: AnyStage = None,
    clean: Clean = False,
) -> None:
    """Take in what the store of the table [store] has, and publish what it lacks.

    `zip-pipeline run` and the graph do so by themselves, before and after each step.
    """
    root, console = existing_root(data_root, is_shared=remove is not None), output()
    if remove is not None:
        known = [one for one in STAGES if stage in (None, one) and remove in root[one].batches()]
        if len(known) > 1:
            raise UserError(f"--remove: both stages have {remove!r}; name one by --stage")
        remove_batch(root[known[0] if known else stage or "sft"], remove, print_note)
        console.print(f"{remove}: removed from the pool.", soft_wrap=True)
    if clean:
        num_removed, num_waiting = clean_store(root, print_note)
        console.print(
            f"{counted(num_removed, 'file')} that nothing names removed from the store; "
            f"{num_waiting} wait for a day or two."
        )
    if not remove and not clean:
        share(root, print_note)
        found = store_status(root)
        if found is None:
            raise no_store(root)
        words = f"{found.url}: at entry {found.entry}, nothing to take in or publish."
        console.print(words, soft_wrap=True)


def verify(stage: AnyStage = None, data_root: DataRootOption = DEFAULT_DATA_ROOT) -> None:
    """Check that versions, batches and models are as they were written, by their hashes.

    What was changed, is missing or was added is named with the remedy; the exit code is then 2.
    """
    root = existing_root(data_root)
    found = integrity.verify(root, *(() if stage is None else (stage,)))
    for line in found.damages:
        print_error(line)
    console, names = output(), [path.relative_to(root.path).as_posix() for path in found.not_hashed]
    if names:
        words = f"not hashed, since an earlier release wrote it: {counted(len(names), 'file')}: "
        console.print(f"{words}{_some(names)}", soft_wrap=True)
    if found.damages:
        raise typer.Exit(2)
    console.print(f"{counted(found.num_files, 'file')} checked: all are as they were written.")


Drop = Annotated[
    str | None,
    typer.Argument(metavar="DROP", help="Only the rows of this drop.", show_default=False),
]
Reason = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Only rows of this reason, as invalid_json.", show_default=False
    ),
]
Limit = Annotated[int, typer.Option(metavar="N", min=1, help="Rows to print of each stage.")]


def quarantine(
    drop: Drop = None,
    stage: AnyStage = None,
    data_root: DataRootOption = DEFAULT_DATA_ROOT,
    reason: Reason = None,
    limit: Limit = 20,
) -> None:
    """Name the rows that are no samples: file, row, reason, and the row as it came."""
    root = existing_root(data_root)
    stages = STAGES if stage is None else (stage,)
    known = {one: root[one].batches() for one in stages}
    if drop is not None and not any(drop in batches for batches in known.values()):
        names = _some([name for batches in known.values() for name in batches]) or "none"
        raise UserError(f"DROP: {drop!r} is not ingested; ingested are {names}")
    for one in stages:
        if drop is None or drop in known[one]:
            _show_quarantine(root, one, drop, reason, limit)


def _show_quarantine(
    root: DataRoot, stage: Stage, drop: str | None, reason: str | None, limit: int
) -> None:
    rows, console = quarantined(root[stage], drop), output()
    console.rule(styled((stage, "bold")), align="left")
    if reason is not None:
        rows = _of_reason(rows, reason)
    if rows.is_empty():
        console.print("No row is quarantined.\n")
        return
    console.print(f"{counted(rows.height, 'row')}: {words_of_quarantine(rows)}\n", soft_wrap=True)
    for row in rows.head(limit).iter_rows(named=True):
        inside = "" if row["batch"] == row["source_file"] else f"{row['batch']}: "
        place = f"{inside}{row['source_file']} row {row['source_row']}"
        told = (f": {row['reason'].replace('_', ' ')}", "yellow")
        console.print(styled((place, "bold"), told, f", {row['detail']}"), soft_wrap=True)
        raw = " ".join(str(row["raw"]).split())
        more = " …" if len(raw) > _NUM_CHARACTERS else ""
        console.print(styled((f"  {raw[:_NUM_CHARACTERS]}{more}", "dim")), soft_wrap=True)
    if rows.height > limit:
        rest = counted(rows.height - limit, "more row")
        console.print(f"\n{rest}; --limit {rows.height} prints all")


def _of_reason(rows: pl.DataFrame, reason: str) -> pl.DataFrame:
    name = reason.replace(" ", "_")
    found = rows.filter(reason=name)
    if found.is_empty() and rows.height:
        known = ", ".join(sorted(rows["reason"].unique()))
        raise UserError(f"--reason: got {reason!r}; the reasons there are {known}")
    return found
