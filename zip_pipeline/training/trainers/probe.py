"""L of a version, measured before it is trained, in a process of its own."""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zip_pipeline.chat_models import load_model, prepare_environment
from zip_pipeline.files import hashing, write_json
from zip_pipeline.process import StopRequest, reporter
from zip_pipeline.training.backend import (
    Backend,
    adapter_config,
    batch_plan,
    choose_backend,
    common_arguments,
    json_fingerprint,
    library_versions,
    time_on_cpu,
)
from zip_pipeline.training.job import Job
from zip_pipeline.training.presets import template_text, templated_tokenizer
from zip_pipeline.training.process import main
from zip_pipeline.training.rows import TokenRows, conversation_rows, read_subset
from zip_pipeline.training.run import Start, file_hash, num_rows, quiet, starting_point
from zip_pipeline.training.trainers.sft import TRAINER as SFT
from zip_pipeline.training.trainers.sft import row_settings, token_dataset

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.sft_trainer import SFTTrainer

_LEAST_STEPS = 5
# What makes two measurements comparable; the split over devices does not change a step.
_SERIES = ("template", "max_length", "packing", "probe", "seed", "lora")


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """Loss sums of the optimizer steps of a probe."""

    loss_sums: list[float]
    """sum of the token losses of each step, nats"""
    num_tokens: list[int]
    """target tokens of each step"""


def probe_loss(job: Job, stop: StopRequest | None = None) -> dict[str, Any]:
    """Measure L: the token-weighted mean training loss of the first steps of epoch one.

    Base model, seed, order of rows (a seeded shuffle of the rows sorted by sample_id), packing,
    attention and precision are the same for all versions of a series; L is lower for data that
    is familiar and consistent. Both stages start from the base model, for an SFT model differs
    from version to version; of a preference pair the loss is that of the chosen answer, and an
    undesirable answer is dropped and counted.

    Args:
        job: the version; ``probe/loss.json`` goes into its output folder.
        stop: for the sake of a common signature.

    Returns:
        The contents of loss.json: ``L`` and ``L_spread`` (nats per token), ``num_tokens``,
        ``num_steps`` and ``num_steps_wanted`` (a small version has fewer), ``series`` (equal for
        comparable measurements), the settings behind it, and what became of the rows.

    Raises:
        UserError: the job cannot be run.

    Source: Entropy Law, section 3 (training loss of the first steps stands for consistency).
    Deviation: the learning rate warms up over a fixed number of steps and then stays, since a
        schedule over the whole run would differ between versions of different size.
    """
    prepare_environment(offline=job.is_local)
    del stop  # a probe is over soon: outside a training run a signal ends the process
    began = time.monotonic()
    base = starting_point(replace(job, stage="sft"), SFT)
    with reporter() as report:
        report.line(f"measuring the loss of {job.subset}")
        backend = choose_backend(job.preset)
        tokenizer = templated_tokenizer(base.source, base.revision, job.preset.template)
        subset = read_subset(job.subset, job.stage)
        rows = conversation_rows(subset, job.stage, tokenizer, job.preset.max_length)
        if hidden := rows.counts.not_shown():
            report.line(f"the template does not show: {hidden}")
        with tempfile.TemporaryDirectory() as folder, quiet():
            trainer = _probe_trainer(base, backend, rows, tokenizer, folder)
            most = trainer.args.max_steps * job.preset.batch(job.preset.sft)[0]
            num_tokens = min(rows.counts.num_tokens, most * job.preset.max_length)
            if words := time_on_cpu(trainer, num_tokens):
                report.line(words)
            trainer.train()
        steps = trainer.step_losses()  # type: ignore[attr-defined]
        num_steps = len(steps.num_tokens)
        # The more a model has learnt, the lower its loss: a shorter probe is another measure.
        settings = series_settings(job, backend, base.model) | {"num_steps": num_steps}
        result = {
            "stage": job.stage,
            "L": loss_mean(steps),
            "L_spread": loss_spread(steps),
            "num_tokens": sum(steps.num_tokens),
            "num_steps": num_steps,
            "num_steps_wanted": job.preset.probe.steps,
            "series": json_fingerprint(settings),
            "settings": settings,
            "subset_hash": file_hash(job.subset),
            "rows_truncated": rows.counts.rows_truncated,
            "rows_dropped": rows.counts.rows_dropped,
            "steps": asdict(steps),
            "seconds": round(time.monotonic() - began, 3),
            "libraries": library_versions(),
        }
        if trainer.is_world_process_zero():
            with hashing(path := job.output / "probe" / "loss.json"):
                write_json(path, result)
        report.line(f"L = {result['L']:.4f} nats per token over {num_steps} steps")
        report.record({"kind": "probe", **result})
    return result


def series_settings(job: Job, backend: Backend, model: str) -> dict[str, Any]:
    """Return all that must be equal for two values of L to be comparable."""
    preset = job.preset
    settings = preset.settings()
    return {
        "stage": job.stage,
        "model": model,
        "template_text": template_text(preset.template, preset.source, preset.revision),
        "learning_rate": preset.sft.learning_rate,
        **{name: settings[name] for name in _SERIES},
        "batch_size": preset.batch(preset.sft)[0],
        **asdict(backend),
    }


def loss_mean(steps: StepLosses) -> float:
    """Return the mean loss per target token over all steps, nats."""
    return sum(steps.loss_sums) / sum(steps.num_tokens)


def loss_spread(steps: StepLosses) -> float | None:
    """Return the standard error of :func:`loss_mean`, from how steps scatter about their trend.

    The steps are fitted by a straight line in their number, weighted by tokens, so that learning
    within the probe does not count as scatter. Source of chance is which rows a step gets: it
    estimates how L would vary with another seed of the row order.

    Args:
        steps: of the probe.

    Returns:
        Nats per token, None with fewer than five steps, which say too little of their scatter.
    """
    num_tokens = np.asarray(steps.num_tokens, dtype=np.float64)
    losses = np.asarray(steps.loss_sums) / num_tokens
    num_steps = len(losses)
    if num_steps < _LEAST_STEPS:
        return None
    weights = num_tokens / num_tokens.sum()
    line = np.polyfit(np.arange(num_steps), losses, 1, w=np.sqrt(weights))
    scatter = losses - np.polyval(line, np.arange(num_steps))
    variance = np.sum((weights * scatter) ** 2) * num_steps / (num_steps - 2)
    return float(np.sqrt(variance))


def _probe_trainer(
    base: Start,
    backend: Backend,
    rows: TokenRows,
    tokenizer: "PreTrainedTokenizerBase",
    folder: str,
) -> "SFTTrainer":
    from transformers import PrinterCallback
    from trl.trainer.sft_config import SFTConfig

    preset = base.job.preset
    plan = batch_plan(preset.batch(preset.sft), base.job.num_devices)
    arguments = common_arguments(preset, backend, plan, Path(folder)) | {
        "save_strategy": "no",
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": preset.probe.warmup_steps,
    }
    trainer = _trainer_class()(
        model=load_model(base.source, base.revision, backend.weights, backend.attention),
        args=SFTConfig(
            **arguments,
            **row_settings(preset),
            max_steps=preset.probe.steps,
            learning_rate=preset.sft.learning_rate,
        ),
        train_dataset=token_dataset(rows),
        processing_class=tokenizer,
        peft_config=adapter_config(preset.lora),
    )
    trainer.remove_callback(PrinterCallback)
    # A small version ends with its first epoch: rows that were seen before say nothing new.
    steps_per_epoch = -(-num_rows(trainer) // plan.effective)
    trainer.args.max_steps = min(preset.probe.steps, steps_per_epoch)
    return trainer


def _trainer_class() -> type["SFTTrainer"]:
    from trl.trainer.sft_trainer import SFTTrainer

    class ProbeTrainer(SFTTrainer):
        """Sums the token losses of each step exactly, before the trainer rounds or averages."""

        def compute_loss(
            self,
            model: Any,  # noqa: ANN401
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: "torch.Tensor | int | None" = None,
        ) -> Any:  # noqa: ANN401
            parent: Any = super()
            loss = parent.compute_loss(model, inputs, return_outputs, num_items_in_batch)
            assert num_items_in_batch is not None
            sums, tokens = self.__dict__.setdefault("probe", ({}, {}))
            step, count = self.state.global_step, int(num_items_in_batch)
            part = loss.detach().double() * count / self.accelerator.num_processes
            sums[step] = sums.get(step, 0.0) + part
            tokens[step] = count
            return loss

        def step_losses(self) -> StepLosses:
            """Return the sums of all processes, step by step."""
            import torch

            sums, tokens = self.__dict__["probe"]
            local = torch.stack([sums[step] for step in sorted(sums)])
            # Not every accelerator has doubles, so the exchange is in single precision.
            total: Sequence[float] = self.accelerator.reduce(local.float()).double().tolist()
            if self.accelerator.num_processes == 1:
                total = local.tolist()
            return StepLosses(
                loss_sums=list(total), num_tokens=[tokens[step] for step in sorted(tokens)]
            )

    return ProbeTrainer


if __name__ == "__main__":
    sys.exit(main("zip_pipeline.training.trainers.probe", probe_loss))
