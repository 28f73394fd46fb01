"""Training's progress through Dagster Pipes, and its job files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from zip_pipeline.training.job import Job, job_from, read_job
from zip_pipeline.training.trainers.sft import TRAINER as SFT
from zip_pipeline_tests.training.conftest import job_values


def test_metrics_are_streamed_through_pipes(
    job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under Dagster every step is a custom message, and the end brings the record."""
    from dagster_pipes import encode_param

    messages = tmp_path / "messages"
    context = {
        "asset_keys": ["sft/model"],
        "run_id": "run",
        "job_name": None,
        "retry_number": 0,
        "extras": {},
    } | dict.fromkeys(
        [
            "code_version_by_asset_key",
            "provenance_by_asset_key",
            "partition_key",
            "partition_key_range",
            "partition_time_window",
        ]
    )
    monkeypatch.setenv("DAGSTER_PIPES_CONTEXT", encode_param({"data": context}))
    monkeypatch.setenv("DAGSTER_PIPES_MESSAGES", encode_param({"path": str(messages)}))
    record = SFT.train(job())
    sent = [json.loads(line) for line in messages.read_text().splitlines()]
    payloads = [m["params"]["payload"] for m in sent if m["method"] == "report_custom_message"]
    steps = [p["step"] for p in payloads if p["kind"] == "step"]
    assert steps == list(range(1, record["num_steps"] + 1))
    assert payloads[-1]["kind"] == "trained"
    assert payloads[-1]["fingerprint"] == record["fingerprint"]
    logged = [m["params"]["message"] for m in sent if m["method"] == "log"]
    assert any(line.startswith(f"step {record['num_steps']} of") for line in logged)


def test_a_job_survives_its_file(job: Callable[..., Job], tmp_path: Path) -> None:
    """A job written as JSON is read back as it was, and its settings can be replaced there."""
    made = job("preference", sft_model=str(tmp_path), num_devices=2)
    (tmp_path / "job.json").write_text(json.dumps(job_values(made)))
    assert read_job(tmp_path / "job.json") == made
    changed = job_from(job_values(made) | {"overrides": {"seed": 7, "sft.epochs": 3}})
    assert (changed.preset.seed, changed.preset.sft.epochs) == (7, 3)
    assert changed.preset.sft.learning_rate == made.preset.sft.learning_rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": "dpo"}, "stage is 'dpo'"),
        ({"num_devices": 0}, "num_devices is 0"),
        ({"devices": 1}, "unknown field 'devices'"),
        ({"preset": 7}, "preset is 7; it must be a name, a file or settings"),
    ],
)
def test_a_wrong_job_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """An unknown field or a value out of range is an error that names both."""
    fields: dict[str, object] = {"stage": "sft", "subset": "s", "output": "o"}
    with pytest.raises(ValueError, match=message):
        job_from({**fields, "preset": "tiny", **change})
    with pytest.raises(ValueError, match="cannot read the job"):
        read_job(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="a job is a JSON object; got list"):
        read_job(tmp_path / "list.json")
