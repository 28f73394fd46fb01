"""The same work from the command line, without Dagster: the commands of ``zip-pipeline``."""

import importlib
import importlib.metadata
from collections import UserDict
from typing import Annotated, Any

import typer

from zip_pipeline.cli.console import ReadableErrors

_MODULES = {
    "demo": "run",
    "sample-data": "run",
    "run": "run",
    "inspect": "inspect",
    "select": "select",
    "ratio": "select",
    "export": "export",
    "status": "status",
    "versions": "status",
    "sync": "status",
    "verify": "status",
    "quarantine": "status",
    "trace": "history",
    "diff": "history",
    "report": "history",
    "compare": "compare",
    "train-plan": "plan",
}
_OPTIONS: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": "rich",
    # Typer would print a bug's traceback on a console of its own, as it came.
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class _Commands(UserDict[str, Any]):
    """Commands by name; the module of one is loaded when the command is asked for.

    To load all of them takes longer than a trace does.
    """

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        if name not in self.data:
            module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
            alone = typer.Typer(**_OPTIONS)
            alone.command(name)(getattr(module, name.replace("-", "_")))
            self.data[name] = typer.main.get_command(alone)
        return self.data[name]

    def __iter__(self) -> Any:  # noqa: ANN401
        return iter(_MODULES | self.data)

    def __len__(self) -> int:
        return len(_MODULES | self.data)

    def __contains__(self, name: object) -> bool:
        return name in _MODULES or name in self.data


class _Group(ReadableErrors):
    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.commands = _Commands(self.commands)


app = typer.Typer(
    cls=_Group,
    name="zip-pipeline",
    help="Curate LLM alignment data by compression: select, explain and version training subsets.",
    no_args_is_help=True,
    **_OPTIONS,
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


def main() -> None:
    """Run the command line."""
    app()
