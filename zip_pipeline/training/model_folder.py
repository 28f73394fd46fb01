"""Where a trained model ends up: whole, and in formats that run no code when they are loaded."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zip_pipeline.storage import write_json

if TYPE_CHECKING:
    from transformers import Trainer


def publish(trainer: "Trainer", output: Path, record: dict[str, Any]) -> None:
    """Put the model folder and then training.json in place; drop the checkpoints.

    The folder holds safetensors, configuration and tokenizer, and no pickles; adapters are
    merged into the weights.
    """
    temporary, model = output / ".tmp-model", output / "model"
    is_first = trainer.is_world_process_zero()
    if is_first:
        shutil.rmtree(temporary, ignore_errors=True)
    unwrapped: Any = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(unwrapped, "merge_and_unload"):
        trainer.save_model(str(temporary))
    elif is_first:
        unwrapped.merge_and_unload().save_pretrained(temporary)
        assert trainer.processing_class is not None
        trainer.processing_class.save_pretrained(temporary)
    if is_first:
        for pickled in temporary.glob("*.bin"):
            pickled.unlink()
        (output / "training.json").unlink(missing_ok=True)
        shutil.rmtree(model, ignore_errors=True)
        temporary.rename(model)
        write_json(output / "training.json", record)
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
