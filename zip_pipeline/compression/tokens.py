"""How many tokens a text has, by a named tokenizer."""

import os
import re
from collections.abc import Iterator, Sequence
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
# A tokenizer takes some 200 bytes for each character of what it is given at a time.
PIECE_LENGTH = 1 << 18
"""The number of characters that are tokenised at a time."""
_BATCH_TEXTS = 1024
_WORDS_MEET = re.compile(r"(?<=\w) (?=\w)")
_LONGEST_WORD = 1 << 10
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
    counts = [0] * len(texts)
    pieces = [(place, piece) for place, text in enumerate(texts) for piece in pieces_of(text)]
    for batch in in_batches([len(piece) for _, piece in pieces]):
        places, parts = zip(*pieces[batch], strict=True)
        encodings = loaded.encode_batch_fast(parts, add_special_tokens=False)
        for place, encoding in zip(places, encodings, strict=True):
            counts[place] += len(encoding)
    return counts


def in_batches(lengths: Sequence[int]) -> Iterator[slice]:
    """Yield which texts are tokenised together: ``PIECE_LENGTH`` characters, or one longer text.

    Args:
        lengths: of the texts, in characters.
    """
    start = total = 0
    for place, length in enumerate(lengths):
        if place - start == _BATCH_TEXTS or (place > start and total + length > PIECE_LENGTH):
            yield slice(start, place)
            start, total = place, 0
        total += length
    if lengths:
        yield slice(start, len(lengths))


def pieces_of(text: str) -> Iterator[str]:
    """Yield a text in pieces of at most ``PIECE_LENGTH`` characters, so that memory is bounded.

    Tokenizers split text before a space between words, and so do the pieces: they have the tokens
    of the whole text. Where there is no such space, a piece ends in the middle of what may be one
    token, which then counts as two.
    """
    start = 0
    while len(text) - start > PIECE_LENGTH:
        end = start + PIECE_LENGTH
        for seam in _WORDS_MEET.finditer(text, max(start + 1, end - _LONGEST_WORD), end):
            end = seam.start()
        yield text[start:end]
        start = end
    yield text[start:]


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
