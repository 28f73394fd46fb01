"""The commands of ``zip-pipeline``."""

import importlib.metadata
from typing import Annotated

import typer

from zip_pipeline.cli.console import ReadableErrors
from zip_pipeline.cli.history import diff, trace
from zip_pipeline.cli.plan import train_plan
from zip_pipeline.cli.ratio import ratio
from zip_pipeline.cli.run import demo, run, sample_data
from zip_pipeline.cli.select import select

app = typer.Typer(
    cls=ReadableErrors,
    name="zip-pipeline",
    help="Curate LLM alignment data by compression: select, explain and version training subsets.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    # Typer would print a bug's traceback on a console of its own, as it came.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zip-pipeline {importlib.metadata.version('zip-pipeline')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


app.command("demo")(demo)
app.command("sample-data")(sample_data)
app.command("run")(run)
app.command("select")(select)
app.command("ratio")(ratio)
app.command("trace")(trace)
app.command("diff")(diff)
app.command("train-plan")(train_plan)


def main() -> None:
    """Run the command line."""
    app()
