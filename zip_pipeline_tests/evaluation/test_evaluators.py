"""Job files of evaluations."""

import json
from pathlib import Path

import pytest

from zip_pipeline.errors import UserError
from zip_pipeline.evaluation.evaluators import main, read_job
from zip_pipeline.judge.client import EndpointError
from zip_pipeline.process import Reporter


def _read(path: Path, job: object) -> dict[str, object]:
    path.write_text(json.dumps(job))
    return read_job(path, ["model"], max_length=int)


def test_job_is_its_fields(tmp_path: Path):
    """Fields that may be left out are not made up."""
    path = tmp_path / "job.json"
    assert _read(path, {"model": "m"}) == {"model": "m"}
    assert _read(path, {"model": "m", "max_length": 5}) == {"model": "m", "max_length": 5}


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ([1], "a job is a JSON object; got list"),
        ({}, "field 'model' is missing; the fields are model, max_length"),
        ({"model": "m", "length": 1}, "unknown field 'length'; the fields are model, max_length"),
        ({"model": 1}, "model is 1; must be of type str"),
        ({"model": "m", "max_length": True}, "max_length is True; must be of type int"),
    ],
)
def test_wrong_job_is_named(tmp_path: Path, job: object, message: str):
    """The file, the field and what is allowed are said."""
    with pytest.raises(ValueError, match=rf"job\.json: {message}"):
        _read(tmp_path / "job.json", job)


def test_unreadable_job_is_named(tmp_path: Path):
    """A file that is missing or no JSON is said with its path."""
    with pytest.raises(ValueError, match=r"none\.json: cannot read the job"):
        read_job(tmp_path / "none.json", [])
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(ValueError, match=r"text\.json: cannot read the job"):
        read_job(tmp_path / "text.json", [])


@pytest.mark.parametrize("error", [UserError("wrong key"), EndpointError("wrong key")])
def test_fault_of_a_job_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], error: Exception
):
    """Faults of the job and of endpoints end without a traceback; a bug does not hide."""

    def fail(_: Path, report: Reporter) -> None:
        report.line("begun")
        raise error

    assert main("held_out", fail, ["--config", "job.json"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("begun\n", "Error: wrong key\n")
    assert main("held_out", lambda *_: None, ["--config", "job.json"]) == 0
    with pytest.raises(ZeroDivisionError):
        main("held_out", lambda *_: 1 // 0, ["--config", "job.json"])
