"""A trainer in one file: declared here, and run in a real process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import upsert_version
from zip_pipeline.errors import UserError
from zip_pipeline.files import write_json
from zip_pipeline.process import StopRequest
from zip_pipeline.samples import Stage
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.training.job import Job
from zip_pipeline.training.process import main
from zip_pipeline.training.trainers import Trainer, trainer_for, trainers
from zip_pipeline.workflow.models import train_version, trained_versions
from zip_pipeline.workflow.versions import StoredVersion, read_version, select_version
from zip_pipeline_tests.defs.trained_roots import ingested

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from zip_pipeline.training.backend import Backend
    from zip_pipeline.training.run import Made, Start


class Counting(Trainer):
    """Counts the rows of a version, and leaves a model folder behind."""

    name = "counting"
    stage: ClassVar[Stage] = "sft"
    module = "zip_pipeline_tests.test_plugins_trainer"
    section = "sft"

    def make(self, start: "Start", backend: "Backend", callback: "TrainerCallback") -> "Made":
        """Not asked: it trains nothing."""
        raise NotImplementedError

    def train(self, job: Job, stop: StopRequest | None = None) -> dict[str, Any]:
        """Write what a finished training leaves."""
        import polars as pl

        record = {"num_rows": pl.read_parquet(job.subset).height, "sft_model": str(job.sft_model)}
        write_json(job.output / "model" / "config.json", {})
        write_json(job.output / "training.json", record)
        return record


TOY = Counting()


class CountingFromSft(Counting):
    """The same, from an SFT model."""

    name = "counting_from_sft"
    starts_from_sft = True


@pytest.fixture
def toys() -> Iterator[None]:
    """Register the trainers for one test."""
    for trainer in (TOY, CountingFromSft()):
        trainers.register(trainer)
    yield
    for name in ("counting", "counting_from_sft"):
        trainers.unregister(name)


def run_processes(module: str, jobs: Mapping[Path, Mapping[str, Any]]) -> None:
    """Run the module over the job files."""
    for job_file, job in jobs.items():
        write_json(job_file, dict(job))
        command = [sys.executable, "-m", module, "--config", str(job_file)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])


def allowed_version(root: DataRoot) -> StoredVersion:
    """Return a version of five samples that the law lets train."""
    ingested(root, "a.jsonl", 40)
    config = SelectionConfig(budget_samples=5, k1=20, k2=6, k3=3)
    number = select_version(root["sft"], config, print)
    upsert_version(root, {"stage": "sft", "version": number, "verdict": "safe"})
    return read_version(root["sft"], number)


@pytest.mark.usefixtures("toys")
def test_a_version_is_trained_by_the_named_trainer(tmp_path: Path) -> None:
    """Its module runs as a process, and what it leaves counts as the model of the version."""
    root = DataRoot(tmp_path)
    version = allowed_version(root)
    training = {"preset": "tiny", "trainer": "counting"}
    record = train_version(root, version, training, run_processes)
    assert record == {"num_rows": 5, "sft_model": "None"}
    assert trained_versions(root["sft"]) == [1]


@pytest.mark.usefixtures("toys")
def test_a_trainer_that_starts_from_an_sft_model_gets_one(tmp_path: Path) -> None:
    """That is a property of the trainer: without a model it is refused, whatever the stage."""
    root = DataRoot(tmp_path)
    version = allowed_version(root)
    training = {"preset": "tiny", "trainer": "counting_from_sft"}
    with pytest.raises(UserError, match="starts from an SFT model, and there is none yet"):
        train_version(root, version, training, run_processes)
    record = train_version(root, version, training, run_processes, sft_model="/models/mine")
    assert record["sft_model"] == "/models/mine"
    job = json.loads((root["sft"].models(1) / "job.json").read_text())
    assert set(job) >= {"stage", "subset", "output", "sft_model"}
    assert "trainer" not in job


@pytest.mark.usefixtures("toys")
def test_the_name_of_a_trainer_counts_for_its_stage_alone() -> None:
    """Both stages have the same settings; the other one keeps its default."""
    assert trainer_for("sft", "counting").name == "counting"
    assert trainer_for("preference", "counting").name == "kto"
    assert [trainer_for("sft").name, trainer_for("preference").name] == ["sft", "kto"]


def test_an_unknown_trainer_is_told_what_there_is() -> None:
    """The message lists the registered ones."""
    with pytest.raises(UserError, match=r"^trainer: got 'dpo'; allowed are sft, kto$"):
        trainer_for("preference", "dpo")


if __name__ == "__main__":
    sys.exit(main(TOY.module, TOY.train))
