"""What a record says of how good an answer is: numbers, words, and labels of its own."""

import math
from collections.abc import Sequence

from zip_pipeline.ingest.rows import Record, RejectionError
from zip_pipeline.ingest.turns import peek

LABELS = ("label", "kto_tag", "desirable")
RATINGS = frozenset({*LABELS, "chosen", "rejected", "rejected_response", "rejected_messages"})
"""Fields that say whether an answer was found good: a record that has one is never SFT."""
SCORES = (
    "overall_score", "fine-grained_score", "score", "rating", "annotations", "rank", "helpfulness",
    "pm_score",
)  # fmt: skip
"""Fields that say how good each of several answers is, the weightiest first."""
_GOOD = """
true yes y t good desirable chosen like accept accepted correct thumbs_up
"""
_BAD = """
false no n f bad undesirable rejected dislike reject incorrect thumbs_down
"""
_TRUTHS: dict[str, object] = {
    **dict.fromkeys(_GOOD.split(), True),
    **dict.fromkeys(_BAD.split(), False),
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


def truth_of(text: str) -> object:
    """Return what a rating written as text says: true, false, a number, or the text itself."""
    word = text.strip().lower()
    number = number_of(word)
    return _TRUTHS.get(word, text) if number is None else number


def ratings_in(record: Record) -> list[str]:
    """Return the fields in which a record says how good its own answer is."""
    names = RATINGS.intersection(record)
    if "_task_hash" in record:
        # Who annotates with Prodigy accepts, rejects or ignores the record.
        names |= record.keys() & {"answer"}
    return [name for name in sorted(names) if _rates(record, name)]


def _rates(record: Record, field: str) -> bool:
    value = peek(record, field)
    if value in (None, "", [], {}) or value != value:
        return False
    # A label that is a word or a list of them, such as a topic, rates nothing.
    if field == "label" and isinstance(value, str):
        return value != truth_of(value)
    return field != "label" or not isinstance(value, list | dict)


def rating_of(record: Record) -> bool | None:
    """Return whether a record's own answer was found good, None where it does not say.

    Raises:
        RejectionError: ``no_preference`` where the rating is none of true, false, 1 and 0.
    """
    for field in (field for field in LABELS if field in record and _rates(record, field)):
        value = record.get(field)
        truth = truth_of(value) if isinstance(value, str) else value
        if truth not in (0, 1):
            raise RejectionError("no_preference", f"{field} is {value!r}, expected true or false")
        return bool(truth)
    return None


def refuse_rated(record: Record) -> None:
    """Refuse a record that carries a rating: what was found bad is nothing to learn to write."""
    for field in ratings_in(record):
        value = peek(record, field)
        truth = truth_of(value) if isinstance(value, str) else value
        remedy = "drop it under preference"
        if field in LABELS and truth not in (0, 1):
            remedy = f"{value!r} is neither true nor false: remove the field if it rates nothing"
        raise RejectionError(
            "rated_record", f"the record carries a rating of its own in {field}; {remedy}"
        )
