"""Do one write again and again, killed before its first, second, ... last file operation.

``python -m zip_pipeline_tests.end_to_end.crash_points ACTION BASE FOLDER`` copies BASE to
``FOLDER/1``, ``FOLDER/2``, ... and does the action in each, in a forked process that is killed
before operation 1, 2, ... until one survives. What stands in the folders is what a crash leaves.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline.pool.held_out import HeldOutSettings
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.run import ROUNDS_BETWEEN, Checkpoint, Run
from zip_pipeline.workflow import comparison
from zip_pipeline.workflow.comparison import compare_model, compare_result
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.cli.commands import call_well
from zip_pipeline_tests.workflow.comparisons import Processes

BATCH = "a.jsonl"
# What Python reports before it creates, moves, changes or removes a file; opening one to read it
# leaves everything as it is and does not count.
_OPERATIONS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod")


def publish(folder: Path, num_records: int = 2) -> None:
    """Select so many records of a file by the command."""
    output = ("-o", folder / "out.jsonl", "--force", "--budget-samples", str(num_records))
    call_well("select", folder / "in.jsonl", *output)


def version(folder: Path, num_samples: int = 2) -> None:
    """Select one more version of so many samples."""
    config = SelectionConfig(strategy="zip", budget_samples=num_samples, k1=8, k2=4, k3=2)
    select_version(DataRoot(folder)["sft"], config, lambda _: None)


def batch(folder: Path) -> None:
    """Ingest the drop and measure its samples."""
    ingest_drop(DataRoot(folder)["sft"], BATCH)
    write_state(DataRoot(folder)["sft"], BATCH)


def checkpoint(folder: Path, num_rounds: int = 2 * ROUNDS_BETWEEN) -> None:
    """Store the state of a selection."""
    run = Run.start(np.ones(40_000))
    run.num_rounds = num_rounds
    run.picks = list(range(num_rounds))
    Checkpoint(folder / "selection", "key").save(run)


def freeze(folder: Path) -> None:
    """Draw the held-out set of what is ingested."""
    settings = HeldOutSettings(share=0.5, min_source_samples=1)
    with open_selection_pool(DataRoot(folder)["sft"], hold_out=settings):
        pass


def unfold(folder: Path) -> None:
    """Open a root whose batches an earlier release folded."""
    assert DataRoot(folder)["sft"].batches()


def compare(folder: Path) -> None:
    """Compare a strategy with nothing, of processes that write what they would."""
    root, changes = DataRoot(folder), {"budget_tokens": 1_000, "unseen_sources": ()}
    figures = ("distinct_1", "distinct_2", "distinct_3", "vendi", "novelsum")
    # No figure, which is a file as any other, and no diversity, which writes nothing.
    with (
        patch.object(comparison, "find_spec", lambda _: None),
        patch.object(comparison, "diversity", lambda *_: dict.fromkeys(figures, 1.0)),
    ):
        compare_model(root, "random", 0, processes_that_tell(folder), changes)
        compare_result(root, changes)


def processes_that_tell(folder: Path) -> Callable[[str, Mapping[Path, Mapping[str, Any]]], None]:
    """Return what runs jobs, and counts each in a hidden file once its result is there."""
    processes = Processes()

    def run(module: str, jobs: Mapping[Path, Mapping[str, Any]]) -> None:
        for steps, job in jobs.items():
            for step in job["steps"]:
                for job_file in step["jobs"]:
                    processes(module, {steps: {"steps": [{**step, "jobs": [job_file]}]}})
                    with (folder / ".done").open("a") as file:
                        file.write(f"{Path(job_file).relative_to(folder)}\n")

    return run


_ALL = (publish, version, batch, checkpoint, freeze, unfold, compare)
ACTIONS: dict[str, Callable[[Path], None]] = {action.__name__: action for action in _ALL}


def _kill_before(number: int, folder: Path) -> None:
    """Let this process die right before its operation of that number below ``folder``.

    It ends with an error where it opens a visible file to write: only a rename may make one.
    """
    num_seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal num_seen
        if event == "open" and not _writes(*arguments):
            return
        if event == "open" and _is_visible(folder, *arguments):
            os._exit(1)
        if event in _OPERATIONS and any(str(folder) in str(a) for a in arguments[:2]):
            num_seen += 1
            if num_seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _writes(_path: object, _mode: object, flags: object) -> bool:
    assert isinstance(flags, int)
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _is_visible(folder: Path, path: object, *_: object) -> bool:
    hidden = "/." in f"/{str(path).removeprefix(str(folder))}"
    return str(folder) in str(path) and not hidden


def _survives(action: Callable[[Path], None], number: int, folder: Path) -> bool:
    # Forked before Polars has started its threads: each child starts its own.
    child = os.fork()
    if child == 0:
        _kill_before(number, folder)
        action(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True


def main(action: str, base: Path, folder: Path) -> None:
    """Crash an action before each of its operations."""
    number = 1
    shutil.copytree(base, folder / "1")
    while not _survives(ACTIONS[action], number, folder / str(number)):
        number += 1
        shutil.copytree(base, folder / str(number))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
