"""Makes the base model ``tiny`` and its tokenizer, as they ship; run as ``python -m``.

python -m zip_pipeline.training.base_model [FOLDER]

With a folder, it holds a model like the shipped one, with the shipped tokenizer.
"""

import math
import sys
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from zip_pipeline.chat_models import prepare_environment
from zip_pipeline.chat_tokens import encode
from zip_pipeline.compression.tokens import SHIPPED_TOKENIZERS, TINY_MODEL
from zip_pipeline.files import write_atomically, write_json
from zip_pipeline.sample_data import pretraining_samples, pretraining_text
from zip_pipeline.training.presets import templated_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

_SPECIAL = ("pad", "bos", "eos", "system", "user", "assistant", "tool", "end")
SPECIAL_TOKENS = [f"<|{name}|>" for name in _SPECIAL]
_VOCABULARY = 4096
_BLOCK_TOKENS = 256
_OTHER_TOKENS_SHARE = 0.25
_HELD_OUT_BLOCKS = 64


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


def train_tokenizer() -> str:
    """Return the tokenizer as JSON text: byte-level BPE, digits one by one, 4,096 tokens.

    It is trained on the pre-training text of seed 0 and on nothing else; every byte has a
    token, so that any text survives encoding and decoding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pretraining_text(seed=0, num_samples=20_000), trainer)
    return str(tokenizer.to_str(pretty=False)) + "\n"


def make_base_model(folder: Path, settings: BaseModelSettings | None = None) -> None:
    """Pre-train a base model and write its folder: weights, configuration and tokenizer.

    The weights are rounded to 16 bits, which changes no loss (see EXPERIMENTS.md), and lie in
    files below 1 MB.

    Args:
        folder: where to; files of the same names are replaced.
        settings: shape and pre-training; those of the shipped model by default.
    """
    chosen, tokenizer = settings or BaseModelSettings(), tiny_tokenizer()
    model, losses = _pretrain(chosen, tokenizer)
    model.half().save_pretrained(folder, max_shard_size="800KB")  # type: ignore[no-untyped-call]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((TINY_MODEL / name).read_bytes())
    write_json(
        folder / "pretraining.json",
        {
            "settings": asdict(chosen),
            "num_parameters": model.num_parameters(),
            "num_steps": len(losses),
            "final_loss": sum(losses[-10:]) / len(losses[-10:]),
            "held_out_loss": held_out_loss(model.float()),  # type: ignore[no-untyped-call]
        },
    )


def held_out_loss(model: "PreTrainedModel") -> float:
    """Return the mean loss on what the assistant says in text that pre-training does not see."""
    import torch

    tokens, targets = _blocks(tiny_tokenizer(), _HELD_OUT_BLOCKS * _BLOCK_TOKENS, seed=1)
    with torch.inference_mode():
        return _loss(model, tokens, targets).item()


def tiny_tokenizer() -> "PreTrainedTokenizerBase":
    """Return the shipped tokenizer with the tiny chat template."""
    return templated_tokenizer(str(TINY_MODEL), None, "tiny", local_only=True)


def _pretrain(
    settings: BaseModelSettings, tokenizer: "PreTrainedTokenizerBase"
) -> tuple["LlamaForCausalLM", list[float]]:
    """Return the model after one pass over the text, and the loss of every step.

    The loss falls on all that the assistant says and on a quarter of the rest: on so small a
    model the projection on the vocabulary is most of the work.
    """
    import torch

    torch.manual_seed(settings.seed)
    model = _new_model(settings, tokenizer)
    tokens, targets = _blocks(tokenizer, settings.num_tokens, settings.seed)
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
    settings: BaseModelSettings, tokenizer: "PreTrainedTokenizerBase"
) -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=settings.intermediate_size,
            num_hidden_layers=settings.num_layers,
            num_attention_heads=settings.num_heads,
            num_key_value_heads=settings.num_heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
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
    model: "LlamaForCausalLM | PreTrainedModel", tokens: "torch.Tensor", wanted: "torch.Tensor"
) -> "torch.Tensor":
    import torch

    states = model.model(input_ids=tokens).last_hidden_state[:, :-1]
    at = wanted[:, 1:]
    return torch.nn.functional.cross_entropy(model.lm_head(states[at]), tokens[:, 1:][at])


def _blocks(
    tokenizer: "PreTrainedTokenizerBase", num_tokens: int, seed: int
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return the text as blocks of equal length, and where in them the assistant speaks."""
    import torch

    samples = pretraining_samples(seed, 1_000_000)
    tokens: list[int] = []
    speaks: list[int] = []
    while len(tokens) < num_tokens:
        for row in encode(tokenizer, [sample.turns for sample in islice(samples, 1000)]):
            tokens += row.input_ids
            speaks += row.assistant_mask
    size = num_tokens // _BLOCK_TOKENS * _BLOCK_TOKENS
    as_blocks = torch.tensor([tokens[:size], speaks[:size]]).view(2, -1, _BLOCK_TOKENS)
    return as_blocks[0], as_blocks[1].bool()


def main(arguments: list[str]) -> None:
    """Pre-train the model into the folder named, or tokenizer and model to where they ship."""
    prepare_environment(offline=True)
    folder = Path(arguments[0]) if arguments else TINY_MODEL
    if not arguments:
        text = train_tokenizer()
        path = SHIPPED_TOKENIZERS["tiny"]
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    make_base_model(folder)
    print((folder / "pretraining.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv[1:])
