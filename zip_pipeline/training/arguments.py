"""The trainer's settings that SFT, KTO and the probe share."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zip_pipeline.errors import UserError
from zip_pipeline.training.backend import Backend
from zip_pipeline.training.presets import Lora, Preset


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """One optimizer step: ``num_devices * per_device * accumulation`` rows."""

    num_devices: int
    per_device: int
    accumulation: int

    @property
    def effective(self) -> int:
        """Return the rows of one optimizer step."""
        return self.num_devices * self.per_device * self.accumulation

    def as_json(self) -> dict[str, int]:
        """Return the plan by name, the effective batch too."""
        return asdict(self) | {"effective": self.effective}


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
            accumulation = share // per_device
            return BatchPlan(
                num_devices=num_devices, per_device=per_device, accumulation=accumulation
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
