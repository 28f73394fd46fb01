"""The formats of preference that list several answers to a prompt, with scores or ranks."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations

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
from zip_pipeline.ingest.ratings import SCORES, number_of
from zip_pipeline.ingest.rows import Gather, RawRow, Record, RejectionError, Unfold, json_text
from zip_pipeline.ingest.trees import (
    CHOICES_OF_TABLE,
    choices_of_tree,
    is_message_of_tree,
    is_tree,
    read_places,
)
from zip_pipeline.ingest.turns import (
    Reading,
    field_value,
    has_fields,
    json_of,
    objects_of,
    present,
    turns_of,
)
from zip_pipeline.samples import PreferencePair

_LISTS = ("generations", "responses", "candidates")
_RATINGS = ("ratings", "scores", "rewards")
_RESPONSES = ("response", "completion", "text", "content", "output", "answer")
_MAX_PAIRS = 2_000


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
    for field in SCORES:
        scores = [(_score(answer, field), answer) for answer in answers]
        known = [(score, answer) for score, answer in scores if score is not None]
        if len(known) > 1:
            return field, known
    raise RejectionError("no_preference", "fewer than two answers have a score or rank")


def _check_other_scores(by: str, best: Record, worst: Record) -> None:
    for field in SCORES:
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


def _completions(record: Record) -> list[Record]:
    return objects_of(record["completions"], "completions")


def _answers(record: Record) -> list[Record]:
    return objects_of(record["answers"], "answers")


def _generations(record: Record) -> list[Record]:
    texts, ratings = field_value(record, *_LISTS), field_value(record, *_RATINGS)
    if not isinstance(texts, list) or not isinstance(ratings, list) or len(texts) != len(ratings):
        raise RejectionError("wrong_type", "answers and ratings are no lists of one length")
    pairs = zip(texts, ratings, strict=True)
    return [{"response": text, "rating": rating} for text, rating in pairs]


def _is_generations(record: Record) -> bool:
    fields = (present(record, *_LISTS), present(record, *_RATINGS))
    return None not in fields and not is_pair(record)


def _prompt_of(record: Record) -> tuple[str | None, None]:
    return json_of(record["prompt"]) if "prompt" in record else None, None


def _by_prompt(rows: Iterable[RawRow]) -> Iterable[RawRow]:
    """Yield a row for each prompt, with the answers of all rows that have it."""
    found: dict[str, tuple[RawRow, list[Record]]] = {}
    for row in rows:
        record = row.record or {}
        if "prompt" not in record:
            yield row
            continue
        answer = {name: value for name, value in record.items() if name != "prompt"}
        found.setdefault(json_of(record.get("prompt")), (row, []))[1].append(answer)
    for row, answers in found.values():
        record = {"prompt": (row.record or {}).get("prompt"), "answers": answers}
        yield replace(row, record=record, raw=json_text(record))


def _parse_scored(record: Record) -> PreferencePair:
    if "completions" in record:
        return _best_and_worst(record, _completions(record))
    return with_scores_in_order(parse_pair(record))


def _is_scored(record: Record) -> bool:
    if "completions" in record:
        return present(record, *PROMPTS, "contents") is not None and not is_steps(record)
    scores = (present(record, *CHOSEN_SCORES), present(record, *REJECTED_SCORES))
    return is_pair(record) and None not in scores


def _is_ranked(record: Record) -> bool:
    answers = record.get("answers")
    has_scores = isinstance(answers, list) and any(
        isinstance(answer, dict) and not answer.keys().isdisjoint(SCORES) for answer in answers
    )
    return has_scores and not is_pair(record)


def _pairs(answers: Callable[[Record], list[Record]], *lists: str) -> Unfold:
    """Return what yields a row for each two answers that differ in score, with these two alone.

    Args:
        answers: returns the answers of a record.
        lists: the fields in which they, and what is said of each, may stand.
    """

    def pairs(row: RawRow, record: Record) -> Iterable[RawRow]:
        try:
            numbers = _unequal(answers(Reading(record)))
        except RejectionError as why:
            if why.reason == "unexpected_content":
                raise
            # What is wrong with the answers, their parser says.
            return [row]
        return [of_two(row, record, two) for two in numbers] if len(numbers) > 1 else [row]

    def of_two(row: RawRow, record: Record, two: tuple[int, int]) -> RawRow:
        columns = {name: record[name] for name in lists if name in record}
        made = {**record, **{name: _items(column, two) for name, column in columns.items()}}
        return replace(row, record=made, raw=json_text(made))

    return pairs


def _unequal(answers: list[Record]) -> list[tuple[int, int]]:
    """Return the numbers of each two answers that differ in score.

    Raises:
        RejectionError: ``unexpected_content`` where these are more than ``_MAX_PAIRS``.
    """
    scores = {id(answer): score for score, answer in _scored(answers)[1]}
    known = [(n, scores[id(answer)]) for n, answer in enumerate(answers) if id(answer) in scores]
    alike = Counter(score for _, score in known)
    num_pairs = (len(known) ** 2 - sum(num**2 for num in alike.values())) // 2
    if num_pairs > _MAX_PAIRS:
        detail = f'pairs = "all" makes more than {_MAX_PAIRS} pairs of it'
        raise RejectionError("unexpected_content", detail)
    # Of many answers that are all alike there is no pair, and nothing to look for.
    every = combinations(known, 2) if num_pairs else ()
    return [(n, m) for (n, one), (m, other) in every if one != other]


def _items(values: object, numbers: tuple[int, ...]) -> object:
    """Return these items of a list; what is no list of all answers stays as it is."""
    if not isinstance(values, list) or max(numbers) >= len(values):
        return values
    return [values[n] for n in numbers]


def _parse_answers(record: Record) -> PreferencePair:
    return _best_and_worst(record, _answers(record))


def _parse_replies(record: Record) -> PreferencePair:
    read_places(record)
    return _parse_answers(record)


_RANKED = replace(
    preference_format(
        "ranked_answers",
        "prompt, answers[answer, rank (1: best) or score]",
        _is_ranked,
        _parse_answers,
    ),
    pairs=_pairs(_answers, "answers"),
)
RANKING_FORMATS = (
    replace(
        preference_format(
            "scored_completions",
            "prompt, completions[response, score]; or prompt, chosen, rejected and their scores",
            _is_scored,
            _parse_scored,
        ),
        pairs=_pairs(_completions, "completions"),
    ),
    _RANKED,
    replace(
        preference_format(
            "rated_generations",
            "instruction or prompt, generations[] or responses[], ratings[] or scores[]",
            _is_generations,
            lambda record: _best_and_worst(record, _generations(record)),
        ),
        pairs=_pairs(_generations, *_LISTS, *_RATINGS),
    ),
    replace(
        _RANKED,
        name="ranked_tree",
        fields="prompt[role, text, replies[rank]] (0: best)",
        matches=is_tree,
        parse=_parse_replies,
        unfold=choices_of_tree,
    ),
    replace(
        _RANKED,
        name="ranked_table",
        fields="message_id, parent_id, role, text, rank (0: best)",
        matches=is_message_of_tree,
        parse=_parse_replies,
        gather=CHOICES_OF_TABLE,
    ),
    replace(
        _RANKED,
        name="scored_rows",
        fields="prompt, response, helpfulness; the answers to a prompt in several rows",
        matches=has_fields("prompt", "response", "helpfulness"),
        gather=Gather(_prompt_of, _by_prompt),
    ),
)
