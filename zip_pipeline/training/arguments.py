"""The trainer's settings that SFT, KTO and the probe share."""

from pathlib import Path
from typing import Any

from zip_pipeline.training.backend import Backend
from zip_pipeline.training.batches import BatchPlan
from zip_pipeline.training.presets import Lora, Preset


def common_arguments(
    preset: Preset, backend: Backend, plan: BatchPlan, output: Path
) -> dict[str, Any]:
    """Return the arguments of a TRL configuration that do not depend on the method.

    Nothing is pushed, reported to a service or loaded from code of a repository; a metric line
    is written for every optimizer step.

    Args:
        preset: the settings.
        backend: device and precision.
        plan: the batch.
        output: folder of the checkpoints.
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
