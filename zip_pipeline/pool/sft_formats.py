"""The record formats of SFT conversations."""

from zip_pipeline.pool.format import Format
from zip_pipeline.pool.rows import Record
from zip_pipeline.pool.turns import (
    field_value,
    instruction_text,
    parse_messages,
    present,
    system_turns,
    text_field,
    turns_of,
)
from zip_pipeline.samples import Sample, Turn

_CONVERSATIONS = ("conversations", "conversation")
_ANSWERS = ("answer", "response")


def _has_roles(value: object) -> bool:
    """Return whether a list of messages names its speakers as OpenAI does."""
    return isinstance(value, list) and any(isinstance(m, dict) and "role" in m for m in value)


def _is_messages(record: Record) -> bool:
    field = present(record, "messages", *_CONVERSATIONS)
    return field == "messages" or (field is not None and _has_roles(record[field]))


def _is_sharegpt(record: Record) -> bool:
    return present(record, *_CONVERSATIONS) is not None and not _is_messages(record)


def _parse_messages(record: Record) -> Sample:
    turns = parse_messages(field_value(record, "messages", *_CONVERSATIONS))
    if any(turn.role == "system" for turn in turns):
        return Sample(turns)
    return Sample(system_turns(record) + turns)


def _parse_alpaca(record: Record) -> Sample:
    user = Turn("user", instruction_text(record, "instruction"))
    answer = Turn("assistant", text_field(record, "output", "response"))
    return Sample((*system_turns(record), user, answer))


def _parse_prompt_completion(record: Record) -> Sample:
    prompt = turns_of(field_value(record, "prompt"), "user", "prompt")
    completion = field_value(record, "completion", "response")
    return Sample(system_turns(record) + prompt + turns_of(completion, "assistant", "completion"))


def _parse_question_answer(record: Record) -> Sample:
    user = Turn("user", text_field(record, "question"))
    return Sample((*system_turns(record), user, Turn("assistant", text_field(record, *_ANSWERS))))


def _is_alpaca(record: Record) -> bool:
    return "instruction" in record and present(record, "output", "response") is not None


def _is_prompt_completion(record: Record) -> bool:
    return "prompt" in record and present(record, "completion", "response") is not None


def _is_question_answer(record: Record) -> bool:
    return "question" in record and present(record, *_ANSWERS) is not None


SFT_FORMATS = (
    Format("messages", "sft", "messages[role, content, tool_calls]", _is_messages, _parse_messages),
    Format("sharegpt", "sft", "conversations[from, value]", _is_sharegpt, _parse_messages),
    Format("alpaca", "sft", "instruction, input, output or response", _is_alpaca, _parse_alpaca),
    Format(
        "prompt_completion",
        "sft",
        "prompt, completion or response",
        _is_prompt_completion,
        _parse_prompt_completion,
    ),
    Format(
        "question_answer",
        "sft",
        "question, answer or response",
        _is_question_answer,
        _parse_question_answer,
    ),
)
