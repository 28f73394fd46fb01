"""How command line tests call the commands."""

from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from zip_pipeline.cli import app

WIDTH = "120"


def call(*arguments: str | Path) -> Result:
    """Call ``zip-pipeline`` in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": WIDTH})


def call_well(*arguments: str | Path) -> str:
    """Call ``zip-pipeline``, which must succeed, and return what it printed."""
    result = call(*arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


def call_badly(*arguments: str | Path) -> str:
    """Call ``zip-pipeline``, which must refuse in one line, and return that line."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")
