"""How many tokens a text has, by a named tokenizer."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TINY_MODEL = Path(__file__).parents[1] / "tiny_model"
"""Folder of the base model that ships with the package, and of its tokenizer."""
SHIPPED_TOKENIZERS = {"tiny": TINY_MODEL / "tokenizer.json"}
_BATCH_TEXTS = 1024
_SWITCH = "TOKENIZERS_PARALLELISM"


def count_tokens(texts: Sequence[str], tokenizer: str = "tiny") -> list[int]:
    """Return the number of content tokens of each text.

    No special token is added, and text that spells one counts as the text that it is. Batches
    are encoded on all cores.

    Args:
        texts: the texts.
        tokenizer: ``tiny`` (ships with the package), a ``tokenizer.json``, a folder that holds
            one, or an id on the Hugging Face hub.

    Returns:
        One count per text, in order.

    Raises:
        UserError: the tokenizer cannot be loaded.
    """
    loaded = load_tokenizer(tokenizer)
    counts: list[int] = []
    for start in range(0, len(texts), _BATCH_TEXTS):
        batch = list(texts[start : start + _BATCH_TEXTS])
        encodings = loaded.encode_batch_fast(batch, add_special_tokens=False)
        counts += [len(encoding) for encoding in encodings]
    return counts


def tokenizer_identity(name: str) -> str:
    """Return what tells this tokenizer from any other: the name on the hub, or a hash of the file.

    Raises:
        UserError: there is no such file.
    """
    path = _tokenizer_file(name)
    return fingerprint([path.read_text(encoding="utf-8")]) if path else name


def load_tokenizer(name: str) -> "Tokenizer":
    """Return the tokenizer of that name, neither truncating nor padding.

    A file is read again once it has changed. The result is shared: do not alter it.

    Args:
        name: as in :func:`count_tokens`.

    Raises:
        UserError: the tokenizer cannot be loaded.
    """
    path = _tokenizer_file(name)
    return _load(name, path, path.stat().st_mtime_ns if path else 0)


def _tokenizer_file(name: str) -> Path | None:
    """Return the file of a tokenizer, None for a name that only the hub can know."""
    path = SHIPPED_TOKENIZERS.get(name, Path(name))
    if path.is_dir():
        path /= "tokenizer.json"
    if path.is_file():
        return path
    # A hub id is NAME or OWNER/NAME; anything else was meant as a path.
    is_path = path.name == "tokenizer.json" or path.is_absolute() or name.startswith((".", "~"))
    if not name or is_path or name.count("/") > 1 or name.endswith((".json", "/")):
        raise _unknown(name, "no such file")
    return None


@lru_cache(maxsize=8)
def _load(name: str, path: Path | None, changed_ns: int) -> "Tokenizer":
    prepare_threads()
    from tokenizers import Tokenizer

    from zip_pipeline.hub import hub_answers, without_secrets

    try:
        if path is None and not hub_answers():
            path = _cached_file(name)
        loaded = Tokenizer.from_file(str(path)) if path else Tokenizer.from_pretrained(name)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - the library and the hub client raise many kinds
        raise _unknown(name, without_secrets(str(error).strip().partition("\n")[0])) from None
    loaded.no_truncation()
    loaded.no_padding()
    loaded.encode_special_tokens = True
    return loaded


def _cached_file(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from zip_pipeline.hub import no_answer

    try:
        return Path(hf_hub_download(name, "tokenizer.json", local_files_only=True))
    except LocalEntryNotFoundError:
        raise _unknown(name, no_answer()) from None


def _unknown(name: str, reason: str) -> UserError:
    return UserError(
        f"tokenizer: cannot load {name!r} ({reason}); allowed are {', '.join(SHIPPED_TOKENIZERS)}, "
        "the path of a tokenizer.json or of a folder with one, or a Hugging Face hub id. "
        "Check the spelling; without a network, download the tokenizer first and give its path"
    )


@lru_cache(maxsize=1)
def prepare_threads() -> None:
    """Let the library use its threads here, but not in forked children, where they are gone.

    Without a choice of its own the library would print a warning in every such child.
    """
    os.environ.setdefault(_SWITCH, "true")
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: os.environ.update({_SWITCH: "false"}))
