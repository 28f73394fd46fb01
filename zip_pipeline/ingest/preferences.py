"""The formats of preference: pairs, ranked answers, and single answers with a rating."""

from collections.abc import Callable, Iterable

from zip_pipeline.ingest.conversations import SFT_FORMATS, parse_conversation
from zip_pipeline.ingest.questions import question_turns, with_system
from zip_pipeline.ingest.ratings import LABELS, first_number, number_of, rating_of
from zip_pipeline.ingest.rows import Format, Record, RejectionError
from zip_pipeline.ingest.turns import (
    Turns,
    decoded,
    field_value,
    has_fields,
    is_dialogue,
    num_common_turns,
    parse_dialogue,
    parse_messages,
    present,
    text_field,
    text_of,
    turns_of,
)
from zip_pipeline.samples import AnySample, PreferencePair, RatedAnswer, Turn

PROMPTS = ("prompt", "question", "instruction")
CHOSEN_SCORES = ("chosen_score", "score_chosen", "chosen_rating", "chosen_avg_rating")
REJECTED_SCORES = ("rejected_score", "score_rejected", "rejected_rating", "rejected_avg_rating")


def prompt_turns(record: Record) -> Turns:
    """Return what comes before the answers: a question, or earlier messages."""
    earlier = present(record, "conversations", "messages", "conversation")
    if earlier and present(record, *PROMPTS) is None:
        return turns_of(record.get(earlier), "user", earlier)
    return question_turns(record, *PROMPTS)


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


def pair_of(
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
        scores = first_number(record, CHOSEN_SCORES), first_number(record, REJECTED_SCORES)
    return PreferencePair(
        with_system(record, whole), chosen[num_shared:], rejected[num_shared:], *scores
    )


is_pair = has_fields("chosen", "rejected")


def _is_dialogue_pair(record: Record) -> bool:
    return is_dialogue(record.get("chosen")) and is_dialogue(record.get("rejected"))


def _answers(record: Record, *names: str) -> list[Turns]:
    return [turns_of(field_value(record, name), "assistant", name) for name in names]


def parse_pair(record: Record) -> PreferencePair:
    """Return the pair of the answers in ``chosen`` and ``rejected``."""
    as_dialogue = _is_dialogue_pair(record)
    sides = _dialogues(record) if as_dialogue else _answers(record, "chosen", "rejected")
    # Dialogues and lists of messages hold the prompt themselves, if need be.
    implicit = as_dialogue or isinstance(decoded(record["chosen"]), list)
    fields = (*PROMPTS, "conversations", "conversation")
    has_prompt = not implicit or any(record.get(field) for field in fields if field in record)
    return pair_of(record, prompt_turns(record) if has_prompt else (), sides)


def _dialogues(record: Record) -> list[Turns]:
    names = ("chosen", "rejected")
    return [parse_dialogue(text_of(field_value(record, name), name)) for name in names]


def _sides(chosen: str, rejected: str) -> Callable[[Record], AnySample]:
    """Return the parser of pairs whose answers are in two fields of other names."""

    def parse(record: Record) -> AnySample:
        has_prompt = present(record, *PROMPTS, "conversations", "messages") is not None
        prompt = prompt_turns(record) if has_prompt else ()
        return with_scores_in_order(pair_of(record, prompt, _answers(record, chosen, rejected)))

    return parse


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
        sides = _answers(record, *(answers[n] for n in order))
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


def _parse_openai_preference(record: Record) -> PreferencePair:
    given = record["input"]
    if not isinstance(given, dict):
        raise RejectionError("wrong_type", "input is no object with messages")
    prompt = parse_messages(field_value(given, "messages"))
    return pair_of(record, prompt, _answers(record, "preferred_output", "non_preferred_output"))


def with_scores_in_order(pair: PreferencePair) -> PreferencePair:
    """Return the pair.

    Raises:
        RejectionError: ``tied_scores`` or ``contradicting_scores``.
    """
    high, low = pair.chosen_score, pair.rejected_score
    if high is not None and low is not None and high <= low:
        if high == low:
            raise RejectionError("tied_scores", f"both score {high}")
        raise RejectionError("contradicting_scores", f"chosen scores {high}, rejected {low}")
    return pair


def _is_list_pair(record: Record) -> bool:
    output = record.get("output")
    return "instruction" in record and isinstance(output, list) and len(output) == 2


def _parse_list_pair(record: Record) -> PreferencePair:
    output = record["output"]
    if not isinstance(output, list) or len(output) != 2:
        raise RejectionError("wrong_type", "output is no list of a better and a worse answer")
    sides = (turns_of(side, "assistant", "output") for side in output)
    return pair_of(record, prompt_turns(record), sides)


def _parse_unrated(record: Record) -> PreferencePair:
    raise RejectionError(
        "no_preference",
        "two answers, and no field says which is better; map them with "
        "--map chosen=… --map rejected=… if their order does",
    )


def _is_unrated(record: Record) -> bool:
    names = ("answer1", "answer2"), ("response1", "response2"), ("answer_1", "answer_2")
    return present(record, *PROMPTS) is not None and any(has_fields(*two)(record) for two in names)


def _parse_rated(record: Record) -> RatedAnswer:
    desirable = rating_of(record)
    if desirable is None:
        raise RejectionError("no_preference", f"no rating in {' or '.join(LABELS)}")
    turns = parse_conversation(record)
    if not turns or turns[-1].role != "assistant":
        raise RejectionError("no_final_assistant", "the rated answer is missing")
    return RatedAnswer(turns[:-1], turns[-1:], desirable)


def _is_rated(record: Record) -> bool:
    return present(record, *LABELS) is not None and any(f.matches(record) for f in SFT_FORMATS)


def _parse_steps(record: Record) -> PreferencePair:
    raise RejectionError(
        "step_labels",
        "each step has a label of its own: process supervision is none of the two stages",
    )


def is_steps(record: Record) -> bool:
    """Return whether each step of an answer has a label."""
    completions, labels = record.get("completions"), record.get("labels")
    if not isinstance(completions, list) or not isinstance(labels, list):
        return False
    return not any(isinstance(item, dict) for item in completions)


def preference_format(
    name: str, fields: str, matches: Callable[[Record], bool], parse: Callable[[Record], AnySample]
) -> Format:
    """Return a format of preference."""
    return Format(name, "preference", fields, matches, parse)


PAIR_FORMATS = (
    preference_format(
        "dialogue_pair",
        "chosen, rejected as Human: / Assistant: dialogues",
        lambda record: _is_dialogue_pair(record) and present(record, *PROMPTS) is None,
        lambda record: pair_of(record, (), _dialogues(record)),
    ),
    preference_format(
        "prompt_chosen_rejected",
        "prompt or conversations, chosen, rejected as texts or lists of messages",
        is_pair,
        parse_pair,
    ),
    preference_format(
        "chosen_messages",
        "chosen_messages, rejected_messages",
        has_fields("chosen_messages", "rejected_messages"),
        _sides("chosen_messages", "rejected_messages"),
    ),
    preference_format(
        "chosen_response",
        "instruction or prompt, chosen_response, rejected_response",
        has_fields("chosen_response", "rejected_response"),
        _sides("chosen_response", "rejected_response"),
    ),
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
        "openai_preference",
        "input[messages], preferred_output, non_preferred_output",
        has_fields("preferred_output", "non_preferred_output"),
        _parse_openai_preference,
    ),
    preference_format(
        "answer_list_pair",
        "instruction, input, output[better, worse]",
        _is_list_pair,
        _parse_list_pair,
    ),
    preference_format(
        "rated_answer",
        "any conversation of sft with label or kto_tag (true: good, false: bad)",
        _is_rated,
        _parse_rated,
    ),
    preference_format("step_labels", "completions[], labels[]", is_steps, _parse_steps),
    preference_format("two_answers", "prompt, answer1, answer2", _is_unrated, _parse_unrated),
)
