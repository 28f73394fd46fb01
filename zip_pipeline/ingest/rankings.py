"""The formats of preference that list several answers to a prompt, with scores or ranks."""

import math

from zip_pipeline.ingest.preferences import (
    CHOSEN_SCORES,
    PROMPTS,
    REJECTED_SCORES,
    is_pair,
    is_steps,
    pair_of,
    parse_pair,
    preference_format,
    prompt_turns,
    with_scores_in_order,
)
from zip_pipeline.ingest.ratings import number_of
from zip_pipeline.ingest.rows import Record, RejectionError
from zip_pipeline.ingest.turns import field_value, objects_of, present, turns_of
from zip_pipeline.samples import PreferencePair

_SCORES = ("overall_score", "fine-grained_score", "score", "rating", "annotations", "rank")
_RESPONSES = ("response", "completion", "text", "content", "output", "answer")


def _score(answer: Record, field: str) -> float | None:
    """Return an answer's score, higher is better; of annotations the mean of their ratings."""
    value = answer.get(field) if field in answer else None
    if not isinstance(value, dict):
        number = number_of(value)
        return -number if field == "rank" and number is not None else number
    ratings = [
        number_of(
            aspect.get("Rating", aspect.get("rating")) if isinstance(aspect, dict) else aspect
        )
        for aspect in (value[name] for name in value)
    ]
    numbers = [rating for rating in ratings if rating is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _scored(answers: list[Record]) -> tuple[str, list[tuple[float, Record]]]:
    """Return the first field that scores two answers, and those that it scores.

    Raises:
        RejectionError: ``no_preference``.
    """
    for field in _SCORES:
        scores = [(_score(answer, field), answer) for answer in answers]
        known = [(score, answer) for score, answer in scores if score is not None]
        if len(known) > 1:
            return field, known
    raise RejectionError("no_preference", "fewer than two answers have a score or rank")


def _check_other_scores(by: str, best: Record, worst: Record) -> None:
    for field in _SCORES:
        high, low = _score(best, field), _score(worst, field)
        if field != by and high is not None and low is not None and high < low:
            detail = (
                f"by {by} a completion is the best that has {high} by {field}; the worst has {low}"
            )
            raise RejectionError("contradicting_scores", detail)


def _best_and_worst(record: Record, answers: list[Record]) -> PreferencePair:
    """Return the pair of the best and the worst answer.

    Raises:
        RejectionError: ``no_preference``, ``tied_scores``, or ``contradicting_scores`` where
            another field has it the other way round.
    """
    field, scored = _scored(answers)
    high, best = max(scored, key=lambda item: item[0])
    low, worst = min(scored, key=lambda item: item[0])
    if high == low:
        raise RejectionError("tied_scores", f"all {len(scored)} answers have {field} {abs(high)}")
    _check_other_scores(field, best, worst)
    sides = [
        turns_of(field_value(side, *_RESPONSES), "assistant", "response") for side in (best, worst)
    ]
    scores = (None, None) if field == "rank" else (high, low)
    return pair_of(record, prompt_turns(record), sides, scores)


def _parse_scored(record: Record) -> PreferencePair:
    if "completions" in record:
        return _best_and_worst(record, objects_of(record["completions"], "completions"))
    return with_scores_in_order(parse_pair(record))


def _is_scored(record: Record) -> bool:
    if "completions" in record:
        return present(record, *PROMPTS) is not None and not is_steps(record)
    scores = (present(record, *CHOSEN_SCORES), present(record, *REJECTED_SCORES))
    return is_pair(record) and None not in scores


def _parse_generations(record: Record) -> PreferencePair:
    texts, ratings = record["generations"], record["ratings"]
    if not isinstance(texts, list) or not isinstance(ratings, list) or len(texts) != len(ratings):
        raise RejectionError("wrong_type", "generations and ratings are no lists of one length")
    pairs = zip(texts, ratings, strict=True)
    return _best_and_worst(record, [{"response": text, "rating": rating} for text, rating in pairs])


def _is_ranked(record: Record) -> bool:
    answers = record.get("answers")
    has_ranks = isinstance(answers, list) and any(
        isinstance(answer, dict) and "rank" in answer for answer in answers
    )
    return has_ranks and not is_pair(record)


RANKING_FORMATS = (
    preference_format(
        "scored_completions",
        "prompt, completions[response, score]; or prompt, chosen, rejected and their scores",
        _is_scored,
        _parse_scored,
    ),
    preference_format(
        "ranked_answers",
        "prompt, answers[answer, rank] (1: best)",
        _is_ranked,
        lambda record: _best_and_worst(record, objects_of(record["answers"], "answers")),
    ),
    preference_format(
        "rated_generations",
        "instruction or prompt, generations[], ratings[]",
        lambda record: "generations" in record and "ratings" in record and not is_pair(record),
        _parse_generations,
    ),
)
