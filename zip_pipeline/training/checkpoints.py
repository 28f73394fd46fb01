"""Which checkpoints are whole."""

import shutil
from pathlib import Path

_MARK = "whole"


def mark_whole(checkpoint: Path) -> None:
    """Note that all files of a checkpoint are written."""
    (checkpoint / _MARK).touch()


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def latest_whole(folder: Path) -> Path | None:
    """Return the newest whole checkpoint; those that a killed process left in part are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=step_of)
    whole = [path for path in found if (path / _MARK).exists()]
    for path in found:
        if path not in whole:
            # Another process of the same run may be removing it too.
            shutil.rmtree(path, ignore_errors=True)
    return whole[-1] if whole else None
