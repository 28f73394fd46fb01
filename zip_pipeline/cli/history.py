"""``zip-pipeline trace``, ``diff`` and ``report``: what happened, and why."""

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

from zip_pipeline.cli.console import (
    DEFAULT_DATA_ROOT,
    DataRootOption,
    existing_root,
    new_facts,
    new_table,
    output,
    styled,
    words_of_bytes,
)
from zip_pipeline.report.fates import VersionDiff, diff_versions, fate_label
from zip_pipeline.report.trace import Trace, trace_in_ledger, trace_sample
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.terminal_text import counted, shown_in_cell

_NUM_TEXT_CHARACTERS = 400
_NUM_COMPARED_CHARACTERS = 4000
_NUM_SOURCES = 20
_COLOURS = {"picked": "green", "in": "green", "out": "red", "added": "green", "removed": "red"}

SampleId = Annotated[
    str,
    typer.Argument(
        metavar="SAMPLE_ID",
        help="32 hexadecimal digits, or at least the first 6; ledgers and subsets have them in "
        "the column sample_id. Or FILE:ROW, where the sample stands.",
    ),
]
AnyStage = Annotated[Stage | None, typer.Option(help="Where to look.", show_default="both")]
OneStage = Annotated[Stage, typer.Option(help="Whose versions.")]
SelectLedger = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Look in a .ledger.parquet that [bold]select[/] wrote, instead of the data root.",
        show_default=False,
    ),
]
_OF_SELECT = "or the ledger that `select` wrote with --select-ledger"
Before = Annotated[int, typer.Argument(metavar="BEFORE", min=1, help="Number of a version.")]
After = Annotated[int, typer.Argument(metavar="AFTER", min=1, help="Number of another one.")]
Listed = Annotated[
    Literal["in", "out", "stayed"] | None,
    typer.Option(
        "--list",
        help="Print only these samples, one per line: id, source, place, fate before, fate after, "
        "and why it was not picked.",
        show_default=False,
    ),
]


def trace(
    sample_id: SampleId,
    stage: AnyStage = None,
    data_root: DataRootOption = DEFAULT_DATA_ROOT,
    select_ledger: SelectLedger = None,
) -> None:
    """Say where a sample came from, and its fate in each version and why."""
    if select_ledger is not None:
        found = trace_in_ledger(select_ledger, sample_id)
    else:
        stages = STAGES if stage is None else (stage,)
        found = trace_sample(existing_root(data_root, _OF_SELECT), sample_id, stages)
    _show_trace(output(), found)


def _show_trace(console: Console, found: Trace) -> None:
    stage = f" {found.stage}" if found.stage else ""
    console.print(styled((f"Sample {found.sample_id}", "bold"), stage))
    if found.text is not None:
        text = found.text[:_NUM_TEXT_CHARACTERS].rstrip()
        more = " …" if len(found.text) > len(text) + 1 else ""
        console.print(f"\n{text}{more}", style="dim")
    console.print("\nWhere it came from", style="bold")
    facts = new_facts()
    for origin in found.origins:
        file = "" if origin.source_file == origin.batch else f"{origin.source_file}, "
        place = f"{file}row {origin.source_row}"
        if origin.source is not None:
            place += f" (source {origin.source})"
        note = (f" {origin.note}", "yellow") if origin.note else ""
        facts.add_row(f"  {origin.batch}", styled(place, note))
    console.print(facts)
    console.print("\nIts fate", style="bold")
    facts = new_facts()
    for fate in found.fates:
        facts.add_row(f"  {fate.selection}", styled((fate.why, _colour(fate.fate))))
    if not found.fates:
        facts.add_row("  ", "no version was selected yet")
    console.print(facts)
    for other_id, other in found.others.items():
        console.print("\nBeside the sample that took part in its place", style="bold")
        table = new_table("", f"this sample, {found.sample_id[:12]}", other_id[:12])
        for line in zip_longest(
            *(_lines(text) for text in (found.text or "", other)), fillvalue=""
        ):
            is_same = line[0] == line[1]
            table.add_row(
                "" if is_same else "≠", *(styled((cell, "dim" * is_same)) for cell in line)
            )
        console.print(table)


def _lines(text: str) -> list[str]:
    """Return the lines of the begin of a text."""
    return text[:_NUM_COMPARED_CHARACTERS].splitlines()


def _colour(kind: str) -> str:
    return _COLOURS.get(kind, "default")


def diff(
    before: Before,
    after: After,
    stage: OneStage = "sft",
    data_root: DataRootOption = DEFAULT_DATA_ROOT,
    listed: Listed = None,
) -> None:
    """Compare two versions: samples and sources in, out and stayed."""
    difference = diff_versions(existing_root(data_root)[stage].versions, before, after)
    if listed is not None:
        for row in difference.samples.filter(change=listed).iter_rows(named=True):
            place = f"{row['source_file']}:{row['source_row']}"
            fates = (row["fate_before"], row["fate_after"], row["why"] or "")
            fields = (row["sample_id"], row["source"], place, *fates)
            print("\t".join(shown_in_cell(field) for field in fields))
        return
    console = output()
    console.print(f"{stage}: version {before} → version {after}\n", style="bold")
    facts = new_facts()
    for change in ("in", "out", "stayed"):
        samples = difference.samples.filter(change=change)
        size = f", {words_of_bytes(int(samples['num_bytes'].sum()))}"
        facts.add_row(change, styled((counted(samples.height, "sample"), _colour(change)), size))
    console.print(facts)
    _show_reasons(console, difference)
    _show_settings(console, difference)
    _show_sources(console, difference)


def _show_reasons(console: Console, difference: VersionDiff) -> None:
    """Show what became of the samples that moved in the version that did not pick them."""
    reasons = difference.reasons()
    if reasons.is_empty():
        return
    table = new_table("", "samples", "in the other version", "for example", left=4)
    for row in reasons.iter_rows(named=True):
        change = row["change"]
        example = f"{row['sample_id'][:12]}: {row['why']}"
        name = (change, _colour(change))
        table.add_row(styled(name), f"{row['num_samples']:,}", fate_label(row["fate"]), example)
    console.print(table)


def _show_settings(console: Console, difference: VersionDiff) -> None:
    measured = [_measured(manifest) for manifest in (difference.before, difference.after)]
    rows: list[tuple[str, str, str | Text]] = [
        *difference.settings,
        *(
            (name, old, measured[1].get(name, ""))
            for name, old in measured[0].items()
            if old != measured[1].get(name)
        ),
    ]
    rows += [
        (f"batch {name}", "", styled((change, _COLOURS.get(change, "yellow"))))
        for name, change in difference.batches.iter_rows()
    ]
    if not rows:
        console.print("\nSame configuration, same input batches.")
        return
    table = new_table("", "before", "after", left=3)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _measured(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return what was measured of a version in words."""
    ratios = manifest["compression_ratio"].items()
    return {
        **{f"R of subset, {codec}": f"{ratio:.3f}" for codec, ratio in ratios},
        "samples in the pool": f"{manifest['num_samples']:,}",
    }


def _show_sources(console: Console, difference: VersionDiff) -> None:
    table = new_table("source", "", "before", "after", "in", "out", "stayed", left=2)
    for row in difference.sources.head(_NUM_SOURCES).iter_rows(named=True):
        change = row["change"]
        word = styled(({"in": "new", "out": "gone"}.get(change, ""), _colour(change)))
        numbers = (row[f"num_{name}"] for name in ("before", "after", "in", "out", "stayed"))
        table.add_row(row["source"], word, *(f"{number:,}" for number in numbers))
    console.print(table)
    num_more = difference.sources.height - _NUM_SOURCES
    if num_more > 0:
        console.print(f"{counted(num_more, 'more source')} moved less.")


LatestVersion = Annotated[
    int | None,
    typer.Argument(metavar="[V]", min=1, help="Version number.", show_default="the latest"),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="DIR", help="Where to.", show_default="reports/STAGE of the root"
    ),
]


def report(
    version: LatestVersion = None,
    stage: OneStage = "sft",
    data_root: DataRootOption = DEFAULT_DATA_ROOT,
    folder: ReportFolder = None,
) -> None:
    """Write a page on a version that opens in any browser, and a data card for hubs beside it."""
    # Here, as it takes as long to load as a trace takes.
    from zip_pipeline.workflow.reports import write_report

    written = write_report(existing_root(data_root), stage, version, folder=folder)
    console = output()
    console.print(styled((f"{stage} version {written.version}: ", "bold"), written.verdict))
    facts = new_facts()
    for name in ("page", "card", "croissant"):
        facts.add_row(f"  {name}", str(getattr(written, name)))
    console.print(facts)
