"""``zip-pipeline inspect``: how a file will be read, before it is dropped."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from zip_pipeline.cli.console import new_facts, output, styled
from zip_pipeline.cli.select import reading_options, with_reading_options
from zip_pipeline.samples import Stage
from zip_pipeline.terminal_text import counted
from zip_pipeline.workflow.inspection import Inspection, inspect_file

_NUM_FILES = 20
_NUM_CHARACTERS = 1_500

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A file, a folder of files, or an address, as hf://datasets/ORG/NAME.",
        show_default=False,
    ),
]
AnyStage = Annotated[
    Stage | None,
    typer.Option(help="What the rows are.", show_default="the stage that takes more of them"),
]


@with_reading_options
def inspect(file: File, stage: AnyStage = None, **options: Any) -> None:  # noqa: ANN401
    """Show how FILE will be read, and what to say where it is read wrongly; nothing is stored."""
    _show(inspect_file(file, stage, reading_options(options)))


def _show(found: Inspection) -> None:
    console = output()
    facts = new_facts()
    if found.origin:
        facts.add_row("From", "{address}, {revision}".format_map(found.origin))
    for name, kind in list(found.files.items())[:_NUM_FILES]:
        facts.add_row("File", f"{name}: {kind}")
    if len(found.files) > _NUM_FILES:
        facts.add_row("", f"and {len(found.files) - _NUM_FILES:,} more")
    if found.left_out:
        facts.add_row("Left out", f"{', '.join(found.left_out)}: of test or validation splits")
    num_refused = sum(refusal.num_rows for refusal in found.refusals)
    rows = f"{'' if found.is_whole else 'the first '}{found.num_rows:,}"
    facts.add_row(
        "Rows",
        f"{rows} = {counted(found.num_samples, 'sample')} of {found.stage} + "
        f"{num_refused:,} refused + {counted(found.num_duplicates, 'duplicate')}",
    )
    if found.formats:
        facts.add_row("Format", _counted(found.formats, "sample"))
        facts.add_row("Read", _counted(found.fields_read, "row"))
        facts.add_row("Not read", _counted(found.fields_not_read, "row") or "nothing")
    console.print(facts)
    if found.first_sample:
        console.print(styled("\nThe first sample, as it will be read:"))
        console.print(styled((found.first_sample[:_NUM_CHARACTERS], "dim")), soft_wrap=True)
    for refusal in found.refusals:
        words = (f"\n{refusal.num_rows:,} refused: {refusal.reason}", "yellow")
        place = f", as {refusal.place}: {refusal.detail}\n"
        console.print(styled(words, place, (refusal.raw, "dim")), soft_wrap=True)
    if found.sidecar:
        console.print(styled("\nTo drop it: ", (found.sidecar, "bold")), soft_wrap=True)
    for advice in found.advice:
        console.print(styled(f"Advice: {advice}"), soft_wrap=True)


def _counted(counts: Mapping[str, int], unit: str) -> str:
    return ", ".join(f"{name} ({counted(num, unit)})" for name, num in counts.items())
