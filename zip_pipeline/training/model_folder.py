"""Where a trained model ends up: whole, and in formats that run no code when they are loaded."""

import json
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


def finished_training(output: Path, fingerprint: str | None = None) -> dict[str, Any] | None:
    """Return training.json where the model is complete (and of that fingerprint), else None."""
    try:
        record = json.loads((output / "training.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    is_same = fingerprint is None or record.get("fingerprint") == fingerprint
    is_there = (output / "model" / "config.json").is_file()
    return record if is_same and is_there and isinstance(record, dict) else None
