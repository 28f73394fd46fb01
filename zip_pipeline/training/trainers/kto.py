"""Preference training with TRL, run as a process: ``python -m`` and ``--config FILE``."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, ClassVar

from zip_pipeline.chat_models import model_arguments
from zip_pipeline.samples import Stage
from zip_pipeline.training.backend import Backend, adapter_config, batch_plan, common_arguments
from zip_pipeline.training.presets import templated_tokenizer
from zip_pipeline.training.process import main
from zip_pipeline.training.rows import (
    AnswerRows,
    answer_rows,
    answer_weights,
    interleave,
    read_subset,
)
from zip_pipeline.training.run import Made, Start, num_rows
from zip_pipeline.training.trainers import Trainer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback


def answer_dataset(rows: AnswerRows, order: list[int]) -> "Dataset":
    """Return rows in that order as the trainer's data set."""
    from datasets import Dataset, Features, Json, List, Value

    chosen = [rows.rows[place] for place in order]
    columns = {
        "prompt": [row.prompt for row in chosen],
        "completion": [row.completion for row in chosen],
        "label": [row.desirable for row in chosen],
    }
    # As JSON a message has no fields but its own; a table would give it those of all others.
    messages = List(Json())
    features = {"prompt": messages, "completion": messages, "label": Value("bool")}
    if any(row.tools for row in chosen):
        columns["tools"] = [row.tools or None for row in chosen]
        features["tools"] = Value("string")
    return Dataset.from_dict(columns, features=Features(features))


class Kto(Trainer):
    """Trains the preference model of a version by KTO, starting from an SFT model.

    Source: KTO, section 4; ZIP, section 4.1 (the paper presets).
    Deviation: every batch window has both labels; the reference shuffles alone.
    """

    name = "kto"
    stage: ClassVar[Stage] = "preference"
    module = "zip_pipeline.training.trainers.kto"
    starts_from_sft = True
    section = "kto"

    def make(self, start: Start, backend: Backend, callback: "TrainerCallback") -> Made:
        """Return TRL's trainer over the answers of a version; see :class:`.Trainer`."""
        from trl.trainer.kto_config import KTOConfig
        from trl.trainer.kto_trainer import KTOTrainer

        job, preset = start.job, start.job.preset
        tokenizer = templated_tokenizer(start.source, start.revision, preset.template)
        rows = answer_rows(read_subset(job.subset, "preference"), tokenizer, preset.max_length)
        plan = batch_plan(preset.batch(preset.kto), job.num_devices, 2)
        labels = [row.desirable for row in rows.rows]
        order, weights = interleave(labels, plan.per_device, preset.seed), answer_weights(labels)
        trainer = KTOTrainer(
            # A path, not a model: the trainer loads the reference model from it once more.
            model=start.source,
            args=KTOConfig(
                **common_arguments(preset, backend, plan, start.checkpoints),
                num_train_epochs=preset.kto.epochs,
                learning_rate=preset.kto.learning_rate,
                desirable_weight=weights.desirable,
                undesirable_weight=weights.undesirable,
                model_init_kwargs=model_arguments(
                    start.revision, backend.weights, backend.attention
                ),
            ),
            train_dataset=answer_dataset(rows, order),
            processing_class=tokenizer,
            peft_config=adapter_config(preset.lora),
            callbacks=[callback],
        )
        # A row that the trainer left out would shift all later windows.
        assert num_rows(trainer) == len(order)
        return Made(
            trainer=trainer,
            plan=plan,
            counts=rows.counts,
            note=f"KTO: {weights}",
            facts={"answers": asdict(weights)},
        )


TRAINER = Kto()


if __name__ == "__main__":
    sys.exit(main(TRAINER.module, TRAINER.train))
