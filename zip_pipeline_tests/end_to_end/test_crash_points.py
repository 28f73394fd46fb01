"""Killed before every single file operation of a write: old or new, never a mixture."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.files import read_metadata
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import (
    batch_metadata,
    is_current,
    write_state,
)
from zip_pipeline.pool.held_out import read_held_out
from zip_pipeline.selection.run import ROUNDS_BETWEEN, Checkpoint
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl
from zip_pipeline_tests.end_to_end import crash_points
from zip_pipeline_tests.end_to_end.kills import check_data_root, contents, visible_files
from zip_pipeline_tests.folded_batches import fold
from zip_pipeline_tests.workflow import comparisons


def _crash(action: str, base: Path, folder: Path, how: str = "killed") -> list[Path]:
    """Return the folders that the crashes left, and last the one of the run that survived."""
    module = "zip_pipeline_tests.end_to_end.crash_points"
    command = [sys.executable, "-m", module, action, str(base), str(folder), how]
    subprocess.run(command, check=True)
    found = sorted(folder.iterdir(), key=lambda path: int(path.name))
    assert len(found) >= 4, "the action has file operations to be killed before"
    return found


def _seen(folders: list[Path], state: Callable[[Path], str]) -> dict[str, int]:
    """Count what state each crash left; the survivor ends in ``new``."""
    states = [state(folder) for folder in folders]
    assert states[-1] == "new"
    return {name: states.count(name) for name in states}


def _selection(folder: Path) -> str:
    if not (folder / "out.jsonl").exists():
        return "absent"
    num_records = len((folder / "out.jsonl").read_text().splitlines())
    picked = pl.read_parquet(folder / "out.ledger.parquet").filter(fate="picked")
    manifest = json.loads((folder / "out.manifest.json").read_text())
    assert manifest["num_picked"] == picked.height == num_records
    return {1: "old", 2: "new"}[num_records]


@pytest.mark.slow
def test_crashed_select_output_is_old_new_or_absent(tmp_path: Path):
    """OUT is there only with the ledger and the manifest that belong to it."""
    (tmp_path / "base").mkdir()
    write_jsonl(tmp_path / "base" / "in.jsonl", sft_records(8))
    crash_points.publish(tmp_path / "base", num_records=1)
    folders = _crash("publish", tmp_path / "base", tmp_path / "crashes")
    assert _seen(folders, _selection).keys() == {"old", "new", "absent"}
    for folder in folders:
        crash_points.publish(folder)
        assert _selection(folder) == "new"
        assert len(list(folder.iterdir())) == 4


def _versions(folder: Path) -> str:
    check_data_root(DataRoot(folder))
    return {(1,): "old", (1, 2): "new"}[tuple(DataRoot(folder)["sft"].versions.numbers())]


@pytest.mark.slow
def test_crashed_version_is_whole_or_not_there(tmp_path: Path, replaced_drop: DataRoot):
    """A version appears complete; the ones before it stay as they are."""
    crash_points.version(replaced_drop.path, num_samples=1)
    before = contents(replaced_drop)
    assert len([name for name in before if name.startswith("versions/")]) == 3
    folders = _crash("version", replaced_drop.path, tmp_path / "crashes")
    assert _seen(folders, _versions).keys() == {"old", "new"}
    for folder in folders:
        crash_points.version(folder)
        after = contents(DataRoot(folder))
        assert before.items() <= after.items()
        check_data_root(DataRoot(folder))


@pytest.fixture
def replaced_drop(tmp_path: Path) -> DataRoot:
    """Return a data root with an ingested batch whose drop was replaced since."""
    root = DataRoot(tmp_path / "base")
    root["sft"].raw.mkdir(parents=True)
    write_jsonl(root["sft"].raw / crash_points.BATCH, [*sft_records(5), "{"])
    crash_points.batch(root.path)
    write_jsonl(root["sft"].raw / crash_points.BATCH, [*sft_records(9), *sft_records(2)])
    return root


@pytest.mark.slow
def test_crashed_ingestion_is_old_new_or_refused(tmp_path: Path, replaced_drop: DataRoot):
    """A batch is the old one, the new one or refused; its state never describes another one."""
    folders = _crash("batch", replaced_drop.path, tmp_path / "crashes")

    def state(folder: Path) -> str:
        root = DataRoot(folder)
        check_data_root(root)
        try:
            counts = batch_metadata(root["sft"], crash_points.BATCH)
        except ValueError:
            return "refused"
        if counts["num_samples"] == "5":
            return "old"
        return "new" if is_current(root["sft"], crash_points.BATCH) else "new without state"

    assert _seen(folders, state).keys() == {"old", "refused", "new without state", "new"}
    wanted = contents(DataRoot(folders[-1]))
    for folder in folders:
        crash_points.batch(folder)
        assert contents(DataRoot(folder)) == wanted


@pytest.mark.slow
def test_crashed_first_ingestion_is_new_or_refused(tmp_path: Path, replaced_drop: DataRoot):
    """A batch that was never there is not there until all of it is."""
    for name in ("pool", "quarantine", "duplicates", "state"):
        shutil.rmtree(replaced_drop.path / name)
    folders = _crash("batch", replaced_drop.path, tmp_path / "crashes")
    for folder in folders:
        root = DataRoot(folder)
        check_data_root(root)
        for batch in root["sft"].batches():
            assert batch_metadata(root["sft"], batch)["num_samples"] == "9"
    assert DataRoot(folders[0])["sft"].batches() == []


def test_crashed_held_out_set_is_whole_or_not_there(tmp_path: Path, replaced_drop: DataRoot):
    """The set is drawn wholly or not at all, and the next run ends with the same one."""
    folders = _crash("freeze", replaced_drop.path, tmp_path / "crashes")

    def state(folder: Path) -> str:
        frozen = read_held_out(DataRoot(folder)["sft"])
        return "absent" if frozen is None else {3: "new"}[frozen.samples.height]

    assert _seen(folders, state).keys() == {"absent", "new"}
    wanted = DataRoot(folders[-1])["sft"].held_out.read_bytes()
    for folder in folders:
        crash_points.freeze(folder)
        assert DataRoot(folder)["sft"].held_out.read_bytes() == wanted


@pytest.mark.slow
def test_crashed_unfolding_loses_nothing(tmp_path: Path):
    """The next opening does the rest: every batch has its tables, as before it was folded."""
    folder = DataRoot(tmp_path / "base")["sft"]
    folder.raw.mkdir(parents=True)
    for first, name in enumerate(("a.jsonl", "b.jsonl", "c.jsonl")):
        records = [*sft_records(4, first=first), *sft_records(1, first=first), "{"]
        write_jsonl(folder.raw / name, records)
        ingest_drop(folder, name)
        write_state(folder, name)
    before = _tables(folder.root.path)
    assert len(before) == 12
    fold(folder, ["a.jsonl", "b.jsonl"])
    folders = _crash("unfold", folder.root.path, tmp_path / "crashes")

    def state(folder: Path) -> str:
        num_tables = len(_tables(folder))
        return {8: "old", 12: "new"}.get(num_tables, "between")

    assert _seen(folders, state).keys() == {"old", "between", "new"}
    for crashed in folders:
        check_data_root(DataRoot(crashed))
        assert _tables(crashed) == before


def _tables(folder: Path) -> dict[str, list[object]]:
    """Return the rows of every stored table, and its metadata."""
    paths = [path for path in visible_files(folder) if path.suffix == ".parquet"]
    return {
        str(path.relative_to(folder)): [
            pl.read_parquet(path, glob=False).to_dicts(),
            read_metadata(path),
        ]
        for path in paths
    }


def test_crashed_checkpoint_is_old_or_new(tmp_path: Path):
    """A checkpoint is the last one or the one before."""
    crash_points.checkpoint(tmp_path / "base", num_rounds=ROUNDS_BETWEEN)
    folders = _crash("checkpoint", tmp_path / "base", tmp_path / "crashes")

    def state(folder: Path) -> str:
        run = Checkpoint(folder / "selection", "key").load()
        assert run is not None
        assert [path.name for path in visible_files(folder)] == ["selection"]
        return {ROUNDS_BETWEEN: "old", 2 * ROUNDS_BETWEEN: "new"}[len(run.picks)]

    assert _seen(folders, state).keys() == {"old", "new"}


@pytest.mark.slow
def test_crashed_comparison_goes_on_and_does_nothing_twice(tmp_path: Path):
    """No process whose result was there runs again, and the end is as if nothing had happened."""
    comparisons.pool(tmp_path / "base")
    folders = _crash("compare", tmp_path / "base", tmp_path / "crashes")

    def state(folder: Path) -> str:
        return "new" if list(folder.glob("comparison/*/result.json")) else "unfinished"

    assert _seen(folders, state).keys() == {"unfinished", "new"}
    (result,) = folders[-1].glob("comparison/*/result.json")
    for folder in folders:
        crash_points.compare(folder)
        done = (folder / ".done").read_text().splitlines()
        assert len(done) == len(set(done)) <= 4
        assert _but_times(folder / result.relative_to(folders[-1])) == _but_times(result)


def _but_times(path: Path) -> str:
    return re.sub(r'"selection_seconds": [0-9.]+', "", path.read_text())


def _begun(action: str, base: Path) -> None:
    """Make what an action starts from."""
    base.mkdir()
    folder = DataRoot(base)["sft"]
    if action == "publish":
        write_jsonl(base / "in.jsonl", sft_records(8))
        crash_points.publish(base, num_records=1)
    elif action == "checkpoint":
        crash_points.checkpoint(base, num_rounds=ROUNDS_BETWEEN)
    elif action == "compare":
        comparisons.pool(base)
    else:
        folder.raw.mkdir(parents=True)
        write_jsonl(folder.raw / crash_points.BATCH, [*sft_records(5), "{"])
        crash_points.batch(base)
        if action == "version":
            crash_points.version(base, num_samples=1)
        elif action == "batch":
            write_jsonl(folder.raw / crash_points.BATCH, sft_records(9))
        elif action == "unfold":
            write_jsonl(folder.raw / "b.jsonl", sft_records(4, first=20))
            ingest_drop(folder, "b.jsonl")
            write_state(folder, "b.jsonl")
            fold(folder, [crash_points.BATCH, "b.jsonl"])


def _ended(folder: Path) -> dict[str, object]:
    """Return what an action made, but for times."""
    told = [*folder.glob("out.jsonl"), *folder.glob("comparison/*/result.json")]
    texts = {path.relative_to(folder).as_posix(): _but_times(path) for path in told}
    tables = contents(DataRoot(folder)).items()
    return texts | {name: rows for name, rows in tables if not name.startswith("comparison/")}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["power_cut", "fails_once", "disk_full"])
@pytest.mark.parametrize("action", crash_points.ACTIONS)
def test_a_disk_that_fails_or_loses_power_leaves_nothing_half_done(
    tmp_path: Path, action: str, how: str
) -> None:
    """What is to be seen is whole at every moment, and doing it again ends as if undisturbed."""
    _begun(action, tmp_path / "base")
    folders = _crash(action, tmp_path / "base", tmp_path / "left", how)
    wanted = _ended(folders[-1])
    for folder in folders[:-1]:
        check_data_root(DataRoot(folder))
        crash_points.ACTIONS[action](folder)
        assert wanted.items() <= _ended(folder).items(), folder.name
        check_data_root(DataRoot(folder))
