"""Conversations as the messages that chat templates write, and as tokens."""

import json
import re
import secrets
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from zip_pipeline.compression.tokens import PIECE_LENGTH, in_batches, pieces_of
from zip_pipeline.errors import UserError
from zip_pipeline.samples import Turn, turn_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message: TypeAlias = dict[str, Any]
# How a template speaks of a part of a message; functions have names as well.
_PARTS = {
    "tools": r"\btools\b",
    "tool_calls": r"\btool_calls\b",
    "reasoning_content": r"\breasoning_content\b",
    "name": r"""\b(message|msg|m|turn)(\.name\b|\[['"]name['"]\]|\.get\(['"]name['"])""",
}
_ZERO_WIDTH_SPACE = "\u200b"
_BEGINS, _ENDS = (
    re.compile(rf"\{{%([-+]?)\s*{word}\s*([-+]?)%\}}") for word in ("generation", "endgeneration")
)
# Nothing that is said can hold it.
_MARK = f"\ufdd0{secrets.token_hex(8)}\ufdd1"
# What a turn takes besides its characters.
_TURN_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of a conversation, 5 bytes each; the mask is 1 where the assistant speaks."""

    input_ids: "array[int]"
    assistant_mask: bytes


def knows(tokenizer: "PreTrainedTokenizerBase") -> frozenset[str]:
    """Return which parts of a message the chat template has words of its own for.

    Some of ``tools``, ``tool_calls``, ``reasoning_content`` and ``name``. A template without words
    for a part gets it as text, so that nothing that was said is lost.
    """
    template = str(tokenizer.chat_template)
    return frozenset(part for part, words in _PARTS.items() if re.search(words, template))


def messages(
    turns: Sequence[Turn],
    special_tokens: Sequence[str],
    tools: str = "",
    known: Collection[str] = (),
) -> list[Message]:
    """Return turns as chat messages in which no content can act as a special token.

    A special token spelled out in a content gets a zero-width space behind its first
    character: the text stays readable and cannot forge a turn.

    Names of users are put before what they say where the template does not show names. Those of
    other speakers are left out then: the model would learn to begin its answers with its name.

    Args:
        turns: the conversation.
        special_tokens: as :func:`special_tokens` gives them.
        tools: the schemas of the tools as JSON text. A template that does not know them gets them
            at the end of the system turn.
        known: what the template has words for, see :func:`knows`.
    """

    special = _spelled(tuple(special_tokens))

    def message(turn: Turn) -> Message:
        said: Message = {"role": turn.role}
        if turn.name and "name" in known:
            said["name"] = _harmless(turn.name, special)
        elif turn.name and turn.role == "user":
            turn = replace(turn, content=f"{turn.name}: {turn.content}")
        if turn.reasoning and "reasoning_content" in known:
            said["reasoning_content"] = _harmless(turn.reasoning, special)
            turn = replace(turn, reasoning="")
        calls = functions(turn.tool_calls) if "tool_calls" in known else None
        if calls is not None:
            said["tool_calls"] = _harmless(calls, special)
            turn = replace(turn, tool_calls="")
        return said | {"content": _harmless(turn_text(turn), special)}

    if tools and tool_schemas(tools, special_tokens, known) is None:
        turns = _with_system_text(turns, f"Tools: {tools}")
    return [message(turn) for turn in turns]


def tool_schemas(
    tools: str, special_tokens: Sequence[str], known: Collection[str]
) -> list[Any] | None:
    """Return the schemas of tools for a template that takes them; None where it gets them as text.

    Args:
        tools: JSON text, or any other, which is no list of schemas.
        special_tokens: see :func:`messages`, which makes them harmless in the same way.
        known: what the template has words for.
    """
    schemas = functions(tools) if "tools" in known else None
    if schemas is None:
        return None
    special = _spelled(tuple(special_tokens))
    return [_harmless(schema, special) for schema in schemas]


def _harmless(value: Any, special: re.Pattern[str]) -> Any:  # noqa: ANN401
    """Return text, or values read from JSON, in which no special token is spelled out.

    JSON can spell a token with escapes, so it is looked at when it has been read.
    """
    if isinstance(value, dict):
        return {_harmless(k, special): _harmless(v, special) for k, v in value.items()}
    if isinstance(value, list):
        return [_harmless(item, special) for item in value]
    if not isinstance(value, str):
        return value
    return special.sub(lambda m: m[0][0] + _ZERO_WIDTH_SPACE + m[0][1:], value)


@cache
def _spelled(special_tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(token) for token in special_tokens) or r"(?!)")


def functions(text: str) -> list[Message] | None:
    """Return the tool calls, or schemas of tools, of a JSON text in the form of chat templates.

    Arguments are objects. None where the text holds anything else than objects.
    """
    parsed = _parsed(text)
    found = [parsed] if isinstance(parsed, dict) else parsed
    is_list = isinstance(found, list) and all(isinstance(item, dict) for item in found)
    return [_function(item) for item in found] if found and is_list else None


def _parsed(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def _function(value: Message) -> Message:
    """Return the schema or the call of a function in the form that templates expect.

    That is ``{"type": "function", "function": {"name": …}}``, and arguments are an object.
    """
    if isinstance(value.get("name"), str) and "function" not in value:
        value = {"type": "function", "function": value}
    function: Any = value.get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if isinstance(arguments, str) and isinstance(parsed := _parsed(arguments), dict):
        value = value | {"function": function | {"arguments": parsed}}
    return value


def _with_system_text(turns: Sequence[Turn], text: str) -> Sequence[Turn]:
    if turns and turns[0].role == "system":
        return (replace(turns[0], content=f"{turns[0].content}\n\n{text}"), *turns[1:])
    return (Turn("system", text), *turns)


def encode(
    tokenizer: "PreTrainedTokenizerBase",
    conversations: Sequence[Sequence[Turn]],
    tools: Sequence[str] | None = None,
    *,
    open_answer: bool = False,
) -> list[Encoded]:
    """Return the tokens and assistant masks of conversations, untruncated.

    Args:
        tokenizer: with a chat template that marks what the assistant says.
        conversations: the turns of each; a tool's answer and a system turn are context, tool
            calls are words of the assistant. A turn of the assistant without loss is context, too.
        tools: the schemas of each conversation's tools as JSON text, empty for none.
        open_answer: end with what introduces the assistant's next answer.

    A long conversation is tokenised in pieces, see :func:`.pieces_of`.

    Raises:
        UserError: the template refuses a conversation; or a turn has no loss, and the template's
            marks do not tell its words from others.
    """
    from jinja2 import TemplateError

    special, known = special_tokens(tokenizer), knows(tokenizer)
    encoded: list[Encoded] = [Encoded(array("i"), b"")] * len(conversations)
    # A template takes one list of tools for all conversations of a call.
    places_with: defaultdict[str, list[int]] = defaultdict(list)
    given = list(tools or [""] * len(conversations))
    for place, schemas in enumerate(given):
        places_with[schemas if "tools" in known else ""].append(place)
    for schemas, places in places_with.items():
        options = {
            "tools": tool_schemas(schemas, special, known),
            "add_generation_prompt": open_answer,
        }
        lengths = [
            sum(_TURN_LENGTH + len(turn_text(turn)) for turn in conversations[p]) for p in places
        ]
        for batch in in_batches(lengths):
            some = places[batch]
            said = [messages(conversations[p], special, given[p], known) for p in some]
            is_long = sum(lengths[batch]) > PIECE_LENGTH
            try:
                tokens = (_tokens_in_pieces if is_long else _tokens)(tokenizer, said, options)
            # Templates refuse what they do not expect, or stumble over it.
            except (TemplateError, TypeError) as error:
                raise UserError(
                    f"template: the chat template cannot write a conversation ({error}). Choose "
                    "another template, or leave such samples out"
                ) from error
            for place, (ids, mask) in zip(some, tokens, strict=True):
                encoded[place] = Encoded(ids, _with_loss(bytes(mask), conversations[place]))
    return encoded


_Tokens: TypeAlias = Iterable[tuple["array[int]", Iterable[int]]]


def _tokens(
    tokenizer: "PreTrainedTokenizerBase", said: list[list[Message]], options: Mapping[str, Any]
) -> _Tokens:
    """Return the tokens of each conversation, and 1 for those that the assistant says."""
    output: Any = tokenizer.apply_chat_template(
        said, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **options
    )
    ids = (array("i", each) for each in output["input_ids"])
    return zip(ids, output["assistant_masks"], strict=True)


def _tokens_in_pieces(
    tokenizer: "PreTrainedTokenizerBase", said: list[list[Message]], options: Mapping[str, Any]
) -> _Tokens:
    """Return what :func:`_tokens` does, in time and memory that are linear in text and turns.

    The library joins all that is written so far at each turn of the assistant, and looks for the
    tokens of that turn from the first one on. Here the template writes marks around what the
    assistant says.
    """
    template = tokenizer.get_chat_template(tools=options["tools"])
    marked = _ENDS.sub(rf"{{%\1 endgeneration %}}{_MARK}{{% endif \2%}}", template)
    marked = _BEGINS.sub(rf"{{%\1 if true %}}{_MARK}{{% generation \2%}}", marked)
    rendered: Any = tokenizer.apply_chat_template(
        said, chat_template=marked, tokenize=False, **options
    )
    return [_tokens_of(tokenizer, text.split(_MARK)) for text in rendered]


def _tokens_of(
    tokenizer: "PreTrainedTokenizerBase", parts: Sequence[str]
) -> tuple["array[int]", bytearray]:
    """Return the tokens of a text, and 1 for those within every second of its parts."""
    text = "".join(parts)
    is_spoken = b"".join(bytes([n % 2]) * len(part) for n, part in enumerate(parts))
    ids, mask = array("i"), bytearray()
    start = 0
    for piece in pieces_of(text):
        encodings: Any = tokenizer([piece], add_special_tokens=False).encodings
        ids.extend(encodings[0].ids)
        mask.extend(1 in is_spoken[start + b : start + e] for b, e in encodings[0].offsets)
        start += len(piece)
    return ids, mask


def _with_loss(mask: bytes, turns: Sequence[Turn]) -> bytes:
    """Return the mask without the turns of the assistant that have no loss."""
    spoken = [turn for turn in turns if turn.role == "assistant"]
    if all(turn.loss for turn in spoken):
        return mask
    runs = [(speaks, len(list(run))) for speaks, run in groupby(mask)]
    if sum(speaks for speaks, _ in runs) != len(spoken):
        raise UserError(
            "template: its marks do not tell the turns of the assistant apart, so a turn without "
            "loss cannot be left out; choose another template"
        )
    losses = iter(spoken)
    return b"".join(bytes([speaks and next(losses).loss]) * length for speaks, length in runs)


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return the texts that the tokenizer would read as special tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return sorted({token.content for token in added if token.special} - {""})
