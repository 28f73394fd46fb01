"""The loss probe."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zip_pipeline.chat_models import load_model
from zip_pipeline.files import fingerprint
from zip_pipeline.samples import RatedAnswer, Sample, Turn
from zip_pipeline.training.job import Job
from zip_pipeline.training.trainers.probe import StepLosses, loss_mean, loss_spread, probe_loss
from zip_pipeline_tests.training.conftest import subset_of


def test_the_same_version_measured_twice_has_the_same_loss(job: Callable[..., Job]) -> None:
    """Two measurements agree to the last bit of the report."""
    first, second = probe_loss(job()), probe_loss(job())
    assert first["L"] == pytest.approx(second["L"], abs=1e-6)
    assert first["series"] == second["series"]
    assert first["num_steps"] == 5
    assert (first["rows_truncated"], first["rows_dropped"]) == (0, 0)


def test_the_loss_is_that_of_the_model_on_the_assistants_tokens(
    job: Callable[..., Job], small_base: Path, tmp_path: Path
) -> None:
    """On one step, before anything is learnt, L is what a plain forward pass gives."""
    from zip_pipeline.training.base_model import tiny_tokenizer
    from zip_pipeline.training.rows import conversation_rows, read_subset

    samples = [
        Sample((Turn("user", f"{n}+{n}"), Turn("assistant", f"It is {n + n}."))) for n in range(4)
    ]
    subset = subset_of(samples, tmp_path / "four.parquet")
    found = probe_loss(job(subset=subset, packing=False))
    model = load_model(str(small_base), None)
    rows = conversation_rows(read_subset(subset, "sft"), "sft", tiny_tokenizer(), 96)
    total = count = 0.0
    for ids, labels in zip(rows.input_ids, rows.labels, strict=True):
        logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        for place in range(1, len(ids)):
            if labels[place] >= 0:
                total -= logits[place - 1, labels[place]].item()
                count += 1
    assert found["num_steps"] == 1
    assert found["num_tokens"] == count
    assert found["L"] == pytest.approx(total / count, rel=1e-5)


def test_the_order_in_which_samples_were_picked_does_not_matter(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    """The rows are sorted before they are shuffled by the seed."""
    samples = [Sample((Turn("user", f"{n}"), Turn("assistant", f"{n + 1}"))) for n in range(12)]
    there = probe_loss(job(subset=subset_of(samples, tmp_path / "a.parquet")))
    back = probe_loss(job(subset=subset_of(samples[::-1], tmp_path / "b.parquet")))
    assert there["L"] == pytest.approx(back["L"], abs=1e-6)


def test_a_changed_setting_starts_another_series(job: Callable[..., Job]) -> None:
    """Length, batch, seed and probe change the series; the number of devices does not."""
    from zip_pipeline.training.backend import choose_backend, json_fingerprint
    from zip_pipeline.training.trainers.probe import series_settings

    def series(made: Job) -> str:
        return json_fingerprint(series_settings(made, choose_backend(made.preset), "model"))

    base = series(job())
    assert base == series(job(num_devices=2)) == series(job(**{"kto.learning_rate": 0.5}))
    changes = [{"max_length": 95}, {"batch_size": 6}, {"seed": 1}, {"probe.steps": 6}]
    assert len({base, *(series(job(**change)) for change in changes)}) == 5
    assert fingerprint(["a"]) != base


def test_the_probe_of_a_pair_measures_the_chosen_answer(
    job: Callable[..., Job], pairs_subset: Path, tmp_path: Path
) -> None:
    """A preference version needs no SFT model, and its record says of which stage it is."""
    found = probe_loss(job("preference", pairs_subset))
    assert found["stage"] == "preference"
    assert 0 < found["L"] < math.log(4096) + 1
    assert (tmp_path / "out" / "probe" / "loss.json").is_file()


def test_the_probe_leaves_undesirable_answers_out(job: Callable[..., Job], tmp_path: Path) -> None:
    """They are counted as dropped, and L is that of the other answers alone."""
    rated = [
        RatedAnswer((Turn("user", f"{n}"),), (Turn("assistant", f"{n + 1}"),), n % 3 > 0)
        for n in range(12)
    ]
    both = probe_loss(job("preference", subset_of(rated, tmp_path / "both.parquet")))
    good = [sample for sample in rated if sample.desirable]
    alone = probe_loss(job("preference", subset_of(good, tmp_path / "good.parquet")))
    assert (both["rows_dropped"], alone["rows_dropped"]) == (4, 0)
    assert both["L"] == pytest.approx(alone["L"], abs=1e-6)


def test_loss_spread_is_the_standard_error_about_the_trend() -> None:
    """Losses on a straight line have no spread; scatter of +-0.1 in 20 steps has about 0.023."""
    line = [2.0 - 0.01 * step for step in range(20)]
    even = StepLosses(loss_sums=[10 * value for value in line], num_tokens=[10] * 20)
    assert loss_spread(even) == pytest.approx(0.0, abs=1e-9)
    assert loss_mean(even) == pytest.approx(1.905)
    signs = [1, -1, -1, 1] * 5
    scattered = [10 * (value + 0.1 * sign) for value, sign in zip(line, signs, strict=True)]
    found = loss_spread(replace(even, loss_sums=scattered))
    assert found == pytest.approx(0.1 / math.sqrt(18), rel=0.02)


def test_loss_spread_agrees_with_redrawn_versions() -> None:
    """Averaged over many draws, the estimate is the scatter of L between the draws."""
    rng = np.random.default_rng(0)
    means, spreads = [], []
    for _ in range(300):
        tokens = rng.integers(500, 1500, 20)
        losses = 1.5 - 0.01 * np.arange(20) + rng.normal(0, 0.2, 20) * np.sqrt(1000 / tokens)
        steps = StepLosses(loss_sums=list(losses * tokens), num_tokens=tokens.tolist())
        means.append(loss_mean(steps))
        spreads.append(loss_spread(steps))
    assert np.mean(spreads) == pytest.approx(np.std(means), rel=0.15)


def test_few_steps_have_no_spread() -> None:
    """Four steps say too little of how they scatter; that is no spread of zero."""
    four = StepLosses(loss_sums=[1.0, 2.0, 1.5, 1.5], num_tokens=[1] * 4)
    assert loss_spread(four) is None
    assert loss_spread(StepLosses(loss_sums=[1.0, 2.0, 1.5, 1.5, 1.0], num_tokens=[1] * 5))


def test_a_small_version_has_a_short_probe_in_a_series_of_its_own(
    job: Callable[..., Job], tmp_path: Path, tasks: list[Any]
) -> None:
    """It ends with the first epoch, says so, and is not compared with longer probes."""
    whole = probe_loss(job())
    small = probe_loss(
        job(subset=subset_of([t.sample() for t in tasks[:8]], tmp_path / "s.parquet"))
    )
    assert (whole["num_steps"], whole["num_steps_wanted"]) == (5, 5)
    assert small["num_steps"] < small["num_steps_wanted"] == 5
    assert small["L_spread"] is None
    assert small["series"] != whole["series"]
