"""The device that computes, and the trainer's settings that SFT, KTO and the probe share."""

import json
import time
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.training.presets import Lora, Preset

if TYPE_CHECKING:
    from transformers import Trainer

_LIBRARIES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "tokenizers")
# Elsewhere the trainer may ask the same name for something else.
_TRL_THAT_PROJECTS_ALL = "1.16."


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What computes, in which precision."""

    device: str
    """``cpu`` or ``cuda``"""
    weights: str
    """type of the weights"""
    bf16: bool
    """whether computing is in bfloat16"""
    attention: str


def choose_backend(preset: Preset) -> Backend:
    """Return bfloat16 on a GPU that has it, float32 on a CPU, and the attention to use.

    Raises:
        UserError: the preset asks for FlashAttention where there is none.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    flash = on_gpu and find_spec("flash_attn") is not None
    attention = preset.attention
    if attention == "auto":
        attention = "flash_attention_2" if flash else "sdpa"
    if attention == "flash_attention_2" and not flash:
        raise UserError(
            "preset: attention is 'flash_attention_2', which needs a CUDA GPU and the package "
            "flash-attn. Install it, or set attention to 'sdpa'"
        )
    if not on_gpu:
        _score_targets_only()
    return Backend(
        device="cuda" if on_gpu else "cpu",
        weights=preset.weights if on_gpu else "float32",
        bf16=on_gpu and torch.cuda.is_bf16_supported(),
        attention=attention,
    )


def _score_targets_only() -> None:
    """Let TRL project only tokens with a label on the vocabulary, on a CPU as it does on a GPU.

    TRL 1.16 projects all tokens where there is no Triton, so that shapes stay constant for
    devices that compile for each shape; its module ``trainer.utils`` asks ``_use_triton`` for
    this one decision, its kernels ask their own. The losses are the same (*measured*: 20 steps
    of the tiny preset in 12 s instead of 24).
    """
    if version("trl").startswith(_TRL_THAT_PROJECTS_ALL):
        from trl.trainer import utils

        utils._use_triton = lambda device: True  # type: ignore[attr-defined]


# A smaller model is done before its estimate would be of use.
_SLOW_PARAMETERS = 10_000_000
_TIMED_TOKENS = 128


def time_on_cpu(trainer: "Trainer", num_tokens: float) -> str:
    """Return in words how long a large model takes on a CPU, by a pass over some tokens.

    Args:
        trainer: with the model, which stays as it is.
        num_tokens: that it trains on.

    Returns:
        Words; empty on a GPU, and for a model of fewer than ten million parameters.
    """
    import torch

    model: Any = trainer.model
    if model.device.type != "cpu" or model.num_parameters() < _SLOW_PARAMETERS:
        return ""
    tokens = torch.ones((1, _TIMED_TOKENS), dtype=torch.long)
    # What is drawn here, as for dropout, is drawn again by the training.
    with torch.random.fork_rng():
        model(tokens[:, :8]).logits.mean().backward()
        began = time.monotonic()
        model(tokens, labels=tokens).loss.backward()
    seconds = time.monotonic() - began
    model.zero_grad()
    minutes = max(1, round(num_tokens / _TIMED_TOKENS * seconds / 60))
    return (
        f"about {minutes:,} min on this CPU: {num_tokens:,.0f} tokens at "
        f"{_TIMED_TOKENS / seconds:,.0f} a second"
    )


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """One optimizer step: ``effective = num_devices * per_device * accumulation`` rows."""

    num_devices: int
    per_device: int
    accumulation: int
    effective: int


def batch_plan(batch: tuple[int, int], num_devices: int, least_per_device: int = 1) -> BatchPlan:
    """Return the plan with the largest per-device batch that gives exactly the effective batch.

    Args:
        batch: rows of an optimizer step over all devices, and the most that one takes at once.
        num_devices: devices that train together.
        least_per_device: fewest; KTO's KL term needs 2.

    Raises:
        UserError: no per-device batch within the limits divides the batch.
    """
    batch_size, most_per_device = batch
    share, rest = divmod(batch_size, num_devices)
    for per_device in range(min(most_per_device, share), least_per_device - 1, -1):
        if rest == 0 and share % per_device == 0:
            return BatchPlan(
                num_devices=num_devices,
                per_device=per_device,
                accumulation=share // per_device,
                effective=batch_size,
            )
    raise UserError(
        f"batch_size: {batch_size} rows on {num_devices} devices cannot be split into equal "
        f"batches of {least_per_device} to {most_per_device} per device. Choose a batch_size that "
        "the number of devices divides, or another per_device_batch_size"
    )


def common_arguments(
    preset: Preset, backend: Backend, plan: BatchPlan, output: Path
) -> dict[str, Any]:
    """Return the arguments of a TRL configuration that do not depend on the method.

    Nothing is pushed, reported to a service or loaded from code of a repository; a metric line
    is written for every optimizer step. ``output`` is the folder of the checkpoints.
    """
    sharded = preset.sharding and plan.num_devices > 1
    return {
        "output_dir": str(output),
        "per_device_train_batch_size": plan.per_device,
        "gradient_accumulation_steps": plan.accumulation,
        "max_length": preset.max_length,
        "lr_scheduler_type": "cosine",
        "warmup_steps": preset.warmup_share,
        "seed": preset.seed,
        "bf16": backend.bf16,
        "use_cpu": backend.device == "cpu",
        "gradient_checkpointing": preset.gradient_checkpointing,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": preset.checkpoint_steps,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "log_level_replica": "error",
        "dataloader_pin_memory": backend.device != "cpu",
        "trust_remote_code": False,
        "fsdp": True if sharded else None,
        "ddp_find_unused_parameters": False,
    }


def adapter_config(lora: Lora | None) -> Any:  # noqa: ANN401  peft's LoraConfig or None
    """Return peft's configuration of the adapters, None for full fine-tuning."""
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that training rests on."""
    return {name: version(name) for name in _LIBRARIES if find_spec(name) is not None}


def json_fingerprint(value: object) -> str:
    """Return a hash of plain values that does not depend on the order of keys."""
    return fingerprint([json.dumps(value, sort_keys=True, ensure_ascii=False)])
