"""Messages and dialogues, as they come, to turns."""

import json
import re
from collections.abc import Sequence
from typing import TypeAlias

from zip_pipeline.ingest.rows import Record, RejectionError
from zip_pipeline.samples import AnySample, Sample, Turn, normalise_text

Turns: TypeAlias = tuple[Turn, ...]

_ASSISTANTS = (
    "gpt",
    "chatgpt",
    "bard",
    "bing",
    "claude",
    "gemini",
    "model",
    "bot",
    "chatbot",
    "ai",
)
_ROLE_NAMES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", *_ASSISTANTS),
    "tool": ("tool", "function", "observation", "ipython", "tool_response"),
}
_ROLES = {name: role for role, names in _ROLE_NAMES.items() for name in names}
_CALL_ROLE = "function_call"
_DIALOGUE_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant): ?")


def present(record: Record, *fields: str) -> str | None:
    """Return the first of the fields that the record has."""
    return next((field for field in fields if field in record), None)


def field_value(record: Record, *fields: str) -> object:
    """Return the value of the first of the fields that is not null, None where all are.

    Raises:
        RejectionError: ``missing_field`` where the record has none of them.
    """
    for field in fields:
        if record.get(field) is not None:
            return record[field]
    if present(record, *fields) is None:
        raise RejectionError("missing_field", f"expected {' or '.join(fields)}")
    return None


def text_of(value: object, name: str) -> str:
    """Return a text as it is, a number as its digits, null and NaN as the empty text.

    Raises:
        RejectionError: ``wrong_type`` for anything else.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise RejectionError("wrong_type", f"{name} is a {type(value).__name__}, expected text")


def text_field(record: Record, *fields: str) -> str:
    """Return the text of the first of the fields that is not null.

    Raises:
        RejectionError: ``missing_field`` or ``wrong_type``.
    """
    return text_of(field_value(record, *fields), " or ".join(fields))


def instruction_text(record: Record, *fields: str) -> str:
    """Return the instruction, and after a line feed the ``input`` where it is not blank."""
    instruction = text_field(record, *fields)
    extra = text_of(record.get("input"), "input")
    return f"{instruction}\n{extra}" if extra.strip() else instruction


def system_turns(record: Record) -> Turns:
    """Return the system turn of a record that has it in a field of its own."""
    content = text_of(record.get("system", record.get("system_prompt")), "system")
    return (Turn("system", content),) if content.strip() else ()


def _content(value: object) -> str:
    if not isinstance(value, list):
        return text_of(value, "content")
    texts = []
    for part in value:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, str):
            texts.append(part)
        else:
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise RejectionError("unsupported_content", f"a content part is a {kind}")
    return "\n".join(texts)


def _tool_calls(message: Record) -> str:
    """Return the calls of a message as JSON text with sorted keys, empty where it has none."""
    calls = message.get("tool_calls")
    if not calls and message.get("function_call"):
        calls = [{"type": "function", "function": message["function_call"]}]
    if not calls:
        return ""
    if isinstance(calls, str):
        try:
            calls = json.loads(calls)
        except (ValueError, RecursionError):
            return str(calls)
    return json.dumps(calls, ensure_ascii=False, sort_keys=True, default=str)


def _turn(message: object) -> Turn:
    if not isinstance(message, dict):
        raise RejectionError("wrong_type", f"a turn is a {type(message).__name__}")
    name = text_field(message, "role", "from").strip().lower()
    if name not in _ROLES and name != _CALL_ROLE:
        raise RejectionError("unknown_role", f"{name!r}; known are {', '.join(sorted(_ROLES))}")
    calls = _tool_calls(message)
    if calls and present(message, "content", "value") is None:
        return Turn(_ROLES[name], "", calls)
    content = _content(field_value(message, "content", "value"))
    if name == _CALL_ROLE:
        return Turn("assistant", "", _tool_calls({"tool_calls": content}))
    return Turn(_ROLES[name], content, calls)


def parse_messages(value: object) -> Turns:
    """Return the turns of a list of messages with ``role``/``content`` or ``from``/``value``.

    Raises:
        RejectionError: ``wrong_type``, ``missing_field``, ``unknown_role`` or
            ``unsupported_content``.
    """
    if not isinstance(value, list):
        raise RejectionError("wrong_type", f"expected a list of messages, got {_kind(value)}")
    return tuple(_turn(message) for message in value)


def _kind(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def is_dialogue(value: object) -> bool:
    """Return whether a text starts like ``Human: …``."""
    match = _DIALOGUE_TURN.match(value) if isinstance(value, str) else None
    return match is not None and match[1] == "Human"


def parse_dialogue(text: str) -> Turns:
    r"""Return the turns of a text in ``\n\nHuman: … \n\nAssistant: …`` form, outer space cut.

    Raises:
        RejectionError: ``not_a_dialogue``.
    """
    if not is_dialogue(text):
        raise RejectionError("not_a_dialogue", "expected a text that starts with Human:")
    _, *parts = _DIALOGUE_TURN.split(text)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return tuple(Turn(_ROLES[name.lower()], content.strip()) for name, content in pairs)


def turns_of(value: object, role: str, name: str) -> Turns:
    """Return the turns of a list of messages, or of a text that is one turn of a role.

    Raises:
        RejectionError: as :func:`parse_messages`.
    """
    if isinstance(value, list):
        return parse_messages(value)
    return (Turn(role, text_of(value, name)),)


def _key(turn: Turn) -> tuple[str, str, str]:
    return turn.role, normalise_text(turn.content), turn.tool_calls


def num_common_turns(first: Sequence[Turn], second: Sequence[Turn]) -> int:
    """Return how many leading turns are the same in both, normalised."""
    pairs = zip(first, second, strict=False)
    return next(
        (n for n, (one, other) in enumerate(pairs) if _key(one) != _key(other)),
        min(len(first), len(second)),
    )


def _check_answer(turns: Turns, name: str) -> None:
    if not turns or turns[-1].role != "assistant":
        last = turns[-1].role if turns else "missing"
        raise RejectionError("no_final_assistant", f"{name}: the last turn is {last}")
    if not turns[-1].content.strip() and not turns[-1].tool_calls:
        raise RejectionError("empty_final_assistant", name)


def _has_user(turns: Turns) -> bool:
    return any(turn.role == "user" and turn.content.strip() for turn in turns)


def check_sample(sample: AnySample) -> None:
    """Check that a conversation, or both sides of a pair, can be learnt from.

    A conversation needs a turn of the user that is not blank and, last, a turn of the assistant
    that is not blank or calls a tool; the two sides of a pair must differ.

    Raises:
        RejectionError: ``no_user_turn``, ``no_final_assistant``, ``empty_final_assistant``,
            ``no_common_prompt`` or ``equal_responses``.
    """
    if isinstance(sample, Sample):
        if not _has_user(sample.turns):
            raise RejectionError("no_user_turn", "conversation")
        _check_answer(sample.turns, "conversation")
        return
    if not _has_user(sample.prompt):
        begin_apart = _has_user(sample.chosen) and _has_user(sample.rejected)
        reason = "no_common_prompt" if begin_apart else "no_user_turn"
        raise RejectionError(reason, "the common prompt has no turn of the user")
    _check_answer(sample.chosen, "chosen")
    _check_answer(sample.rejected, "rejected")
    if [_key(turn) for turn in sample.chosen] == [_key(turn) for turn in sample.rejected]:
        raise RejectionError("equal_responses", "chosen and rejected are the same")


def check_encoding(texts: Sequence[str]) -> None:
    """Check that texts can be stored as UTF-8.

    Raises:
        RejectionError: ``bad_encoding``.
    """
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError as error:
        raise RejectionError("bad_encoding", f"half a surrogate pair: {error}") from None
