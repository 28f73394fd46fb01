"""Chat templates that mark what the assistant says."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zip_pipeline.chat_models import load_tokenizer
from zip_pipeline.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class Template:
    """A chat template and the special tokens that it needs."""

    name: str
    end_token: str
    """ends every turn of the assistant; the model learns to write it"""
    pad_token: str

    @property
    def text(self) -> str:
        """Return the template in Jinja, with generation markers around the assistant's words."""
        return (FOLDER / f"{self.name}.jinja").read_text(encoding="utf-8")


TEMPLATES = {
    "tiny": Template(name="tiny", end_token="<|end|>", pad_token="<|pad|>"),
    "vicuna": Template(name="vicuna", end_token="</s>", pad_token="<unk>"),
    "llama-3": Template(name="llama-3", end_token="<|eot_id|>", pad_token="<|end_of_text|>"),
}


def apply_template(tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
    """Give a tokenizer the chat template of that name and the special tokens that it needs.

    Raises:
        UserError: the tokenizer lacks one of the tokens.
    """
    template = TEMPLATES[name]
    vocabulary = tokenizer.get_vocab()
    for token in (template.end_token, template.pad_token):
        if token not in vocabulary:
            raise UserError(
                f"template: {name} needs the token {token}, which the model's tokenizer lacks. "
                f"Choose the template of the model; there are {', '.join(TEMPLATES)}"
            )
    tokenizer.chat_template = template.text
    tokenizer.eos_token = template.end_token
    tokenizer.pad_token = template.pad_token


def templated_tokenizer(
    source: str, revision: str | None, template: str, *, local_only: bool = False
) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a model with the chat template of that name.

    Args:
        source: folder or hub id.
        revision: commit of the hub repository.
        template: a key of TEMPLATES.
        local_only: ask no hub.

    Raises:
        UserError: there is no such model, or its tokenizer lacks a token of the template.
    """
    tokenizer = load_tokenizer(source, revision, local_only=local_only)
    apply_template(tokenizer, template)
    return tokenizer
