"""What a record says of how good an answer is: numbers, words, and labels of its own."""

import math
from collections.abc import Sequence

from zip_pipeline.ingest.rows import Record, RejectionError
from zip_pipeline.ingest.turns import peek

LABELS = ("label", "kto_tag", "desirable")
RATINGS = frozenset({*LABELS, "chosen", "rejected", "rejected_response", "rejected_messages"})
"""Fields that say whether an answer was found good: a record that has one is never SFT."""
_TRUTHS: dict[str, object] = {
    **dict.fromkeys(("true", "yes", "y", "t", "good", "desirable", "chosen", "like"), True),
    **dict.fromkeys(("false", "no", "n", "f", "bad", "undesirable", "rejected", "dislike"), False),
}


def number_of(value: object) -> float | None:
    """Return a finite number, also one written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def first_number(record: Record, fields: Sequence[str]) -> float | None:
    """Return the first number in the fields; what is none is not read, so that it is told."""
    for field in fields:
        if number_of(peek(record, field)) is not None:
            return number_of(record.get(field))
    return None


def _truth_of(text: str) -> object:
    """Return what a rating written as text says: true, false, a number, or the text itself."""
    word = text.strip().lower()
    number = number_of(word)
    return _TRUTHS.get(word, text) if number is None else number


def rating_of(record: Record) -> bool | None:
    """Return whether a record's own answer was found good, None where it does not say.

    Raises:
        RejectionError: ``no_preference`` where the rating is none of true, false, 1 and 0.
    """
    for field in LABELS:
        value = peek(record, field)
        if isinstance(value, str):
            value = _truth_of(value)
        if value is None or value != value:
            continue
        if value not in (0, 1):
            raise RejectionError("no_preference", f"{field} is {value!r}, expected true or false")
        return bool(record.get(field) is not None and value)
    return None


def refuse_rated(record: Record) -> None:
    """Refuse a record that carries a rating: what was found bad is nothing to learn to write."""
    for field in sorted(RATINGS.intersection(record)):
        value = peek(record, field)
        # A label that is a word, such as a topic, rates nothing.
        is_topic = field == "label" and isinstance(value, str) and value == _truth_of(value)
        if value not in (None, "") and value == value and not is_topic:
            detail = f"the record carries a rating of its own in {field}; drop it under preference"
            raise RejectionError("rated_record", detail)
