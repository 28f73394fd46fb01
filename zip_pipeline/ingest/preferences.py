"""The formats of preference: pairs, ranked answers, and single answers with a rating."""

from collections.abc import Callable, Iterable

from zip_pipeline.ingest.chat_texts import answers_in_chat, is_chat_text, parse_chat_text
from zip_pipeline.ingest.conversations import SFT_FORMATS, parse_conversation
from zip_pipeline.ingest.questions import question_turns, with_system
from zip_pipeline.ingest.ratings import LABELS, first_number, rating_of, ratings_in
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
    peek,
    present,
    text_of,
    turns_of,
)
from zip_pipeline.samples import AnySample, PreferencePair, RatedAnswer, turn_key

PROMPTS = ("prompt", "question", "instruction")
_EARLIER = ("conversations", "messages", "conversation", "trajectory", "contents")
_SCORES = (
    "{}_score", "score_{}", "{}_rating", "rating_{}", "{}_avg_rating", "{}-rating", "{}_reward",
)  # fmt: skip
_ANSWER_LISTS = ("generations", "responses", "candidates", "completions", "answers", "outputs")
_REJECTED_BESIDE = ("rejected_response", "rejected_messages")
CHOSEN_SCORES, REJECTED_SCORES = (
    tuple(name.format(side) for name in _SCORES) for side in ("chosen", "rejected")
)


def prompt_turns(record: Record) -> Turns:
    """Return what comes before the answers: a question, or earlier messages."""
    if present(record, *PROMPTS) is not None:
        return question_turns(record, *PROMPTS)
    if earlier := present(record, *_EARLIER):
        return turns_of(record.get(earlier), "user", earlier)
    return question_turns(record, *PROMPTS, *(["input"] if "input" in record else []))


def _holds(turns: Turns, part: Turns) -> bool:
    """Return whether ``part`` stands somewhere in ``turns``."""
    # As texts, for Python finds one in another in linear time.
    whole, wanted = ("".join(f"\0{turn_key(t)!r}\0" for t in group) for group in (turns, part))
    return wanted in whole


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
    sides = (record.get("chosen"), record.get("rejected"))
    return all(map(is_dialogue, sides)) or all(map(is_chat_text, sides))


def answers_of(record: Record, *names: str) -> list[Turns]:
    """Return the answers in the fields."""
    prompt = peek(record, present(record, *PROMPTS) or PROMPTS[0])
    answers = (turns_of(field_value(record, name), "assistant", name) for name in names)
    return [answers_in_chat(prompt, answer) for answer in answers]


def parse_pair(record: Record) -> PreferencePair:
    """Return the pair of the answers in ``chosen`` and ``rejected``."""
    _refuse_numbers(record)
    as_dialogue = _is_dialogue_pair(record)
    sides = _dialogues(record) if as_dialogue else answers_of(record, "chosen", "rejected")
    # Dialogues and lists of messages hold the prompt themselves, if need be.
    implicit = as_dialogue or isinstance(decoded(record["chosen"]), list)
    fields: tuple[str, ...] = (*PROMPTS, "conversations", "conversation", "trajectory")
    if not any(turn.role == "user" for side in sides for turn in side):
        fields = (*fields, "messages", "input")
    has_prompt = not implicit or any(peek(record, field) for field in fields)
    return pair_of(record, prompt_turns(record) if has_prompt else (), sides)


def _refuse_numbers(record: Record) -> None:
    """Refuse sides that are places in a list of answers."""
    sides = (peek(record, "chosen"), peek(record, "rejected"))
    lists = [name for name in _ANSWER_LISTS if isinstance(peek(record, name), list)]
    if lists and all(isinstance(side, int) for side in sides):
        detail = f"chosen and rejected are numbers, as of answers in {lists[0]}; write the answers"
        raise RejectionError("wrong_type", detail)


def _dialogues(record: Record) -> list[Turns]:
    names = ("chosen", "rejected")
    texts = [text_of(field_value(record, name), name) for name in names]
    return [parse_chat_text(t) if is_chat_text(t) else parse_dialogue(t) for t in texts]


def _sides(chosen: str, rejected: str) -> Callable[[Record], AnySample]:
    """Return the parser of pairs whose answers are in two fields of other names."""

    def parse(record: Record) -> AnySample:
        has_prompt = present(record, *PROMPTS, "conversations", "messages") is not None
        prompt = prompt_turns(record) if has_prompt else ()
        return with_scores_in_order(pair_of(record, prompt, answers_of(record, chosen, rejected)))

    return parse


def _is_rejected_beside(record: Record) -> bool:
    return present(record, *_REJECTED_BESIDE) is not None and _is_conversation(record)


def _parse_rejected_beside(record: Record) -> PreferencePair:
    turns = parse_conversation(record)
    (rejected,) = answers_of(record, present(record, *_REJECTED_BESIDE) or _REJECTED_BESIDE[0])
    if any(turn.role == "user" for turn in rejected):
        return pair_of(record, (), (turns, rejected))
    return pair_of(record, turns[:-1], (turns[-1:], rejected))


def _is_conversation(record: Record) -> bool:
    return any(found.matches(record) for found in SFT_FORMATS)


def _parse_openai_preference(record: Record) -> PreferencePair:
    given = record["input"]
    if not isinstance(given, dict):
        raise RejectionError("wrong_type", "input is no object with messages")
    prompt = parse_messages(field_value(given, "messages"))
    return pair_of(record, prompt, answers_of(record, "preferred_output", "non_preferred_output"))


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


def _parse_rated(record: Record) -> RatedAnswer:
    desirable = rating_of(record)
    if desirable is None:
        raise RejectionError("no_preference", f"no rating in {' or '.join(LABELS)}")
    turns = parse_conversation(record)
    if not turns or turns[-1].role != "assistant":
        raise RejectionError("no_final_assistant", "the rated answer is missing")
    return RatedAnswer(turns[:-1], turns[-1:], desirable)


def _is_rated(record: Record) -> bool:
    return not set(LABELS).isdisjoint(ratings_in(record)) and _is_conversation(record)


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
        "chosen, rejected as Human: / Assistant: dialogues or as a chat template writes them",
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
        "response_j",
        "question, response_j, response_k (j is the better one)",
        has_fields("response_j", "response_k"),
        _sides("response_j", "response_k"),
    ),
    preference_format(
        "rejected_beside",
        "any conversation of sft with rejected_response or rejected_messages",
        _is_rejected_beside,
        _parse_rejected_beside,
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
)
