"""Device, precision, attention, and the effective batch."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.training import backend
from zip_pipeline.training.backend import (
    adapter_config,
    batch_plan,
    choose_backend,
    common_arguments,
    library_versions,
)
from zip_pipeline.training.presets import Lora, load_preset


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch say that there is a GPU with bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


def test_a_cpu_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU everything is float32, whatever the preset wants of a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = choose_backend(load_preset("tiny", {"weights": "bfloat16", "attention": "auto"}))
    assert asdict(found) == {
        "device": "cpu",
        "weights": "float32",
        "bf16": False,
        "attention": "sdpa",
    }


@pytest.mark.usefixtures("gpu")
def test_a_gpu_computes_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU computing is in bfloat16, with FlashAttention where it is installed."""
    preset = load_preset("tiny", {"attention": "auto"})
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    assert asdict(choose_backend(preset)) == {
        "device": "cuda",
        "weights": "float32",
        "bf16": True,
        "attention": "sdpa",
    }
    monkeypatch.setattr(backend, "find_spec", lambda name: name)
    assert choose_backend(preset).attention == "flash_attention_2"


def test_flash_attention_without_a_gpu_is_refused() -> None:
    """A backend that is not there is an error that says what to do."""
    with pytest.raises(ValueError, match="needs a CUDA GPU and the package flash-attn"):
        choose_backend(load_preset("tiny", {"attention": "flash_attention_2"}))


def test_scoring_targets_only_changes_no_loss() -> None:
    """The loss and its gradient are those of a projection of all tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.trainer import utils

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=50, num_attention_heads=2, **shape))
    utils.add_fused_lm_head(model, outputs=("log_probs",))
    ids = torch.randint(0, 50, (2, 9))
    labels = ids.where(torch.arange(9) > 5, -100)
    found = []
    for answer in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(utils, "_use_triton", lambda device, answer=answer: answer)
            model.zero_grad()
            loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss
            loss.backward()
        found.append((loss.item(), model.lm_head.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


def test_scoring_targets_only_is_for_one_version_of_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other version of TRL is left as it is."""
    from trl.trainer import utils

    untouched = object()
    monkeypatch.setattr(utils, "_use_triton", untouched)
    monkeypatch.setattr(backend, "version", lambda name: "1.17.0")
    choose_backend(load_preset("tiny"))
    assert utils._use_triton is untouched
    monkeypatch.setattr(backend, "version", lambda name: "1.16.3")
    choose_backend(load_preset("tiny"))
    assert utils._use_triton is not untouched


def test_trainers_neither_report_nor_run_code_of_a_repository(tmp_path: Path) -> None:
    """No service is told, no remote code runs, checkpoints and warm-up are as set."""
    preset = load_preset("mistral-7b")
    arguments = common_arguments(preset, choose_backend(preset), batch_plan((128, 4), 8), tmp_path)
    expected = {
        "report_to": "none",
        "trust_remote_code": False,
        "bf16": False,
        "use_cpu": True,
        "warmup_steps": 0.1,
        "max_length": 2048,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "save_total_limit": 2,
        "fsdp": None,
    }
    assert {name: arguments[name] for name in expected} == expected
    sharded = load_preset("mistral-7b", {"sharding": True})
    plans = [batch_plan((128, 4), num) for num in (1, 8)]
    found = [common_arguments(sharded, choose_backend(sharded), p, tmp_path)["fsdp"] for p in plans]
    assert found == [None, True]


def test_adapters_are_as_the_preset_says() -> None:
    """Rank, scale and dropout reach peft; without the section all weights are trained."""
    assert adapter_config(None) is None
    found = adapter_config(Lora(rank=3, alpha=6, dropout=0.25))
    assert (found.r, found.lora_alpha, found.lora_dropout) == (3, 6, 0.25)
    assert found.task_type == "CAUSAL_LM"


def test_library_versions_name_what_training_rests_on() -> None:
    """torch, transformers and TRL are in the record."""
    assert {"torch", "transformers", "trl", "datasets"} <= library_versions().keys()


@pytest.mark.parametrize("num_devices", [1, 2, 8])
@pytest.mark.parametrize("name", ["mistral-7b", "llama-3-8b"])
@pytest.mark.parametrize("stage", ["sft", "kto"])
def test_effective_batch_of_the_paper_presets_is_128(
    name: str, num_devices: int, stage: str
) -> None:
    """1, 2 and 8 devices make steps of exactly 128 rows, at most 4 of them at once."""
    preset = load_preset(name)
    plan = batch_plan(preset.batch(getattr(preset, stage)), num_devices, 2)
    assert plan.effective == 128
    assert plan.per_device == 4
    assert plan.num_devices * plan.per_device * plan.accumulation == 128


@given(st.integers(2, 64), st.integers(1, 32), st.integers(1, 6), st.integers(1, 2))
def test_batch_plan_is_the_largest_that_fits(
    batch: int, most: int, num_devices: int, least: int
) -> None:
    """The plan equals what trying all sizes finds, and there is an error where none fits."""
    sizes = [s for s in range(least, most + 1) if batch % (s * num_devices) == 0]
    if not sizes:
        with pytest.raises(ValueError, match="cannot be split"):
            batch_plan((batch, most), num_devices, least)
        return
    plan = batch_plan((batch, most), num_devices, least)
    assert (plan.per_device, plan.effective) == (max(sizes), batch)
