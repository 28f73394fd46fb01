"""Kill a process at a chosen moment, and say whether what it left behind is whole."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from zip_pipeline.data_root import VERSION_FILES, DataRoot
from zip_pipeline.ingest.ingest import batch_metadata, read_batch
from zip_pipeline.pool.batches import is_current, read_state

_TIMES = ("created_at", "seconds")


def kill_after_line(command: Sequence[str], marker: str, seconds: float) -> bool:
    """Kill a command so many seconds after it printed a line; return whether it still ran."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == marker:
                time.sleep(seconds)
                break
        return _kill(process)


def kill_after(
    command: Sequence[str], begun: Callable[[], bool], seconds: float, cwd: Path
) -> bool:
    """Kill a command so many seconds after ``begun`` held; return whether it still ran."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=cwd) as process:
        while process.poll() is None and not begun():
            time.sleep(0.001)
        time.sleep(seconds)
        return _kill(process)


def _kill(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> bool:
    still_runs = process.poll() is None
    # kill() sends SIGKILL, which no handler and no "finally" of the process sees.
    process.kill()
    process.wait()
    return still_runs


def check_data_root(root: DataRoot) -> None:
    """Check that every visible file is complete and that files which belong together agree."""
    for path in visible_files(root.path):
        if path.suffix == ".parquet":
            pl.read_parquet(path)
        elif path.suffix == ".json" and "raw" not in path.parts:
            json.loads(path.read_text(encoding="utf-8"))
        elif "checkpoints" in path.parts:
            check_checkpoint(path)
    for batch in root["sft"].batches():
        _check_batch(root, batch)
    for number in root["sft"].versions.numbers():
        _check_version(root, number)


def check_checkpoint(path: Path) -> None:
    """Check that a checkpoint can be read whole."""
    with np.load(path, allow_pickle=False) as stored:
        assert len(stored["pi"]) == len(stored["fate"])
        assert stored["num_rounds"] > 0


def visible_files(folder: Path) -> list[Path]:
    """Return all files below a folder that a person or a glob would see."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if "/." not in f"/{path.relative_to(folder).as_posix()}"]


def _check_batch(root: DataRoot, batch: str) -> None:
    try:
        metadata = batch_metadata(root["sft"], batch)
    except ValueError:
        # Half of a batch may lie there, but nothing takes it for one.
        return
    assert read_batch(root["sft"], batch).height == int(metadata["num_samples"])
    quarantine = pl.read_parquet(root["sft"].quarantine(batch))
    assert quarantine.height == int(metadata["num_quarantined"])
    if is_current(root["sft"], batch):
        assert read_state(root["sft"], batch).height == int(metadata["num_samples"])


def _check_version(root: DataRoot, number: int) -> None:
    folder, manifest = root["sft"].versions.path(number), root["sft"].versions.manifest(number)
    assert sorted(path.name for path in folder.iterdir()) == sorted(VERSION_FILES)
    ledger = pl.read_parquet(folder / "ledger.parquet")
    picked = ledger.filter(fate="picked").sort("rank")["sample_id"]
    subset = pl.read_parquet(folder / "subset.parquet")["sample_id"]
    assert manifest["version"] == number
    assert manifest["num_picked"] == picked.len() > 0
    assert picked.to_list() == subset.to_list()


def contents(root: DataRoot) -> dict[str, object]:
    """Return all that a run produced, by relative path, without what tells the time."""
    found: dict[str, object] = {}
    for path in visible_files(root.path):
        name = path.relative_to(root.path).as_posix()
        if name.startswith(("raw/", "checkpoints/")):
            continue
        if path.suffix == ".parquet":
            found[name] = pl.read_parquet(path).to_dicts()
        elif path.name == "manifest.json":
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found[name] = {key: v for key, v in manifest.items() if key not in _TIMES}
    return found
