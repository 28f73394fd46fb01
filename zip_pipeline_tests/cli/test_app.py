"""The commands as a whole."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from zip_pipeline_tests.cli.commands import call, call_well

_COMMANDS = (
    *("sample-data", "run", "select", "ratio", "export", "trace", "diff", "report", "train-plan"),
)


def test_version_is_that_of_the_package():
    """--version prints the installed version."""
    assert call_well("--version") == f"zip-pipeline {version('zip-pipeline')}\n"


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_explains_each_command(command: str):
    """Every command is in the overview with a sentence, and explains itself."""
    assert command in call_well("--help")
    own = call_well(command, "--help")
    assert "Usage:" in own
    assert len(own) > 300


def test_without_arguments_the_commands_are_shown():
    """Calling nothing shows what there is to call."""
    assert all(command in call().output for command in _COMMANDS)


def test_an_unknown_command_is_refused():
    """An unknown command is a usage error."""
    result = call("selekt")
    assert result.exit_code == 2
    assert "No such command 'selekt'. Did you mean 'select'?" in " ".join(result.stderr.split())


def test_command_line_loads_neither_dagster_nor_torch():
    """The command line starts without Dagster, torch, transformers and matplotlib."""
    code = (
        "import sys, zip_pipeline.cli; "
        "print([m for m in ('dagster', 'torch', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_command_loads_no_other():
    """A trace needs none that train, compare or select; they take longer to load than it does."""
    code = (
        "import sys, typer; from zip_pipeline.cli import app; group = typer.main.get_command(app); "
        "assert group.get_command(None, 'trace').name == 'trace'; "
        "print([m for m in sys.modules if m.startswith(('zip_pipeline.workflow.co', "
        "'zip_pipeline.training.plan', 'zip_pipeline.report.page', 'zip_pipeline.selection.run', "
        "'zip_pipeline.store'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_closed_pipe_ends_quietly():
    """A reader that goes away, as head does, leaves no traceback."""
    command = [sys.executable, "-m", "zip_pipeline.cli", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
