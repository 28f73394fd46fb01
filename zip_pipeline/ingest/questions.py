"""What is asked: a question with all that it is about, and who is told to answer how."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from zip_pipeline.ingest.chat_texts import parse_chat_prompt
from zip_pipeline.ingest.rows import Record
from zip_pipeline.ingest.turns import (
    HISTORY,
    Turns,
    decoded,
    field_value,
    history_turns,
    is_dialogue,
    is_marked_dialogue,
    json_of,
    parse_dialogue,
    parse_marked_dialogue,
    parse_messages,
    peek,
    present,
    system_turns,
    text_of,
)
from zip_pipeline.samples import Turn

# What a question is about, in the order in which it is put below the question.
_CONTEXT = (
    "definition", "instruction", "context", "contexts", "passage", "passages", "document",
    "documents", "article", "story", "paragraph", "support", "schema", "table", "starter_code",
    "hint",
)  # fmt: skip
_CHOICES = ("choices", "options")
# Tables have a column for each choice.
_CHOICE_COLUMNS = {
    f"{word}{name}": name.upper()
    for words, names in (
        (("",), "ABCDEFGHIJabcdefghij"),
        (("option", "option_", "option ", "choice", "choice_"), "ABCDEFGHIJabcdefghij0123456789"),
        (("op",), "abcde"),
    )
    for word in words
    for name in names
}
_ANSWER_CUE = "\n\nAssistant:"
_MARKED_CUES = ("### Assistant:", "### Response:", "\nASSISTANT:")
_ABOUT = frozenset({"input", *HISTORY, *_CONTEXT, *_CHOICES, *_CHOICE_COLUMNS})


def question_turns(record: Record, *fields: str) -> Turns:
    """Return the question with all that it is about: earlier exchanges, input, context, choices.

    Raises:
        RejectionError: a field is missing or of another type.
    """
    value = decoded(field_value(record, *fields))
    if isinstance(value, list):
        turns = parse_messages(value)
    else:
        turns = _written_out(text_of(value, " or ".join(fields)))
    if record.keys().isdisjoint(_ABOUT):
        return turns
    has_input = "input" in record and "input" not in fields
    extra = text_of(record.get("input"), "input") if has_input else ""
    about = [f"\n{extra}"] if extra.strip() else []
    about += [f"\n\n{text}" for text in _context(record, fields)]
    return history_turns(record) + _with_more(turns, "".join(about))


def _written_out(text: str) -> Turns:
    """Return the turns of a prompt that leads up to the assistant's; another is one turn."""
    if turns := parse_chat_prompt(text):
        return turns
    if is_dialogue(text) and _ANSWER_CUE in text:
        turns = parse_dialogue(text)
    elif text.rstrip().endswith(_MARKED_CUES) and is_marked_dialogue(text):
        turns = parse_marked_dialogue(text)
    else:
        return (Turn("user", text),)
    # Such prompts end with the cue for the assistant, which is no turn.
    return turns[:-1] if turns[-1] == Turn("assistant", "") else turns


def _with_more(turns: Turns, text: str) -> Turns:
    """Return turns with more said by the user in the last turn, or in one more."""
    if not text:
        return turns
    if turns and turns[-1].role == "user":
        return (*turns[:-1], replace(turns[-1], content=turns[-1].content + text))
    return (*turns, Turn("user", text.strip()))


def _context(record: Record, question: Sequence[str]) -> list[str]:
    found = []
    for field in (f for f in _CONTEXT if f in record and f not in question):
        value = record.get(field)
        text = json_of(value) if isinstance(value, list | dict) and value else ""
        text = text or ("" if isinstance(value, list | dict) else text_of(value, field))
        if text.strip():
            # A text speaks for itself, data and hints need a name.
            found.append(text if isinstance(value, str) and field != "hint" else f"{field}: {text}")
    for field in (field for field in _CHOICES if field in record):
        if choices := record.get(field):
            found.append(_choices(choices, record))
    columns = [
        name for name in record if name in _CHOICE_COLUMNS and not present(record, *_CHOICES)
    ]
    if len(columns) > 1:
        cells = [(_CHOICE_COLUMNS[name], record.get(name)) for name in columns]
        found.append(_listed(cell for cell in cells if cell[1] is not None))
    return found


def _choices(choices: object, record: Record) -> str:
    """Return the choices of a question, one a line, under the names that its answer uses."""
    if isinstance(choices, dict):
        if {"text", "label"} <= choices.keys():
            labels, texts = choices["label"], choices["text"]
            if isinstance(labels, list) and isinstance(texts, list) and len(labels) == len(texts):
                return _listed(zip(labels, texts, strict=True))
        return _listed((name, choices[name]) for name in choices)
    if not isinstance(choices, list):
        return text_of(choices, "choices")
    by_number = isinstance(peek(record, "answer"), int)
    names = range(len(choices)) if by_number else map(_letter, range(len(choices)))
    return _listed(zip(names, choices, strict=True))


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def _listed(choices: Iterable[tuple[object, object]]) -> str:
    return "\n".join(
        f"{name}. {json_of(text) if isinstance(text, list | dict) else text}"
        for name, text in choices
    )


def with_system(record: Record, turns: Turns) -> Turns:
    """Return turns with the system turn of the record before them, unless they have one.

    Where the user's first turn repeats it, the repetition is left out.
    """
    if any(turn.role == "system" for turn in turns):
        return turns
    system = system_turns(record)
    if system and turns and turns[0].role == "user":
        said, repeated = turns[0].content, f"{system[0].content.rstrip()}\n"
        if said.startswith(repeated) and said[len(repeated) :].strip():
            first = replace(turns[0], content=said[len(repeated) :].lstrip("\n"))
            turns = (first, *turns[1:])
    return system + turns
