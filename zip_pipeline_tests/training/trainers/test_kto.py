"""Preference training: what the trainer sees, and from where it starts."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from zip_pipeline.chat_tokens import encode
from zip_pipeline.process import SilentReporter, StopRequest
from zip_pipeline.samples import PreferencePair, RatedAnswer, Turn, sample_of, turn_groups
from zip_pipeline.training.backend import choose_backend
from zip_pipeline.training.job import Job
from zip_pipeline.training.plan import training_plan
from zip_pipeline.training.rows import read_subset
from zip_pipeline.training.run import Made, progress_callback, quiet, starting_point
from zip_pipeline.training.trainers.kto import TRAINER as KTO
from zip_pipeline_tests.test_chat_tokens import CALL, SCHEMA, knowing
from zip_pipeline_tests.training.conftest import subset_of


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


def mixed(tmp_path: Path) -> Path:
    """Return a subset of 4 pairs and 6 rated answers, 2 of them desirable, with tools and names."""
    user, tools = Turn("user", "1+1", name="ann"), json.dumps([SCHEMA])
    answers = [(Turn("assistant", f"{n}"),) for n in range(10)]
    pairs = [PreferencePair((Turn("user", f"{n}"),), answers[n], answers[-n]) for n in (1, 2, 3, 4)]
    rated = [
        RatedAnswer(
            (user, Turn("assistant", "", json.dumps([call])), Turn("tool", f"{n}", name="add")),
            answers[n],
            n < 2,
            tools=tools if n % 2 else "",
        )
        for n, call in enumerate([CALL, {**CALL, "name": {"b": [1]}}] * 3)
    ]
    return subset_of([*pairs, *rated], tmp_path / "mixed.parquet")


def test_pairs_and_rated_answers_are_trained_together(
    job: Callable[..., Job], small_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights are said before training, reach the loss, and are recorded."""
    made_job = job("preference", mixed(tmp_path), sft_model=str(small_base), max_length=300)
    made = make(made_job, tmp_path)
    settings: Any = made.trainer.args
    assert (settings.desirable_weight, settings.undesirable_weight) == (8 / 6, 1)
    plan = training_plan(made_job)
    capsys.readouterr()
    record = KTO.train(made_job)
    words = "6 desirable answers of weight 1.33333, 8 undesirable ones of weight 1"
    lines = capsys.readouterr().out.splitlines()
    place = next(n for n, line in enumerate(lines) if f"KTO: {words}" in line)
    assert "names of 6 samples" in lines[place - 1]
    assert "step" in lines[place + 1]
    assert str(plan.answers) == words
    assert plan.answers is not None
    assert record["answers"] == asdict(plan.answers)
    assert record["rows"] == plan.rows.as_json()
    assert (record["rows"]["num_rows"], record["rows"]["names_not_shown"]) == (14, 6)
    stored = json.loads((tmp_path / "out" / "training.json").read_text())
    assert stored["answers"] == record["answers"]


def test_calls_and_tools_reach_the_trainer_as_they_are(
    job: Callable[..., Job], small_base: Path, tmp_path: Path
) -> None:
    """Its tokens are those of our own encoding: no message gets a field of another one."""
    base, tokenizer = tmp_path / "base", knowing()
    shutil.copytree(small_base, base)
    tokenizer.save_pretrained(base)
    subset = mixed(tmp_path)
    settings = {"model": str(base), "template": "model", "max_length": 500}
    made = make(job("preference", subset, sft_model=str(base), **settings), tmp_path)
    dataset: Any = made.trainer.train_dataset
    found = [p + c for p, c in zip(dataset["prompt_ids"], dataset["completion_ids"], strict=True)]
    table = read_subset(subset, "preference")
    expected = []
    for row in table.iter_rows(named=True):
        sample = sample_of({**row, "chosen_score": None, "rejected_score": None}, "preference")
        prompt, *sides = turn_groups(sample)
        expected += [
            encode(tokenizer, [prompt + side], [sample.tools])[0].input_ids.tolist()
            for side in sides
            if side
        ]
    assert sorted(found) == sorted(expected)


def test_kto_without_an_sft_model_is_refused(
    job: Callable[..., Job], pairs_subset: Path, tmp_path: Path
) -> None:
    """A missing SFT model is an error that says what to do."""
    with pytest.raises(ValueError, match="kto starts from an SFT model"):
        KTO.train(job("preference", pairs_subset))
    with pytest.raises(ValueError, match="Train one first"):
        KTO.train(job("preference", pairs_subset, sft_model=str(tmp_path)))
