"""Killed at any moment: nothing half-written is visible, and the next run ends right."""

import itertools
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import batch_metadata
from zip_pipeline.sample_data import write_sample_data
from zip_pipeline_tests.end_to_end.data_root_run import CONFIG
from zip_pipeline_tests.end_to_end.kills import (
    check_checkpoint,
    check_data_root,
    contents,
    kill_after,
    kill_after_line,
)

pytestmark = pytest.mark.slow

_PROJECT = Path(__file__).parents[2]
_SCALE = 0.2
_ROUNDS = (
    "--strategy",
    "zip",
    "--k1",
    str(CONFIG.k1),
    "--k2",
    str(CONFIG.k2),
    "--k3",
    str(CONFIG.k3),
)


@dataclass(frozen=True)
class WholeRun:
    """An uninterrupted run: its data root, and its phases with their durations."""

    root: DataRoot
    durations: dict[str, float]


def _run_command(root: DataRoot, *flags: str) -> list[str]:
    module = "zip_pipeline_tests.end_to_end.data_root_run"
    return [sys.executable, "-m", module, str(root.path), *flags]


def _time_phases(command: list[str]) -> dict[str, float]:
    moments: list[tuple[str, float]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        moments.extend((line.strip(), time.monotonic()) for line in process.stdout)
    assert process.returncode == 0
    assert moments[-1][0] == "end"
    return {name: later - now for (name, now), (_, later) in itertools.pairwise(moments)}


def _copy_drops(root: DataRoot, folder: Path) -> DataRoot:
    shutil.copytree(root.path / "raw", folder / "raw")
    return DataRoot(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """Return an uninterrupted run over generated drops."""
    root = DataRoot(tmp_path_factory.mktemp("whole"))
    write_sample_data(root.path, state="x3", scale=_SCALE)
    return WholeRun(root, _time_phases(_run_command(root)))


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_run_is_never_half_visible_and_ends_right(
    tmp_path: Path, whole: WholeRun, seed: int
):
    """Killed while ingesting, measuring, selecting and writing, then left to end: the same."""
    random = Random(f"kill {seed}")
    root = _copy_drops(whole.root, tmp_path)
    phases = list(whole.durations)
    early = sorted(random.choices(range(phases.index("select")), k=2))
    num_kills = 0
    for phase in [*(phases[position] for position in early), "select", "write"]:
        seconds = random.uniform(0, 1.1 * whole.durations[phase])
        num_kills += kill_after_line(_run_command(root), phase, seconds)
        check_data_root(root)
    assert num_kills >= 2
    subprocess.run(_run_command(root), check=True, stdout=subprocess.DEVNULL)
    check_data_root(root)
    assert root["sft"].versions.numbers() == [1]
    assert contents(root) == contents(whole.root)


def test_a_drop_replaced_under_kills_is_old_new_or_refused(tmp_path: Path, whole: WholeRun):
    """While a drop is ingested anew, its batch is the old one, the new one, or refused."""
    random = Random("replace")
    root = DataRoot(tmp_path)
    shutil.copytree(whole.root.path, root.path, dirs_exist_ok=True)
    batch = root["sft"].batches()[0]
    old = batch_metadata(root["sft"], batch)["fingerprint"]
    write_sample_data(root.path, state="x5", scale=_SCALE)
    seen = set()
    num_kills = 0
    for _ in range(6):
        seconds = random.uniform(0, 1.1 * whole.durations[f"ingest {batch}"])
        num_kills += kill_after_line(_run_command(root, "again"), f"ingest {batch}", seconds)
        check_data_root(root)
        try:
            seen.add(batch_metadata(root["sft"], batch)["fingerprint"])
        except ValueError:
            seen.add("refused")
    assert num_kills >= 4
    subprocess.run(_run_command(root, "again"), check=True, stdout=subprocess.DEVNULL)
    new = batch_metadata(root["sft"], batch)["fingerprint"]
    assert new != old
    assert seen <= {old, new, "refused"}
    assert root["sft"].versions.numbers() == [1, 2]
    versions = {k: v for k, v in contents(root).items() if k.startswith("versions/sft/v000001")}
    assert len(versions) == 3
    assert versions.items() <= contents(whole.root).items()


@dataclass(frozen=True)
class WholeSelect:
    """An uninterrupted ``select``: its files, how long it took to start, and the work itself."""

    inputs: list[Path]
    out: Path
    start_seconds: float
    work_seconds: float


def _select_command(inputs: list[Path], out: Path) -> list[str]:
    command = [sys.executable, "-m", "zip_pipeline.cli", "select", *map(str, inputs)]
    budget = ("--budget-samples", str(CONFIG.budget))
    return [*command, "-o", str(out), *budget, *_ROUNDS, "--resume", "--force"]


@pytest.fixture(scope="module")
def whole_select(tmp_path_factory: pytest.TempPathFactory, whole: WholeRun) -> WholeSelect:
    """Return an uninterrupted selection from the same drops."""
    inputs = sorted(whole.root["sft"].raw.iterdir())
    out = tmp_path_factory.mktemp("select") / "out.jsonl"
    started = time.monotonic()
    subprocess.run(_select_command(inputs, out), check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    manifest = json.loads(out.with_name("out.manifest.json").read_text())
    work_seconds = sum(manifest["seconds"].values())
    return WholeSelect(inputs, out, seconds - work_seconds, work_seconds)


def _check_select(out: Path) -> bool:
    """Check that the files of a selection are whole and agree; return whether OUT is there."""
    ledger, manifest = out.with_name("out.ledger.parquet"), out.with_name("out.manifest.json")
    checkpoint = out.parent / ".out.checkpoint" / "selection"
    if checkpoint.exists():
        check_checkpoint(checkpoint)
    names = {path.name for path in out.parent.iterdir()}
    refused = {"out.quarantine.parquet", "out.duplicates.parquet"}
    assert names <= {out.name, ledger.name, manifest.name, ".out.checkpoint", *refused}
    if ledger.exists():
        pl.read_parquet(ledger)
    if manifest.exists():
        json.loads(manifest.read_text(encoding="utf-8"))
    if not out.exists():
        return False
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    picked = pl.read_parquet(ledger).filter(fate="picked")
    assert json.loads(manifest.read_text())["num_picked"] == picked.height == len(records) > 0
    return True


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_select_resumes_to_the_same_three_files(
    tmp_path: Path, whole_select: WholeSelect, seed: int
):
    """Killed while reading, selecting and writing, ``select --resume`` ends with the same files."""
    random = Random(f"select {seed}")
    out = tmp_path / "out.jsonl"
    work = tmp_path / ".out.checkpoint"
    command = _select_command(whole_select.inputs, out)
    num_kills = 0
    for share in (0.3, 0.7, 0.9):
        seconds = 0.9 * whole_select.start_seconds
        seconds += random.uniform(0, share * whole_select.work_seconds)
        num_kills += kill_after(command, lambda: True, seconds, tmp_path)
        _check_select(out)
    if not out.exists():
        num_kills += kill_after(command, lambda: _has_files(work, "*.jsonl"), 0.01, tmp_path)
        _check_select(out)
    assert num_kills >= 1
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert _check_select(out)
    assert not work.exists()
    assert out.read_bytes() == whole_select.out.read_bytes()
    ledgers = [path.with_name("out.ledger.parquet") for path in (out, whole_select.out)]
    assert pl.read_parquet(ledgers[0]).equals(pl.read_parquet(ledgers[1]))


def test_a_killed_graph_ends_right_when_run_again(tmp_path: Path, whole: WholeRun):
    """The Dagster graph, killed while ingesting and while selecting, ends with the same version."""
    root = _copy_drops(whole.root, tmp_path / "data")
    shutil.rmtree(root["preference"].raw)
    settings = {name: getattr(CONFIG, name) for name in ("budget_samples", "k1", "k2", "k3")}
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    (root.path / "zip_pipeline.toml").write_text(f'[sft]\nstrategy = "zip"\n{lines}')
    shutil.copy(_PROJECT / "dagster.yaml", tmp_path)
    command = [sys.executable, "-m", "zip_pipeline.defs.headless", "--data-root", "data"]
    command += ["--until", "subset"]
    for place in (root.path / "quarantine" / "sft", root["sft"].checkpoints):
        assert kill_after(command, lambda place=place: _has_files(place), 0.02, tmp_path)
        check_data_root(root)
    subprocess.run(command, check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    check_data_root(root)
    assert root["sft"].versions.numbers() == [1]
    mine, others = contents(root), contents(whole.root)
    assert mine.keys() == others.keys()
    for name in mine:
        if name.endswith(".parquet"):
            assert mine[name] == others[name], name


def _has_files(folder: Path, pattern: str = "*") -> bool:
    return folder.is_dir() and any(folder.glob(pattern))
