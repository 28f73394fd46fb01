"""Runs a job of training or evaluation as a process of its own, through Dagster Pipes."""

import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from zip_pipeline.defs.private import DagsterPipesExecutionError
from zip_pipeline.errors import UserError, on_disk
from zip_pipeline.files import write_json
from zip_pipeline.process import ERROR_FILE_VARIABLE

# A training process saves a checkpoint before it ends.
SECONDS_TO_STOP = 20.0


@contextmanager
def mendable() -> Iterator[None]:
    """Let an error that a person can mend fail the step with its message, without retries."""
    try:
        with on_disk():
            yield
    except UserError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


def run_modules(
    context: dg.AssetExecutionContext, module: str, jobs: Mapping[Path, Mapping[str, Any]]
) -> None:
    """Run ``python -m module --config FILE ...`` and wait for it.

    Its progress goes to the run's log while it works; a cancelled run stops it and its children.

    Args:
        context: of the asset that needs the outcome.
        module: a module that takes job files.
        jobs: the contents of each file, which is written first.

    Raises:
        Failure: the process failed; the message is the reason that it gave.
    """
    for job_file, job in jobs.items():
        write_json(job_file, job)
    with tempfile.TemporaryDirectory() as folder:
        error_file = Path(folder) / "error"
        client = dg.PipesSubprocessClient(
            env={ERROR_FILE_VARIABLE: str(error_file)},
            termination_timeout_seconds=SECONDS_TO_STOP,
        )
        command = [sys.executable, "-m", module, "--config", *map(str, jobs)]
        try:
            with warnings.catch_warnings():
                # Of Dagster's own Pipes about its own preview.
                warnings.simplefilter("ignore", dg.PreviewWarning)
                client.run(command=command, context=context)
        except DagsterPipesExecutionError as error:
            reason = str(error)
            if error_file.exists():
                reason = error_file.read_text(encoding="utf-8")
            # The cause says less than the process did.
            raise dg.Failure(f"{module}: {reason}", allow_retries=False) from None
