"""Supervised fine-tuning: what the trainer sees, what it leaves behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zip_pipeline.chat_models import load_model, load_tokenizer, model_identity
from zip_pipeline.process import SilentReporter, StopRequest
from zip_pipeline.samples import Sample, Turn
from zip_pipeline.training.backend import choose_backend
from zip_pipeline.training.base_model import tiny_tokenizer
from zip_pipeline.training.job import Job
from zip_pipeline.training.presets import TEMPLATES
from zip_pipeline.training.run import (
    Made,
    _forget_other_runs,
    latest_whole,
    progress_callback,
    quiet,
    starting_point,
)
from zip_pipeline.training.trainers.sft import TRAINER as SFT
from zip_pipeline_tests.training.conftest import read_metrics, subset_of

TWO = [
    Sample((Turn("user", "1+1"), Turn("assistant", "2"))),
    Sample((Turn("user", "2"), Turn("assistant", "3"), Turn("tool", "4"), Turn("assistant", "5"))),
]


def made(job: Job, tmp_path: Path) -> Made:
    """Return the trainer of a job without training."""
    callback = progress_callback(tmp_path / "m.jsonl", SilentReporter(), StopRequest())
    with quiet():
        return SFT.make(starting_point(job, SFT), choose_backend(job.preset), callback)


def words(tokenizer: Any, ids: torch.Tensor) -> list[list[str]]:
    """Return tokens as text, a dot where no loss falls."""
    return [
        ["." if token < 0 else tokenizer.convert_ids_to_tokens(token) for token in row]
        for row in ids.tolist()
    ]


def test_padded_batches_have_labels_on_the_assistant_only(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    """The whole tensors of a batch: tokens, and labels where the assistant speaks."""
    subset = subset_of(TWO, tmp_path / "two.parquet")
    trainer: Any = made(job(subset=subset, packing=False), tmp_path).trainer
    (batch,) = list(trainer.get_train_dataloader())
    rows = dict(
        zip(
            map(" ".join, words(trainer.processing_class, batch["input_ids"])),
            map(" ".join, words(trainer.processing_class, batch["labels"])),
            strict=True,
        )
    )
    assert rows == {
        "<|bos|> <|user|> 1 + 1 <|end|> <|assistant|> 2 <|end|> <|pad|> <|pad|> <|pad|> <|pad|>": (
            ". . . . . . . 2 <|end|> . . . ."
        ),
        "<|bos|> <|user|> 2 <|end|> <|assistant|> 3 <|end|> <|tool|> 4 <|end|> <|assistant|> 5 "
        "<|end|>": ". . . . . 3 <|end|> . . . . 5 <|end|>",
    }


def test_packed_batches_have_labels_on_the_assistant_only(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    """A pack is its rows one after the other, positions counted anew in each."""
    subset = subset_of(TWO, tmp_path / "two.parquet")
    trainer: Any = made(job(subset=subset, packing=True), tmp_path).trainer
    (batch,) = list(trainer.get_train_dataloader())
    assert words(trainer.processing_class, batch["labels"]) == [
        [
            *[".", ".", ".", ".", ".", "3", "<|end|>", ".", ".", ".", ".", "5", "<|end|>"],
            *[".", ".", ".", ".", ".", ".", ".", "2", "<|end|>"],
        ]
    ]
    assert batch["position_ids"].tolist() == [[*range(13), *range(9)]]


def test_packed_rows_do_not_attend_to_each_other(job: Callable[..., Job], tmp_path: Path) -> None:
    """The loss of packs, of several at once too, is that of their rows computed on their own."""
    samples = [
        Sample((Turn("user", f"{n} + {n}"), Turn("assistant", f"It is {n + n}."))) for n in range(9)
    ]
    subset = subset_of(samples, tmp_path / "nine.parquet")
    sums = []
    for packing, at_once in ((False, 1), (True, 1), (True, 2)):
        trainer: Any = made(
            job(subset=subset, packing=packing, max_length=40, per_device_batch_size=at_once),
            tmp_path,
        ).trainer
        batches = list(trainer.get_train_dataloader())
        assert len(batches) == {(False, 1): 9, (True, 1): 5, (True, 2): 3}[packing, at_once]
        total = 0.0
        for batch in batches:
            num_targets = int((batch["labels"][:, 1:] >= 0).sum())
            total += trainer.compute_loss(trainer.model, batch).item() * num_targets
        sums.append(total)
    assert sums[1] == pytest.approx(sums[0], rel=1e-5)
    assert sums[2] == pytest.approx(sums[0], rel=1e-5)
    assert sums[0] > 1


def test_training_leaves_a_complete_model(job: Callable[..., Job], tmp_path: Path) -> None:
    """Model folder, record and one metric line per step; no pickles, no checkpoints."""
    record = SFT.train(job(packing=True))
    out = tmp_path / "out"
    assert record["trained"] is True
    assert json.loads((out / "training.json").read_text())["fingerprint"] == record["fingerprint"]
    assert {p.suffix for p in (out / "model").iterdir()} == {".safetensors", ".json", ".jinja"}
    assert not (out / "checkpoints").exists()
    metrics = read_metrics(out)
    assert metrics["step"].to_list() == list(range(1, record["num_steps"] + 1))
    assert record["rows"]["num_samples"] == 60
    assert record["model"]["identity"] == model_identity(record["model"]["source"], None)
    assert (record["model"]["revision"], record["backend"]["weights"]) == (None, "float32")
    assert record["batch"]["effective"] == 4
    assert metrics["loss"][-1] < metrics["loss"][0]


@pytest.mark.slow
def test_a_finished_model_is_not_trained_again(job: Callable[..., Job], tmp_path: Path) -> None:
    """The same job finds its model; another subset or setting trains anew in its place."""
    first = SFT.train(job())
    changed = (tmp_path / "out" / "model" / "model.safetensors").stat().st_mtime_ns
    again = SFT.train(job(checkpoint_steps=7, **{"probe.steps": 4}))
    assert (again["trained"], again["fingerprint"]) == (False, first["fingerprint"])
    assert (tmp_path / "out" / "model" / "model.safetensors").stat().st_mtime_ns == changed
    other = SFT.train(job(**{"sft.learning_rate": 2e-3}))
    assert other["trained"] is True
    assert other["fingerprint"] != first["fingerprint"]


def test_adapters_are_merged_into_the_model(job: Callable[..., Job], tmp_path: Path) -> None:
    """Under LoRA the model folder is a plain model, changed by training."""
    made_job = job(lora={"rank": 2, "alpha": 64}, **{"sft.learning_rate": 1e-2})
    SFT.train(made_job)
    before = load_model(made_job.preset.model, None).state_dict()
    after = load_model(str(tmp_path / "out" / "model"), None).state_dict()
    assert before.keys() == after.keys()
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(before[name], after[name])
    assert torch.equal(before["model.norm.weight"], after["model.norm.weight"])


def test_a_model_that_no_training_wrote_is_not_replaced(job: Callable[..., Job]) -> None:
    """A folder of that name with something else in it stays, and nothing is trained."""
    mine = job()
    (mine.output / "model").mkdir(parents=True)
    (mine.output / "model" / "pytorch_model.bin").write_text("years of work")
    with pytest.raises(ValueError, match="model: was not written by a training of zip-pipeline"):
        SFT.train(mine)
    assert (mine.output / "model" / "pytorch_model.bin").read_text() == "years of work"


def test_only_checkpoints_of_other_runs_are_forgotten(tmp_path: Path) -> None:
    """What does not bear the name of a run of ours stays, and so does what a link leads to."""
    mine, other, ours = (tmp_path / "checkpoints" / name for name in ("notes", "a" * 32, "b" * 32))
    ours, other = Path(f"{ours}-1"), Path(f"{other}-2")
    for folder in (mine, other, ours, tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (tmp_path / "checkpoints" / f"{'c' * 32}-1").symlink_to(tmp_path / "elsewhere")
    trainer = SimpleNamespace(is_world_process_zero=lambda: True)
    _forget_other_runs(ours, trainer)
    assert not other.exists()
    assert all((folder / "file").exists() for folder in (mine, ours, tmp_path / "elsewhere"))
    _forget_other_runs(tmp_path / "not there" / "x", trainer)


def test_half_written_checkpoints_are_removed(tmp_path: Path) -> None:
    """The newest checkpoint that is whole is used, and what is not whole is cleared away."""
    for step in (2, 4, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert latest_whole(tmp_path / "none") is None
    (tmp_path / "checkpoint-4" / "whole").touch()
    (tmp_path / "checkpoint-2" / "whole").touch()
    assert latest_whole(tmp_path) == tmp_path / "checkpoint-4"
    assert not (tmp_path / "checkpoint-10").exists()


def test_one_job_at_a_time_trains_in_a_folder(job: Callable[..., Job], tmp_path: Path) -> None:
    """A second process is refused while the first holds the folder."""
    from zip_pipeline.files import held_lock

    with (
        held_lock(tmp_path / "out" / ".lock"),
        pytest.raises(ValueError, match="another process is training here"),
    ):
        SFT.train(job())


def test_a_stop_request_saves_and_ends(job: Callable[..., Job], tmp_path: Path) -> None:
    """Told to stop, training ends after the step with a checkpoint, and goes on from there."""
    stop = StopRequest()
    stop.signal_number = 15
    with pytest.raises(SystemExit) as error:
        SFT.train(job(), stop)
    assert error.value.code == 143
    assert not (tmp_path / "out" / "model").exists()
    assert len(read_metrics(tmp_path / "out")) == 1
    record = SFT.train(job())
    assert record["resumed_at_step"] == 1
    assert read_metrics(tmp_path / "out")["step"].to_list() == list(
        range(1, record["num_steps"] + 1)
    )


@pytest.mark.slow
def test_a_model_is_trained_on_its_own_template(
    job: Callable[..., Job], small_base: Path, tmp_path: Path
) -> None:
    """The template reaches the trained model unchanged, and is part of what the model is."""
    base, tokenizer, fingerprints = tmp_path / "base", tiny_tokenizer(), set()
    shutil.copytree(small_base, base)
    for comment in ("", "{# mine #}"):
        tokenizer.chat_template = TEMPLATES["tiny"].text + comment
        tokenizer.save_pretrained(base)
        record = SFT.train(job(model=str(base), template="model"))
        trained = load_tokenizer(str(tmp_path / "out" / "model"), None)
        assert trained.chat_template == tokenizer.chat_template
        fingerprints.add(record["fingerprint"])
    assert len(fingerprints) == 2
