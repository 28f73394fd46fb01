"""Preference training: what the trainer sees, and from where it starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from zip_pipeline.process import SilentReporter, StopRequest
from zip_pipeline.training.backend import choose_backend
from zip_pipeline.training.job import Job
from zip_pipeline.training.run import Made, progress_callback, quiet, starting_point
from zip_pipeline.training.trainers.kto import TRAINER as KTO


def make(job: Job, tmp_path: Path) -> Made:
    """Return the trainer of a job without training."""
    callback = progress_callback(tmp_path / "m.jsonl", SilentReporter(), StopRequest())
    with quiet():
        return KTO.make(starting_point(job, KTO), choose_backend(job.preset), callback)


def test_both_labels_reach_the_trainer_in_every_batch(
    job: Callable[..., Job], pairs_subset: Path, small_base: Path, tmp_path: Path
) -> None:
    """The trainer's own batches have both labels, in the order of the rows, and lose no row."""
    made = make(job("preference", pairs_subset, sft_model=str(small_base)), tmp_path)
    trainer: Any = made.trainer
    batches = list(trainer.get_train_dataloader())
    labels = [batch["label"].tolist() for batch in batches]
    assert [len(window) for window in labels] == [4] * 12
    assert all(sum(window) == 2 for window in labels)
    assert len({tuple(window) for window in labels}) > 1
    rows = trainer.train_dataset
    expected = [p + c for p, c in zip(rows["prompt_ids"], rows["completion_ids"], strict=True)]
    seen = [
        ids[mask > 0].tolist()
        for batch in batches
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert seen == expected
    assert len({rows["prompt"][place][0]["content"] for place in range(4)}) > 2
    assert made.counts.num_rows == 48
    assert made.plan.effective == 8


def test_the_kl_term_pairs_answers_with_other_prompts(
    job: Callable[..., Job], pairs_subset: Path, small_base: Path, tmp_path: Path
) -> None:
    """Inside each batch the answers move on by one row, as the KL estimate wants it."""
    trainer: Any = make(
        job("preference", pairs_subset, sft_model=str(small_base)), tmp_path
    ).trainer
    rows = trainer.train_dataset[:4]
    moved = [rows["completion_ids"][-1], *rows["completion_ids"][:-1]]
    assert rows["KL_completion_ids"] == moved


def test_kto_starts_from_the_sft_model(
    job: Callable[..., Job], pairs_subset: Path, small_base: Path, tmp_path: Path
) -> None:
    """The first loss is that of equal policies, and the result differs from the start."""
    from safetensors.torch import load_file

    made_job = job(
        "preference", pairs_subset, sft_model=str(small_base), **{"kto.learning_rate": 1e-2}
    )
    record = KTO.train(made_job)
    assert record["model"]["source"] == str(small_base)
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert '"loss": 0.5,' in lines[0]
    assert len(lines) == record["num_steps"] == 6
    before = load_file(small_base / "model.safetensors")
    after = load_file(tmp_path / "out" / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert KTO.train(made_job)["trained"] is False


def test_adapters_learn_preferences_and_are_merged(
    job: Callable[..., Job], pairs_subset: Path, small_base: Path, tmp_path: Path
) -> None:
    """Under LoRA the reference is the model without adapters, and the result is a plain model."""
    from safetensors.torch import load_file

    settings = {"lora": {"rank": 2, "alpha": 64}, "kto.learning_rate": 1e-2}
    KTO.train(job("preference", pairs_subset, sft_model=str(small_base), **settings))
    assert '"loss": 0.5,' in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0]
    before = load_file(small_base / "model.safetensors")
    after = load_file(tmp_path / "out" / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(before[name], after[name])
    assert torch.equal(before["model.norm.weight"], after["model.norm.weight"])


def test_kto_without_an_sft_model_is_refused(
    job: Callable[..., Job], pairs_subset: Path, tmp_path: Path
) -> None:
    """A missing SFT model is an error that says what to do."""
    with pytest.raises(ValueError, match="kto starts from an SFT model"):
        KTO.train(job("preference", pairs_subset))
    with pytest.raises(ValueError, match="Train one first"):
        KTO.train(job("preference", pairs_subset, sft_model=str(tmp_path)))
