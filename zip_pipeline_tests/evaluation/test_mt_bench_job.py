"""MT-bench as a process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zip_pipeline.evaluation import mt_bench
from zip_pipeline.evaluation.evaluators import main
from zip_pipeline.judge.client import Exchange, Reply
from zip_pipeline.process import PlainReporter
from zip_pipeline_tests.evaluation.test_mt_bench import QUESTIONS, REFERENCES, write_bench
from zip_pipeline_tests.judge.judge_server import (
    Behaviour,
    JudgeServer,
    Received,
    fails,
    says,
)

KEY = "sk-very-secret-1234"
RESULT = "result.json"


def _job(
    folder: Path, judge: JudgeServer, answers: JudgeServer | None = None, *, repetitions: int = 2
) -> Path:
    """Write files, settings and job into a data root, and return the job."""
    write_bench(folder)
    lines = ["[mt_bench]", 'questions = "questions.jsonl"', 'prompts = "prompts.jsonl"']
    lines += ['references = "references.jsonl"', f"repetitions = {repetitions}"]
    lines += ["[mt_bench.judge]", f'url = "{judge.url}"', 'model = "gpt-large"']
    lines += ['key_variable = "JUDGE_KEY"', "max_concurrency = 3"]
    if answers is not None:
        lines += ["[mt_bench.answers]", f'url = "{answers.url}"', 'model = "served"']
    (folder / "zip_pipeline.toml").write_text("\n".join(lines))
    job = {"model": str(folder / "no_model"), "model_name": "sft v1", "data_root": str(folder)}
    return _write(folder / "job.json", job | {"output": str(folder / "mt_bench")})


def _write(path: Path, job: dict[str, Any]) -> Path:
    path.write_text(json.dumps(job))
    return path


def _changed(job: Path, **values: str) -> Path:
    return _write(job, json.loads(job.read_text()) | values)


def _run(job: Path) -> int:
    return main("mt_bench", mt_bench.evaluate, ["--config", str(job)])


def _result(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "mt_bench" / RESULT).read_text())
    assert isinstance(found, dict)
    return found


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)


def _answers(received: Received, _: int) -> Behaviour:
    ends = "length" if received.question == "And red?" else "stop"
    return says(f"answer to {received.question}", finish_reason=ends)


def _eight(*_: object) -> Behaviour:
    return says("Fine. [[8]]")


def test_result_has_z_and_what_it_hides(tmp_path: Path):
    """Ratings by category and turn, missing, malformed and cut: each has its own figure."""

    def judges(received: Received, _: int) -> Behaviour:
        is_math = "math" in received.body["messages"][0]["content"]
        return says("I cannot say." if is_math else "[[8]]" if "poem" in str(received) else "[[5]]")

    with JudgeServer(judges) as judge, JudgeServer(_answers) as answers:
        assert _run(_job(tmp_path, judge, answers)) == 0
    found = _result(tmp_path)
    name = found.pop("Z_name")
    assert found == {
        "Z": 6.5,
        "Z_spread": 0.0,
        "model_name": "sft v1, served as served",
        "sampling_error": pytest.approx(0.75**0.5),
        "by_repetition": [6.5, 6.5],
        "by_category": {"stem": 5.0, "writing": 8.0},
        "by_turn": [6.5, 6.5],
        "num_questions": 3,
        "num_ratings": 8,
        "num_missing": 4,
        "num_malformed": 12,
        "num_refused": 0,
        "num_cut_answers": 1,
        "num_refused_answers": 0,
    }
    assert name.startswith("MT-bench ")
    assert name.endswith(", judge gpt-large")
    assert {request.body["model"] for request in answers.requests} == {"served"}
    assert {request.headers["authorization"] for request in judge.requests} == {f"Bearer {KEY}"}
    assert not [r for r in answers.requests if "authorization" in r.headers]


def test_name_of_z_tells_other_files_apart(tmp_path: Path):
    """Z of other questions cannot be compared, and has another name; a second run has the same."""
    with JudgeServer(_eight) as judge, JudgeServer(_answers) as answers:
        job = _job(tmp_path, judge, answers, repetitions=1)
        assert _run(job) == 0
        first = _result(tmp_path)
        assert first["Z_spread"] is None
        assert _run(job) == 0
        assert _result(tmp_path) == first
        write_bench(tmp_path, questions=QUESTIONS[:2])
        assert _run(job) == 0
    assert _result(tmp_path)["Z_name"] != first["Z_name"]


def test_model_folder_answers_in_this_process(
    tmp_path: Path, small_model: Path, capsys: pytest.CaptureFixture[str]
):
    """Without a server the model itself answers, once: a further run asks nobody and no model."""
    with JudgeServer(_eight) as judge:
        job = _changed(_job(tmp_path, judge), model=str(small_model))
        assert _run(job) == 0
        num_asked = len(judge.requests)
        found = _result(tmp_path)
        lines = (tmp_path / "mt_bench" / "exchanges.jsonl").read_text().splitlines()
        answers = [json.loads(line) for line in lines if '"answers of sft v1' in line]
        # Random weights do not end their answers: the context of 160 tokens does.
        assert {answer["finish_reason"] for answer in answers} == {"length"}
        assert found["num_cut_answers"] == len(answers) == 6 - found["num_refused_answers"]
        assert answers[0]["text"]
        assert found["Z"] == 8.0
        assert found["model_name"].startswith("sft v1, weights ")
        assert _run(job) == 0
        assert len(judge.requests) == num_asked
        assert _result(tmp_path) == found
    printed = capsys.readouterr().out
    assert "3 questions; 0 exchanges are stored\n" in printed
    assert "MT-bench: 8.000 of 10" in printed


def test_model_trained_again_is_asked_again(tmp_path: Path, small_model: Path):
    """Other weights under the same name and folder do not get the answers of before."""
    model = shutil.copytree(small_model, tmp_path / "model")
    with JudgeServer(_eight) as judge:
        job = _changed(_job(tmp_path, judge), model=str(model))
        assert _run(job) == 0
        (model / "config.json").write_text((model / "config.json").read_text() + "\n")
        before = _result(tmp_path)["model_name"]
        assert _run(job) == 0
    assert _result(tmp_path)["model_name"] != before


def test_trouble_costs_attempts_and_no_ratings(tmp_path: Path):
    """Rate limits, server errors, lost connections and malformed ratings are got over."""
    troubles = {
        0: fails(429, Retry_After="0"),
        2: fails(500),
        4: Behaviour(drops=True),
        5: says("no rating"),
        6: says("[[11]]"),
    }
    with (
        JudgeServer(lambda _, count: troubles.get(count, says("[[7]]"))) as judge,
        JudgeServer(lambda r, n: fails(503) if n == 1 else _answers(r, n)) as answers,
    ):
        assert _run(_job(tmp_path, judge, answers)) == 0
        assert len(judge.requests) == 12 + len(troubles)
        assert len(answers.requests) == 7
    found = _result(tmp_path)
    assert (found["Z"], found["num_missing"], found["num_malformed"]) == (7.0, 0, 2)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda job: _changed(job, data_root="none"),
            "none/zip_pipeline.toml: no table [mt_bench]",
        ),
        (lambda job: (job.parent / "prompts.jsonl").unlink(), "prompts.jsonl: no such file"),
        (lambda _: os.environ.pop("JUDGE_KEY"), "environment variable JUDGE_KEY is not set"),
        (lambda job: _changed(job, model="none"), "model: none holds no model"),
        (lambda job: _changed(job, key=KEY), "unknown field 'key'"),
    ],
)
def test_wrong_job_asks_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Path], object],
    message: str,
):
    """Exit code 2 and one line, before anything is asked or written."""
    with JudgeServer(_eight) as judge:
        job = _job(tmp_path, judge)
        prepare(job)
        assert _run(job) == 2
        assert not judge.requests
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert message in error
    assert not (tmp_path / "mt_bench" / RESULT).exists()


def test_key_is_in_no_file_and_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Not even when the judge's error repeats it."""

    def echoes(received: Received, count: int) -> Behaviour:
        header = received.headers["authorization"]
        return _eight() if count < 2 else fails(401, f"no access with {header}")

    with JudgeServer(echoes) as judge, JudgeServer(_answers) as answers:
        assert _run(_job(tmp_path, judge, answers)) == 2
    printed = capsys.readouterr()
    assert "HTTP 401" in printed.err
    assert "no access with Bearer ***" in printed.err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "exchanges.jsonl" in {path.name for path in written}
    assert RESULT not in {path.name for path in written}
    assert not [path for path in written if KEY in path.read_text()]
    assert KEY not in printed.out + printed.err


@pytest.mark.slow
def test_killed_run_goes_on(tmp_path: Path):
    """After a kill -9 the process asks only what it had not stored, and ends with the result."""

    slow = says("[[6]]", delay_seconds=0.05)
    with JudgeServer(lambda *_: slow) as judge, JudgeServer(_answers) as answers:
        job = _job(tmp_path, judge, answers, repetitions=4)
        command = [sys.executable, "-m", "zip_pipeline.evaluation.mt_bench", "--config"]
        run = subprocess.Popen([*command, str(job)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(judge.requests) < 9 and time.monotonic() < deadline:
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        assert run.wait(timeout=10) == -signal.SIGKILL
        assert not (tmp_path / "mt_bench" / RESULT).exists()
        time.sleep(0.2)  # what was sent before the kill arrives
        before = len(judge.requests)
        done = subprocess.run([*command, str(job)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
    assert len(answers.requests) == 6
    stored = int(done.stdout.partition("; ")[2].partition(" ")[0]) - 6
    assert stored >= 6
    assert len(judge.requests) - before == 24 - stored
    assert _result(tmp_path)["Z"] == 6.0


def test_progress_is_said_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Lines count the new answers, and are no more than one per interval."""

    now = 0.0
    monkeypatch.setattr(mt_bench.time, "monotonic", lambda: now)
    asked = Exchange(model="any", messages=(), temperature=0, max_tokens=1)
    answer = mt_bench.counted(lambda _: Reply("yes", "stop"), PlainReporter(), "answers of 160")
    for second in range(12):
        now = float(second)
        answer(asked)
    assert capsys.readouterr().out == "6 new answers of 160\n11 new answers of 160\n"


def test_references_may_be_in_the_questions(tmp_path: Path):
    """Without the key ``references`` the questions' own references are used, or missed."""
    own = [QUESTIONS[1] | {"reference": REFERENCES[0]["choices"][0]["turns"]}]
    with JudgeServer(_eight) as judge, JudgeServer(_answers) as answers:
        job = _job(tmp_path, judge, answers, repetitions=1)
        settings = tmp_path / "zip_pipeline.toml"
        settings.write_text(settings.read_text().replace('references = "references.jsonl"\n', ""))
        assert _run(job) == 2
        write_bench(tmp_path, questions=own)
        assert _run(job) == 0
    assert _result(tmp_path)["num_questions"] == 1
