"""``zip-pipeline compare``: what it prints, what options mean, and that it goes on."""

import json
import os
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from zip_pipeline.cli import compare as module
from zip_pipeline.cli.compare import run_modules
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.training.presets import load_preset
from zip_pipeline.workflow import comparison as workflow
from zip_pipeline.workflow.comparison import compare_model
from zip_pipeline.workflow.comparison_plan import ComparisonSettings
from zip_pipeline_tests.cli.commands import call, call_badly, call_well
from zip_pipeline_tests.workflow.comparisons import (
    NO_DRAW,
    Processes,
    pair_pool,
    pool,
    records,
)

_SMALL = ("--budget-tokens", "1000", "--seeds", "2", "--strategies", "random", "--workers", "1")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return an ingested pool."""
    return pool(tmp_path / "data").path


def _processes(monkeypatch: pytest.MonkeyPatch, stop_before: int = 0) -> Processes:
    found = Processes({"random": 1.5}, stop_before)
    monkeypatch.setattr(module, "run_modules", found)
    for name in ("comparison_figure", "law_figure"):
        monkeypatch.setattr(workflow, name, lambda *_: (b"PNG", b"SVG"))
    return found


def test_tables_sentence_and_files_are_told(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last words are what to do, where the files are, and the settings that use the winner."""
    _processes(monkeypatch)
    result = call("compare", "--data-root", data, *_SMALL)
    assert result.exit_code == 0
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    assert any(line.split()[:4] == ["random", "2", "2.000", "-0.500"] for line in lines)
    (folder,) = (data / "comparison").iterdir()
    at = lines.index(f"Tables and figures: {folder}")
    assert lines[at - 2].startswith("On your pool, random beats source-balanced random by 0.500")
    assert lines[at - 1].startswith("The loss on unseen sources is of ")
    file = data / "zip_pipeline.toml"
    assert lines[at + 1 : at + 5] == [
        f"To use it, let these lines stand in {file}, for any of their names there:",
        "[sft]",
        'strategy = "random"',
        "budget_tokens = 1000",
    ]
    command = f"zip-pipeline run --until subset --data-root {data}"
    assert lines[-1].strip() == f"{command}  # select with them"
    assert result.stderr.splitlines()[0].startswith("1 of 4, random+natural, seed 0: done; about ")
    assert result.stderr.splitlines()[3] == "4 of 4, random, seed 1: done"


def test_a_skip_is_said_in_full_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other seeds are skipped as before, and one line tells at the end."""
    _processes(monkeypatch)
    result = call("compare", "--data-root", data, *_SMALL[:-3], "dsir", *_SMALL[-2:])
    reason = "target: dsir selects by the samples of a file"
    assert result.stderr.count(reason) == 1
    assert result.stderr.count("skipped as before") == 1
    assert result.stdout.count(reason) == 1
    assert f"dsir, seeds 0, 1: {reason}" in result.stdout


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--budget-tokens", "0", "--budget-tokens: got 0; allowed are whole numbers, 1 to"),
        ("--budget-tokens", "0%", "--budget-tokens: got '0%'; allowed are whole numbers, 1"),
        ("--strategies", "best", "--strategies: "),
    ],
)
def test_what_is_wrong_is_named_as_typed(data: Path, option: str, value: str, message: str) -> None:
    """One line with the option."""
    assert call_badly("compare", "--data-root", data, option, value).startswith(message)


def test_stage_is_that_of_pool_and_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--stage preference trains on pairs by KTO; there are no conversations to fall back on."""
    done = _processes(monkeypatch).done
    pair_pool(tmp_path / "data")
    said = call_well("compare", "--data-root", tmp_path / "data", "--stage", "preference", *_SMALL)
    assert "On your pool, random beats source-balanced random by 0.500 nats" in said
    assert "by kto from the SFT model" in said
    assert [name for name, _ in done] == ["kto", "probe", *["held_out"] * 3] * 4
    wrong = call_badly("compare", "--data-root", tmp_path / "data")
    assert "no batch of stage sft is ingested" in wrong


def test_runs_share_the_cores(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time wait for each other here; each is told to compute with half of the threads."""
    both, threads = Barrier(2, timeout=60), []
    processes = _processes(monkeypatch)

    def run_jobs(*what: Any, num_threads: int) -> None:
        both.wait()
        threads.append(num_threads)
        processes(*what)

    monkeypatch.setattr(module, "run_modules", run_jobs)
    monkeypatch.setattr(module, "worker_count", lambda workers, *_: workers or 4)
    result = call("compare", "--data-root", data, *_SMALL[:-1], "2")
    assert result.exit_code == 0
    assert threads == [2, 2, 2, 2]
    assert "4 of 4, " in result.stderr


def test_no_more_runs_at_a_time_than_the_cores_can_use(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a process of gigabytes; the rest is not started, and one line tells."""
    _processes(monkeypatch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    result = call("compare", "--data-root", data, *_SMALL[:-1], "100000")
    assert result.exit_code == 0
    told = "--workers: 100000 is more than this machine's 1 core can use; 4 are used"
    assert told in " ".join(result.stderr.split())


def test_a_run_that_fails_stops_no_other(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are done, the error is the end, and the next call does what failed."""
    processes = _processes(monkeypatch)

    def run_jobs(module: str, jobs: Any, num_threads: int) -> None:
        if any("random-0" in str(path) for path in jobs):
            raise UserError("the device is full")
        processes(module, jobs, num_threads)

    monkeypatch.setattr(module, "run_modules", run_jobs)
    result = call("compare", "--data-root", data, *_SMALL)
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2
    assert "random, seed 0: failed, the device is full" in said
    assert said.count(": done") == 3
    assert said.rstrip().endswith("the device is full")
    again = _processes(monkeypatch)
    call_well("compare", "--data-root", data, *_SMALL)
    assert len(again.done) == 5


def test_interrupted_it_says_how_to_go_on_and_does(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second call does what is left, a third one nothing."""
    first = _processes(monkeypatch, stop_before=8)
    result = call("compare", "--data-root", data, *_SMALL)
    assert result.exit_code == 130
    assert "Interrupted. Run the command again: what is finished is kept." in result.stderr
    second = _processes(monkeypatch)
    call_well("compare", "--data-root", data, *_SMALL)
    assert (len(first.done), len(second.done)) == (7, 13)
    third = _processes(monkeypatch)
    call_well("compare", "--data-root", data, *_SMALL)
    assert third.done == []


def test_a_target_is_named_from_where_one_is(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--target is a path as any other on a command line; what needs one is not skipped."""
    _processes(monkeypatch)
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records(20, 900)))
    monkeypatch.chdir(tmp_path)
    said = call_well("compare", "--data-root", data, *_SMALL, "--target", "mine.jsonl")
    assert "On your pool and target, random beats" in said


def test_help_says_what_the_settings_are_for() -> None:
    """The words are those of the fields, none of which rich takes for markup."""
    words = " ".join(call_well("compare", "--help").replace("│", " ").split())
    for name in ("strategies", "seeds", "budget_tokens", "unit", "target"):
        assert ComparisonSettings.about(name) in words


def test_wrong_options_are_refused(data: Path, tmp_path: Path) -> None:
    """The message says what there is."""
    wrong = call_badly("compare", "--data-root", data, "--strategies", "zip,magic")
    assert "strategies: strategy: got 'magic'; allowed are zip, " in wrong
    assert "no such data root" in call_badly("compare", "--data-root", tmp_path / "none")


def test_processes_tell_their_reason(tmp_path: Path) -> None:
    """What a person can mend is an error in the process's own words; a bug shows what it said."""
    job = {tmp_path / "job.json": {"model": "x"}}
    with pytest.raises(UserError, match=r"job\.json: field 'samples' is missing; the fields are"):
        run_modules("zip_pipeline.evaluation.held_out", job)
    with pytest.raises(RuntimeError, match=r"(?s)no\.module ended with exit code 1: .*No module"):
        run_modules("no.module", job)


@pytest.mark.slow
def test_a_tiny_model_is_trained_probed_and_evaluated(data: Path) -> None:
    """One strategy and seed with the real processes."""
    changes = {"budget_tokens": 1_000}
    figures = compare_model(DataRoot(data), "random", 1, run_modules, changes)
    assert all(0.1 < figures[name] < 12 for name in ("L", "seen_loss", "unseen_loss"))
    (run,) = (data / "comparison").glob("*/runs/random-1")
    record = json.loads((run / "training.json").read_text())
    assert record["settings"]["seed"] == 1
    assert record["rows"]["num_tokens"] == figures["num_tokens"] <= 1_000
    assert record["rows"]["num_target_tokens"] == figures["num_target_tokens"]
    assert record["rows"]["rows_truncated"] == record["rows"]["rows_dropped"] == 0


@pytest.mark.slow
def test_a_tiny_model_is_trained_on_pairs(tmp_path: Path) -> None:
    """The same by KTO, from the model that [training] names, here the base model itself."""
    root = pair_pool(tmp_path / "data")
    start = load_preset("tiny").source
    (root.path / "zip_pipeline.toml").write_text(f"{NO_DRAW}[training]\nsft_model = '{start}'\n")
    changes = {"budget_tokens": 3_000}
    figures = compare_model(root, "random", 1, run_modules, changes, stage="preference")
    assert all(0.1 < figures[name] < 12 for name in ("L", "seen_loss", "unseen_loss"))
    assert all(0 <= figures[f"{name}_accuracy"] <= 1 for name in ("seen", "unseen"))
    (run,) = root.comparisons.glob("*/runs/random-1")
    record = json.loads((run / "training.json").read_text())
    assert record["model"]["source"] == start
    assert record["rows"]["num_tokens"] == figures["num_tokens"] <= 3_000
    assert record["rows"]["num_target_tokens"] == figures["num_target_tokens"]
    assert record["rows"]["rows_truncated"] == record["rows"]["rows_dropped"] == 0
