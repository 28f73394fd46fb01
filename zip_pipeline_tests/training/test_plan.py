"""What a run will take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.errors import UserError
from zip_pipeline.training.backend import batch_plan
from zip_pipeline.training.job import Job, job_from
from zip_pipeline.training.plan import (
    CARDS,
    architecture,
    llama_size,
    memory_bytes,
    num_bins,
    num_padding_tokens,
    training_plan,
    ways_to_fit,
)
from zip_pipeline.training.presets import load_preset

MISTRAL = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}


def test_sizes_of_the_paper_models_are_right() -> None:
    """The formula gives the published numbers of parameters, which the presets state."""
    assert llama_size(MISTRAL).num_parameters == 7_241_732_096
    llama = llama_size(MISTRAL | {"vocab_size": 128_256})
    assert llama.num_parameters == 8_030_261_248
    assert architecture(load_preset("mistral-7b")) == llama_size(MISTRAL)
    assert architecture(load_preset("llama-3-8b")) == llama


@pytest.mark.slow
def test_the_plan_of_sft_agrees_with_the_run(job: Callable[..., Job]) -> None:
    """Steps, tokens and packs are those that training then has."""
    from zip_pipeline.training.trainers.sft import TRAINER as SFT

    for packing in (True, False):
        plan = training_plan(job(packing=packing, **{"sft.epochs": 2}))
        record = SFT.train(job(packing=packing, **{"sft.epochs": 2}))
        assert plan.num_steps == record["num_steps"]
        assert plan.rows.as_json() == record["rows"]
        assert plan.num_tokens == 2 * record["rows"]["num_tokens"]
        assert (plan.num_packs < plan.rows.num_rows) is packing
        assert (plan.num_padding_tokens == 0) is packing
        assert plan.hours > 0
        assert plan.tokens_are_estimated is False


def test_the_plan_of_kto_needs_no_sft_model(job: Callable[..., Job], pairs_subset: Path) -> None:
    """Two rows per pair, in windows of 4, 8 of them a step."""
    plan = training_plan(job("preference", pairs_subset))
    assert (plan.rows.num_rows, plan.steps_per_epoch, plan.num_steps) == (48, 6, 6)
    assert (plan.batch.per_device, plan.batch.effective) == (4, 8)


def test_pairs_weigh_the_same_also_where_a_row_is_left_out(
    job: Callable[..., Job], pairs_subset: Path, tmp_path: Path
) -> None:
    """Of 48 rows in windows of 47 a single one is left over, which changes no weight."""
    sizes = {"kto.batch_size": 47, "kto.per_device_batch_size": 47}
    plan = training_plan(job("preference", pairs_subset, **sizes))
    assert plan.num_packs == 47
    assert str(plan.answers) == (
        "24 desirable answers of weight 1, 24 undesirable ones of weight 1"
    )


def test_a_template_that_does_not_suit_the_model_is_refused_before_training(
    job: Callable[..., Job],
) -> None:
    """The plan of a model at hand is refused for the reasons for which training would be."""
    for template, message in (("vicuna", "needs the token </s>"), ("model", "no chat template")):
        with pytest.raises(ValueError, match=message):
            training_plan(job(template=template))


def test_a_model_out_of_reach_is_planned_with_an_estimate(
    sft_subset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the model's tokenizer the plan says that its tokens are an estimate."""
    import zip_pipeline.training.plan as module

    def out_of_reach(*_: Any, **__: Any) -> object:
        raise UserError("model: cannot load")

    monkeypatch.setattr(module, "load_tokenizer", out_of_reach)
    fields = {"stage": "sft", "subset": sft_subset, "output": tmp_path}
    plan = training_plan(job_from({**fields, "preset": "mistral-7b", "num_devices": 8}))
    assert plan.tokens_are_estimated is True
    assert plan.num_parameters == 7_241_732_096
    assert (plan.batch.effective, plan.num_steps) == (128, 4)


def test_memory_is_18_bytes_per_parameter_and_activations() -> None:
    """Float32 weights, gradients and Adam take 16 bytes, autocast 2, a reference model 4 more."""
    preset = load_preset("mistral-7b", {"gradient_checkpointing": False})
    batch = batch_plan((128, 4), 1)
    shape = architecture(preset)
    num = 7_241_732_096
    activations = 34 * 32 * 4096 * 2048 * 4
    assert memory_bytes(shape, preset, batch, "sft") == 18 * num + activations
    assert memory_bytes(shape, preset, batch, "preference") == 22 * num + activations
    lora = load_preset("mistral-7b", {"lora": {}, "gradient_checkpointing": False})
    assert memory_bytes(shape, lora, batch, "sft") == 6 * num + activations
    half = load_preset("mistral-7b", {"weights": "bfloat16", "gradient_checkpointing": False})
    assert memory_bytes(shape, half, batch, "sft") == 8 * num + activations
    saved = load_preset("mistral-7b")
    assert memory_bytes(shape, saved, batch, "sft") < 18 * num + activations / 10
    sharded = load_preset("mistral-7b", {"sharding": True, "gradient_checkpointing": False})
    spread = memory_bytes(shape, sharded, batch_plan((128, 4), 8), "sft")
    assert spread == 18 * num / 8 + activations


def _ways(job: Job, gib: float) -> list[tuple[dict[str, Any], int, float]]:
    found = ways_to_fit(job, architecture(job.preset), gib)
    return [(way.overrides, way.num_devices, round(way.memory_gib, 1)) for way in found]


def test_what_does_not_fit_has_ways_to_fit(sft_subset: Path, tmp_path: Path) -> None:
    """Of a 7B model 18 bytes per parameter are 121 GiB: adapters take 6, two devices share 18."""
    fields = {"stage": "sft", "subset": sft_subset, "output": tmp_path, "preset": "mistral-7b"}
    adapters, two = ({"lora": {"rank": 16}}, 1, 43.5), ({"sharding": True}, 2, 63.8)
    assert _ways(job_from(fields), 80.0) == [adapters, two]
    assert _ways(job_from(fields), 24.0) == [({"sharding": True}, 8, 18.2)]
    assert _ways(job_from(fields), 3.0) == []
    eight = job_from({**fields, "num_devices": 8, "overrides": {"sharding": True}})
    assert _ways(eight, 18.0) == [({"sharding": True}, 16, 10.6)]
    low_rank = job_from({**fields, "overrides": {"lora": {}, "gradient_checkpointing": False}})
    assert _ways(low_rank, 60.0) == [({"gradient_checkpointing": True}, 1, 43.5)]


def test_a_plan_names_the_cards_on_which_it_fits(job: Callable[..., Job]) -> None:
    """A tenth of the memory is left for what the estimate leaves out."""
    small = training_plan(job())
    assert (small.fits, small.ways_to_fit) == (True, [])
    assert small.fits_on == list(CARDS)
    assert small.device_memory_gib == CARDS["A100 80 GB, H100"] == 80.0
    barely = training_plan(job(), device_memory_gib=small.memory_gib / 0.9 + 1e-9)
    over = training_plan(job(), device_memory_gib=small.memory_gib)
    assert (barely.fits, over.fits) == (True, False)


def slow_bins(lengths: list[int], capacity: int) -> int:
    """Best-fit decreasing by looking at every bin."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in spaces if space >= length]
        if fitting:
            spaces[spaces.index(min(fitting))] -= length
        else:
            spaces.append(capacity - length)
    return len(spaces)


@given(st.lists(st.integers(1, 20), max_size=40))
def test_num_bins_is_best_fit_decreasing(lengths: list[int]) -> None:
    """The fast count equals that of a search over all bins."""
    assert num_bins(lengths, 20) == slow_bins(lengths, 20)


def test_padding_fills_each_window_to_its_longest_row() -> None:
    """3 and 1 are padded by 2, 5 and 5 by none, a last single row by none."""
    assert num_padding_tokens([3, 1, 5, 5, 7], 2) == 2


def test_plans_of_unknown_models_are_refused(sft_subset: Path, tmp_path: Path) -> None:
    """A model of unknown size, and a utilisation out of range, are errors."""
    fields = {"stage": "sft", "subset": sft_subset, "output": tmp_path}
    unknown = {"model": "owner/name", "revision": "abc"}
    with pytest.raises(ValueError, match="nothing is known of the size of owner/name"):
        training_plan(job_from({**fields, "preset": "tiny", "overrides": unknown}))
    with pytest.raises(ValueError, match="utilisation is 0"):
        training_plan(job_from({**fields, "preset": "tiny"}), utilisation=0)
