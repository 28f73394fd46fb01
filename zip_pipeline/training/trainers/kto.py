"""Preference training with TRL, run as a process: ``python -m`` and ``--config FILE``."""

import sys
from typing import TYPE_CHECKING, Any

from zip_pipeline.chat_models import model_arguments
from zip_pipeline.process import StopRequest
from zip_pipeline.training.arguments import adapter_config, batch_plan, common_arguments
from zip_pipeline.training.backend import Backend
from zip_pipeline.training.job import Job
from zip_pipeline.training.process import main
from zip_pipeline.training.rows import AnswerRows, answer_rows, interleave, read_subset
from zip_pipeline.training.run import Made, Start, num_rows, train
from zip_pipeline.training.templates import templated_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback


def train_kto(job: Job, stop: StopRequest | None = None) -> dict[str, Any]:
    """Train the preference model of a version by KTO, starting from an SFT model.

    Args:
        job: a ``preference`` job that names the folder of the SFT model.
        stop: asked after every step whether to end early.

    Returns:
        The contents of training.json, and under ``trained`` whether anything was trained now.

    Raises:
        UserError: the job cannot be run.

    Source: KTO, section 4; ZIP, section 4.1 (the paper presets).
    Deviation: every batch window has both labels; the reference shuffles alone.
    """
    return train(job, _make, stop)


def answer_dataset(rows: AnswerRows, order: list[int]) -> "Dataset":
    """Return rows in that order as the trainer's data set."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "prompt": [rows.rows[place].prompt for place in order],
            "completion": [rows.rows[place].completion for place in order],
            "label": [rows.rows[place].desirable for place in order],
        }
    )


def _make(start: Start, backend: Backend, callback: "TrainerCallback") -> Made:
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    job, preset = start.job, start.job.preset
    tokenizer = templated_tokenizer(start.source, start.revision, preset.template)
    rows = answer_rows(read_subset(job.subset, "preference"), tokenizer, preset.max_length)
    plan = batch_plan(preset.batch(preset.kto), job.num_devices, 2)
    order = interleave([row.desirable for row in rows.rows], plan.per_device, preset.seed)
    trainer = KTOTrainer(
        # A path, not a model: the trainer loads the reference model from it once more.
        model=start.source,
        args=KTOConfig(
            **common_arguments(preset, backend, plan, start.checkpoints),
            num_train_epochs=preset.kto.epochs,
            learning_rate=preset.kto.learning_rate,
            model_init_kwargs=model_arguments(start.revision, backend.weights, backend.attention),
        ),
        train_dataset=answer_dataset(rows, order),
        processing_class=tokenizer,
        peft_config=adapter_config(preset.lora),
        callbacks=[callback],
    )
    # A row that the trainer left out would shift all later windows.
    assert num_rows(trainer) == len(order)
    return Made(trainer=trainer, plan=plan, counts=rows.counts)


if __name__ == "__main__":
    sys.exit(main("kto", train_kto))
