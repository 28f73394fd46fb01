"""The whole graph without a server."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError

from zip_pipeline.defs import headless
from zip_pipeline.defs.headless import last_failures, main, open_instance, run_graph
from zip_pipeline.files import held_lock
from zip_pipeline.ingest import streams
from zip_pipeline.process import ERROR_FILE_VARIABLE
from zip_pipeline_tests.defs.graph import Graph, alpaca_rows, pair_rows

ROOT = Path(__file__).parents[2]
SUBSETS = ["--until", "subset"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with the project's dagster.yaml, and make it the current one."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("ZIP_PIPELINE_DATA", "data")
    return tmp_path


@pytest.fixture
def stored_project(folder: Path) -> Iterator[Graph]:
    """Yield the graph of that folder with three drops of sft and one of preference."""
    with open_instance(folder) as instance:
        yield _with_drops(Graph(instance, folder / "data"))


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    """Yield the same with its history in memory, where runs in this process find it."""
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr(headless, "open_instance", lambda _: nullcontext(instance))
        yield _with_drops(Graph(instance, folder / "data"))


def _with_drops(graph: Graph) -> Graph:
    for number in range(3):
        graph.drop("sft", f"{number}.jsonl", alpaca_rows(6, first=6 * number))
    graph.drop("preference", "pairs.jsonl", pair_rows(5))
    return graph


def _failures(folder: Path) -> list[str]:
    """Run the graph up to the subsets and return what failed."""
    return run_graph(folder / "data", folder, until="subset").failures


def _counts(graph: Graph) -> list[int]:
    names = ("raw_pool", "compression_state", "zip_subset")
    return [graph.num_materializations(s, name) for s in ("sft", "preference") for name in names]


@pytest.mark.slow
def test_headless_ingests_and_selects_everything(stored_project: Graph, folder: Path) -> None:
    """As a process of its own: every drop is a partition, every stage has a version, history is
    where the UI reads it, and nothing else is written into the folder.
    """
    process = subprocess.run(
        [sys.executable, "-m", "zip_pipeline.defs.headless", *SUBSETS],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.splitlines() == [
        "sft 0.jsonl: done",
        "sft 1.jsonl: done",
        "sft 2.jsonl: done",
        "preference pairs.jsonl: done",
        "sft/zip_subset: done",
        "preference/zip_subset: done",
    ]
    assert _counts(stored_project) == [3, 3, 1, 1, 1, 1]
    names = stored_project.instance.get_dynamic_partitions("sft_batches")
    assert sorted(names) == ["0.jsonl", "1.jsonl", "2.jsonl"]
    assert stored_project.root["sft"].versions.numbers() == [1]
    assert stored_project.root["preference"].versions.numbers() == [1]
    runs = stored_project.instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert sorted(run.job_name for run in runs) == [
        "ingest_preference",
        *["ingest_sft"] * 3,
        "select_preference",
        "select_sft",
    ]
    # The timeline and the pages of jobs show what comes from this code location.
    here = dg.RunsFilter(tags={".dagster/repository": "__repository__@zip_pipeline"})
    assert len(stored_project.instance.get_runs(here)) == len(runs)
    origins = [run.remote_job_origin for run in runs]
    assert [origin.job_name for origin in origins if origin] == [run.job_name for run in runs]
    shown = {tag for run in runs for tag in run.tags if not tag.startswith(".dagster/")}
    names = ("code_location", "max_retries", "partition", "partition_set")
    assert shown == {f"dagster/{name}" for name in names}
    assert sorted(path.name for path in folder.iterdir()) == [".dagster", "dagster.yaml", "data"]


def test_until_ingest_takes_the_drops_in_and_no_more(project: Graph, folder: Path) -> None:
    """There are batches, and no version."""
    assert run_graph(folder / "data", folder, until="ingest").failures == []
    assert _counts(project) == [3, 3, 0, 1, 1, 0]


@pytest.mark.slow
def test_headless_repeats_only_what_changed(project: Graph, folder: Path) -> None:
    """Drops that are ingested as they look now are left alone; the subset is not written twice."""
    assert _failures(folder) == []
    assert _failures(folder) == []
    assert _counts(project) == [3, 3, 2, 1, 1, 2]
    assert project.root["sft"].versions.numbers() == [1]
    project.drop("sft", "1.jsonl", alpaca_rows(7, first=6))
    assert _failures(folder) == []
    assert _counts(project) == [4, 4, 3, 1, 1, 3]
    assert project.num_materializations("sft", "raw_pool", "1.jsonl") == 2
    assert project.root["sft"].versions.numbers() == [1, 2]
    assert project.root["preference"].versions.numbers() == [1]


def test_headless_repairs_batches_whose_files_are_gone(project: Graph, folder: Path) -> None:
    """A batch that history calls ingested but one of whose tables is missing is ingested again."""
    assert _failures(folder) == []
    root = project.root
    lost = [
        root["sft"].samples("0.jsonl"),
        root["sft"].state("1.jsonl"),
        root["preference"].quarantine("pairs.jsonl"),
    ]
    for path in lost:
        path.unlink()
    assert _failures(folder) == []
    assert [path.exists() for path in lost] == [True] * 3
    assert _counts(project) == [5, 5, 2, 2, 2, 2]


def test_headless_tells_what_failed_to_whoever_started_it_and_later(
    project: Graph,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line per failure in the file that is named; and what was not done since, when asked."""
    sidecar = project.root["sft"].raw / "1.jsonl.batch.toml"
    sidecar.write_text('formt = "alpaca"')
    reasons = folder / "reasons"
    monkeypatch.setenv(ERROR_FILE_VARIABLE, str(reasons))
    assert main(["--data-root", str(folder / "data"), *SUBSETS]) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    (reason,) = reasons.read_text().splitlines()
    assert reason.startswith(f"sft 1.jsonl: {sidecar}: formt: unknown; allowed are ")
    (told,) = last_failures(project.instance)
    when, _, words = told.partition(", ")
    assert datetime.strptime(when, "%Y-%m-%d %H:%M")
    assert words.endswith(f"1.jsonl: {reason.removeprefix('sft 1.jsonl: ')}")
    sidecar.unlink()
    settings = folder / "data" / "zip_pipeline.toml"
    settings.write_text("[sft]\nbudget_samples = 0\n")
    assert main(["--data-root", str(folder / "data"), *SUBSETS]) == 1
    (reason,) = reasons.read_text().splitlines()
    assert reason.startswith(f"sft/zip_subset: {settings}: [sft] budget_samples: got 0;")
    settings.unlink()
    assert main(["--data-root", str(folder / "data"), *SUBSETS]) == 0
    assert last_failures(project.instance) == []
    capsys.readouterr()
    assert main(["--failures"]) == 0
    assert capsys.readouterr().out == ""


def test_headless_reports_a_failed_drop_and_goes_on(
    project: Graph, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One drop's error and an unusable name are reported; everything else is done."""
    sidecar = project.root["sft"].raw / "1.jsonl.batch.toml"
    sidecar.write_text('formt = "alpaca"')
    project.drop("sft", "a...b.jsonl", alpaca_rows(1))
    assert main(["--data-root", str(folder / "data"), *SUBSETS]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("'a...b.jsonl' is not ingested: the name contains '...'; rename it")
    assert lines[1].startswith(f"sft 1.jsonl: {sidecar}: formt: unknown; allowed are")
    assert _counts(project) == [2, 2, 1, 1, 1, 1]


def test_headless_tries_a_drop_again_that_could_not_be_read(
    project: Graph,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A passing fault fails its drop, not the others; the next run ingests it unchanged."""
    path = project.root["sft"].raw / "1.jsonl"
    chunks = streams._plain_chunks

    def broken(file: BinaryIO) -> Iterator[bytes]:
        if file.name == str(path):
            raise OSError(5, "Input/output error")
        yield from chunks(file)

    with monkeypatch.context() as patch:
        patch.setattr(streams, "_plain_chunks", broken)
        assert main(["--data-root", str(folder / "data"), *SUBSETS]) == 1
    assert capsys.readouterr().err == (
        f"sft 1.jsonl: {path}: cannot be read (Input/output error); nothing of it is "
        "taken in. Put that right, then try again\n"
    )
    assert _counts(project) == [2, 2, 1, 1, 1, 1]
    assert _failures(folder) == []
    assert project.num_materializations("sft", "raw_pool", "1.jsonl") == 1
    assert project.root["sft"].batches() == ["0.jsonl", "1.jsonl", "2.jsonl"]


def test_headless_names_links_that_cannot_be_followed_or_may_not(
    project: Graph, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dead links and links out of the drop folder, also inside a drop, fail; others are read."""
    raw = project.root["sft"].raw
    project.drop("sft", "folder/a.jsonl", alpaca_rows(2, first=50))
    for name in ("hosts.jsonl", "folder/hosts.jsonl"):
        (raw / name).symlink_to("/etc/hosts")
    (raw / "dead.jsonl").symlink_to("gone.jsonl")
    (raw / "fine.jsonl").symlink_to("0.jsonl")
    assert main(["--data-root", str(folder / "data"), *SUBSETS]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0].partition(", ")[0] for line in lines] == [
        f"{raw}: 'dead.jsonl' is not ingested: {raw}/dead.jsonl: the link to gone.jsonl leads "
        "nowhere",
        f"{raw}: 'folder' is not ingested: {raw}/folder/hosts.jsonl: the link leads out of {raw}",
        f"{raw}: 'hosts.jsonl' is not ingested: {raw}/hosts.jsonl: the link leads out of {raw}",
    ]
    assert project.root["sft"].batches() == ["0.jsonl", "1.jsonl", "2.jsonl", "fine.jsonl"]


def test_headless_tells_a_history_that_cannot_be_written_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its database is full or for reading alone; any other error of it is a bug."""
    database = sqlite3.connect(":memory:")
    database.execute("PRAGMA max_page_count = 1")

    def run(*_: object, **__: object) -> None:
        try:
            database.execute(statement)
        except sqlite3.OperationalError as error:
            raise OperationalError(statement, {}, error) from error

    monkeypatch.setattr(headless, "run_graph", run)
    statement = "CREATE TABLE t (a)"
    assert main(["--data-root", str(folder / "data")]) == 1
    history = os.environ.get("DAGSTER_HOME") or folder / ".dagster"
    assert capsys.readouterr().err == (
        f"{history}: No space left on device; free some space there, or name another place\n"
    )
    statement = "SELECT b"
    with pytest.raises(OperationalError):
        main(["--data-root", str(folder / "data")])


def test_headless_fails_on_a_failed_error_check(
    project: Graph, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed check of severity ERROR is a failure; one of severity WARN is not."""
    severity = dg.AssetCheckSeverity.ERROR

    def failed(*_: object) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=severity, description="said so")

    monkeypatch.setattr("zip_pipeline.defs.stage._within_budget", failed)
    assert _failures(folder) == [
        "sft/zip_subset: check within_budget failed: said so",
        "preference/zip_subset: check within_budget failed: said so",
    ]
    severity = dg.AssetCheckSeverity.WARN
    assert _failures(folder) == []


def test_headless_stops_at_an_interrupt(
    project: Graph, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends the whole run, not only the step at work; the next run does the rest."""

    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    with monkeypatch.context() as patch:
        patch.setattr("zip_pipeline.defs.stage.write_state", interrupted)
        assert main(SUBSETS) == headless.INTERRUPTED == 130
    assert _counts(project) == [1, 0, 0, 0, 0, 0]
    assert main(SUBSETS) == 0
    assert _counts(project) == [4, 3, 1, 1, 1, 1]


def test_headless_without_drops_is_content(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to do is no failure, and says where it looked."""
    assert main(SUBSETS) == 0
    assert capsys.readouterr().out == "data/raw: no drops\n"


def test_headless_runs_once_at_a_time(
    project: Graph, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run over the same data root is refused while the first is at work."""
    with held_lock(project.path / headless.LOCK_FILE) as is_mine:
        assert is_mine
        assert main(SUBSETS) == 1
    assert capsys.readouterr().err == "data: another run is at work there; wait until it ends\n"
    assert main(SUBSETS) == 0


@pytest.mark.slow
def test_headless_keeps_histories_apart(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another data root in the same folder would spoil what the UI shows of the first one."""
    raw = folder / "data" / "raw" / "sft"
    raw.mkdir(parents=True)
    (raw / "0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in alpaca_rows(6)))
    assert main(SUBSETS) == 0
    shutil.copytree(folder / "data", folder / "other")
    capsys.readouterr()
    assert main(["--data-root", "other", *SUBSETS]) == 1
    error = capsys.readouterr().err
    assert "holds the history of the data root data, with which that of other" in error
    assert main(["--data-root", str(folder / "data"), *SUBSETS]) == 0
    (folder / "home").mkdir()
    shutil.copy(ROOT / "dagster.yaml", folder / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(folder / "home"))
    assert main(["--data-root", "other", *SUBSETS]) == 0


def test_headless_needs_a_place_for_its_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without dagster.yaml and DAGSTER_HOME there is none; DAGSTER_HOME is one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert main(SUBSETS) == 1
    assert "no dagster.yaml, so there is no place for the history" in capsys.readouterr().err
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with open_instance(tmp_path / "elsewhere") as instance:
        assert instance.root_directory == str(tmp_path)
