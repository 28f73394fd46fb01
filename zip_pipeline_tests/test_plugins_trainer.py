"""A trainer in one file: declared here, found by its entry point, and run by the whole graph."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import upsert_version
from zip_pipeline.errors import UserError
from zip_pipeline.samples import Stage
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.training.process import main
from zip_pipeline.training.trainers import Trainer, trainer_for, trainers
from zip_pipeline.workflow.models import train_version
from zip_pipeline.workflow.versions import StoredVersion, read_version, select_version
from zip_pipeline_tests.defs.graph import alpaca_rows
from zip_pipeline_tests.defs.trained_roots import ingested

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from zip_pipeline.training.backend import Backend
    from zip_pipeline.training.run import Made, Start


class Plain(Trainer):
    """Trains with the trainer of transformers, without TRL."""

    name = "plain"
    stage: ClassVar[Stage] = "sft"
    module = "zip_pipeline_tests.test_plugins_trainer"
    section = "sft"

    def make(self, start: "Start", backend: "Backend", callback: "TrainerCallback") -> "Made":
        """Return the trainer over the conversations of a version."""
        import transformers

        from zip_pipeline.chat_models import load_model
        from zip_pipeline.training.backend import batch_plan, common_arguments
        from zip_pipeline.training.presets import templated_tokenizer
        from zip_pipeline.training.rows import conversation_rows, read_subset
        from zip_pipeline.training.run import Made
        from zip_pipeline.training.trainers.sft import token_dataset

        job, preset = start.job, start.job.preset
        tokenizer = templated_tokenizer(start.source, start.revision, preset.template)
        rows = conversation_rows(
            read_subset(job.subset, "sft"), "sft", tokenizer, preset.max_length
        )
        plan = batch_plan(preset.batch(preset.sft), job.num_devices)
        arguments = common_arguments(preset, backend, plan, start.checkpoints)
        del arguments["max_length"], arguments["trust_remote_code"]
        trainer = transformers.Trainer(
            model=load_model(start.source, start.revision, backend.weights, backend.attention),
            args=transformers.TrainingArguments(
                **arguments,
                num_train_epochs=preset.sft.epochs,
                learning_rate=preset.sft.learning_rate,
            ),
            train_dataset=token_dataset(rows),
            data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
            processing_class=tokenizer,
            callbacks=[callback],
        )
        return Made(trainer=trainer, plan=plan, counts=rows.counts)


TOY = Plain()


class PlainFromSft(Plain):
    """The same, from an SFT model."""

    name = "plain_from_sft"
    starts_from_sft = True


@pytest.fixture
def toys() -> Iterator[None]:
    """Register the trainers for one test."""
    for trainer in (TOY, PlainFromSft()):
        trainers.register(trainer)
    yield
    for name in ("plain", "plain_from_sft"):
        trainers.unregister(name)


def allowed_version(root: DataRoot) -> StoredVersion:
    """Return a version of five samples that the law lets train."""
    ingested(root, "a.jsonl", 40)
    config = SelectionConfig(strategy="zip", budget_samples=5, k1=20, k2=6, k3=3)
    number = select_version(root["sft"], config, print)
    upsert_version(root, {"stage": "sft", "version": number, "verdict": "safe"})
    return read_version(root["sft"], number)


SETTINGS = """
[sft]
budget_samples = 12
k1 = 20
k2 = 12
k3 = 6
[held_out]
share = 0
[training]
trainer = "plain"
[training.overrides]
max_length = 96
batch_size = 4
per_device_batch_size = 2
"sft.epochs" = 1
"probe.steps" = 3
"probe.warmup_steps" = 1
"""


@pytest.mark.slow
def test_an_installed_trainer_trains_in_the_graph(tmp_path: Path) -> None:
    """The command line runs the graph, which finds the trainer by its entry point."""
    package = tmp_path / "site" / "toy-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[zip_pipeline.trainers]\ntoy = {__name__}:TOY\n")
    data = tmp_path / "data"
    (data / "raw" / "sft").mkdir(parents=True)
    rows = "".join(json.dumps(row) + "\n" for row in alpaca_rows(40))
    (data / "raw" / "sft" / "a.jsonl").write_text(rows)
    (data / "zip_pipeline.toml").write_text(SETTINGS)
    path = os.pathsep.join([str(package.parent), str(Path(__file__).parents[1])])
    command = [sys.executable, "-m", "zip_pipeline.cli", "run", "--data-root", str(data)]
    (tmp_path / "dagster.yaml").touch()
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    output = data / "models" / "sft" / "v000001"
    assert json.loads((output / "training.json").read_text())["num_steps"] == 3
    assert (output / "model" / "model.safetensors").is_file()


@pytest.mark.usefixtures("toys")
def test_a_trainer_that_starts_from_an_sft_model_gets_one(tmp_path: Path) -> None:
    """That is a property of the trainer: without a model it is refused, whatever the stage."""
    root = DataRoot(tmp_path)
    version = allowed_version(root)
    training = {"preset": "tiny", "trainer": "plain_from_sft"}
    done: dict[Path, Mapping[str, Any]] = {}

    def run_jobs(module: str, jobs: Mapping[Path, Mapping[str, Any]]) -> None:
        assert module == PlainFromSft.module
        done.update(jobs)
        model = root["sft"].models(1) / "model"
        model.mkdir(parents=True)
        for path in (model / "config.json", model.with_name("training.json")):
            path.write_text('{"done": true}')

    with pytest.raises(UserError, match="starts from an SFT model, and there is none yet"):
        train_version(root, version, training, run_jobs)
    train_version(root, version, training, run_jobs, sft_model="/models/mine")
    (job,) = done.values()
    assert job["sft_model"] == "/models/mine"
    assert set(job) >= {"stage", "subset", "output", "sft_model"}
    assert "trainer" not in job


@pytest.mark.usefixtures("toys")
def test_the_name_of_a_trainer_counts_for_its_stage_alone() -> None:
    """Both stages have the same settings; the other one keeps its default."""
    assert trainer_for("sft", "plain").name == "plain"
    assert trainer_for("preference", "plain").name == "kto"
    assert [trainer_for("sft").name, trainer_for("preference").name] == ["sft", "kto"]


def test_an_unknown_trainer_is_told_what_there_is() -> None:
    """The message lists the registered ones."""
    with pytest.raises(UserError, match=r"^trainer: got 'dpo'; allowed are sft, kto$"):
        trainer_for("preference", "dpo")


if __name__ == "__main__":
    sys.exit(main(TOY.module, TOY.train))
