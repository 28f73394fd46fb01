"""Trees of messages, as OpenAssistant has them: nested, or as a table of messages with parents.

A tree becomes rows. For SFT they are its conversations, from the root as far as they are answered;
for preference each message of the user with the replies to it. A message that failed its review or
was deleted is refused by name, and so is each that follows it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from zip_pipeline.ingest.rows import (
    Gather,
    RawRow,
    Record,
    RejectionError,
    json_text,
    rejected_row,
)
from zip_pipeline.ingest.turns import objects_of, peek

_MAX_MESSAGES = 64
_PLACES = ("message_id", "parent_id", "role", "review_result", "deleted")
_Walk = Callable[["_Message", list[Record]], Iterator[RawRow]]


@dataclass
class _Message:
    """A message of a tree, without its replies in ``fields``.

    Args:
        fields: what the message says.
        row: where it stands.
        around: what the tree says beside its messages.
        refused: why neither it nor what follows it is taken.
        replies: the messages that reply to it.
    """

    fields: Record
    row: RawRow
    around: Record = field(default_factory=dict)
    refused: RejectionError | None = None
    replies: list["_Message"] = field(default_factory=list)

    def __post_init__(self) -> None:
        # What was not reviewed has null there.
        if self.fields.get("review_result") is False or self.fields.get("deleted") is True:
            self.refused = RejectionError("failed_review", "review_result is false, or deleted")

    @property
    def is_answer(self) -> bool:
        return self.fields.get("role") == "assistant"

    def made(self, record: Record) -> RawRow:
        """Return a row that ends with the message."""
        whole = {**self.around, **record}
        return replace(self.row, record=whole, raw=json_text(whole))

    def rejected(self, why: RejectionError) -> RawRow:
        """Return the rejection of the message alone."""
        raw = json_text(self.fields)
        return rejected_row(self.row.source_file, self.row.source_row, raw, why)


def read_places(record: Record) -> None:
    """Count as read what made the row of its tree: places and reviews of its messages."""
    for name in ("messages", "prompt", "answers"):
        messages = peek(record, name)
        for message in messages if isinstance(messages, list) else ():
            for place in _PLACES if isinstance(message, dict) else ():
                message.get(place)


def is_tree(record: Record) -> bool:
    """Return whether a record is a tree of messages."""
    prompt = peek(record, "prompt")
    return isinstance(prompt, dict) and "replies" in prompt


def is_message_of_tree(record: Record) -> bool:
    """Return whether a record is a message that names its parent."""
    return all(name in record for name in ("message_id", "parent_id", "role", "text"))


def conversations_of_tree(row: RawRow, record: Record) -> Iterator[RawRow]:
    """Yield the conversations of a tree."""
    return _walked(_tree(row, record), [], _conversations)


def choices_of_tree(row: RawRow, record: Record) -> Iterator[RawRow]:
    """Yield the messages of the user in a tree, each with the replies to it."""
    return _walked(_tree(row, record), [], _choices)


def _links(record: Record) -> tuple[str | None, str | None]:
    """Return the names of a message and of its parent; True is 1, but "1" is not."""

    def name(value: object) -> str | None:
        return None if value is None else repr(int(value) if isinstance(value, int) else value)

    return name(record.get("message_id")), name(record.get("parent_id") or None)


def _tree(row: RawRow, record: Record) -> _Message:
    around = {name: value for name, value in record.items() if name != "prompt"}

    def message(fields: Record) -> _Message:
        alone = {name: value for name, value in fields.items() if name != "replies"}
        replies = objects_of(fields.get("replies") or [], "replies")
        return _Message(alone, row, around, replies=[message(reply) for reply in replies])

    return message(objects_of([record.get("prompt")], "prompt")[0])


def _roots(rows: Iterable[RawRow]) -> Iterator[_Message]:
    """Yield the messages without a parent, and alone those that no root leads to.

    Args:
        rows: of whole trees.
    """
    messages: dict[object, _Message] = {}
    for row in rows:
        message = _Message(row.record or {}, row)
        name = message.fields.get("message_id")
        if not isinstance(name, str | int):
            message.refused = RejectionError("missing_field", "expected message_id")
        elif messages.setdefault(name, message) is not message:
            message.refused = RejectionError("unexpected_content", f"message_id {name} again")
        else:
            continue
        yield message
    roots = []
    for message in messages.values():
        parent = message.fields.get("parent_id")
        if not parent:
            roots.append(message)
        elif isinstance(parent, str | int) and parent in messages:
            messages[parent].replies.append(message)
        else:
            message.refused = RejectionError("missing_field", f"its parent {parent} is not there")
            roots.append(message)
    yield from roots
    reached = {id(message) for root in roots for message in _all_of(root)}
    for message in messages.values():
        if id(message) not in reached:
            why = RejectionError("unexpected_content", "its parents lead in a circle")
            yield replace(message, refused=why, replies=[])


def _all_of(root: _Message) -> Iterator[_Message]:
    """Yield a message and all that follows it."""
    waiting = [root]
    while waiting:
        yield (message := waiting.pop())
        waiting += reversed(message.replies)


def _walked(message: _Message, above: list[Record], walk: _Walk) -> Iterator[RawRow]:
    """Yield the rows of a message and of all that follows it."""
    why = message.refused
    if not why and len(above) >= _MAX_MESSAGES:
        why = RejectionError("nested_too_deep", f"allowed are {_MAX_MESSAGES} messages")
    if why:
        yield from (below.rejected(why) for below in _all_of(message))
    else:
        yield from walk(message, [*above, message.fields])


def _conversations(message: _Message, thread: list[Record]) -> Iterator[RawRow]:
    goes_on = False
    for reply in message.replies:
        for row in _walked(reply, thread, _conversations):
            goes_on |= row.record is not None
            yield row
    if not goes_on and message.is_answer:
        yield message.made({"messages": thread})
    elif not goes_on:
        yield message.rejected(RejectionError("no_final_assistant", "the message has no answer"))


def _choices(message: _Message, thread: list[Record]) -> Iterator[RawRow]:
    sound = [reply.fields for reply in message.replies if not reply.refused]
    if not message.is_answer and sound:
        yield message.made({"prompt": thread, "answers": sound})
    elif not message.is_answer:
        yield message.rejected(RejectionError("no_preference", "the message has no answer"))
    for reply in message.replies:
        yield from _walked(reply, thread, _choices)


def _of_table(walk: _Walk) -> Gather:
    return Gather(
        _links, lambda rows: (r for root in _roots(rows) for r in _walked(root, [], walk))
    )


CONVERSATIONS_OF_TABLE = _of_table(_conversations)
"""The conversations of a table of messages."""
CHOICES_OF_TABLE = _of_table(_choices)
"""The messages of the user in a table of messages, each with the replies to it."""
