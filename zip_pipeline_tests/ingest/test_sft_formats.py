"""Rules of the SFT formats."""

import pytest

from zip_pipeline.ingest.formats import FORMATS, detect_format
from zip_pipeline.ingest.rows import RejectionError
from zip_pipeline.samples import Sample, Turn

U, A = (lambda text: Turn("user", text)), (lambda text: Turn("assistant", text))
CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
CALLS_TEXT = '[{"function": {"arguments": "{}", "name": "f"}, "id": "1", "type": "function"}]'

CASES = [
    ("alpaca", {"instruction": "Add.", "input": "1 1", "output": "2"}, (U("Add.\n1 1"), A("2"))),
    ("alpaca", {"instruction": "Hi", "input": "", "response": "Ho"}, (U("Hi"), A("Ho"))),
    ("alpaca", {"instruction": "Hi", "input": " ", "output": "Ho"}, (U("Hi"), A("Ho"))),
    ("alpaca", {"instruction": "Hi", "input": None, "output": "Ho"}, (U("Hi"), A("Ho"))),
    ("alpaca", {"instruction": "Hi", "output": None, "response": "Ho"}, (U("Hi"), A("Ho"))),
    (
        "alpaca",
        {"instruction": "Hi", "output": "Ho", "system": "Be brief."},
        (Turn("system", "Be brief."), U("Hi"), A("Ho")),
    ),
    ("prompt_completion", {"prompt": "p", "completion": "c", "template": "t"}, (U("p"), A("c"))),
    (
        "prompt_completion",
        {
            "prompt": [{"role": "user", "content": "p"}],
            "completion": [{"role": "assistant", "content": "c"}],
        },
        (U("p"), A("c")),
    ),
    ("question_answer", {"question": "6*7?", "answer": "42"}, (U("6*7?"), A("42"))),
    ("question_answer", {"question": "6*7?", "answer": 42}, (U("6*7?"), A("42"))),
    (
        "question_answer",
        {"system_prompt": "s", "question": "q", "response": "r"},
        (Turn("system", "s"), U("q"), A("r")),
    ),
    (
        "sharegpt",
        {
            "id": "x",
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "h"},
                {"from": "gpt", "value": "g"},
                {"from": "User", "value": "u"},
                {"from": "function_call", "value": '{"name": "f"}'},
                {"from": "observation", "value": "o"},
                {"from": "chatgpt", "value": "c"},
            ],
        },
        (
            Turn("system", "s"),
            U("h"),
            A("g"),
            U("u"),
            Turn("assistant", "", '{"name": "f"}'),
            Turn("tool", "o"),
            A("c"),
        ),
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "developer", "content": "d"},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                },
                {"role": "assistant", "content": None, "tool_calls": CALLS},
                {"role": "tool", "content": "t", "tool_call_id": "1"},
                {"role": "assistant", "function_call": {"name": "f"}},
                {"role": "function", "content": "r"},
                {"role": "assistant", "content": "done", "tool_calls": []},
            ]
        },
        (
            Turn("system", "d"),
            U("a\nb"),
            Turn("assistant", "", CALLS_TEXT),
            Turn("tool", "t"),
            Turn("assistant", "", '[{"function": {"name": "f"}, "type": "function"}]'),
            Turn("tool", "r"),
            A("done"),
        ),
    ),
    (
        "messages",
        {
            "system": "s",
            "conversations": [
                {"role": "user", "content": ["u"]},
                {"role": "assistant", "content": "a"},
            ],
        },
        (Turn("system", "s"), U("u"), A("a")),
    ),
    (
        "messages",
        {
            "system": "unused",
            "messages": [
                {"role": "system", "content": "own"},
                {"role": "user", "content": "u"},
                {"role": "assistant", "content": "", "tool_calls": "no JSON"},
            ],
        },
        (Turn("system", "own"), U("u"), Turn("assistant", "", "no JSON")),
    ),
]


@pytest.mark.parametrize(("name", "record", "turns"), CASES)
def test_sft_format_gives_turns(name, record, turns):
    """A record of each SFT format becomes exactly these turns, and the format is told."""
    found = detect_format([record], "sft")
    assert found is not None
    assert found.name == name
    assert FORMATS[name].parse(record) == Sample(turns)


def test_sft_cases_cover_every_format():
    """Every SFT format has a case above."""
    assert {name for name, _, _ in CASES} == {f.name for f in FORMATS.values() if f.stage == "sft"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": {"role": "user"}}, "wrong_type"),
        ({"messages": None}, "wrong_type"),
        ({"messages": ["hello"]}, "wrong_type"),
        ({"messages": [{"role": "user", "content": True}]}, "wrong_type"),
        ({"messages": [{"role": "user", "content": {"text": "t"}}]}, "wrong_type"),
        ({"messages": [{"role": "user", "content": [["t"]]}]}, "unsupported_content"),
        ({"messages": [{"role": "user"}]}, "missing_field"),
        ({"messages": [{"content": "c"}]}, "missing_field"),
        ({"messages": [{"role": "judge", "content": "c"}]}, "unknown_role"),
        ({"text": "t"}, "missing_field"),
    ],
)
def test_messages_that_are_none_are_rejected(record, reason):
    """A list of messages with a flaw is rejected for exactly this reason."""
    with pytest.raises(RejectionError) as caught:
        FORMATS["messages"].parse(record)
    assert caught.value.reason == reason


def test_numbers_are_text_and_nan_is_none():
    """Numbers read from tables count as their digits, missing ones as no text."""
    record = {"question": 6.5, "answer": float("nan")}
    assert FORMATS["question_answer"].parse(record) == Sample((U("6.5"), A("")))
