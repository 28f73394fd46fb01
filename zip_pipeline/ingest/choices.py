"""The formats of preference with two answers, and a field that says which is better."""

import json
from collections.abc import Callable

from zip_pipeline.ingest.preferences import (
    PROMPTS,
    answers_of,
    pair_of,
    preference_format,
    prompt_turns,
    with_scores_in_order,
)
from zip_pipeline.ingest.ratings import first_number, number_of, truth_of
from zip_pipeline.ingest.rows import Record, RejectionError
from zip_pipeline.ingest.turns import (
    Turns,
    alternating,
    field_value,
    has_fields,
    leave_part,
    present,
    text_field,
    text_of,
    turns_of,
)
from zip_pipeline.samples import AnySample, PreferencePair, Turn

_RESPONSES = (("response1", "response2"), ("response_1", "response_2"))
_STRENGTHS = ("overall_preference", "preference_strength")
_WINNERS = {"model_a": 0, "response_a": 0, "a": 0, "model_b": 1, "response_b": 1, "b": 1}


def _choice(
    answers: tuple[str, str],
    better: Callable[[Record], int],
    prompt: Callable[[Record], Turns] = prompt_turns,
    scores: tuple[str, str] | None = None,
) -> Callable[[Record], AnySample]:
    """Return the parser of records with two answers, one of which is said to be better.

    Args:
        answers: the fields of the two.
        better: tells whether the first (0) or the second (1) is better.
        prompt: returns the turns before the answers.
        scores: the fields of their scores.
    """

    def parse(record: Record) -> AnySample:
        best = better(record)
        order = (best, 1 - best)
        sides = answers_of(record, *(answers[n] for n in order))
        high, low = (first_number(record, [scores[n]]) for n in order) if scores else (None, None)
        pair = pair_of(record, prompt(record), sides, (high, low) if scores else None)
        return with_scores_in_order(pair)

    return parse


def _code(field: str, first: float, second: float) -> Callable[[Record], int]:
    """Return what tells the better answer by a number that stands for it."""

    def better(record: Record) -> int:
        value = number_of(record.get(field))
        if value not in (first, second):
            detail = f"{field} is {value}, expected {first} or {second}"
            raise RejectionError("no_preference", detail)
        return int(value == second)

    return better


def _better_output(record: Record) -> int:
    preference = number_of(record.get("preference"))
    if preference is None or not 1 <= preference <= 2 or preference == 1.5:
        detail = f"preference is {record.get('preference')!r}, expected 1 to 2, but not 1.5"
        raise RejectionError("no_preference", detail)
    return int(preference > 1.5)


def _better_and_safer(record: Record) -> int:
    better = _code("better_response_id", 0, 1)(record)
    safer = number_of(record.get("safer_response_id"))
    if safer in (0, 1) and safer != better:
        raise RejectionError(
            "contradicting_scores", "another response is the safer one than the better one"
        )
    return better


def _context_turns(record: Record) -> Turns:
    if "context" not in record or present(record, *PROMPTS) is not None:
        return prompt_turns(record)
    return turns_of(record.get("context"), "user", "context")


def _by_sign(record: Record) -> int:
    field = present(record, *_STRENGTHS) or _STRENGTHS[0]
    value = number_of(record.get(field))
    if value is None:
        raise RejectionError("no_preference", f"{field} is no number")
    if value == 0:
        raise RejectionError("tied_scores", f"{field} is 0")
    leave_part(record, f"{field}.strength")
    return int(value > 0)


def _is_signed(record: Record) -> bool:
    return _two_responses(record) is not None and present(record, *_STRENGTHS) is not None


def _parse_signed(record: Record) -> AnySample:
    return _choice(_two_responses(record) or _RESPONSES[0], _by_sign, _context_turns)(record)


def _two_responses(record: Record) -> tuple[str, str] | None:
    return next((two for two in _RESPONSES if has_fields(*two)(record)), None)


def _winner(record: Record) -> int:
    if "winner" in record:
        words = text_of(record.get("winner"), "winner").strip().lower()
    else:
        flags = [_flag(record, f"winner_model_{side}") for side in "ab"]
        words = "tie" if flags[0] == flags[1] else "a" if flags[0] else "b"
    if "tie" in words or "bad" in words:
        raise RejectionError("tied_scores", f"the winner is {words!r}")
    if words not in _WINNERS:
        raise RejectionError("no_preference", f"the winner is {words!r}, expected model_a, model_b")
    return _WINNERS[words]


def _flag(record: Record, field: str) -> bool:
    value = field_value(record, field)
    truth = truth_of(value) if isinstance(value, str) else value
    if truth not in (0, 1):
        raise RejectionError("no_preference", f"{field} is {value!r}, expected 1 or 0")
    return bool(truth)


def _is_arena(record: Record) -> bool:
    has_sides = any(
        has_fields(f"{name}_a", f"{name}_b")(record) for name in ("conversation", "response")
    )
    return has_sides and present(record, "winner", "winner_model_a") is not None


def _parse_arena(record: Record) -> PreferencePair:
    name = "conversation" if "conversation_a" in record else "response"
    sides = _exchanges(record) if name == "response" else None
    sides = sides or answers_of(record, f"{name}_a", f"{name}_b")
    has_prompt = any(turn.role == "user" for turn in sides[0])
    best = _winner(record)
    prompt = () if has_prompt else prompt_turns(record)
    return pair_of(record, prompt, (sides[best], sides[1 - best]))


def _exchanges(record: Record) -> list[Turns] | None:
    """Return both sides where questions and answers are lists of texts, written as JSON."""
    found = [_texts(record.get(name)) for name in ("prompt", "response_a", "response_b")]
    questions, *sides = found
    if not questions or any(len(side) != len(questions) for side in sides):
        return None
    return [
        alternating([said for two in zip(questions, side, strict=True) for said in two], "a turn")
        for side in sides
    ]


def _texts(value: object) -> list[object]:
    try:
        value = json.loads(value) if isinstance(value, str) and value[:1] == "[" else value
    except (ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else []


def _parse_unrated(record: Record) -> PreferencePair:
    raise RejectionError(
        "no_preference",
        f"two answers, and none of the fields {', '.join(sorted(record))} is known to say which is "
        "better; map them with --map chosen=… --map rejected=… if their order does",
    )


def _is_unrated(record: Record) -> bool:
    names = ("answer1", "answer2"), ("answer_1", "answer_2"), *_RESPONSES
    return present(record, *PROMPTS) is not None and any(has_fields(*two)(record) for two in names)


CHOICE_FORMATS = (
    preference_format(
        "output_pair",
        "instruction, input, output_1, output_2, preference (1 to 2)",
        has_fields("output_1", "output_2"),
        _choice(("output_1", "output_2"), _better_output),
    ),
    preference_format(
        "better_response",
        "prompt, response_0, response_1, better_response_id",
        has_fields("response_0", "response_1", "better_response_id"),
        _choice(("response_0", "response_1"), _better_and_safer),
    ),
    preference_format(
        "two_comments",
        "history, human_ref_A, human_ref_B, labels (1: A, 0: B)",
        has_fields("human_ref_A", "human_ref_B"),
        _choice(
            ("human_ref_A", "human_ref_B"),
            _code("labels", 1, 0),
            lambda record: (Turn("user", text_field(record, "history")),),
            ("score_A", "score_B"),
        ),
    ),
    preference_format(
        "signed_preference",
        "prompt or context, response1, response2, overall_preference (below 0: the first)",
        _is_signed,
        _parse_signed,
    ),
    preference_format(
        "arena",
        "conversation_a, conversation_b or prompt, response_a, response_b; winner",
        _is_arena,
        _parse_arena,
    ),
    preference_format("two_answers", "prompt, answer1, answer2", _is_unrated, _parse_unrated),
)
