"""The same work from the command line, without Dagster: the commands of ``zip-pipeline``."""

import importlib.metadata
from typing import Annotated

import typer

from zip_pipeline.cli import compare, export, history, inspect, plan, run, select, status
from zip_pipeline.cli.console import ReadableErrors

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


app.command("demo")(run.demo)
app.command("sample-data")(run.sample_data)
app.command("run")(run.run)
app.command("inspect")(inspect.inspect)
app.command("select")(select.select)
app.command("ratio")(select.ratio)
app.command("export")(export.export)
app.command("status")(status.status)
app.command("versions")(status.versions)
app.command("sync")(status.sync)
app.command("verify")(status.verify)
app.command("quarantine")(status.quarantine)
app.command("trace")(history.trace)
app.command("diff")(history.diff)
app.command("report")(history.report)
app.command("compare")(compare.compare)
app.command("train-plan")(plan.train_plan)


def main() -> None:
    """Run the command line."""
    app()
