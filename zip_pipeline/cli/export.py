"""``zip-pipeline export``: a version as the files that a trainer takes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from zip_pipeline.cli.console import (
    DEFAULT_DATA_ROOT,
    DataRootOption,
    existing_root,
    new_facts,
    output,
    styled,
    words_of_bytes,
)
from zip_pipeline.errors import UserError
from zip_pipeline.report.exports import FORMATS, words_of_losses, words_of_unread
from zip_pipeline.samples import Stage
from zip_pipeline.workflow.exports import CARD, Export, check_repository, export_version

FormatName: Any = Literal[tuple(FORMATS)]
ABOUT_FORMATS = "; ".join(f"{name}: {kind.about}" for name, kind in FORMATS.items())


def export(
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Version number.")],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to write; made where there is none.")
    ],
    to: Annotated[FormatName, typer.Option("--to", help=f"{ABOUT_FORMATS}.")],
    stage: Annotated[Stage, typer.Option(help="Whose version.")] = "sft",
    data_root: DataRootOption = DEFAULT_DATA_ROOT,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an earlier export in DIR, or write beside others."),
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(
            "--push",
            metavar="ORG/NAME",
            help="Upload DIR to this data set repository of the Hugging Face hub, in one commit; "
            "a new repository is private.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="With --push: show what would be uploaded, send nothing."),
    ] = False,
) -> None:
    """Write a VERSION into DIR as a trainer takes it, with the file that points the trainer there.

    What a format has no place for is refused or left out, and counted.
    """
    if dry_run and push is None:
        raise UserError("--dry-run: is for --push ORG/NAME, which is not given")
    if push is not None:
        check_repository(push)
    written = export_version(existing_root(data_root), stage, version, to, folder, force=force)
    console = output()
    show_export(console, written)
    if push is None:
        return
    address = written.push(push, dry_run=dry_run)
    if not dry_run:
        console.print(f"Uploaded: {address}", soft_wrap=True)
        return
    console.print(f"\nWould upload to {address}, as the commit {written.title!r}:", soft_wrap=True)
    facts = new_facts()
    for name in written.files:
        facts.add_row(f"  {name}", words_of_bytes((folder / name).stat().st_size))
    console.print(facts)
    console.print(styled((f"\n{CARD}", "bold")))
    console.print((folder / CARD).read_text(encoding="utf-8"), soft_wrap=True)


def show_export(console: Console, written: Export) -> None:
    """Show what was written where, what was not, and how to use it."""
    facts = new_facts()
    facts.add_row("Exported", f"{written.title} to {written.folder}")
    for table in written.tables:
        facts.add_row(table.name, f"{len(table.rows):,} rows")
        for words in words_of_losses(table):
            facts.add_row("", styled((words, "yellow")))
    if written.unread:
        words = f"{words_of_unread(written.unread)}, of the whole pool"
        facts.add_row("not read", styled((words, "yellow")))
    for name, use in written.uses.items():
        facts.add_row(f"Use {name}", use)
    console.print(facts, soft_wrap=True)
