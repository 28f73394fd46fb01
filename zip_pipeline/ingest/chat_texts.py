"""Conversations that are one text with the marks of a chat template around each turn."""

import re
from collections.abc import Iterator
from dataclasses import replace

from zip_pipeline.ingest.rows import Record, RejectionError
from zip_pipeline.ingest.turns import Turns, parse_messages, peek
from zip_pipeline.samples import Turn

_OUTER = r"(?:\s|<s>|</s>|<bos>|<eos>|<\|begin_of_text\|>|<\|end_of_text\|>|<\|endoftext\|>)*"
# Of each template where a turn begins, the names of its roles, where that ends, and the turn.
_MARKS = (
    (r"<\|im_start\|>", r"\w+", r"(?:\n|\Z)", ("<|im_end|>",)),
    (r"<\|start_header_id\|>", r"\w+", r"<\|end_header_id\|>", ("<|eot_id|>", "<|eom_id|>")),
    (r"<start_of_turn>", r"\w+", r"(?:\n|\Z)", ("<end_of_turn>",)),
    (r"<\|", r"(?:system|user|assistant)", r"\|>", ("</s>", "<|end|>", "<|endoftext|>")),
)
_ENDS = tuple(end for *_, ends in _MARKS for end in ends)
_TURNS = [
    re.compile(
        rf"{_OUTER}{begin}({role}){of}(.*?)"
        rf"(?:{'|'.join(map(re.escape, ends))}|(?={begin}{role}{of})|\Z)",
        re.DOTALL,
    )
    for begin, role, of, ends in _MARKS
]
_STARTS = [re.compile(rf"{_OUTER}{begin}{role}{of}") for begin, role, of, _ in _MARKS]
_INSTRUCTION = re.compile(
    rf"{_OUTER}\[INST\](.*?)\[/INST\](.*?)(?:</s>|(?=\[INST\])|\Z)", re.DOTALL
)
_SYSTEM = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)


def is_chat_text(value: object) -> bool:
    """Return whether a text begins as a chat template writes it."""
    if not isinstance(value, str) or not ("<" in value[:500] or "[" in value[:500]):
        return False
    return bool(_INSTRUCTION.match(value) or any(start.match(value) for start in _STARTS))


def parse_chat_text(text: str) -> Turns:
    """Return the turns of a text in the form of ChatML, Llama, Mistral, Gemma or Zephyr.

    Raises:
        RejectionError: ``not_a_dialogue`` where some text is in no turn, or as
            :func:`.parse_messages`.
    """
    found = next((n for n, start in enumerate(_STARTS) if start.match(text)), None)
    turns = _TURNS[found] if found is not None else _INSTRUCTION
    messages: list[object] = []
    for match in _matches(turns, text):
        said = _instructed(*match.groups()) if found is None else [match.groups()]
        messages += [{"role": role, "content": content.strip()} for role, content in said]
    return parse_messages(messages)


def parse_chat_prompt(text: object) -> Turns:
    """Return the turns of such a text that leads up to the assistant's, none of any other.

    A text that only begins with a mark may be about it.
    """
    if not isinstance(text, str) or not is_chat_text(text):
        return ()
    turns = parse_chat_text(text)
    if turns[-1] == Turn("assistant", ""):
        return turns[:-1]
    return turns if turns[-1].role != "assistant" and text.rstrip().endswith(_ENDS) else ()


def answers_in_chat(prompt: object, answers: Turns) -> Turns:
    """Return turns without the mark of their end, where the prompt has marks of turns."""
    if not parse_chat_prompt(prompt):
        return answers
    return tuple(
        replace(turn, content=_without_ends(turn.content.rstrip()).strip()) for turn in answers
    )


def _without_ends(text: str) -> str:
    end = len(text)
    while mark := next((mark for mark in _ENDS if text.endswith(mark, 0, end)), ""):
        end -= len(mark)
    return text[:end]


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the turns, which follow one another without a gap."""
    at = 0
    while match := pattern.match(text, at):
        yield match
        at = match.end()
    if rest := re.sub(_OUTER, "", text[at:]):
        raise RejectionError("not_a_dialogue", f"no mark of a turn before {rest[:40]!r}")


def _instructed(question: str, answer: str) -> Iterator[tuple[str, str]]:
    """Yield what stands around ``[/INST]``, with the system's text in the first question."""
    if system := _SYSTEM.match(question):
        yield "system", system[1]
        question = question[system.end() :]
    yield "user", question
    yield "assistant", answer


_FIELDS = ("text", "chat", "formatted_chat")


def chat_text_field(record: Record) -> str | None:
    """Return the field that holds such a text."""
    return next((name for name in _FIELDS if is_chat_text(peek(record, name))), None)
