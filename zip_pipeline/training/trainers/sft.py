"""Supervised fine-tuning with TRL, run as a process: ``python -m`` and ``--config FILE``."""

import sys
from typing import TYPE_CHECKING, Any, ClassVar

from zip_pipeline.chat_models import load_model
from zip_pipeline.samples import Stage
from zip_pipeline.training.backend import Backend, adapter_config, batch_plan, common_arguments
from zip_pipeline.training.presets import Preset, templated_tokenizer
from zip_pipeline.training.process import main
from zip_pipeline.training.rows import TokenRows, conversation_rows, read_subset
from zip_pipeline.training.run import Made, Start
from zip_pipeline.training.trainers import Trainer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback


def row_settings(preset: Preset) -> dict[str, Any]:
    """Return TRL's settings of how the rows of :func:`token_dataset` become batches."""
    return {
        "packing": preset.packing,
        "packing_strategy": "bfd",
        # The rows have labels and are cut and counted: only packing is left to do.
        "dataset_kwargs": None if preset.packing else {"skip_prepare_dataset": True},
    }


def token_dataset(rows: TokenRows) -> "Dataset":
    """Return rows as the trainer's data set."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": rows.input_ids, "labels": rows.labels})


class Sft(Trainer):
    """Trains the SFT model of a version; the loss falls on what the assistant says.

    Source: ZIP, section 4.1 (the paper presets).
    Deviation: rows are packed without attending to each other; the paper does not say.
    """

    name = "sft"
    stage: ClassVar[Stage] = "sft"
    module = "zip_pipeline.training.trainers.sft"
    section = "sft"

    def make(self, start: Start, backend: Backend, callback: "TrainerCallback") -> Made:
        """Return TRL's trainer over the conversations of a version; see :class:`.Trainer`."""
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        job, preset = start.job, start.job.preset
        tokenizer = templated_tokenizer(start.source, start.revision, preset.template)
        rows = conversation_rows(
            read_subset(job.subset, "sft"), "sft", tokenizer, preset.max_length
        )
        plan = batch_plan(preset.batch(preset.sft), job.num_devices)
        trainer = SFTTrainer(
            model=load_model(start.source, start.revision, backend.weights, backend.attention),
            args=SFTConfig(
                **common_arguments(preset, backend, plan, start.checkpoints),
                **row_settings(preset),
                num_train_epochs=preset.sft.epochs,
                learning_rate=preset.sft.learning_rate,
            ),
            train_dataset=token_dataset(rows),
            processing_class=tokenizer,
            peft_config=adapter_config(preset.lora),
            callbacks=[callback],
        )
        return Made(trainer=trainer, plan=plan, counts=rows.counts)


TRAINER = Sft()


if __name__ == "__main__":
    sys.exit(main(TRAINER.module, TRAINER.train))
