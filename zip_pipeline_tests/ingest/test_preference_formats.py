"""Rules of the preference formats."""

import json

import pytest

from zip_pipeline.ingest.formats import FORMATS, detect_format
from zip_pipeline.ingest.ratings import number_of
from zip_pipeline.ingest.rows import RejectionError
from zip_pipeline.ingest.turns import check_sample
from zip_pipeline.samples import PreferencePair, RatedAnswer, Turn

S, U, A = (
    (lambda text: Turn("system", text)),
    (lambda text: Turn("user", text)),
    (lambda text: Turn("assistant", text)),
)


def messages(*contents: str, first: str = "user") -> list[dict[str, str]]:
    """Return messages of alternating roles."""
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]


def pair(prompt, chosen, rejected, *scores) -> PreferencePair:
    """Return a pair of turns."""
    return PreferencePair(tuple(prompt), tuple(chosen), tuple(rejected), *scores)


def rated(answer: str, desirable: bool) -> RatedAnswer:
    """Return a rated answer to the prompt p."""
    return RatedAnswer((U("p"),), (A(answer),), desirable)


SIMPLE = pair([U("p")], [A("c")], [A("r")])
CASES = [
    ("prompt_chosen_rejected", {"prompt": "p", "chosen": "c", "rejected": "r"}, SIMPLE),
    (
        "prompt_chosen_rejected",
        {"system": "s", "question": "p", "chosen": "c", "rejected": "r"},
        pair([S("s"), U("p")], [A("c")], [A("r")]),
    ),
    (
        "prompt_chosen_rejected",
        {"instruction": "p", "input": "i", "chosen": "c", "rejected": "r"},
        pair([U("p\ni")], [A("c")], [A("r")]),
    ),
    (
        "prompt_chosen_rejected",
        {
            "prompt": messages("p"),
            "chosen": messages("c", first="assistant"),
            "rejected": messages("r", first="assistant"),
        },
        SIMPLE,
    ),
    (
        "prompt_chosen_rejected",
        {"prompt": "p", "chosen": {"role": "assistant", "content": "c"}, "rejected": "r"},
        SIMPLE,
    ),
    # Dialogues that repeat the prompt, hold more than it, or do without it.
    (
        "prompt_chosen_rejected",
        {"prompt": " p", "chosen": messages("p", "c"), "rejected": messages("p", "r")},
        pair([U(" p")], [A("c")], [A("r")]),
    ),
    (
        "prompt_chosen_rejected",
        {
            "prompt": "p",
            "chosen": messages("q", "a", "p", "c"),
            "rejected": messages("q", "a", "p", "r"),
        },
        pair([U("q"), A("a"), U("p")], [A("c")], [A("r")]),
    ),
    (
        "prompt_chosen_rejected",
        {
            "prompt": messages("q", "a", "p"),
            "chosen": messages("p", "c"),
            "rejected": messages("p", "r"),
        },
        pair([U("q"), A("a"), U("p")], [A("c")], [A("r")]),
    ),
    (
        "prompt_chosen_rejected",
        {"chosen": messages("p", "c"), "rejected": messages("p", "r")},
        SIMPLE,
    ),
    (
        "prompt_chosen_rejected",
        {
            "prompt": "\n\nHuman: p\n\nAssistant:",
            "chosen": "\n\nHuman: p\n\nAssistant: c",
            "rejected": "\n\nHuman: p\n\nAssistant: r",
        },
        SIMPLE,
    ),
    (
        "prompt_chosen_rejected",
        {"prompt": "\n\nHuman: p\n\nAssistant:", "chosen": "c", "rejected": "r"},
        SIMPLE,
    ),
    (
        "prompt_chosen_rejected",
        {
            "prompt": "<|im_start|>system\nt<|im_end|>\n<|im_start|>user\np<|im_end|>\n"
            "<|im_start|>assistant\n",
            "chosen": "c<|im_end|>\n",
            "rejected": "r<|im_end|>",
        },
        pair([S("t"), U("p")], [A("c")], [A("r")]),
    ),
    (
        "dialogue_pair",
        {
            "chosen": "<|user|>\np</s>\n<|assistant|>\nc</s>",
            "rejected": "<|user|>\np</s>\n<|assistant|>\nr</s>",
        },
        SIMPLE,
    ),
    (
        "dialogue_pair",
        {
            "chosen": "\n\nHuman: p\n\nAssistant: a\n\nHuman: q \n\nAssistant: c\n\nd",
            "rejected": "\n\nHuman: p\n\nAssistant: a\n\nHuman: q\n\nAssistant: ",
        },
        pair([U("p"), A("a"), U("q")], [A("c\n\nd")], [A("")]),
    ),
    (
        "dialogue_pair",
        {
            "chosen": "Human: p\n\nAssistant: c",
            "rejected": "Human: p\n\nAssistant: c\n\nHuman: q\n\nAssistant: d",
        },
        pair([U("p")], [A("c")], [A("c"), U("q"), A("d")]),
    ),
    (
        "output_pair",
        {"instruction": "p", "output_1": "c", "output_2": "r", "preference": 1.02},
        SIMPLE,
    ),
    (
        "output_pair",
        {"instruction": "p", "input": "", "output_1": "r", "output_2": "c", "preference": "1.51"},
        SIMPLE,
    ),
    (
        "output_pair",
        {"instruction": "p", "output_1": "r", "output_2": "c", "preference": 2},
        SIMPLE,
    ),
    (
        "scored_completions",
        {
            "instruction": "p",
            "source": "ultra",
            "completions": [
                {"response": "m", "overall_score": 7.5},
                {"response": "r", "overall_score": 2},
                {"response": "c", "overall_score": 8.5},
                {"response": "-", "overall_score": None},
            ],
        },
        pair([U("p")], [A("c")], [A("r")], 8.5, 2.0),
    ),
    (
        "scored_completions",
        {
            "prompt": "p",
            "completions": [
                {"response": "r", "overall_score": None, "fine-grained_score": 1.25},
                {"response": "c", "fine-grained_score": 4},
            ],
        },
        pair([U("p")], [A("c")], [A("r")], 4.0, 1.25),
    ),
    (
        "scored_completions",
        {
            "instruction": "p",
            "completions": [
                {"text": "c", "annotations": {"a": {"Rating": "5"}, "b": {"Rating": "4"}}},
                {"text": "r", "annotations": {"a": {"Rating": "1"}, "b": {"Rating": "N/A"}}},
            ],
        },
        pair([U("p")], [A("c")], [A("r")], 4.5, 1.0),
    ),
    (
        "scored_completions",
        {
            "prompt": "p",
            "chosen": messages("p", "c"),
            "rejected": messages("p", "r"),
            "score_chosen": 8,
            "score_rejected": 5.5,
        },
        pair([U("p")], [A("c")], [A("r")], 8.0, 5.5),
    ),
    (
        "scored_completions",
        {
            "prompt": "p",
            "chosen": "c",
            "rejected": "r",
            "chosen_score": None,
            "rejected_score": 5,
        },
        pair([U("p")], [A("c")], [A("r")], None, 5.0),
    ),
    (
        "prompt_chosen_rejected",
        {
            "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "p"}],
            "chosen": {"from": "gpt", "value": "c"},
            "rejected": {"from": "gpt", "value": "r"},
        },
        pair([S("s"), U("p")], [A("c")], [A("r")]),
    ),
    (
        "prompt_chosen_rejected",
        {
            "prompt": "p",
            "chosen": str(messages("p", "c")),
            "rejected": json.dumps(messages("p", "r")),
        },
        SIMPLE,
    ),
    (
        "prompt_chosen_rejected",
        {
            "prompt": "p",
            "chosen": json.dumps({"role": "assistant", "content": "c"}),
            "rejected": json.dumps({"role": "assistant", "content": "r"}),
        },
        SIMPLE,
    ),
    (
        "prompt_chosen_rejected",
        {"prompt": "p", "chosen": '{"role": "king"}', "rejected": "{no"},
        pair([U("p")], [A('{"role": "king"}')], [A("{no")]),
    ),
    (
        "chosen_messages",
        {"chosen_messages": messages("p", "c"), "rejected_messages": messages("p", "r")},
        SIMPLE,
    ),
    (
        "chosen_response",
        {
            "instruction": "p",
            "chosen_response": "c",
            "rejected_response": "r",
            "chosen_avg_rating": 4.5,
            "rejected_avg_rating": 1,
        },
        pair([U("p")], [A("c")], [A("r")], 4.5, 1.0),
    ),
    (
        "openai_preference",
        {
            "input": {"messages": messages("p")},
            "preferred_output": messages("c", first="assistant"),
            "non_preferred_output": messages("r", first="assistant"),
        },
        SIMPLE,
    ),
    (
        "better_response",
        {"prompt": "p", "response_0": "r", "response_1": "c", "better_response_id": 1},
        SIMPLE,
    ),
    (
        "two_comments",
        {"history": "p", "human_ref_A": "r", "human_ref_B": "c", "labels": 0, "score_A": 1},
        pair([U("p")], [A("c")], [A("r")], None, 1.0),
    ),
    (
        "ranked_answers",
        {
            "prompt": "p",
            "answers": [
                {"answer": "m", "rank": 2},
                {"answer": "r", "rank": 3},
                {"answer": "c", "rank": 1},
            ],
        },
        SIMPLE,
    ),
    (
        "ranked_answers",
        {
            "question": "p",
            "answers": [{"text": "r", "pm_score": -1}, {"text": "c", "pm_score": 5}],
        },
        pair([U("p")], [A("c")], [A("r")], 5.0, -1.0),
    ),
    (
        "scored_completions",
        {
            "systemInstruction": {"parts": [{"text": "s"}]},
            "contents": [{"role": "user", "parts": [{"text": "p"}]}],
            "completions": [
                {"score": 0, "completion": {"role": "model", "parts": [{"text": "r"}]}},
                {"score": 1, "completion": {"role": "model", "parts": [{"text": "c"}]}},
            ],
        },
        pair([S("s"), U("p")], [A("c")], [A("r")], 1.0, 0.0),
    ),
    (
        "rated_generations",
        {"instruction": "p", "generations": ["r", "c", "m"], "ratings": [1, 5, 3]},
        pair([U("p")], [A("c")], [A("r")], 5.0, 1.0),
    ),
    (
        "rated_generations",
        {"prompt": "p", "responses": ["r", "c"], "rewards": [-1.5, 2]},
        pair([U("p")], [A("c")], [A("r")], 2.0, -1.5),
    ),
    (
        "prompt_chosen_rejected",
        {"trajectory": [{"from": "user", "value": "p"}], "chosen": "c", "rejected": "r"},
        SIMPLE,
    ),
    (
        "prompt_chosen_rejected",
        {"system": "s", "input": "p", "chosen": "c", "rejected": "r"},
        pair([S("s"), U("p")], [A("c")], [A("r")]),
    ),
    (
        "prompt_chosen_rejected",
        {
            "messages": messages("p"),
            "chosen": messages("c", first="assistant"),
            "rejected": messages("r", first="assistant"),
        },
        SIMPLE,
    ),
    (
        "scored_completions",
        {"prompt": "p", "chosen": "c", "rejected": "r", "chosen-rating": 2, "rejected-rating": 1},
        pair([U("p")], [A("c")], [A("r")], 2.0, 1.0),
    ),
    (
        "scored_completions",
        {"prompt": "p", "chosen": "c", "rejected": "r", "rating_chosen": 5, "rating_rejected": 4},
        pair([U("p")], [A("c")], [A("r")], 5.0, 4.0),
    ),
    (
        "signed_preference",
        {"context": messages("p"), "response1": "r", "response2": "c", "overall_preference": 2},
        SIMPLE,
    ),
    (
        "signed_preference",
        {"prompt": "p", "response_1": "c", "response_2": "r", "preference_strength": -1},
        SIMPLE,
    ),
    (
        "arena",
        {
            "model_a": "x",
            "winner": "model_b",
            "conversation_a": messages("p", "r"),
            "conversation_b": messages("p", "c"),
        },
        SIMPLE,
    ),
    (
        "arena",
        {
            "prompt": '["q", "p"]',
            "response_a": '["a", "c"]',
            "response_b": '["a", "r"]',
            "winner_model_a": 1,
            "winner_model_b": 0,
        },
        pair([U("q"), A("a"), U("p")], [A("c")], [A("r")]),
    ),
    ("arena", {"prompt": "p", "response_a": "c", "response_b": "r", "winner": "A"}, SIMPLE),
    ("response_j", {"question": "p", "response_j": "c", "response_k": "r"}, SIMPLE),
    ("rejected_beside", {"messages": messages("p", "c"), "rejected_response": "r"}, SIMPLE),
    ("rejected_beside", {"query": "p", "response": "c", "rejected_response": "r"}, SIMPLE),
    (
        "rejected_beside",
        {"messages": messages("p", "c"), "rejected_messages": messages("p", "r")},
        SIMPLE,
    ),
    (
        "rejected_beside",
        {"messages": messages("p", "c"), "rejected_messages": messages("r", first="assistant")},
        SIMPLE,
    ),
    ("answer_list_pair", {"instruction": "p", "input": "", "output": ["c", "r"]}, SIMPLE),
    ("rated_answer", {"prompt": "p", "completion": "a", "label": True}, rated("a", True)),
    ("rated_answer", {"prompt": "p", "completion": "a", "label": "false"}, rated("a", False)),
    ("rated_answer", {"prompt": "p", "completion": "a", "label": "1.0"}, rated("a", True)),
    (
        "rated_answer",
        {"prompt": "p", "completion": "a", "label": "Undesirable "},
        rated("a", False),
    ),
    ("rated_answer", {"instruction": "p", "output": "a", "kto_tag": False}, rated("a", False)),
    ("rated_answer", {"messages": messages("p", "a"), "label": 1}, rated("a", True)),
]
# Formats that are told apart only to say what is missing.
REFUSED = {
    "step_labels": {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]},
    "two_answers": {"prompt": "p", "answer1": "a", "answer2": "b"},
}


@pytest.mark.parametrize(("name", "record", "expected"), CASES)
def test_preference_format_gives_pair(name, record, expected):
    """A record of each preference format becomes exactly this pair, and the format is told."""
    found = detect_format([record], "preference")
    assert found is not None
    assert found.name == name
    assert FORMATS[name].parse(record) == expected


def test_preference_cases_cover_every_format():
    """Every preference format has a case above; those of several rows are in test_trees.py."""
    formats = {f.name for f in FORMATS.values() if f.stage == "preference"}
    told = {name for name, _, _ in CASES} | REFUSED.keys()
    assert told | {"ranked_tree", "ranked_table", "scored_rows"} == formats


@pytest.mark.parametrize("name", REFUSED)
def test_layouts_without_a_preference_are_refused_by_name(name):
    """They are told, and no row of them is a pair."""
    found = detect_format([REFUSED[name]], "preference")
    assert found is not None
    assert found.name == name
    with pytest.raises(RejectionError):
        found.parse(REFUSED[name])


def output_pair(preference: object) -> dict[str, object]:
    """Return an output pair with this preference."""
    return {"instruction": "p", "output_1": "a", "output_2": "b", "preference": preference}


def scored(*scores: object) -> dict[str, object]:
    """Return completions with these scores."""
    completions = [{"response": f"r{n}", "score": value} for n, value in enumerate(scores)]
    return {"prompt": "p", "completions": completions}


def binarised(chosen_score: object, rejected_score: object) -> dict[str, object]:
    """Return a binarised pair with these scores."""
    sides = {"prompt": "p", "chosen": "a", "rejected": "b"}
    return sides | {"score_chosen": chosen_score, "score_rejected": rejected_score}


def arena(**winner: object) -> dict[str, object]:
    """Return two answers and who has won."""
    return {"prompt": "p", "response_a": "a", "response_b": "b", **winner}


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        ("output_pair", output_pair(1.5), "no_preference"),
        ("output_pair", output_pair(0), "no_preference"),
        ("output_pair", output_pair(2.1), "no_preference"),
        ("output_pair", output_pair(None), "no_preference"),
        ("output_pair", output_pair(float("nan")), "no_preference"),
        ("output_pair", output_pair(True), "no_preference"),
        ("output_pair", output_pair("first"), "no_preference"),
        ("output_pair", {"instruction": "p", "output_1": "a", "output_2": "b"}, "no_preference"),
        ("output_pair", {"output_1": "a", "output_2": "b", "preference": 1}, "missing_field"),
        ("scored_completions", scored(3, 3.0), "tied_scores"),
        ("scored_completions", scored(3), "no_preference"),
        ("scored_completions", {"prompt": "p", "completions": "many"}, "wrong_type"),
        ("scored_completions", {"prompt": "p", "completions": ["a", "b"]}, "wrong_type"),
        ("scored_completions", binarised(2, 2), "tied_scores"),
        ("scored_completions", binarised(1, 2), "contradicting_scores"),
        (
            "scored_completions",
            {
                "prompt": "p",
                "completions": [
                    {"response": "a", "overall_score": 10, "fine-grained_score": 1},
                    {"response": "b", "overall_score": 8, "fine-grained_score": 4.5},
                ],
            },
            "contradicting_scores",
        ),
        (
            "better_response",
            {"response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1},
            "contradicting_scores",
        ),
        ("two_comments", {"human_ref_A": "a", "human_ref_B": "b", "labels": 2}, "no_preference"),
        ("ranked_answers", {"answers": [{"answer": "a", "rank": 1}]}, "no_preference"),
        ("rated_answer", {"prompt": "p", "completion": "a", "label": 3}, "no_preference"),
        (
            "prompt_chosen_rejected",
            {"prompt": "p", "responses": ["a", "b"], "chosen": 1, "rejected": 0},
            "wrong_type",
        ),
        ("signed_preference", {"overall_preference": 0}, "tied_scores"),
        ("signed_preference", {"overall_preference": None}, "no_preference"),
        ("arena", arena(winner="tie (bothbad)"), "tied_scores"),
        ("arena", arena(winner="c"), "no_preference"),
        ("arena", arena(winner_model_a=1), "missing_field"),
        ("arena", arena(winner_model_a=1, winner_model_b="?"), "no_preference"),
        ("arena", arena(winner_model_a=0, winner_model_b=0, winner_tie=1), "tied_scores"),
        ("dialogue_pair", {"chosen": "Human: p", "rejected": "no"}, "not_a_dialogue"),
        ("prompt_chosen_rejected", {"chosen": "a", "rejected": "b"}, "missing_field"),
        ("prompt_chosen_rejected", {"prompt": "p", "chosen": "a"}, "missing_field"),
        (
            "prompt_chosen_rejected",
            {"chosen": messages("p", "a"), "rejected": messages("q", "b")},
            "no_common_prompt",
        ),
        (
            "prompt_chosen_rejected",
            {
                "chosen": messages("a", first="assistant"),
                "rejected": messages("b", first="assistant"),
            },
            "no_user_turn",
        ),
        (
            "prompt_chosen_rejected",
            {"prompt": "p", "chosen": [], "rejected": "b"},
            "no_final_assistant",
        ),
        (
            "prompt_chosen_rejected",
            {"prompt": "p", "chosen": "a", "rejected": messages("b")},
            "no_final_assistant",
        ),
        (
            "prompt_chosen_rejected",
            {"prompt": "p", "chosen": "a", "rejected": None},
            "empty_final_assistant",
        ),
        (
            "prompt_chosen_rejected",
            {"prompt": "p", "chosen": "a\r\n", "rejected": " a"},
            "equal_responses",
        ),
    ],
)
def test_preference_row_without_pair_is_rejected(name, record, reason):
    """A row that holds no usable pair is rejected for exactly this reason."""
    with pytest.raises(RejectionError) as caught:
        check_sample(FORMATS[name].parse(record))
    assert caught.value.reason == reason


def test_preference_labels_win_where_format_is_overridden():
    """Read as prompt_chosen_rejected, a scored row keeps its labels whatever its scores say."""
    expected = pair([U("p")], [A("a")], [A("b")], 1.0, 2.0)
    assert FORMATS["prompt_chosen_rejected"].parse(binarised(1, 2)) == expected


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (2, 2.0),
        ("1.5", 1.5),
        ("x", None),
        (None, None),
        (True, None),
        (10**400, None),
        ("inf", None),
        ([1], None),
    ],
)
def test_number_of_takes_finite_numbers_only(value, number):
    """Numbers and their text forms count; anything else, infinite ones too, is no number."""
    assert number_of(value) == number
