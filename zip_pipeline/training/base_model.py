"""The ``tiny`` base model: pre-trained once by a seeded script, cached by content hash."""

import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zip_pipeline.chat_models import encode
from zip_pipeline.compression.tokens import SHIPPED_TOKENIZERS
from zip_pipeline.files import fingerprint, locked, write_json
from zip_pipeline.samples import Sample
from zip_pipeline.training.backend import json_fingerprint
from zip_pipeline.training.templates import TEMPLATES, apply_template

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

_BLOCK_TOKENS = 256
_OTHER_TOKENS_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class BaseModelSettings:
    """Shape and pre-training of the model."""

    hidden_size: int = 96
    intermediate_size: int = 256
    num_layers: int = 2
    num_heads: int = 3
    num_tokens: int = 1_000_000
    """tokens of the generator's other text that it sees, once each"""
    blocks_per_step: int = 4
    learning_rate: float = 4e-3
    seed: int = 0

    def model_settings(self, vocabulary_size: int) -> dict[str, Any]:
        """Return the shape in the words of a Llama configuration."""
        return {
            "vocab_size": vocabulary_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_heads,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
        }


def base_model(cache: Path, settings: BaseModelSettings | None = None) -> Path:
    """Return the folder of the base model, pre-training it where the cache has none.

    Of two processes that need it at once, one trains and the other waits.

    Args:
        cache: the folder of cached files; the model goes to ``base_models/<content hash>``.
        settings: the shape; the shipped one by default.

    Returns:
        A folder with ``model.safetensors``, configuration and tokenizer.
    """
    chosen = settings or BaseModelSettings()
    folder = cache / "base_models" / base_model_hash(chosen)
    with locked(folder.parent / f".{folder.name}.lock"):
        if not folder.exists():
            _build(folder, chosen)
    return folder


def base_model_hash(settings: BaseModelSettings) -> str:
    """Return a hash of all that the model's weights depend on: settings, tokenizer, source."""
    package = Path(__file__).parents[1]
    generator = sorted((package / "sample_data").rglob("*.py"))
    others = [package / "samples.py", package / "chat_models.py", Path(__file__)]
    sources = [*generator, *others, SHIPPED_TOKENIZERS["tiny"]]
    texts = [path.read_text(encoding="utf-8") for path in sources]
    return fingerprint([json_fingerprint(asdict(settings)), TEMPLATES["tiny"].text, *texts])


def tiny_tokenizer() -> "PreTrainedTokenizerFast":
    """Return the shipped tokenizer with the tiny chat template."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_file=str(SHIPPED_TOKENIZERS["tiny"]),
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
    )
    apply_template(tokenizer, "tiny")
    return tokenizer


def _build(folder: Path, settings: BaseModelSettings) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
    try:
        tokenizer = tiny_tokenizer()
        model, losses = _pretrain(settings, tokenizer)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(
            temporary / "pretraining.json",
            {
                "settings": asdict(settings),
                "num_parameters": model.num_parameters(),
                "num_steps": len(losses),
                "final_loss": sum(losses[-10:]) / len(losses[-10:]),
            },
        )
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _pretrain(
    settings: BaseModelSettings, tokenizer: "PreTrainedTokenizerFast"
) -> tuple["LlamaForCausalLM", list[float]]:
    """Return the model after one pass over the text, and the loss of every step.

    The loss falls on all that the assistant says and on a quarter of the rest: on so small a
    model the projection on the vocabulary is most of the work.
    """
    import torch

    torch.manual_seed(settings.seed)
    model = _new_model(settings, tokenizer)
    tokens, targets = _blocks(settings, tokenizer)
    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(len(tokens), generator=generator)
    num_steps = max(1, len(tokens) // settings.blocks_per_step)
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    losses = []
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step / num_steps)
        chosen = order[step * settings.blocks_per_step : (step + 1) * settings.blocks_per_step]
        wanted = targets[chosen]
        wanted |= torch.rand(wanted.shape, generator=generator) < _OTHER_TOKENS_SHARE
        loss = _loss(model, tokens[chosen], wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


def _new_model(
    settings: BaseModelSettings, tokenizer: "PreTrainedTokenizerFast"
) -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            **settings.model_settings(len(tokenizer)),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _schedule(share_done: float) -> float:
    """Return the factor on the learning rate: up in the first tenth, down along a cosine."""
    falling = 0.5 * (1 + math.cos(math.pi * share_done))
    return min(1.0, share_done * 10 + 0.01) * max(0.05, falling)


def _loss(
    model: "LlamaForCausalLM", tokens: "torch.Tensor", wanted: "torch.Tensor"
) -> "torch.Tensor":
    import torch

    states = model.model(input_ids=tokens).last_hidden_state[:, :-1]
    at = wanted[:, 1:]
    return torch.nn.functional.cross_entropy(model.lm_head(states[at]), tokens[:, 1:][at])


def _blocks(
    settings: BaseModelSettings, tokenizer: "PreTrainedTokenizerFast"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return the text as blocks of equal length, and where in them the assistant speaks."""
    import torch

    tokens: list[int] = []
    speaks: list[int] = []
    for batch in _batches(settings.seed):
        for row in encode(tokenizer, [sample.turns for sample in batch]):
            tokens += row.input_ids
            speaks += row.assistant_mask
        if len(tokens) >= settings.num_tokens:
            break
    size = min(len(tokens), settings.num_tokens) // _BLOCK_TOKENS * _BLOCK_TOKENS
    as_blocks = torch.tensor([tokens[:size], speaks[:size]]).view(2, -1, _BLOCK_TOKENS)
    return as_blocks[0], as_blocks[1].bool()


def _batches(seed: int, size: int = 1000) -> Iterator[list[Sample]]:
    from zip_pipeline.sample_data import pretraining_samples

    samples = pretraining_samples(seed, 1_000_000)
    while True:
        yield [next(samples) for _ in range(size)]
