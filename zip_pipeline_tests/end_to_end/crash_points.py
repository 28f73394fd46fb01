"""Do one write again and again, disturbed at its first, second, ... last file operation.

``python -m zip_pipeline_tests.end_to_end.crash_points ACTION BASE FOLDER HOW`` copies BASE to
``FOLDER/1``, ``FOLDER/2``, ... and does the action in each, in a forked process, to which operation
1, 2, ... brings what HOW names, until one comes through:

- ``killed``: it is killed before the operation;
- ``power_cut``: it is killed, and what was not synced is lost or torn;
- ``fails_once``: the operation fails, as of a worn disk, and later ones do not;
- ``disk_full``: it fails, and so do all that follow.

What stands in the folders is what is left.
"""

import errno
import os
import random
import shutil
import signal
import sys
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline.pool.held_out import HeldOutSettings
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.run import ROUNDS_BETWEEN, Checkpoint, Run
from zip_pipeline.workflow import comparison
from zip_pipeline.workflow.comparison import compare_model, compare_result
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.cli.commands import call
from zip_pipeline_tests.workflow.comparisons import Processes

BATCH = "a.jsonl"
# What Python reports before it creates, moves, changes or removes a file; opening one to read it
# leaves everything as it is and does not count.
OPERATIONS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod")


def publish(folder: Path, num_records: int = 2) -> None:
    """Select so many records of a file by the command.

    Raises:
        UserError: the command says what went wrong.
    """
    output = ("-o", folder / "out.jsonl", "--force", "--budget-samples", str(num_records))
    result = call("select", folder / "in.jsonl", *output)
    if result.exit_code:
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        raise UserError(result.stderr)


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
    run.picks = array("q", range(num_rounds))
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


def _before_each(folder: Path, act: Callable[[str, tuple[Any, ...]], None]) -> None:
    """Call ``act`` before each operation of this process below ``folder``, with its arguments.

    The process ends with an error where it opens a visible file to write: only a rename may make
    one.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not writes(*arguments):
            return
        if event == "open" and _is_visible(folder, *arguments):
            os._exit(1)
        if event in OPERATIONS and any(str(folder) in str(a) for a in arguments[:2]):
            act(event, arguments)

    sys.addaudithook(hook)


def _before_each_sync(act: Callable[[Path], None]) -> None:
    """Call ``act`` with what is to be synced, each time."""
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        act(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    os.fsync = synced


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(number: int, folder: Path, *, for_good: bool) -> Callable[[], bool]:
    """Let the operation of that number fail, or all from it on; writing a table is one, too.

    Return what tells whether one has failed.
    """
    num_seen = 0
    code = errno.ENOSPC if for_good else errno.EIO

    def act(*_: object) -> None:
        nonlocal num_seen
        num_seen += 1
        if num_seen == number or (for_good and num_seen > number):
            raise OSError(code, os.strerror(code), str(folder))

    write = pl.LazyFrame.sink_parquet

    def write_half(table: pl.LazyFrame, file: Any, **options: Any) -> None:
        try:
            act() if isinstance(file, Path) else None
        except OSError:
            file.write_bytes(b"PAR1")
            raise
        write(table, file, **options)

    pl.LazyFrame.sink_parquet = write_half  # type: ignore[method-assign, assignment]
    _before_each(folder, act)
    _before_each_sync(act)
    return lambda: num_seen >= number


@dataclass
class _Disk:
    """A disk that keeps what was synced, and of the rest what a draw tells, when it loses power.

    A file that was not synced since it was written may be cut or full of zeros; a name that was
    given in a folder that was not synced since may be the one before.
    """

    folder: Path
    random: random.Random
    backups: Path
    synced: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    renamed: list[tuple[Path, Path, Path | None]] = field(default_factory=list)
    is_off: bool = False

    def __post_init__(self) -> None:
        for path in self._files():
            self.sync(path)

    def _files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def sync(self, path: Path) -> None:
        """Keep the content of a file, or the names in a folder."""
        if path.is_dir():
            self.renamed = [names for names in self.renamed if names[1].parent != path]
        elif path.exists():
            self.synced[_inode(path)] = _looks(path)

    def rename(self, old: Path, new: Path) -> None:
        """Note a name that is about to be given."""
        backup = None
        if new.is_file():
            backup = self.backups / str(len(list(self.backups.iterdir())))
            os.link(new, backup)
        self.renamed.append((old, new, backup))

    def lose_power(self) -> None:
        """Lose and tear what was not synced."""
        self.is_off = True
        for path in self._files():
            if self.synced.get(_inode(path)) != _looks(path) and self.random.random() < 0.8:
                size = path.stat().st_size
                os.truncate(path, self.random.choice((0, size // 2)))
                # Blocks that were never written read as zeros.
                os.truncate(path, self.random.choice((path.stat().st_size, size)))
        for old, new, backup in reversed(self.renamed):
            if new.exists() and not old.exists() and self.random.random() < 0.5:
                new.rename(old)
                if backup is not None:
                    backup.rename(new)


def _inode(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def _looks(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


def _kill_before(number: int, folder: Path, disk: _Disk | None = None) -> None:
    """Let this process die right before its operation of that number, with the disk's power."""
    num_seen = 0

    def act(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal num_seen
        if disk is not None and disk.is_off:
            return
        num_seen += 1
        if num_seen == number:
            if disk is not None:
                disk.lose_power()
            _kill()
        if disk is not None and event == "os.rename":
            disk.rename(Path(os.fsdecode(arguments[0])), Path(os.fsdecode(arguments[1])))

    _before_each(folder, act)
    if disk is not None:
        _before_each_sync(disk.sync)


def writes(_path: object, _mode: object, flags: object) -> bool:
    """Return whether a file is opened to write, given what the event ``open`` tells."""
    assert isinstance(flags, int)
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _is_visible(folder: Path, path: object, *_: object) -> bool:
    hidden = "/." in f"/{str(path).removeprefix(str(folder))}"
    return str(folder) in str(path) and not hidden


_DISTURBED = 3


def _survives(action: Callable[[Path], None], number: int, folder: Path, how: str) -> bool:
    """Do the action in a process of its own; return whether nothing came in its way."""
    # Forked before Polars has started its threads: each child starts its own.
    child = os.fork()
    if child == 0:
        has_failed = _disturb(number, folder, how)
        try:
            action(folder)
        except (OSError, UserError):
            # Refused in words, or the bare error of the disk: never half done.
            assert has_failed()
        os._exit(_DISTURBED if has_failed() else 0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, _DISTURBED), f"operation {number}, {how}: exit code {code}"
    return code == 0


def _disturb(number: int, folder: Path, how: str) -> Callable[[], bool]:
    """Arrange what comes in this process's way; return what tells whether it has come."""
    if how in ("fails_once", "disk_full"):
        return _fail(number, folder, for_good=how == "disk_full")
    disk = None
    if how == "power_cut":
        backups = folder.parent.parent / "backups" / folder.name
        backups.mkdir(parents=True)
        disk = _Disk(folder, random.Random(number), backups)
    _kill_before(number, folder, disk)
    return lambda: False


# Actions of a second and a hundred operations; before each of them they are killed alone.
_EVERY = {"compare": 5, "publish": 3}


def main(action: str, base: Path, folder: Path, how: str) -> None:
    """Disturb an action at each of its operations, or at some of them."""
    number = 1
    shutil.copytree(base, folder / "1")
    while not _survives(ACTIONS[action], number, folder / str(number), how):
        number += 1 if how == "killed" else _EVERY.get(action, 1)
        shutil.copytree(base, folder / str(number))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
