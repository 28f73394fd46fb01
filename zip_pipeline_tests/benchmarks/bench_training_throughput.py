"""SFT of the mistral-7b architecture on one GPU: tokens/s, share of the peak, memory.

Random weights in bfloat16, random tokens, packed to 2,048. Without a CUDA GPU it says so.
"""

import random
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zip_pipeline.chat_models import prepare_environment
from zip_pipeline.training.backend import (
    Backend,
    BatchPlan,
    batch_plan,
    choose_backend,
    common_arguments,
)
from zip_pipeline.training.base_model import tiny_tokenizer
from zip_pipeline.training.plan import (
    DEVICE_FLOPS,
    architecture,
    flops_per_token,
    llama_size,
    memory_bytes,
)
from zip_pipeline.training.presets import Preset, load_preset
from zip_pipeline.training.rows import IGNORED
from zip_pipeline.training.trainers.sft import row_settings
from zip_pipeline_tests.benchmarks.machine import report

MISTRAL_7B = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32_768,
    "sliding_window": None,
}
NUM_WARMUP_STEPS = 3
NUM_STEPS = 10
BATCH = 16
GIB = 1 << 30


def random_rows(num_tokens: int, max_length: int, seed: int = 0) -> dict[str, list[list[int]]]:
    """Return rows of 16 to ``max_length`` tokens; the loss falls on the second half of each."""
    rng = random.Random(seed)
    rows: list[list[int]] = []
    while num_tokens > 0:
        length = min(max_length, 16 + int(rng.expovariate(1 / 400)))
        rows.append(rng.choices(range(10, 4000), k=length))
        num_tokens -= length
    labels = [[IGNORED] * (len(row) // 2) + row[len(row) // 2 :] for row in rows]
    return {"input_ids": rows, "labels": labels}


def trainer_of(
    shape: dict[str, Any], preset: Preset, backend: Backend, plan: BatchPlan, folder: str
) -> Any:
    """Return a trainer with the arguments of the pipeline on a model of random weights."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, MistralConfig, PrinterCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    with torch.device(backend.device):
        model = AutoModelForCausalLM.from_config(
            MistralConfig(**shape),
            dtype=getattr(torch, backend.weights),
            attn_implementation=backend.attention,
        )
    num_steps = NUM_WARMUP_STEPS + NUM_STEPS
    arguments = common_arguments(preset, backend, plan, Path(folder)) | {"save_strategy": "no"}
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**arguments, **row_settings(preset), max_steps=num_steps),
        train_dataset=Dataset.from_dict(
            random_rows(num_steps * plan.effective * preset.max_length, preset.max_length)
        ),
        processing_class=tiny_tokenizer(),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def step_clock() -> Any:
    """Return a callback that notes time and tokens whenever a step's loss has been read."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        ticks: list[tuple[float, float]]

        def __init__(self) -> None:
            self.ticks = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "num_tokens" in logs and "loss" in logs:
                self.ticks.append((time.perf_counter(), logs["num_tokens"]))

    return Clock()


def measure(shape: dict[str, Any], preset: Preset) -> dict[str, object]:
    """Train some steps and return speed and memory, beside what the plan reckons with."""
    import torch

    backend, plan, size = choose_backend(preset), batch_plan((BATCH, 4), 1), llama_size(shape)
    clock = step_clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(shape, preset, backend, plan, folder)
        trainer.add_callback(clock)
        trainer.train()
    (began, before), (ended, after) = clock.ticks[NUM_WARMUP_STEPS - 1], clock.ticks[-1]
    speed = (after - before) / (ended - began)
    return {
        "num_parameters": size.num_parameters,
        "tokens_per_second": round(speed),
        "share_of_peak": round(speed * flops_per_token(size, preset, "sft") / DEVICE_FLOPS, 3),
        "device_peak_tflops": DEVICE_FLOPS / 1e12,
        "gpu_memory_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "planned_memory_gib": round(memory_bytes(size, preset, plan, "sft") / GIB, 2),
        "num_steps": NUM_STEPS,
        "batch": asdict(plan),
        "max_length": preset.max_length,
        **asdict(backend),
    }


def main() -> None:
    """Measure on the GPU, or say that there is none."""
    prepare_environment(offline=True)
    import torch

    if not torch.cuda.is_available():
        report("training_throughput", {"skipped": "no CUDA GPU on this machine"})
        return
    preset = load_preset("mistral-7b", {"weights": "bfloat16"})
    assert llama_size(MISTRAL_7B) == architecture(preset)
    figures = measure(MISTRAL_7B, preset)
    report("training_throughput", {"device_name": torch.cuda.get_device_name(), **figures})


if __name__ == "__main__":
    main()
