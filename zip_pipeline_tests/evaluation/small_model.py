"""A model with random weights, the shipped tokenizer and a short context."""

from pathlib import Path
from typing import Any

from zip_pipeline.chat_models import prepare_environment


def save_small_model(folder: Path, *, num_positions: int = 160, **generation: Any) -> Path:
    """Save a model whose answers look like chance, and return the folder.

    Args:
        folder: where to.
        num_positions: tokens of its context.
        generation: settings of its ``generation_config.json``.
    """
    prepare_environment(offline=True)
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from zip_pipeline.training.base_model import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                initializer_range=0.2,
                max_position_embeddings=num_positions,
            )
        )
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
