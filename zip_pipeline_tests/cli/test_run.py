"""``zip-pipeline run``: the whole graph and its summary."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zip_pipeline.cli import run
from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.workflow.integrity import verify
from zip_pipeline_tests.cli.commands import call, call_badly, call_well
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl
from zip_pipeline_tests.workflow.writers import differing, new_root

_PROJECT = Path(__file__).parents[2]


def _run(folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"} | {"COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", "zip_pipeline.cli", "run", "--until", "subset"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_run_takes_the_whole_graph_and_tells_what_came_of_it(tmp_path: Path):
    """Drops become batches and versions of both stages; a second run changes nothing."""
    shutil.copy(_PROJECT / "dagster.yaml", tmp_path)
    root = DataRoot(tmp_path / "data")
    call_well("sample-data", root.path, "--scale", "0.03", "--state", "x1")
    (root.path / "zip_pipeline.toml").write_text(
        "[sft]\nbudget_samples = 9\n[preference]\nbudget_bytes = 2000\n"
    )
    text = _run(tmp_path)
    (batch,) = root["sft"].batches()
    for words in (
        f"sft {batch}: done",
        "sft/zip_subset: done",
        "Version 1 (new), in data/versions/sft/v000001",
        "Version 1 (new), in data/versions/preference/v000001",
        "9 samples, 0 unused",
        "quarantined",
        "R of subset",
        "top sources",
        "dagster dev -m zip_pipeline.definitions  # the graph",
        "zip-pipeline trace ",
    ):
        assert words in text
    assert (root["sft"].versions.numbers(), root["preference"].versions.numbers()) == ([1], [1])
    sample_id = text.split("zip-pipeline trace ")[1].split()[0]
    assert "picked as number 1" in call_well("trace", sample_id, "--data-root", root.path)
    again = _run(tmp_path)
    assert "Version 1 (unchanged)" in again


@pytest.mark.slow
@pytest.mark.server
def test_two_data_roots_share_a_bucket(tmp_path: Path, s3: Any):
    """What one run publishes, the other takes in, and selects nothing anew where all is done."""
    roots = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(_PROJECT / "dagster.yaml", tmp_path / name)
        root = new_root(tmp_path / name / "data", "s3://pool/team", "[sft]\nbudget_samples = 5\n")
        roots.append(root)
    a, b = roots
    write_jsonl(a["sft"].raw / "a.jsonl", sft_records(30))
    assert "Version 1 (new), in data/versions/sft/v000001" in _run(tmp_path / "a")
    assert "Version 1 (unchanged)" in _run(tmp_path / "b")
    assert differing(a, b) == []
    write_jsonl(b["sft"].raw / "b.jsonl", sft_records(30, first=30))
    assert "Version 2 (new), in data/versions/sft/v000002" in _run(tmp_path / "b")
    assert "behind" not in call_well("status", "--data-root", b.path)
    assert "Version 2 (unchanged)" in _run(tmp_path / "a")
    assert differing(a, b) == []
    assert a["sft"].batches() == ["a.jsonl", "b.jsonl"]
    assert verify(a).damages == verify(b).damages == []
    assert "secret" not in "".join(
        path.read_text(errors="replace") for path in a.path.glob(".store*")
    )


def test_an_address_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By `run` and `sync`, which share by themselves."""
    pytest.importorskip("obstore")
    (tmp_path / "store").mkdir()
    url, shared = f"file://{tmp_path}/store", list[DataRoot]()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))

    def share(root: DataRoot, *_: object, **__: object) -> None:
        shared.append(root)

    for module in ("cli.run", "cli.status", "workflow.sharing"):
        monkeypatch.setattr(f"zip_pipeline.{module}.share", share)
    assert "nothing to do" in call_badly("run", "--data-root", url)
    call_well("sync", "--data-root", url)
    call_well("status", "--data-root", url)
    assert len(shared) == 3


def test_run_passes_the_exit_code_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """When the graph fails, so does the command, with a word about where to look."""
    (tmp_path / "raw" / "sft").mkdir(parents=True)
    (tmp_path / "raw" / "sft" / "a.jsonl").write_text("{}\n")
    monkeypatch.setattr(run, "_GRAPH", "zip_pipeline.no_such_module")
    result = call("run", "--data-root", tmp_path)
    assert result.exit_code == 1
    assert "Error: the graph ended with exit code 1" in result.stderr
    assert result.stdout == ""


def test_a_failed_run_ends_with_its_reason_and_tells_nothing_of_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The reasons are the last lines; what was there before is no outcome of the run."""
    root = DataRoot(tmp_path / "data")
    root["sft"].raw.mkdir(parents=True)
    write_jsonl(root["sft"].raw / "a.jsonl", sft_records(3))
    ingest_drop(root["sft"], "a.jsonl")
    (tmp_path / "failing_graph.py").write_text(
        "import os, pathlib, sys\n"
        "print('sft a.jsonl: done')\n"
        "reasons = 'sft/zip_subset: first\\npreference/zip_subset: second'\n"
        "pathlib.Path(os.environ['ZIP_PIPELINE_ERROR_FILE']).write_text(reasons)\n"
        "sys.exit(1)\n"
    )
    monkeypatch.setattr(run, "_GRAPH", "failing_graph")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    result = call("run", "--data-root", root.path)
    assert result.exit_code == 1
    assert result.stdout == "sft a.jsonl: done\n"
    assert result.stderr == ("Error: sft/zip_subset: first\nError: preference/zip_subset: second\n")


def test_run_without_drops_says_where_to_put_them(tmp_path: Path):
    """An empty data root is refused with a remedy; hidden and unfinished files are no drops."""
    (tmp_path / "raw" / "sft").mkdir(parents=True)
    for name in (".hidden.jsonl", "a.jsonl.part", "b.batch.toml"):
        (tmp_path / "raw" / "sft" / name).touch()
    line = call_badly("run", "--data-root", tmp_path)
    assert line.startswith("nothing to do: no drop in")
    assert line.endswith(f"zip-pipeline sample-data {tmp_path}")
