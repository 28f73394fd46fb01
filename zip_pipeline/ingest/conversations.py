"""The formats of SFT: conversations, and questions with their answers."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from zip_pipeline.ingest.chat_texts import answers_in_chat, chat_text_field, parse_chat_text
from zip_pipeline.ingest.questions import question_turns, with_system
from zip_pipeline.ingest.ratings import SCORES, refuse_rated
from zip_pipeline.ingest.rows import Format, Record, RejectionError
from zip_pipeline.ingest.trees import (
    CONVERSATIONS_OF_TABLE,
    conversations_of_tree,
    is_message_of_tree,
    is_tree,
    read_places,
)
from zip_pipeline.ingest.turns import (
    Turns,
    alternating,
    answer_text,
    decoded,
    field_value,
    first_of,
    has_fields,
    is_marked_dialogue,
    objects_of,
    parse_marked_dialogue,
    parse_messages,
    peek,
    present,
    reasoning_of,
    system_turns,
    text_field,
    text_of,
    with_reasoning,
)
from zip_pipeline.samples import AnySample, Sample, Turn

_CONVERSATIONS = ("conversations", "conversation")
_SAID_OF_A_TEXT = {"text", "answer_start"}
_ANSWERS = ("solution", "answer", "answers", "response", "answerKey")


def _items(record: Record, *fields: str) -> list[object]:
    """Return the list in the first of the fields that has one; of a JSON text, what it holds."""
    for field in fields:
        try:
            value = decoded(peek(record, field))
        except RejectionError:
            continue
        if isinstance(value, list) and value:
            record.get(field)
            return value
    return []


def _has_roles(items: Sequence[object]) -> bool:
    """Return whether a list of messages names its speakers as OpenAI does."""
    return any(isinstance(item, dict) and "role" in item for item in items)


def _is_messages(record: Record) -> bool:
    field = present(record, "messages", *_CONVERSATIONS, "data")
    if field == "messages":
        return not _is_strings(record)
    return field is not None and _has_roles(_items(record, field))


def _is_strings(record: Record) -> bool:
    items = _items(record, "messages", *_CONVERSATIONS, "data")
    return bool(items) and _are_texts(items)


def _is_exchanges(record: Record) -> bool:
    items = _items(record, *_CONVERSATIONS)
    return bool(items) and all(
        isinstance(item, dict) and {"input", "output"} <= item.keys() for item in items
    )


def _is_sharegpt(record: Record) -> bool:
    if present(record, *_CONVERSATIONS) is None:
        return False
    first = next(iter(_items(record, *_CONVERSATIONS)), None)
    # A list of conversations is no conversation.
    is_list = isinstance(first, dict) and present(first, "messages", *_CONVERSATIONS) is not None
    return not (is_list or _is_messages(record) or _is_strings(record) or _is_exchanges(record))


def _messages(record: Record) -> Turns:
    value = decoded(field_value(record, "messages", *_CONVERSATIONS, "data"))
    return with_system(record, parse_messages(value))


def _thread(record: Record) -> Turns:
    read_places(record)
    return _messages(record)


def _strings(record: Record) -> Turns:
    items = _items(record, "messages", *_CONVERSATIONS, "data")
    return with_system(record, alternating(items, "a turn"))


def _exchanges(record: Record) -> Turns:
    turns = []
    for item in objects_of(field_value(record, *_CONVERSATIONS), "conversation"):
        turns.append(Turn("user", text_field(item, "input")))
        turns.append(Turn("assistant", text_field(item, "output")))
    return with_system(record, tuple(turns))


def _gemini(record: Record) -> Turns:
    return with_system(record, parse_messages(field_value(record, "contents")))


def _batch_body(record: Record) -> Turns:
    body = record["body"]
    if not isinstance(body, dict):
        raise RejectionError("wrong_type", "body is no object with messages")
    return _messages(body)


def _segments(record: Record) -> Turns:
    """Return the segments of a text: those that are labelled are the assistant's."""
    turns = []
    for item in objects_of(field_value(record, "segments"), "segments"):
        role = "assistant" if item.get("label") else "user"
        text = re.sub(r"\A<s>|</s>\Z", "", text_field(item, "text").strip())
        turns.append(Turn(role, text.strip()))
    return tuple(turns)


def _instances(record: Record) -> Turns:
    instances = objects_of(field_value(record, "instances"), "instances")
    if len(instances) != 1:
        detail = f"{len(instances)} instances, expected one; write each as a row of its own"
        raise RejectionError("wrong_type", detail)
    extra = text_of(instances[0].get("input"), "input")
    instruction = text_field(record, "instruction")
    question = f"{instruction}\n{extra}" if extra.strip() else instruction
    return (
        Turn("user", question),
        Turn("assistant", answer_text(instances[0]["output"], "output")),
    )


def _marked(*fields: str) -> Callable[[Record], Turns]:
    def turns(record: Record) -> Turns:
        found = parse_marked_dialogue(text_field(record, *fields))
        system = [
            Turn("system", turn.content.removeprefix("SYSTEM:").strip())
            for turn in system_turns(record)
        ]
        return (*system, *found) if not any(t.role == "system" for t in found) else found

    return turns


def _chat_text(record: Record) -> Turns:
    field = chat_text_field(record) or "text"
    return with_system(record, parse_chat_text(text_field(record, field)))


def _is_marked(record: Record) -> bool:
    return any(
        is_marked_dialogue(record.get(field)) for field in ("text", "chat") if field in record
    )


def _question_answer(questions: Sequence[str], answers: Sequence[str]) -> Callable[[Record], Turns]:
    """Return the parser of records with a question in one field and its answer in another."""

    def turns(record: Record) -> Turns:
        prompt = question_turns(record, *questions)
        value = field_value(record, *answers)
        if isinstance(decoded(peek(record, questions[0])), list):
            # Where the prompt is a list of messages in a text, so is the answer.
            value = decoded(value)
        name = next((name for name in answers if peek(record, name) is not None), answers[0])
        asked = peek(record, present(record, *questions) or questions[0])
        answer = answers_in_chat(asked, _answer(record, name, value))
        return with_system(record, prompt + answer)

    return turns


def _answer(record: Record, name: str, value: object) -> Turns:
    said = [value] if isinstance(value, dict) and _has_roles([value]) else value
    if isinstance(said, list) and _has_roles(said):
        return parse_messages(said)
    if name in ("answer", "answers"):
        value = _short_answer(record, name, value)
    elif name == "output" and "input" in record and _is_pair_of_texts(value):
        # As LLaMA-Factory writes pairs; without the field input it may be any list of two.
        raise RejectionError(
            "rated_record",
            "output is a list of two answers, a better and a worse one; drop it under preference",
        )
    text = answer_text(value, name)
    return (with_reasoning(Turn("assistant", text), reasoning_of(record)),)


def _short_answer(record: Record, name: str, value: object) -> object:
    """Return the first of several spellings of an answer, as questions of knowledge have them."""
    if isinstance(value, dict) and (field := present(value, "value", "text")):
        _refuse_told_apart(name, value.keys() & set(SCORES))
        return _short_answer(value, field, value.get(field))
    if isinstance(value, list) and all(isinstance(item, dict) and "text" in item for item in value):
        _refuse_told_apart(name, {key for item in value for key in item} - _SAID_OF_A_TEXT)
        value = [item.get("text") for item in value]
    return first_of(record, name, value) if isinstance(value, list) and _are_texts(value) else value


def _refuse_told_apart(name: str, fields: set[str]) -> None:
    """Refuse answers where fields tell which is good: the first of them may be the worst."""
    if fields:
        detail = (
            f"{name} has {', '.join(sorted(fields))} for each answer, so the first may not be the "
            "best; map the one to learn, or rank them under preference by their score"
        )
        raise RejectionError("rated_record", detail)


def _is_pair_of_texts(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and _are_texts(value)


def _are_texts(items: Sequence[object]) -> bool:
    return all(isinstance(item, str) for item in items)


def _is_calls(record: Record) -> bool:
    return {"query", "answers", "tools"} <= record.keys()


def _calls(record: Record) -> Turns:
    prompt = question_turns(record, "query")
    called = {"role": "assistant", "content": None, "tool_calls": record["answers"]}
    return with_system(record, prompt + parse_messages([called]))


def _has_one_of(questions: Sequence[str], answers: Sequence[str]) -> Callable[[Record], bool]:
    def matches(record: Record) -> bool:
        return None not in (present(record, *questions), present(record, *answers))

    return matches


_CONVERSATION_PARSERS: dict[str, Callable[[Record], Turns]] = {}


def _conversation(
    name: str, fields: str, matches: Callable[[Record], bool], turns: Callable[[Record], Turns]
) -> Format:
    """Return a format of SFT conversations."""
    _CONVERSATION_PARSERS[name] = turns

    def parse(record: Record) -> AnySample:
        refuse_rated(record)
        return Sample(turns(record))

    return Format(name, "sft", fields, matches, parse)


def _pairs_of_fields(name: str, questions: Sequence[str], answers: Sequence[str]) -> Format:
    words = f"{' or '.join(questions)}, {' or '.join(answers)}"
    return _conversation(
        name, words, _has_one_of(questions, answers), _question_answer(questions, answers)
    )


SFT_FORMATS = (
    _conversation("messages", "messages[role, content, tool_calls]", _is_messages, _messages),
    _conversation(
        "turn_texts", "conversations or data as texts, the user's first", _is_strings, _strings
    ),
    _conversation("exchanges", "conversation[input, output]", _is_exchanges, _exchanges),
    _conversation("sharegpt", "conversations[from, value]", _is_sharegpt, _messages),
    _conversation("gemini", "contents[role, parts]", has_fields("contents"), _gemini),
    _conversation(
        "openai_batch",
        "body[messages]",
        lambda record: isinstance(body := record.get("body"), dict) and "messages" in body,
        _batch_body,
    ),
    _conversation(
        "segments", "segments[label, text]", lambda r: bool(_items(r, "segments")), _segments
    ),
    _conversation(
        "instances",
        "instruction, instances[input, output]",
        has_fields("instruction", "instances"),
        _instances,
    ),
    _pairs_of_fields("alpaca", ("instruction",), ("output", "response", "generation")),
    _pairs_of_fields("prompt_completion", ("prompt",), ("completion", "response")),
    _pairs_of_fields("question_answer", ("question",), _ANSWERS),
    _conversation("query_calls", "query, answers[name, arguments], tools", _is_calls, _calls),
    _pairs_of_fields("query_response", ("query",), ("response", "answer", "answers")),
    _pairs_of_fields("inputs_targets", ("inputs",), ("targets",)),
    _pairs_of_fields("problem_solution", ("problem",), ("solution",)),
    replace(
        _conversation("message_tree", "prompt[role, text, replies[]]", is_tree, _thread),
        unfold=conversations_of_tree,
    ),
    replace(
        _conversation(
            "message_table", "message_id, parent_id, role, text", is_message_of_tree, _thread
        ),
        gather=CONVERSATIONS_OF_TABLE,
    ),
    _pairs_of_fields("user_assistant", ("user",), ("assistant",)),
    _pairs_of_fields("input_output", ("input",), ("output", "target", "response", "answer")),
    _conversation(
        "chat_text",
        "text as ChatML, Llama, Mistral, Gemma or Zephyr write it",
        lambda record: chat_text_field(record) is not None,
        _chat_text,
    ),
    _conversation(
        "marked_text",
        "text as ### Human: / ### Assistant: or Human: / Assistant:, chat as USER: / ASSISTANT:",
        _is_marked,
        _marked("text", "chat"),
    ),
)  # fmt: skip


def parse_conversation(record: Record) -> Turns:
    """Return the turns of a record of any format of SFT.

    Raises:
        RejectionError: as the format that it matches, or ``unknown_format``.
    """
    # Of a copy: to look at a field is not to read it.
    found = next((f for f in SFT_FORMATS if f.matches(dict(record))), None)
    if found is None:
        raise RejectionError("unknown_format", f"{', '.join(sorted(record))}: no format of sft")
    return _CONVERSATION_PARSERS[found.name](record)
