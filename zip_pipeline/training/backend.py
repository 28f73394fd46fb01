"""The device that computes, and the versions that it computes with."""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec

from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.training.presets import Preset

_LIBRARIES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "tokenizers")
# Elsewhere the trainer may ask the same name for something else.
_TRL_THAT_PROJECTS_ALL = "1.16."


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What computes, in which precision."""

    device: str
    """``cpu`` or ``cuda``"""
    weights: str
    """type of the weights"""
    bf16: bool
    """whether computing is in bfloat16"""
    attention: str

    def as_json(self) -> dict[str, object]:
        """Return the facts by name."""
        return asdict(self)


def choose_backend(preset: Preset) -> Backend:
    """Return bfloat16 on a GPU that has it, float32 on a CPU, and the attention to use.

    Raises:
        UserError: the preset asks for FlashAttention where there is none.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    flash = on_gpu and find_spec("flash_attn") is not None
    attention = preset.attention
    if attention == "auto":
        attention = "flash_attention_2" if flash else "sdpa"
    if attention == "flash_attention_2" and not flash:
        raise UserError(
            "preset: attention is 'flash_attention_2', which needs a CUDA GPU and the package "
            "flash-attn. Install it, or set attention to 'sdpa'"
        )
    if not on_gpu:
        _score_targets_only()
    return Backend(
        device="cuda" if on_gpu else "cpu",
        weights=preset.weights if on_gpu else "float32",
        bf16=on_gpu and torch.cuda.is_bf16_supported(),
        attention=attention,
    )


def _score_targets_only() -> None:
    """Let TRL project only tokens with a label on the vocabulary, on a CPU as it does on a GPU.

    TRL 1.16 projects all tokens where there is no Triton, so that shapes stay constant for
    devices that compile for each shape; its module ``trainer.utils`` asks ``_use_triton`` for
    this one decision, its kernels ask their own. The losses are the same (*measured*: 20 steps
    of the tiny preset in 12 s instead of 24).
    """
    if version("trl").startswith(_TRL_THAT_PROJECTS_ALL):
        from trl.trainer import utils

        utils._use_triton = lambda device: True  # type: ignore[attr-defined]


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that training rests on."""
    return {name: version(name) for name in _LIBRARIES if find_spec(name) is not None}


def json_fingerprint(value: object) -> str:
    """Return a hash of plain values that does not depend on the order of keys."""
    return fingerprint([json.dumps(value, sort_keys=True, ensure_ascii=False)])
