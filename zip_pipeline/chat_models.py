"""Chat models, loaded safely, and conversations as their tokens."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.process import keep_freed_memory
from zip_pipeline.samples import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Message: TypeAlias = dict[str, str]
_ZERO_WIDTH_SPACE = "\u200b"
_WEIGHTS_AND_SHAPE = frozenset({".json", ".safetensors"})
_TEMPLATE_AND_VOCABULARY = frozenset({".jinja", ".model"})


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of a conversation; the mask is 1 where the assistant speaks."""

    input_ids: list[int]
    assistant_mask: list[int]


def prepare_environment(*, offline: bool) -> None:
    """Set what the libraries read from the environment when they are first imported.

    Threads that wait by spinning slow a shared machine down by a factor of ten (*measured*: two
    threads on two busy cores, 600 tokens/s; waiting passively, 4,200).

    Args:
        offline: whether the model is at hand, so that nothing may ask the hub.
    """
    settings = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }
    if offline:
        settings |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    keep_freed_memory()


def model_identity(source: str, revision: str | None, *, with_template: bool = False) -> str:
    """Return what tells this model from any other: the hub commit, or a hash of the folder.

    Args:
        source: folder or hub id.
        revision: commit of the hub repository.
        with_template: count the folder's chat template and all of its tokenizer too, on which
            its answers depend. Training brings a template of its own.
    """
    folder = Path(source)
    if not folder.is_dir():
        return f"{source}@{revision}"
    counted = _WEIGHTS_AND_SHAPE | (_TEMPLATE_AND_VOCABULARY if with_template else set())
    parts: list[str] = []
    for path in sorted(p for p in folder.iterdir() if p.suffix in counted):
        # It holds the version of the library that wrote it, and in older models the template.
        if path.name == "tokenizer_config.json" and not with_template:
            continue
        with path.open("rb") as file:
            parts += [path.name, hashlib.file_digest(file, "blake2b").hexdigest()]
    return fingerprint(parts)


def load_tokenizer(
    source: str, revision: str | None, *, local_only: bool = False
) -> "PreTrainedTokenizerBase":
    """Return the model's tokenizer as it is.

    Args:
        source: folder or hub id.
        revision: commit of the hub repository.
        local_only: take no more than what was fetched from the hub before.

    Raises:
        UserError: there is no such model.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source,
            revision=revision,
            trust_remote_code=False,
            use_fast=True,
            local_files_only=local_only,
        )
    except (OSError, ValueError) as error:
        raise _no_model(source, revision, error) from error
    return tokenizer


def model_arguments(revision: str | None, weights: str, attention: str) -> dict[str, Any]:
    """Return the arguments with which every model is loaded: safetensors, no remote code."""
    return {
        "revision": revision,
        "dtype": weights,
        "attn_implementation": attention,
        "use_safetensors": True,
        "trust_remote_code": False,
    }


def load_model(
    source: str, revision: str | None, weights: str = "float32", attention: str = "sdpa"
) -> "PreTrainedModel":
    """Return a causal language model.

    Raises:
        UserError: there is no such model, or its weights are damaged or not safetensors.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source, **model_arguments(revision, weights, attention)
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise _no_model(source, revision, error) from error
    return model


def _no_model(source: str, revision: str | None, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0]
    return UserError(
        f"model: cannot load {source!r} at revision {revision} ({reason}). Give 'tiny', a folder "
        "with config.json, tokenizer and *.safetensors, or a hub id that you have access to"
    )


def messages(turns: Sequence[Turn], special_tokens: Sequence[str]) -> list[Message]:
    """Return turns as chat messages in which no content can act as a special token.

    A special token spelled out in a content gets a zero-width space behind its first
    character: the text stays readable and cannot forge a turn.
    """
    pattern = "|".join(re.escape(token) for token in special_tokens) or r"(?!)"

    def harmless(text: str) -> str:
        return re.sub(pattern, lambda m: m[0][0] + _ZERO_WIDTH_SPACE + m[0][1:], text)

    return [{"role": t.role, "content": harmless(t.content + t.tool_calls)} for t in turns]


def encode(
    tokenizer: "PreTrainedTokenizerBase",
    conversations: Sequence[Sequence[Turn]],
    *,
    open_answer: bool = False,
) -> list[Encoded]:
    """Return the tokens and assistant masks of conversations, untruncated.

    Args:
        tokenizer: with a chat template that marks what the assistant says.
        conversations: the turns of each; a tool's answer and a system turn are context, tool
            calls are words of the assistant.
        open_answer: end with what introduces the assistant's next answer.
    """
    if not conversations:
        return []
    special = special_tokens(tokenizer)
    output: Any = tokenizer.apply_chat_template(
        [messages(turns, special) for turns in conversations],
        tokenize=True,
        add_generation_prompt=open_answer,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return [
        Encoded(list(ids), list(mask))
        for ids, mask in zip(output["input_ids"], output["assistant_masks"], strict=True)
    ]


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return the texts that the tokenizer would read as special tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return sorted({token.content for token in added if token.special} - {""})
