"""Chat models, loaded safely, and what they find likely."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.hub import hub_answers, no_answer, without_secrets
from zip_pipeline.process import keep_freed_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TOKENIZER_CONFIGS = ("config.json", "tokenizer_config.json")
_WEIGHTS_AND_SHAPE = frozenset({".json", ".safetensors"})
_TEMPLATE_AND_VOCABULARY = frozenset({".jinja", ".model"})


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
    is_unreachable = not (local_only or Path(source).is_dir() or hub_answers())
    try:
        tokenizer: PreTrainedTokenizerBase = _tokenizer_class(Path(source)).from_pretrained(
            source,
            revision=revision,
            trust_remote_code=False,
            use_fast=True,
            local_files_only=local_only or is_unreachable,
        )
    except (OSError, ValueError) as error:
        reason = no_answer() if is_unreachable else str(error)
        raise _no_model(source, revision, reason) from None
    return tokenizer


def _tokenizer_class(folder: Path) -> Any:  # noqa: ANN401  one of two without a common base
    """Return the class that loads a tokenizer: AutoTokenizer, or what it would choose.

    AutoTokenizer imports torch, which takes four seconds of each process that counts tokens.
    """
    try:
        read = [json.loads((folder / name).read_bytes()) for name in _TOKENIZER_CONFIGS]
        named = (read[0].get("model_type"), read[1].get("tokenizer_class"))
    except (OSError, ValueError, AttributeError):
        named = (None, None)
    if named == ("llama", "TokenizersBackend"):
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


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
    is_unreachable = not (Path(source).is_dir() or hub_answers())
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source,
            **model_arguments(revision, weights, attention),
            local_files_only=is_unreachable,
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = no_answer() if is_unreachable else str(error)
        raise _no_model(source, revision, reason) from None
    return model


def _no_model(source: str, revision: str | None, reason: str) -> UserError:
    reason = without_secrets(reason.strip().partition("\n")[0])
    return UserError(
        f"model: cannot load {source!r} at revision {revision} ({reason}). Give 'tiny', a folder "
        "with config.json, tokenizer and *.safetensors, or a hub id that you have access to"
    )


@dataclass(frozen=True)
class ScoredRow:
    """Tokens, and which of them a model is asked to predict; never the first."""

    input_ids: list[int]
    is_target: list[bool]


_BATCH_TOKENS = 2048


def token_losses(model: "PreTrainedModel", rows: Sequence[ScoredRow]) -> list[list[float]]:
    """Return the loss of each target token of each row, in nats, in the order of the rows.

    Rows of similar length go through the model together. It is moved to the GPU where there is
    one.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network: Any = model.to(device).eval()  # type: ignore[arg-type]
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].input_ids))
    losses: list[list[float]] = [[]] * len(rows)
    with torch.inference_mode():
        for places in _batches(rows, order):
            found = _batch_losses(network, [rows[place] for place in places], device)
            for place, loss in zip(places, found, strict=True):
                losses[place] = loss
    return losses


def _batches(rows: Sequence[ScoredRow], order: Sequence[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for place in order:
        if batch and (len(batch) + 1) * len(rows[place].input_ids) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _batch_losses(
    network: Any,  # noqa: ANN401
    rows: Sequence[ScoredRow],
    device: str,
) -> list[list[float]]:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def padded(lists: Sequence[Sequence[int]]) -> torch.Tensor:
        return pad_sequence([torch.tensor(each) for each in lists], batch_first=True).to(device)

    ids = padded([row.input_ids for row in rows])
    attended = padded([[1] * len(row.input_ids) for row in rows])
    is_target = padded([row.is_target for row in rows])[:, 1:]
    # The vocabulary is most of a small model's work: only where a target follows.
    kept = is_target.any(dim=0).nonzero().squeeze(1)
    logits = network(
        input_ids=ids, attention_mask=attended, logits_to_keep=kept, use_cache=False
    ).logits
    losses = torch.nn.functional.cross_entropy(
        logits[is_target[:, kept]].float(), ids[:, 1:][is_target], reduction="none"
    )
    # In the order of the rows, and within them of the tokens.
    parts: Any = losses.split(is_target.sum(dim=1).tolist())  # type: ignore[no-untyped-call]
    return [part.tolist() for part in parts]
