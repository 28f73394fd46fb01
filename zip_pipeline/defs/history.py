"""Where the history of headless runs lies, and whose it is."""

import os
from pathlib import Path

import dagster as dg

HISTORY_NOTE = Path(".dagster") / "data_root"


def open_instance(folder: Path) -> dg.DagsterInstance:
    """Return the instance that ``dg dev``, started in ``folder``, shows.

    That of DAGSTER_HOME where it is set, else that of ``folder/dagster.yaml``.

    Raises:
        ValueError: there is neither.
    """
    if os.environ.get("DAGSTER_HOME"):
        return dg.DagsterInstance.get()
    if not (folder / "dagster.yaml").exists():
        raise ValueError(
            f"{folder}: no dagster.yaml, so there is no place for the history; run this in the "
            "project's folder or set DAGSTER_HOME"
        )
    return dg.DagsterInstance.from_config(str(folder))


def claim_history(folder: Path, data_root: Path) -> None:
    """Note whose history ``folder/.dagster`` is; refuse to mix it with another data root's.

    Where DAGSTER_HOME is set, the history is its owner's business.

    Raises:
        ValueError: it holds the history of another data root.
    """
    if os.environ.get("DAGSTER_HOME"):
        return
    note, mine = folder / HISTORY_NOTE, os.path.relpath(data_root.resolve(), folder.resolve())
    known = note.read_text(encoding="utf-8") if note.exists() else mine
    if known != mine:
        raise ValueError(
            f"{note.parent}: holds the history of the data root {known}, with which that of {mine} "
            "would be mixed up in the UI. Run this in a folder of its own, to which you copy "
            "dagster.yaml, or set DAGSTER_HOME to such a folder"
        )
    note.parent.mkdir(exist_ok=True)
    note.write_text(mine, encoding="utf-8")
