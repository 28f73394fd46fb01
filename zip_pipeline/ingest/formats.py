"""All record formats by name, and how the format of a file is told."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from zip_pipeline.errors import UserError
from zip_pipeline.ingest.rows import Format, Record, RejectionError
from zip_pipeline.ingest.turns import (
    Turns,
    alternating,
    answer_text,
    decoded,
    field_value,
    history_turns,
    is_dialogue,
    is_marked_dialogue,
    json_of,
    num_common_turns,
    objects_of,
    parse_dialogue,
    parse_marked_dialogue,
    parse_messages,
    peek,
    present,
    reasoning_of,
    system_turns,
    text_field,
    text_of,
    turns_of,
    with_reasoning,
)
from zip_pipeline.samples import AnySample, PreferencePair, RatedAnswer, Sample, Stage, Turn

_PROMPTS = ("prompt", "question", "instruction")
_CHOSEN_SCORES = ("chosen_score", "score_chosen", "chosen_rating", "chosen_avg_rating")
_REJECTED_SCORES = ("rejected_score", "score_rejected", "rejected_rating", "rejected_avg_rating")
_COMPLETION_SCORES = ("overall_score", "fine-grained_score", "score", "rating", "annotations")
_RESPONSES = ("response", "completion", "text", "content", "output", "answer")
_LABELS = ("label", "kto_tag", "desirable")
RATINGS = frozenset({*_LABELS, "chosen", "rejected"})
"""Fields that say whether an answer was found good: a record that has one is never SFT."""
_TRUTHS: dict[str, object] = {
    **dict.fromkeys(("true", "yes", "y", "t", "good", "desirable", "chosen", "like"), True),
    **dict.fromkeys(("false", "no", "n", "f", "bad", "undesirable", "rejected", "dislike"), False),
}
# What a question is about, in the order in which it is put below the question.
_CONTEXT = (
    "definition", "instruction", "context", "contexts", "passage", "passages", "document",
    "documents", "article", "story", "paragraph", "support", "schema", "table", "starter_code",
    "hint",
)  # fmt: skip
_CHOICES = ("choices", "options")
_ANSWER_CUE = "\n\nAssistant:"
_ABOUT = frozenset({"input", "history", *_CONTEXT, *_CHOICES})


def number_of(value: object) -> float | None:
    """Return a finite number, also one written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _first_number(record: Record, fields: Sequence[str]) -> float | None:
    for field in fields:
        # Text that is no number is not read, so that it is told.
        if number_of(peek(record, field)) is not None:
            return number_of(record.get(field))
    return None


def question_turns(record: Record, *fields: str) -> Turns:
    """Return the question with all that it is about: earlier exchanges, input, context, choices.

    Raises:
        RejectionError: a field is missing or of another type.
    """
    value = decoded(field_value(record, *fields))
    if isinstance(value, list):
        turns = parse_messages(value)
    elif isinstance(value, str) and is_dialogue(value) and _ANSWER_CUE in value:
        turns = parse_dialogue(value)
        # Such prompts end with the cue "Assistant:", which is no turn.
        turns = turns[:-1] if turns[-1] == Turn("assistant", "") else turns
    else:
        turns = (Turn("user", text_of(value, " or ".join(fields))),)
    if record.keys().isdisjoint(_ABOUT):
        return turns
    extra = text_of(record.get("input"), "input") if "input" in record else ""
    about = [f"\n{extra}"] if extra.strip() else []
    about += [f"\n\n{text}" for text in _context(record, fields)]
    return history_turns(record) + _with_more(turns, "".join(about))


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


# Preferences


def _prompt_turns(record: Record) -> Turns:
    earlier = present(record, "conversations", "messages", "conversation")
    if earlier and present(record, *_PROMPTS) is None:
        return turns_of(record.get(earlier), "user", earlier)
    return question_turns(record, *_PROMPTS)


def _side_turns(record: Record, side: str, *, as_dialogue: bool) -> Turns:
    value = field_value(record, side)
    if as_dialogue:
        return parse_dialogue(text_of(value, side))
    return turns_of(value, "assistant", side)


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


def _with_system(record: Record, turns: Turns) -> Turns:
    if any(turn.role == "system" for turn in turns):
        return turns
    return system_turns(record) + turns


def _pair(
    record: Record,
    prompt: Turns,
    sides: Iterable[Turns],
    scores: tuple[float | None, float | None] | None = None,
) -> PreferencePair:
    """Return the pair with the turns that both sides begin with moved to the prompt.

    Args:
        record: of which the system turn is taken, and the scores where none are given.
        prompt: the turns before both sides.
        sides: the chosen and the rejected continuation.
        scores: of the two sides.
    """
    chosen, rejected = sides
    longest = max(min(len(chosen), len(rejected)) - 1, 0)
    num_shared = min(num_common_turns(chosen, rejected), longest)
    whole = join_prompt(prompt, chosen[:num_shared])
    if scores is None:
        scores = _first_number(record, _CHOSEN_SCORES), _first_number(record, _REJECTED_SCORES)
    return PreferencePair(
        _with_system(record, whole), chosen[num_shared:], rejected[num_shared:], *scores
    )


def _is_dialogue_pair(record: Record) -> bool:
    return is_dialogue(record.get("chosen")) and is_dialogue(record.get("rejected"))


def _parse_prompt_pair(record: Record) -> PreferencePair:
    as_dialogue = _is_dialogue_pair(record)
    chosen = _side_turns(record, "chosen", as_dialogue=as_dialogue)
    rejected = _side_turns(record, "rejected", as_dialogue=as_dialogue)
    # Dialogues and lists of messages hold the prompt themselves, if need be.
    implicit = as_dialogue or isinstance(decoded(record["chosen"]), list)
    fields = (*_PROMPTS, "conversations", "conversation")
    has_prompt = not implicit or any(record.get(field) for field in fields if field in record)
    prompt = _prompt_turns(record) if has_prompt else ()
    return _pair(record, prompt, (chosen, rejected))


def _parse_dialogue_pair(record: Record) -> PreferencePair:
    sides = (_side_turns(record, name, as_dialogue=True) for name in ("chosen", "rejected"))
    return _pair(record, (), sides)


def _parse_output_pair(record: Record) -> PreferencePair:
    preference = number_of(record.get("preference"))
    if preference is None or not 1 <= preference <= 2 or preference == 1.5:
        detail = f"preference is {record.get('preference')!r}, expected 1 to 2, but not 1.5"
        raise RejectionError("no_preference", detail)
    first, second = (
        turns_of(field_value(record, f"output_{n}"), "assistant", f"output_{n}") for n in (1, 2)
    )
    prompt = _prompt_turns(record)
    return _pair(record, prompt, (second, first) if preference > 1.5 else (first, second))


def _completion_score(completion: Record, field: str) -> float | None:
    """Return one completion's score; of annotations the mean of their ratings."""
    value = completion.get(field) if field in completion else None
    if not isinstance(value, dict):
        return number_of(value)
    ratings = [
        number_of(
            aspect.get("Rating", aspect.get("rating")) if isinstance(aspect, dict) else aspect
        )
        for aspect in (value[name] for name in value)
    ]
    numbers = [rating for rating in ratings if rating is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _scored(completions: list[Record], field: str) -> list[tuple[float, Record]]:
    scores = [(_completion_score(completion, field), completion) for completion in completions]
    return [(number, completion) for number, completion in scores if number is not None]


def _best_and_worst(completions: list[Record]) -> tuple[tuple[float, Record], ...]:
    """Return the best and the worst completion by the first field that scores two of them.

    Raises:
        RejectionError: ``no_preference``, ``tied_scores``, or ``contradicting_scores`` where
            another field has it the other way round.
    """
    for field in _COMPLETION_SCORES:
        scored = _scored(completions, field)
        if len(scored) < 2:
            continue
        best = max(scored, key=lambda item: item[0])
        worst = min(scored, key=lambda item: item[0])
        if best[0] == worst[0]:
            raise RejectionError("tied_scores", f"all {len(scored)} completions score {best[0]}")
        _check_other_scores(field, best[1], worst[1])
        return best, worst
    raise RejectionError("no_preference", "fewer than two completions have a score")


def _check_other_scores(by: str, best: Record, worst: Record) -> None:
    for field in _COMPLETION_SCORES:
        high, low = _completion_score(best, field), _completion_score(worst, field)
        if field != by and high is not None and low is not None and high < low:
            detail = (
                f"by {by} a completion is the best that has {high} by {field}; the worst has {low}"
            )
            raise RejectionError("contradicting_scores", detail)


def _parse_completions(record: Record) -> PreferencePair:
    completions = objects_of(record["completions"], "completions")
    (best_score, best), (worst_score, worst) = _best_and_worst(completions)
    chosen, rejected = (
        turns_of(field_value(completion, *_RESPONSES), "assistant", "response")
        for completion in (best, worst)
    )
    prompt = _with_system(record, _prompt_turns(record))
    return PreferencePair(prompt, chosen, rejected, best_score, worst_score)


def _parse_scored(record: Record) -> PreferencePair:
    if "completions" in record:
        return _parse_completions(record)
    pair = _parse_prompt_pair(record)
    return _with_scores_in_order(pair)


def _with_scores_in_order(pair: PreferencePair) -> PreferencePair:
    high, low = pair.chosen_score, pair.rejected_score
    if high is not None and low is not None and high <= low:
        if high == low:
            raise RejectionError("tied_scores", f"both score {high}")
        raise RejectionError("contradicting_scores", f"chosen scores {high}, rejected {low}")
    return pair


def _is_pair(record: Record) -> bool:
    return "chosen" in record and "rejected" in record


def _is_scored(record: Record) -> bool:
    if "completions" in record:
        return present(record, *_PROMPTS) is not None and not _is_steps(record)
    scores = (present(record, *_CHOSEN_SCORES), present(record, *_REJECTED_SCORES))
    return _is_pair(record) and None not in scores


def _is_output_pair(record: Record) -> bool:
    return "output_1" in record and "output_2" in record


def _sides(chosen: str, rejected: str) -> Callable[[Record], AnySample]:
    """Return the parser of pairs whose answers are in two fields of other names."""

    def parse(record: Record) -> AnySample:
        sides = (
            turns_of(field_value(record, name), "assistant", name) for name in (chosen, rejected)
        )
        has_prompt = present(record, *_PROMPTS, "conversations", "messages") is not None
        prompt = _prompt_turns(record) if has_prompt else ()
        return _with_scores_in_order(_pair(record, prompt, sides))

    return parse


def _has(*fields: str) -> Callable[[Record], bool]:
    return lambda record: all(field in record for field in fields)


def _parse_openai_preference(record: Record) -> PreferencePair:
    given = record["input"]
    if not isinstance(given, dict):
        raise RejectionError("wrong_type", "input is no object with messages")
    prompt = parse_messages(field_value(given, "messages"))
    sides = (
        turns_of(field_value(record, name), "assistant", name)
        for name in ("preferred_output", "non_preferred_output")
    )
    return _pair(record, prompt, sides)


def _parse_better_response(record: Record) -> PreferencePair:
    better, safer = (number_of(record.get(f"{name}_response_id")) for name in ("better", "safer"))
    if better not in (0, 1):
        raise RejectionError("no_preference", f"better_response_id is {better}, expected 0 or 1")
    if safer in (0, 1) and safer != better:
        raise RejectionError(
            "contradicting_scores", "another response is the safer one than the better one"
        )
    first, second = (
        turns_of(field_value(record, f"response_{n}"), "assistant", f"response_{n}") for n in (0, 1)
    )
    prompt = _prompt_turns(record)
    return _pair(record, prompt, (first, second) if better == 0 else (second, first))


def _parse_shp(record: Record) -> PreferencePair:
    label = number_of(record.get("labels"))
    if label not in (0, 1):
        raise RejectionError("no_preference", f"labels is {label}, expected 1 (A) or 0 (B)")
    names = ("A", "B") if label == 1 else ("B", "A")
    sides = [
        turns_of(field_value(record, f"human_ref_{n}"), "assistant", f"human_ref_{n}")
        for n in names
    ]
    high, low = (_first_number(record, [f"score_{n}"]) for n in names)
    prompt = (Turn("user", text_field(record, "history")),)
    return _with_scores_in_order(_pair(record, prompt, sides, (high, low)))


def _parse_ranked(record: Record) -> PreferencePair:
    answers = objects_of(record["answers"], "answers")
    ranked = [(number_of(answer.get("rank")), answer) for answer in answers]
    known = [(rank, answer) for rank, answer in ranked if rank is not None]
    if len(known) < 2:
        raise RejectionError("no_preference", "fewer than two answers have a rank")
    (best, first), (worst, last) = min(known, key=lambda a: a[0]), max(known, key=lambda a: a[0])
    if best == worst:
        raise RejectionError("tied_scores", f"all {len(known)} answers have rank {best}")
    sides = (turns_of(field_value(a, *_RESPONSES), "assistant", "answer") for a in (first, last))
    return _pair(record, _prompt_turns(record), sides)


def _parse_generations(record: Record) -> PreferencePair:
    texts, ratings = record["generations"], record["ratings"]
    if not isinstance(texts, list) or not isinstance(ratings, list) or len(texts) != len(ratings):
        raise RejectionError("wrong_type", "generations and ratings are no lists of one length")
    answers: list[Record] = [
        {"response": text, "rating": rating} for text, rating in zip(texts, ratings, strict=True)
    ]
    (high, best), (low, worst) = _best_and_worst(answers)
    sides = [turns_of(answer["response"], "assistant", "generations") for answer in (best, worst)]
    return _pair(record, _prompt_turns(record), sides, (high, low))


def _is_ranked(record: Record) -> bool:
    answers = record.get("answers")
    return isinstance(answers, list) and any(isinstance(a, dict) and "rank" in a for a in answers)


def _is_list_pair(record: Record) -> bool:
    output = record.get("output")
    return "instruction" in record and isinstance(output, list) and len(output) == 2


def _parse_list_pair(record: Record) -> PreferencePair:
    output = record["output"]
    if not isinstance(output, list) or len(output) != 2:
        raise RejectionError("wrong_type", "output is no list of a better and a worse answer")
    sides = (turns_of(side, "assistant", "output") for side in output)
    return _pair(record, _prompt_turns(record), sides)


def _parse_unrated(record: Record) -> PreferencePair:
    raise RejectionError(
        "no_preference",
        "two answers, and no field says which is better; map them with "
        "--map chosen=… --map rejected=… if their order does",
    )


def _is_unrated(record: Record) -> bool:
    names = ("answer1", "answer2"), ("response1", "response2"), ("answer_1", "answer_2")
    return present(record, *_PROMPTS) is not None and any(_has(*two)(record) for two in names)


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
    for field in _LABELS:
        value = peek(record, field)
        if isinstance(value, str):
            value = _truth_of(value)
        if value is None or value != value:
            continue
        if value not in (0, 1):
            raise RejectionError("no_preference", f"{field} is {value!r}, expected true or false")
        return bool(record.get(field) is not None and value)
    return None


def _parse_rated(record: Record) -> RatedAnswer:
    desirable = rating_of(record)
    if desirable is None:
        raise RejectionError("no_preference", f"no rating in {' or '.join(_LABELS)}")
    turns = parse_conversation(record)
    if not turns or turns[-1].role != "assistant":
        raise RejectionError("no_final_assistant", "the rated answer is missing")
    return RatedAnswer(turns[:-1], turns[-1:], desirable)


def _is_rated(record: Record) -> bool:
    return present(record, *_LABELS) is not None and any(f.matches(record) for f in SFT_FORMATS)


def _parse_steps(record: Record) -> PreferencePair:
    raise RejectionError(
        "step_labels",
        "each step has a label of its own: process supervision is none of the two stages",
    )


def _is_steps(record: Record) -> bool:
    completions, labels = record.get("completions"), record.get("labels")
    if not isinstance(completions, list) or not isinstance(labels, list):
        return False
    return not any(isinstance(item, dict) for item in completions)


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
        "prompt or conversations, chosen, rejected as texts or lists of messages",
        _is_pair,
        _parse_prompt_pair,
    ),
    Format(
        "chosen_messages",
        "preference",
        "chosen_messages, rejected_messages",
        _has("chosen_messages", "rejected_messages"),
        _sides("chosen_messages", "rejected_messages"),
    ),
    Format(
        "chosen_response",
        "preference",
        "instruction or prompt, chosen_response, rejected_response",
        _has("chosen_response", "rejected_response"),
        _sides("chosen_response", "rejected_response"),
    ),
    Format(
        "openai_preference",
        "preference",
        "input[messages], preferred_output, non_preferred_output",
        _has("preferred_output", "non_preferred_output"),
        _parse_openai_preference,
    ),
    Format(
        "better_response",
        "preference",
        "prompt, response_0, response_1, better_response_id",
        _has("response_0", "response_1", "better_response_id"),
        _parse_better_response,
    ),
    Format(
        "two_comments",
        "preference",
        "history, human_ref_A, human_ref_B, labels (1: A, 0: B)",
        _has("human_ref_A", "human_ref_B"),
        _parse_shp,
    ),
    Format(
        "ranked_answers",
        "preference",
        "prompt, answers[answer, rank] (1: best)",
        _is_ranked,
        _parse_ranked,
    ),
    Format(
        "rated_generations",
        "preference",
        "instruction or prompt, generations[], ratings[]",
        _has("generations", "ratings"),
        _parse_generations,
    ),
    Format(
        "answer_list_pair",
        "preference",
        "instruction, input, output[better, worse]",
        _is_list_pair,
        _parse_list_pair,
    ),
    Format(
        "rated_answer",
        "preference",
        "any conversation of sft with label or kto_tag (true: good, false: bad)",
        _is_rated,
        _parse_rated,
    ),
    Format("step_labels", "preference", "completions[], labels[]", _is_steps, _parse_steps),
    Format("two_answers", "preference", "prompt, answer1, answer2", _is_unrated, _parse_unrated),
)


# Conversations

_CONVERSATIONS = ("conversations", "conversation")
_ANSWERS = ("solution", "answer", "response", "answerKey")


def _items(record: Record, *fields: str) -> list[object]:
    """Return the list in the first of the fields that has one; of a JSON text, what it holds."""
    for field in fields:
        try:
            value = decoded(record.get(field)) if field in record else None
        except RejectionError:
            continue
        if isinstance(value, list) and value:
            return value
    return []


def _has_roles(items: Sequence[object]) -> bool:
    """Return whether a list of messages names its speakers as OpenAI does."""
    return any(isinstance(item, dict) and "role" in item for item in items)


def _is_messages(record: Record) -> bool:
    field = present(record, "messages", *_CONVERSATIONS, "data")
    if field == "messages":
        return not _is_strings(record)
    return field is not None and _has_roles(_items(record, field))


def _is_strings(record: Record) -> bool:
    items = _items(record, "messages", *_CONVERSATIONS, "data")
    return bool(items) and all(isinstance(item, str) for item in items)


def _is_exchanges(record: Record) -> bool:
    items = _items(record, *_CONVERSATIONS)
    return bool(items) and all(
        isinstance(item, dict) and {"input", "output"} <= item.keys() for item in items
    )


def _is_sharegpt(record: Record) -> bool:
    if present(record, *_CONVERSATIONS) is None:
        return False
    return not (_is_messages(record) or _is_strings(record) or _is_exchanges(record))


def _messages(record: Record) -> Turns:
    value = decoded(field_value(record, "messages", *_CONVERSATIONS, "data"))
    return _with_system(record, parse_messages(value))


def _strings(record: Record) -> Turns:
    items = _items(record, "messages", *_CONVERSATIONS, "data")
    return _with_system(record, alternating(items, "a turn"))


def _exchanges(record: Record) -> Turns:
    turns: Turns = ()
    for item in objects_of(field_value(record, *_CONVERSATIONS), "conversation"):
        turns += (
            Turn("user", text_field(item, "input")),
            Turn("assistant", text_field(item, "output")),
        )
    return _with_system(record, turns)


def _gemini(record: Record) -> Turns:
    field = present(record, "systemInstruction", "system_instruction")
    instruction = record.get(field) if field else None
    if isinstance(instruction, dict):
        instruction = parse_messages([{"role": "system", "parts": instruction.get("parts")}])[
            0
        ].content
    system = text_of(instruction, "systemInstruction")
    turns = parse_messages(field_value(record, "contents"))
    return (*([Turn("system", system)] if system.strip() else []), *turns)


def _batch_body(record: Record) -> Turns:
    body = record["body"]
    if not isinstance(body, dict):
        raise RejectionError("wrong_type", "body is no object with messages")
    return _messages(body)


def _segments(record: Record) -> Turns:
    """Return the segments of a text: those that are labelled are the assistant's."""
    turns = []
    for item in objects_of(field_value(record, "segments"), "segments"):
        role = "assistant" if item.get("label") else "user"
        text = re.sub(r"\A<s>|</s>\Z", "", text_field(item, "text").strip())
        turns.append(Turn(role, text.strip()))
    return tuple(turns)


def _instances(record: Record) -> Turns:
    instances = objects_of(field_value(record, "instances"), "instances")
    if len(instances) != 1:
        detail = f"{len(instances)} instances, expected one; write each as a row of its own"
        raise RejectionError("wrong_type", detail)
    extra = text_of(instances[0].get("input"), "input")
    instruction = text_field(record, "instruction")
    question = f"{instruction}\n{extra}" if extra.strip() else instruction
    return (Turn("user", question), Turn("assistant", answer_text(instances[0], "output")))


def _marked(*fields: str) -> Callable[[Record], Turns]:
    def turns(record: Record) -> Turns:
        found = parse_marked_dialogue(text_field(record, *fields))
        system = [
            Turn("system", turn.content.removeprefix("SYSTEM:").strip())
            for turn in system_turns(record)
        ]
        return (*system, *found) if not any(t.role == "system" for t in found) else found

    return turns


def _is_marked(record: Record) -> bool:
    return any(
        is_marked_dialogue(record.get(field)) for field in ("text", "chat") if field in record
    )


def _question_answer(questions: Sequence[str], answers: Sequence[str]) -> Callable[[Record], Turns]:
    """Return the parser of records with a question in one field and its answer in another."""

    def turns(record: Record) -> Turns:
        prompt = question_turns(record, *questions)
        value = field_value(record, *answers)
        if isinstance(decoded(peek(record, questions[0])), list):
            # Where the prompt is a list of messages in a text, so is the answer.
            value = decoded(value)
        said = [value] if isinstance(value, dict) and _has_roles([value]) else value
        if isinstance(said, list) and _has_roles(said):
            answer = parse_messages(said)
        else:
            text = answer_text(record, *answers)
            answer = (with_reasoning(Turn("assistant", text), reasoning_of(record)),)
        return _with_system(record, prompt + answer)

    return turns


def _has_one_of(questions: Sequence[str], answers: Sequence[str]) -> Callable[[Record], bool]:
    def matches(record: Record) -> bool:
        return None not in (present(record, *questions), present(record, *answers))

    return matches


_CONVERSATION_PARSERS: dict[str, Callable[[Record], Turns]] = {}


def _conversation(
    name: str, fields: str, matches: Callable[[Record], bool], turns: Callable[[Record], Turns]
) -> Format:
    """Return a format of SFT conversations."""
    _CONVERSATION_PARSERS[name] = turns

    def parse(record: Record) -> AnySample:
        _refuse_rated(record)
        return Sample(turns(record))

    return Format(name, "sft", fields, matches, parse)


def _refuse_rated(record: Record) -> None:
    """Refuse a record that carries a rating: what was found bad is nothing to learn to write."""
    for field in sorted(RATINGS.intersection(record)):
        value = peek(record, field)
        # A label that is a word, such as a topic, rates nothing.
        is_topic = field == "label" and isinstance(value, str) and value == _truth_of(value)
        if value not in (None, "") and value == value and not is_topic:
            detail = f"the record carries a rating of its own in {field}; drop it under preference"
            raise RejectionError("rated_record", detail)


def _pairs_of_fields(name: str, questions: Sequence[str], answers: Sequence[str]) -> Format:
    words = f"{' or '.join(questions)}, {' or '.join(answers)}"
    return _conversation(
        name, words, _has_one_of(questions, answers), _question_answer(questions, answers)
    )


SFT_FORMATS = (
    _conversation("messages", "messages[role, content, tool_calls]", _is_messages, _messages),
    _conversation(
        "turn_texts", "conversations or data as texts, the user's first", _is_strings, _strings
    ),
    _conversation("exchanges", "conversation[input, output]", _is_exchanges, _exchanges),
    _conversation("sharegpt", "conversations[from, value]", _is_sharegpt, _messages),
    _conversation("gemini", "contents[role, parts]", _has("contents"), _gemini),
    _conversation(
        "openai_batch",
        "body[messages]",
        lambda record: isinstance(body := record.get("body"), dict) and "messages" in body,
        _batch_body,
    ),
    _conversation(
        "segments", "segments[label, text]", lambda r: bool(_items(r, "segments")), _segments
    ),
    _conversation(
        "instances", "instruction, instances[input, output]", _has("instruction", "instances"),
        _instances,
    ),
    _pairs_of_fields("alpaca", ("instruction",), ("output", "response", "generation")),
    _pairs_of_fields("prompt_completion", ("prompt",), ("completion", "response")),
    _pairs_of_fields("question_answer", ("question",), _ANSWERS),
    _pairs_of_fields("query_response", ("query",), ("response", "answer")),
    _pairs_of_fields("inputs_targets", ("inputs",), ("targets",)),
    _pairs_of_fields("problem_solution", ("problem",), ("solution",)),
    _conversation(
        "marked_text",
        "text as ### Human: / ### Assistant:, chat as USER: / ASSISTANT:",
        _is_marked,
        _marked("text", "chat"),
    ),
)  # fmt: skip


def parse_conversation(record: Record) -> Turns:
    """Return the turns of a record of any format of SFT.

    Raises:
        RejectionError: as the format that it matches, or ``unknown_format``.
    """
    # Of a copy: to look at a field is not to read it.
    found = next((f for f in SFT_FORMATS if f.matches(dict(record))), None)
    if found is None:
        raise RejectionError("unknown_format", describe_unknown(record, "sft"))
    return _CONVERSATION_PARSERS[found.name](record)


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
