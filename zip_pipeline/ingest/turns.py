"""Messages and dialogues, as they come, to turns; and which fields of a record were read."""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import TypeAlias

from zip_pipeline.ingest.rows import Record, RejectionError
from zip_pipeline.samples import AnySample, PreferencePair, RatedAnswer, Sample, Turn, turn_key

Turns: TypeAlias = tuple[Turn, ...]

_ROLE_NAMES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter", "instruction", "question"),
    "assistant": (
        "assistant", "gpt", "chatgpt", "bard", "bing", "claude", "gemini", "model", "bot",
        "chatbot", "ai", "output", "answer",
    ),
    "tool": (
        "tool", "function", "observation", "ipython", "tool_response", "function_response",
        "tool_result",
    ),
}  # fmt: skip
_ROLES = {name: role for role, names in _ROLE_NAMES.items() for name in names}
_CALL_ROLES = ("function_call", "tool_call", "tool_calls")
_MODEL_NAME = re.compile(r"gpt-?\d.*")
_DIALOGUE_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant): ?")
# White space before a mark is of the turn before it: to match it too takes quadratic time.
_SPEAKER = re.compile(r"###\s*(Human|Assistant|User|System):\s?")
_MARKED_TURN = re.compile(r"###\s*(Human|Assistant|System|User|Instruction|Response):\s?")
_SHOUTED_TURN = re.compile(r"(?:\A|\n)[^\S\n]*(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):\s?")
_ANGLED_TURN = re.compile(r"(?:\A|\n)[^\S\n]*<(human|bot)>:\s?")
# A text of Human and Assistant may hold the other marks in what they say.
_MARKS = (_DIALOGUE_TURN, _SPEAKER, _MARKED_TURN, _SHOUTED_TURN, _ANGLED_TURN)
_MARKED_ROLES = {
    "human": "user", "user": "user", "instruction": "user", "assistant": "assistant",
    "response": "assistant", "bot": "assistant", "system": "system", "function response": "tool",
}  # fmt: skip
_END_OF_TEXT = "<|endoftext|>"
_THINK = re.compile(r"\A\s*<think>(.*?)</think>\s*", re.DOTALL)
_SYSTEM = (
    "system", "system_prompt", "system_message", "systemInstruction", "system_instruction",
)  # fmt: skip
_REASONING = ("reasoning_content", "reasoning", "thinking", "thought")
HISTORY = ("history", "chat_history", "conversation_history")
_LOSS = ("weight", "train", "training", "loss_weight", "mask", "loss")
# What an old-style list of messages printed by Python looks like.
_NAMES_SPEAKER = re.compile(r"['\"](?:role|from)['\"]")
_OPENINGS = frozenset("[ \t\r\n")
_MISSING_COMMA = re.compile(r"\}[^\S\n]*\n\s*\{")
# What is given to a chat template beside the messages.
_KWARGS = "chat_template_kwargs"
_TOOL_PLACES = frozenset({"tools", "functions", "body", "input", _KWARGS})
_MEDIA_FIELDS = (
    "images", "image", "image_url", "image_urls", "image_path", "image_paths", "image_file", "img",
    "attachments", "videos", "video", "video_path", "audios", "audio", "audio_path",
)  # fmt: skip
_MEDIA_PARTS = (
    "image", "image_url", "input_image", "audio", "input_audio", "audio_url", "video", "video_url",
    "file", "input_file",
)  # fmt: skip
_PART_KEYS = {"type", "text", "cache_control"}
_GEMINI_MEDIA = ("inlineData", "inline_data", "fileData", "file_data")


class Reading(dict[str, object]):
    """A record, or an object inside of one, that knows which of its fields were read.

    ``media`` holds the references to pictures and the like among its parts; ``roles`` says which
    role further names of speakers stand for.
    """

    parts_left: tuple[str, ...] = ()

    def __init__(
        self, fields: Mapping[str, object], roles: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(fields)
        self.roles = roles or {}
        self.read: set[str] = set()
        self.media: list[object] = []
        # Most fields are texts, and every record of a pool comes here.
        self._nested = [name for name, value in fields.items() if isinstance(value, list | dict)]
        for name in self._nested:
            self[name] = _reading(fields[name], self.roles)

    def __getitem__(self, name: str) -> object:
        self.read.add(name)
        if name not in self:
            raise RejectionError("missing_field", f"expected {name}")
        return super().__getitem__(name)

    def get(self, name: str, default: object = None) -> object:
        """Return a field, and remember that it was read."""
        self.read.add(name)
        return super().get(name, default)

    def unread(self) -> Iterator[str]:
        """Yield the path of each field that holds something and was not read."""
        yield from self.parts_left
        yield from (n for n in self.keys() - self.read if _says_something(dict.get(self, n)))
        for name, item in self._inner():
            if name.partition("[")[0] in self.read:
                yield from (f"{name}.{inner}" for inner in item.unread())

    def all_media(self) -> Iterator[object]:
        """Yield the references of the record and of all that lies inside of it."""
        yield from self.media
        for _, item in self._inner():
            yield from item.all_media()

    def _inner(self) -> Iterator[tuple[str, "Reading"]]:
        """Yield the objects inside, with the field in which each stands."""
        for name in self._nested:
            value = dict.get(self, name)
            if isinstance(value, Reading):
                yield name, value
            elif isinstance(value, list):
                yield from ((f"{name}[]", item) for item in value if isinstance(item, Reading))


def _reading(value: object, roles: Mapping[str, str] | None = None) -> object:
    if isinstance(value, dict):
        return Reading(value, roles)
    return [_reading(item, roles) for item in value] if isinstance(value, list) else value


def _says_something(value: object) -> bool:
    return value is not None and value == value and value not in ("", [], {})


def whole(value: object) -> object:
    """Return a value without the fields that are null, all of which count as read.

    Tables give every record the fields of all others, null where it has none of its own.
    """
    if isinstance(value, Reading):
        fields = {name: value[name] for name in value}
        return {name: whole(inner) for name, inner in fields.items() if inner is not None}
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items() if inner is not None}
    return [whole(item) for item in value] if isinstance(value, list) else value


def json_of(value: object) -> str:
    """Return a value as JSON text with sorted keys, without the fields that are null."""
    return json.dumps(whole(value), ensure_ascii=False, sort_keys=True, default=str)


def peek(record: Record, field: str) -> object:
    """Return the value of a field without reading it."""
    return dict.get(record, field)


def present(record: Record, *fields: str) -> str | None:
    """Return the first of the fields that the record has."""
    return next((field for field in fields if field in record), None)


def has_fields(*fields: str) -> Callable[[Record], bool]:
    """Return what tells whether a record has all of the fields."""
    return lambda record: all(field in record for field in fields)


def field_value(record: Record, *fields: str) -> object:
    """Return the value of the first of the fields that is not null, None where all are.

    Raises:
        RejectionError: ``missing_field`` where the record has none of them.
    """
    for field in fields:
        if field in record and (value := record.get(field)) is not None:
            return value
    if present(record, *fields) is None:
        raise RejectionError("missing_field", f"expected {' or '.join(fields)}")
    return None


def first_of(record: Record, field: str, values: list[object]) -> object:
    """Return the first of the values in a field; the others, where they differ, are not read."""
    if any(value != values[0] for value in values):
        leave_part(record, f"{field}[1:]")
    return values[0] if values else ""


def leave_part(record: Record, part: str) -> None:
    """Count a part of a field that is read as not read."""
    if isinstance(record, Reading):
        record.parts_left += (part,)


def objects_of(value: object, name: str) -> list[Record]:
    """Return a list of objects.

    Raises:
        RejectionError: ``wrong_type`` for anything else.
    """
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RejectionError("wrong_type", f"{name} is no list of objects")
    return value


def text_of(value: object, name: str) -> str:
    """Return a text as it is, a number as its digits, null and NaN as the empty text.

    Raises:
        RejectionError: ``wrong_type`` for anything else.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal):
        return str(value)
    raise RejectionError("wrong_type", f"{name} is {_kind(value)}, expected text")


def text_field(record: Record, *fields: str) -> str:
    """Return the text of the first of the fields that is not null.

    Raises:
        RejectionError: ``missing_field`` or ``wrong_type``.
    """
    return text_of(field_value(record, *fields), " or ".join(fields))


def answer_text(value: object, name: str) -> str:
    """Return an answer as text, lists and objects as JSON."""
    return json_of(value) if isinstance(value, list | dict) else text_of(value, name)


def system_turns(record: Record) -> Turns:
    """Return the system turn of a record that has it in a field of its own."""
    for field in (field for field in _SYSTEM if field in record):
        value = record.get(field)
        items = value if isinstance(value, list) else [value]
        if any(isinstance(item, dict) and "role" in item for item in items):
            content = "\n".join(turn.content for turn in parse_messages(items))
        elif isinstance(value, list | dict):
            content = _Message(record).content(value if "parts" in value else items)
        else:
            content = text_of(value, field)
        if content.strip():
            return (Turn("system", content),)
    if not isinstance(peek(record, _KWARGS), dict):
        return ()
    inner = record.get(_KWARGS)
    own = inner.get("custom_instructions") if isinstance(inner, dict) else ""
    return (Turn("system", own),) if isinstance(own, str) and own.strip() else ()


def tools_of(record: Record) -> str:
    """Return the schemas of the tools of a record as JSON text, empty where it has none."""
    messages = peek(record, "messages")
    # Some give the tools to the message of the system.
    first = messages[0] if isinstance(messages, list) and messages else None
    has_own = isinstance(first, dict) and ("tools" in first or "functions" in first)
    if record.keys().isdisjoint(_TOOL_PLACES) and not has_own:
        return ""
    places = (record, first, *(peek(record, name) for name in ("body", "input", _KWARGS)))
    found = (_tools(place) for place in places if isinstance(place, dict))
    tools = next(filter(None, found), "")
    if isinstance(peek(record, _KWARGS), dict):
        record.get(_KWARGS)
    return tools


def _tools(record: Record) -> str:
    for field in ("tools", "functions", "xml_tools", "python_tools"):
        known = isinstance(peek(record, field), str | list | dict)
        value = record.get(field) if known else None
        text = value if isinstance(value, str) and value.strip() else ""
        with suppress(ValueError, RecursionError):
            value = json.loads(text) if text else value
        if isinstance(value, list | dict):
            text = json_of(value) if value else ""
        if text:
            return text
    return ""


def media_of(record: Reading) -> str:
    """Return the references to media in fields of a record and in its turns, as JSON text."""
    listed: dict[str, object] = {}
    if not record.keys().isdisjoint(_MEDIA_FIELDS):
        found = {field: whole(record.get(field)) for field in _MEDIA_FIELDS if field in record}
        listed = {name: value for name, value in found.items() if value}
    if parts := list(record.all_media()):
        listed["parts"] = parts
    if not listed:
        return ""
    return json.dumps(listed, ensure_ascii=False, sort_keys=True, default=_reference)


def _reference(value: object) -> str:
    """Return what stands for bytes: their hash, which is enough to tell two pictures apart."""
    from hashlib import blake2b

    if isinstance(value, bytes):
        return f"blake2b:{blake2b(value, digest_size=16).hexdigest()}"
    return str(value)


class _Message:
    """One message while its turns are made."""

    def __init__(self, message: Record) -> None:
        self.message = message if isinstance(message, Reading) else Reading(message)
        self.reasoning: list[str] = []
        self.calls: list[object] = []
        self.results: list[Turn] = []

    def content(self, value: object) -> str:
        """Return the text of a content, which may be a list of parts of several kinds."""
        if isinstance(value, list):
            return "\n".join(text for part in value for text in self._part(part))
        if not isinstance(value, dict):
            return text_of(value, "content")
        if isinstance(value.get("parts"), list):
            value.get("content_type")
            return self.content(value["parts"])
        is_part = value.keys() <= _PART_KEYS or peek(value, "type") in _MEDIA_PARTS
        return self.content([value]) if is_part and "type" in value else json_of(value)

    def _part(self, part: object) -> list[str]:
        if isinstance(part, str):
            return [part]
        if not isinstance(part, dict):
            raise RejectionError("unsupported_content", f"a content part is {_kind(part)}")
        kind = str(part.get("type") or "text")
        if self._is_of_tool(part, kind):
            return []
        if part.get("thought") is True:
            self.reasoning.append(text_field(part, "text"))
        elif kind in ("thinking", "reasoning"):
            self.reasoning.append(text_field(part, kind, "text", "value"))
        elif kind in _MEDIA_PARTS or present(part, *_GEMINI_MEDIA):
            self.message.media.append(whole(part))
            kind = kind if kind in _MEDIA_PARTS else "file"
            return [f"<{kind.removeprefix('input_').removesuffix('_url')}>"]
        elif present(part, "text", "value", "refusal") is not None:
            return [text_field(part, "text", "value", "refusal")]
        else:
            kind = kind if "type" in part else f"part with {', '.join(sorted(part)) or 'no fields'}"
            raise RejectionError("unsupported_content", f"a content part is a {kind}")
        return []

    def _is_of_tool(self, part: Record, kind: str) -> bool:
        """Take in a part that calls a tool, or that a tool answers; False where it is another."""
        if kind == "tool_use":
            call = {"name": part.get("name"), "arguments": whole(part.get("input"))}
            self.calls.append({"id": part.get("id"), "type": "function", "function": call})
        elif kind == "tool_result":
            part.get("tool_use_id")
            self.results.append(Turn("tool", self.content(part.get("content"))))
        elif name := present(part, "functionCall", "function_call"):
            # As Gemini writes calls and answers.
            self.calls.append({"type": "function", "function": _called(part.get(name))})
        elif name := present(part, "functionResponse", "function_response"):
            self.results.append(_answered(part.get(name)))
        else:
            return False
        return True


def _called(call: object) -> object:
    if not isinstance(call, dict):
        return call
    known = whole(call)
    assert isinstance(known, dict)
    return {"arguments" if name == "args" else name: value for name, value in known.items()}


def _answered(answer: object) -> Turn:
    if not isinstance(answer, dict):
        return Turn("tool", text_of(answer, "functionResponse"))
    name = text_of(answer.get("name"), "name")
    return Turn("tool", answer_text(answer.get("response"), "response"), name=name)


def _tool_calls(message: Record) -> str:
    """Return the calls of a message as JSON text with sorted keys, empty where it has none."""
    field = present(message, "tool_calls", "function_calls")
    calls = message.get(field) if field else None
    if not calls and "function_call" in message and (call := message.get("function_call")):
        calls = [{"type": "function", "function": call}]
    return _calls_text(calls)


def _calls_text(calls: object) -> str:
    if not calls:
        return ""
    if isinstance(calls, str):
        try:
            calls = json.loads(calls)
        except (ValueError, RecursionError):
            return str(calls)
    kept = [call for call in calls if call] if isinstance(calls, list) else calls
    return json_of(kept) if kept else ""


def _role(message: Record) -> str:
    typed = text_field(message, "role", "from").strip().lower()
    if isinstance(message, Reading) and typed in message.roles:
        return message.roles[typed]
    name = typed.replace("-", "_")
    if name in _CALL_ROLES:
        return "call"
    if name not in _ROLES and _MODEL_NAME.fullmatch(name.replace("_", "-")):
        return "assistant"
    if name not in _ROLES:
        raise RejectionError("unknown_role", f"{name!r}; known are {', '.join(sorted(_ROLES))}")
    return _ROLES[name]


def _has_loss(message: Record) -> bool:
    """Return whether the model learns to write a message, as its weight or flag says."""
    for field in _LOSS:
        value = message.get(field) if field in message else None
        if value is None:
            continue
        if value not in (0, 1):
            raise RejectionError(
                "unsupported_content", f"{field} is {value!r}; a turn counts wholly (1) or not (0)"
            )
        # A mask hides what is 1 in it, all other fields let through what is.
        return bool(value) != (field == "mask")
    return True


def _turns(message: object) -> Iterator[Turn]:
    """Yield the turn of a message, after the answers of tools that it carries."""
    if not isinstance(message, dict):
        raise RejectionError(
            "wrong_type", f"a turn is {_kind(message)}, expected an object with role and content"
        )
    role, calls, made = _role(message), _tool_calls(message), _Message(message)
    content = _content(message, made, may_lack=bool(calls))
    thought = ""
    if role == "call":
        said = with_reasoning(Turn("assistant", content), "")
        role, calls, content = "assistant", calls or _calls_text(said.content), ""
        thought = said.reasoning
    if made.calls:
        calls = json_of(made.calls)
    reasoning = reasoning_of(message) or "\n".join(made.reasoning) or thought
    yield from made.results
    if content or calls or reasoning or not made.results:
        # No loss falls on what others say, whatever their weight.
        loss = _has_loss(message) or role != "assistant"
        turn = Turn(role, content, calls, "", _name(message), loss)
        yield with_reasoning(turn, reasoning) if role == "assistant" else turn


def _content(message: Record, made: _Message, *, may_lack: bool) -> str:
    if may_lack and present(message, "content", "value", "refusal", "parts", "text") is None:
        return ""
    return made.content(field_value(message, "content", "value", "parts", "text", "refusal"))


def reasoning_of(message: Record) -> str:
    """Return what was thought before a message, or before the answer of a record."""
    fields = [field for field in _REASONING if _is_thought(peek(message, field))]
    return text_of(field_value(message, *fields), fields[0]) if fields else ""


def _is_thought(value: object) -> bool:
    # Some records say there whether the model is to think.
    return isinstance(value, str) and value.strip().lower() not in ("on", "off")


def with_reasoning(turn: Turn, reasoning: str) -> Turn:
    """Return a turn with its reasoning: what is given, or what stands in tags before it."""
    if not reasoning and (match := _THINK.match(turn.content)):
        reasoning = match[1]
        turn = replace(turn, content=turn.content[match.end() :])
    return replace(turn, reasoning=reasoning) if reasoning else turn


def _name(message: Record) -> str:
    return text_of(message.get("name"), "name") if "name" in message else ""


def parse_messages(value: object) -> Turns:
    """Return the turns of a list of messages with ``role``/``content`` or ``from``/``value``.

    Raises:
        RejectionError: ``wrong_type``, ``missing_field``, ``unknown_role`` or
            ``unsupported_content``.
    """
    if not isinstance(value, list):
        raise RejectionError("wrong_type", f"expected a list of messages, got {_kind(value)}")
    return tuple(turn for message in value for turn in _turns(message))


def _kind(value: object) -> str:
    """Return what a value is called in JSON."""
    names = ((bool, "true or false"), (str, "a text"), (list, "a list"), (dict, "an object"))
    kinds = (words for kind, words in names if isinstance(value, kind))
    return "null" if value is None else next(kinds, f"a {type(value).__name__}")


def decoded(value: object) -> object:
    """Return the list of messages that a text holds as JSON, or as Python prints it.

    Any other value is returned as it is.

    Raises:
        RejectionError: ``printed_list`` where it looks like such a list and cannot be read.
    """
    # Few texts begin so.
    if not isinstance(value, str) or value[:1] not in _OPENINGS or not _is_printed(value):
        return value
    try:
        return _reading(json.loads(value))
    except (ValueError, RecursionError):
        pass
    try:
        return _reading(ast.literal_eval(_MISSING_COMMA.sub("}, {", value).strip()))
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        detail = f"a list of messages that a program printed cannot be read ({error})"
        raise RejectionError("printed_list", detail) from None


def _is_printed(text: str) -> bool:
    """Return whether a text looks like a list of messages."""
    text = text.strip()
    items = text[1:-1].strip()
    return (text[:1], items[:1], items[-1:], text[-1:]) == ("[", "{", "}", "]") and bool(
        _NAMES_SPEAKER.search(items)
    )


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
    return _split_turns(_DIALOGUE_TURN, text)


def is_marked_dialogue(value: object) -> bool:
    """Return whether a text starts like ``### Human: …``, ``USER: …`` or ``Human: …``."""
    return is_dialogue(value) or (isinstance(value, str) and _marks_of(value.lstrip()) is not None)


def _marks_of(text: str) -> re.Pattern[str] | None:
    return next((marks for marks in _MARKS if marks.match(text)), None)


def parse_marked_dialogue(text: str) -> Turns:
    """Return the turns of a text in ``### Human: …### Assistant: …`` or ``USER: …`` form.

    Raises:
        RejectionError: ``not_a_dialogue``.
    """
    text = text.lstrip()
    marks = _marks_of(text)
    if marks is None:
        raise RejectionError("not_a_dialogue", "expected a text that starts with ### Human:")
    return _split_turns(marks, text.replace(_END_OF_TEXT, ""))


def _split_turns(marks: re.Pattern[str], text: str) -> Turns:
    _, *parts = marks.split(text)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return tuple(Turn(_MARKED_ROLES[name.lower()], content.strip()) for name, content in pairs)


def turns_of(value: object, role: str, name: str) -> Turns:
    """Return the turns of a list of messages, or of a text that is one turn of a role.

    Raises:
        RejectionError: as :func:`parse_messages`.
    """
    value = _message_in(decoded(value))
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        return parse_messages(value)
    return (Turn(role, text_of(value, name)),)


def _message_in(value: object) -> object:
    """Return the message that a text holds as JSON, any other value as it is."""
    if not isinstance(value, str) or value[:1] != "{" or not value.rstrip().endswith("}"):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    is_message = isinstance(found, dict) and found.keys() & {"role", "from"}
    return _reading(found) if is_message and found.keys() & {"content", "value"} else value


def alternating(values: Sequence[object], name: str) -> Turns:
    """Return texts as the turns of a user and the assistant, one after the other."""
    texts = [text_of(value, name) for value in values]
    return tuple(Turn(("user", "assistant")[n % 2], text) for n, text in enumerate(texts))


def history_turns(record: Record) -> Turns:
    """Return the earlier exchanges of a record: messages, pairs of texts or of fields.

    Raises:
        RejectionError: ``wrong_type`` for anything else.
    """
    field = next((field for field in HISTORY if peek(record, field)), HISTORY[0])
    value = decoded(record.get(field))
    if not value:
        return ()
    if not isinstance(value, list):
        raise RejectionError("wrong_type", f"{field} is {_kind(value)}, expected a list")
    if all(isinstance(item, dict) for item in value):
        return parse_messages(value)
    if all(map(_names_role, value)):
        return parse_messages([{"role": role, "content": content} for role, content in value])
    texts: list[object] = []
    for item in value:
        texts += item if isinstance(item, list) else [item]
    return alternating(texts, "history")


def _names_role(pair: object) -> bool:
    """Return whether a list is a role and what it says."""
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
        return False
    return pair[0].strip().lower() in _ROLES


def num_common_turns(first: Sequence[Turn], second: Sequence[Turn]) -> int:
    """Return how many leading turns are the same in both, normalised."""
    pairs = zip(first, second, strict=False)
    return next(
        (n for n, (one, other) in enumerate(pairs) if turn_key(one) != turn_key(other)),
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
    """Check that a conversation, both sides of a pair, or a rated answer can be learnt from.

    A conversation needs a turn of the user that is not blank and, last, a turn of the assistant
    that is not blank or calls a tool; the two sides of a pair must differ.

    Raises:
        RejectionError: ``no_user_turn``, ``no_final_assistant``, ``empty_final_assistant``,
            ``no_loss``, ``no_common_prompt`` or ``equal_responses``.
    """
    if isinstance(sample, Sample):
        if not _has_user(sample.turns):
            raise RejectionError("no_user_turn", "conversation")
        _check_answer(sample.turns, "conversation")
        if not any(turn.loss for turn in sample.turns if turn.role == "assistant"):
            raise RejectionError("no_loss", "every turn of the assistant has weight 0")
    elif isinstance(sample, RatedAnswer):
        if not _has_user(sample.prompt):
            raise RejectionError("no_user_turn", "the prompt has no turn of the user")
        _check_answer(sample.answer, "completion")
    else:
        _check_pair(sample)


def _check_pair(pair: PreferencePair) -> None:
    if not _has_user(pair.prompt):
        begin_apart = _has_user(pair.chosen) and _has_user(pair.rejected)
        reason = "no_common_prompt" if begin_apart else "no_user_turn"
        raise RejectionError(reason, "the common prompt has no turn of the user")
    _check_answer(pair.chosen, "chosen")
    _check_answer(pair.rejected, "rejected")
    if [turn_key(turn) for turn in pair.chosen] == [turn_key(turn) for turn in pair.rejected]:
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
