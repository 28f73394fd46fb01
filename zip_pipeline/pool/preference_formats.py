"""The record formats of preference pairs."""

import math

from zip_pipeline.pool.format import Format
from zip_pipeline.pool.quarantine import RejectionError
from zip_pipeline.pool.rows import Record
from zip_pipeline.pool.turns import (
    Turns,
    field_value,
    instruction_text,
    is_dialogue,
    num_common_turns,
    parse_dialogue,
    parse_messages,
    present,
    system_turns,
    text_of,
    turns_of,
)
from zip_pipeline.samples import PreferencePair, Turn

_PROMPTS = ("prompt", "question", "instruction")
_CHOSEN_SCORES = ("chosen_score", "score_chosen", "chosen_rating")
_REJECTED_SCORES = ("rejected_score", "score_rejected", "rejected_rating")
_COMPLETION_SCORES = ("overall_score", "fine-grained_score", "score", "rating", "annotations")
_RESPONSES = ("response", "completion", "text", "content", "output")


def number_of(value: object) -> float | None:
    """Return a finite number, also one written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _first_number(record: Record, fields: tuple[str, ...]) -> float | None:
    numbers = (number_of(record.get(field)) for field in fields)
    return next((number for number in numbers if number is not None), None)


def _prompt_turns(record: Record) -> Turns:
    value = field_value(record, *_PROMPTS)
    if isinstance(value, str) and is_dialogue(value):
        turns = parse_dialogue(value)
        # Such prompts end with the cue "Assistant:", which is no turn.
        return turns[:-1] if turns[-1] == Turn("assistant", "") else turns
    if isinstance(value, list):
        return parse_messages(value)
    return (Turn("user", instruction_text(record, *_PROMPTS)),)


def _side_turns(record: Record, side: str, *, as_dialogue: bool) -> Turns:
    value = field_value(record, side)
    if as_dialogue:
        return parse_dialogue(text_of(value, side))
    return turns_of([value] if isinstance(value, dict) else value, "assistant", side)


def _holds(turns: Turns, part: Turns) -> bool:
    """Return whether ``part`` stands somewhere in ``turns``."""
    starts = range(len(turns) - len(part) + 1)
    return any(num_common_turns(turns[start:], part) == len(part) for start in starts)


def join_prompt(prompt: Turns, shared: Turns) -> Turns:
    """Return the whole prompt of two dialogues that begin with the ``shared`` turns.

    Either may repeat the other: the dialogues the prompt, or the prompt's last turns.
    """
    ending = prompt[len(prompt) - len(shared) :]
    if len(shared) <= len(prompt) and num_common_turns(ending, shared) == len(shared):
        return prompt
    return shared if _holds(shared, prompt) else prompt + shared


def _pair(record: Record, prompt: Turns, chosen: Turns, rejected: Turns) -> PreferencePair:
    """Return the pair with the turns that both sides begin with moved to the prompt."""
    longest = max(min(len(chosen), len(rejected)) - 1, 0)
    num_shared = min(num_common_turns(chosen, rejected), longest)
    whole = join_prompt(prompt, chosen[:num_shared])
    if not any(turn.role == "system" for turn in whole):
        whole = system_turns(record) + whole
    return PreferencePair(
        whole,
        chosen[num_shared:],
        rejected[num_shared:],
        _first_number(record, _CHOSEN_SCORES),
        _first_number(record, _REJECTED_SCORES),
    )


def _is_dialogue_pair(record: Record) -> bool:
    return is_dialogue(record.get("chosen")) and is_dialogue(record.get("rejected"))


def _parse_prompt_pair(record: Record) -> PreferencePair:
    as_dialogue = _is_dialogue_pair(record)
    chosen = _side_turns(record, "chosen", as_dialogue=as_dialogue)
    rejected = _side_turns(record, "rejected", as_dialogue=as_dialogue)
    implicit = as_dialogue or isinstance(record["chosen"], list)
    has_prompt = not implicit or any(record.get(field) for field in _PROMPTS)
    return _pair(record, _prompt_turns(record) if has_prompt else (), chosen, rejected)


def _parse_dialogue_pair(record: Record) -> PreferencePair:
    chosen = _side_turns(record, "chosen", as_dialogue=True)
    return _pair(record, (), chosen, _side_turns(record, "rejected", as_dialogue=True))


def _parse_output_pair(record: Record) -> PreferencePair:
    preference = number_of(record.get("preference"))
    if preference is None or not 1 <= preference <= 2 or preference == 1.5:
        detail = f"preference is {record.get('preference')!r}, expected 1 to 2, but not 1.5"
        raise RejectionError("no_preference", detail)
    first, second = (
        turns_of(field_value(record, f"output_{n}"), "assistant", f"output_{n}") for n in (1, 2)
    )
    prompt = _prompt_turns(record)
    return _pair(record, prompt, *((second, first) if preference > 1.5 else (first, second)))


def _completion_score(completion: Record, field: str) -> float | None:
    """Return one completion's score; of annotations the mean of their ratings."""
    value = completion.get(field)
    if not isinstance(value, dict):
        return number_of(value)
    ratings = [
        number_of(
            aspect.get("Rating", aspect.get("rating")) if isinstance(aspect, dict) else aspect
        )
        for aspect in value.values()
    ]
    numbers = [rating for rating in ratings if rating is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _scored(completions: list[Record]) -> list[tuple[float, Record]]:
    """Return the completions with a score, all by the first field that scores two of them."""
    for field in _COMPLETION_SCORES:
        scores = [(_completion_score(completion, field), completion) for completion in completions]
        scored = [(number, completion) for number, completion in scores if number is not None]
        if len(scored) > 1:
            return scored
    raise RejectionError("no_preference", "fewer than two completions have a score")


def _parse_completions(record: Record) -> PreferencePair:
    completions = record["completions"]
    if not isinstance(completions, list) or not all(isinstance(c, dict) for c in completions):
        raise RejectionError("wrong_type", "completions is no list of objects")
    scored = _scored(completions)
    best_score, best = max(scored, key=lambda item: item[0])
    worst_score, worst = min(scored, key=lambda item: item[0])
    if best_score == worst_score:
        raise RejectionError("tied_scores", f"all {len(scored)} completions score {best_score}")
    chosen, rejected = (
        turns_of(field_value(completion, *_RESPONSES), "assistant", "response")
        for completion in (best, worst)
    )
    prompt = system_turns(record) + _prompt_turns(record)
    return PreferencePair(prompt, chosen, rejected, best_score, worst_score)


def _parse_scored(record: Record) -> PreferencePair:
    if "completions" in record:
        return _parse_completions(record)
    pair = _parse_prompt_pair(record)
    if pair.chosen_score is not None and pair.rejected_score is not None:
        if pair.chosen_score == pair.rejected_score:
            raise RejectionError("tied_scores", f"both score {pair.chosen_score}")
        if pair.chosen_score < pair.rejected_score:
            detail = f"chosen scores {pair.chosen_score}, rejected {pair.rejected_score}"
            raise RejectionError("contradicting_scores", detail)
    return pair


def _is_pair(record: Record) -> bool:
    return "chosen" in record and "rejected" in record


def _is_scored(record: Record) -> bool:
    if "completions" in record:
        return present(record, *_PROMPTS) is not None
    scores = (present(record, *_CHOSEN_SCORES), present(record, *_REJECTED_SCORES))
    return _is_pair(record) and None not in scores


def _is_output_pair(record: Record) -> bool:
    return "output_1" in record and "output_2" in record


PREFERENCE_FORMATS = (
    Format(
        "scored_completions",
        "preference",
        "prompt, completions[response, score]; or prompt, chosen, rejected and their scores",
        _is_scored,
        _parse_scored,
    ),
    Format(
        "output_pair",
        "preference",
        "instruction, input, output_1, output_2, preference (1 to 2)",
        _is_output_pair,
        _parse_output_pair,
    ),
    Format(
        "dialogue_pair",
        "preference",
        "chosen, rejected as Human: / Assistant: dialogues",
        lambda record: _is_dialogue_pair(record) and present(record, *_PROMPTS) is None,
        _parse_dialogue_pair,
    ),
    Format(
        "prompt_chosen_rejected",
        "preference",
        "prompt, chosen, rejected as texts or lists of messages",
        _is_pair,
        _parse_prompt_pair,
    ),
)
