"""All record formats by name, and how the format of a file is told."""

import math
from collections.abc import Sequence

from zip_pipeline.errors import UserError
from zip_pipeline.ingest.rows import Format, Record, RejectionError
from zip_pipeline.ingest.turns import (
    Turns,
    field_value,
    instruction_text,
    is_dialogue,
    num_common_turns,
    parse_dialogue,
    parse_messages,
    present,
    system_turns,
    text_field,
    text_of,
    turns_of,
)
from zip_pipeline.samples import PreferencePair, Sample, Stage, Turn

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


FORMATS: dict[str, Format] = {f.name: f for f in (*SFT_FORMATS, *PREFERENCE_FORMATS)}


def _of_stage(stage: Stage) -> list[Format]:
    return [f for f in FORMATS.values() if f.stage == stage]


def format_named(name: str, stage: Stage) -> Format:
    """Return a format by its name.

    Raises:
        UserError: the stage has no such format.
    """
    known = [f.name for f in _of_stage(stage)]
    if name not in known:
        raise UserError(
            f"format: {name!r} is no format of {stage}; choose one of {', '.join(known)}, "
            "or leave it out to have it detected"
        )
    return FORMATS[name]


def detect_format(records: Sequence[Record], stage: Stage) -> Format | None:
    """Return the format that the records look like, None where they look like none.

    Of the formats that fit at least three quarters as many records as the best one does it is
    the one that asks for most, so that a few broken records do not hide it; :data:`FORMATS` has
    them in that order.
    """
    counts = [(sum(map(f.matches, records)), f) for f in _of_stage(stage)]
    most = max(num_matches for num_matches, _ in counts)
    return next(f for num, f in counts if 4 * num >= 3 * most) if most else None


def describe_unknown(record: Record, stage: Stage) -> str:
    """Return what a record of no known format has, and what is known."""
    fields = f"fields {', '.join(sorted(record)[:20]) or 'none'}"
    other = next((f for f in FORMATS.values() if f.stage != stage and f.matches(record)), None)
    if other is not None:
        return f"{fields}: this is {other.name} of {other.stage}; drop the file there"
    known = "; ".join(f"{f.name} ({f.fields})" for f in _of_stage(stage))
    return f"{fields}; known are {known}"
