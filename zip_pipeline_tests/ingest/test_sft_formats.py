"""Rules of the SFT formats."""

from decimal import Decimal

import pytest

from zip_pipeline.ingest.formats import FORMATS, describe_unknown, detect_format
from zip_pipeline.ingest.rows import RejectionError
from zip_pipeline.samples import Sample, Turn

U, A = (lambda text: Turn("user", text)), (lambda text: Turn("assistant", text))
CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
CALLS_TEXT = '[{"function": {"arguments": "{}", "name": "f"}, "id": "1", "type": "function"}]'
GEMINI_CALLS = [
    {"role": "user", "parts": [{"text": "u"}]},
    {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"x": 1}}}]},
    {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"y": 2}}}]},
    {"role": "model", "parts": [{"text": "a"}]},
]
GEMINI_TURNS = (
    U("u"),
    Turn(
        "assistant",
        "",
        '[{"function": {"arguments": {"x": 1}, "name": "f"}, "type": "function"}]',
    ),
    Turn("tool", '{"y": 2}', name="f"),
    A("a"),
)

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
                {"from": "function_call", "value": '<think>t</think>{"name": "f"}'},
                {"from": "observation", "value": "p"},
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
            Turn("assistant", "", '{"name": "f"}', "t"),
            Turn("tool", "p"),
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
    ("messages", {"messages": '[{"role": "user", "content": "u"}]'}, (U("u"),)),
    ("messages", {"data": [{"role": "user", "content": "u"}]}, (U("u"),)),
    ("turn_texts", {"conversations": ["u", "a", "v"]}, (U("u"), A("a"), U("v"))),
    ("turn_texts", {"id": "7", "data": ["u", "a"]}, (U("u"), A("a"))),
    (
        "exchanges",
        {"conversation": [{"input": "u", "output": "a"}, {"input": "v", "output": "b"}]},
        (U("u"), A("a"), U("v"), A("b")),
    ),
    (
        "gemini",
        {
            "systemInstruction": {"parts": [{"text": "s"}]},
            "contents": [
                {"role": "user", "parts": [{"text": "u"}]},
                {"role": "model", "parts": [{"text": "a"}]},
            ],
        },
        (Turn("system", "s"), U("u"), A("a")),
    ),
    ("openai_batch", {"body": {"messages": [{"role": "user", "content": "u"}]}}, (U("u"),)),
    (
        "segments",
        {"segments": [{"label": False, "text": "<s>u\n"}, {"label": True, "text": "a</s>"}]},
        (U("u"), A("a")),
    ),
    (
        "instances",
        {"instruction": "i", "instances": [{"input": "x", "output": "a"}]},
        (U("i\nx"), A("a")),
    ),
    ("alpaca", {"instruction": "i", "generation": "a"}, (U("i"), A("a"))),
    ("alpaca", {"instruction": "i", "context": "c", "response": "a"}, (U("i\n\nc"), A("a"))),
    ("alpaca", {"instruction": "i", "output": {"b": 1, "a": None}}, (U("i"), A('{"b": 1}'))),
    (
        "alpaca",
        {"instruction": "i", "output": "a", "system": "s", "history": [["u", "b"]]},
        (Turn("system", "s"), U("u"), A("b"), U("i"), A("a")),
    ),
    (
        "query_response",
        {"query": "q", "response": "r", "history": [{"role": "user", "content": "u"}]},
        (U("u"), U("q"), A("r")),
    ),
    ("inputs_targets", {"inputs": "i", "targets": "t"}, (U("i"), A("t"))),
    ("problem_solution", {"problem": "p", "solution": "s"}, (U("p"), A("s"))),
    (
        "prompt_completion",
        {"prompt": "\n\nHuman: p\n\nAssistant:", "completion": "c"},
        (U("p"), A("c")),
    ),
    (
        "prompt_completion",
        {
            "prompt": "[{'role': 'user', 'content': 'p'}\n {'role': 'user', 'content': 'q'}]",
            "completion": "c",
        },
        (U("p"), U("q"), A("c")),
    ),
    ("question_answer", {"question": "q", "answer": True}, (U("q"), A("true"))),
    (
        "question_answer",
        {"question": "q", "choices": ["x", "y"], "answer": 1},
        (U("q\n\n0. x\n1. y"), A("1")),
    ),
    (
        "question_answer",
        {"question": "q", "options": ["x", "y"], "answer": "B"},
        (U("q\n\nA. x\nB. y"), A("B")),
    ),
    (
        "question_answer",
        {"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "2"},
        (U("q\n\n1. x\n2. y"), A("2")),
    ),
    (
        "question_answer",
        {"question": "q", "table": {"header": ["x"]}, "hint": "h", "answer": "a"},
        (U('q\n\ntable: {"header": ["x"]}\n\nhint: h'), A("a")),
    ),
    (
        "question_answer",
        {"system": None, "system_prompt": "s", "question": "q", "response": "r"},
        (Turn("system", "s"), U("q"), A("r")),
    ),
    ("marked_text", {"text": "### Human: u### Assistant: a"}, (U("u"), A("a"))),
    (
        "marked_text",
        {"text": "### Human: u\n### Assistant: so:\n### Instruction:\nfoo"},
        (U("u"), A("so:\n### Instruction:\nfoo")),
    ),
    (
        "question_answer",
        {"question": "q", "solution": "s, so 4", "answer": "4"},
        (U("q"), A("s, so 4")),
    ),
    (
        "question_answer",
        {"question": "q", "instruction": "i", "answer": "a"},
        (U("q\n\ni"), A("a")),
    ),
    (
        "alpaca",
        {"instruction": "i", "thinking": "t", "output": "a"},
        (U("i"), Turn("assistant", "a", reasoning="t")),
    ),
    (
        "alpaca",
        {"instruction": "Human:u\nAssistant:a\nHuman:v\nAssistant:", "output": "b"},
        (U("Human:u\nAssistant:a\nHuman:v\nAssistant:"), A("b")),
    ),
    (
        "alpaca",
        {"instruction": "Write a chat.", "output": '[{"role": "user", "content": "hi"}]'},
        (U("Write a chat."), A('[{"role": "user", "content": "hi"}]')),
    ),
    (
        "prompt_completion",
        {"prompt": "p", "response": {"role": "assistant", "content": "a", "thinking": "t"}},
        (U("p"), Turn("assistant", "a", reasoning="t")),
    ),
    (
        "gemini",
        {
            "system_instruction": {"parts": [{"text": "s"}]},
            "contents": [
                {"role": "user", "parts": [{"text": "u"}]},
                {"role": "model", "parts": [{"text": "t", "thought": True}, {"text": "a"}]},
            ],
        },
        (Turn("system", "s"), U("u"), Turn("assistant", "a", reasoning="t")),
    ),
    ("gemini", {"contents": GEMINI_CALLS}, GEMINI_TURNS),
    (
        "messages",
        {
            "messages": [{"role": "user", "content": "u"}],
            "chat_template_kwargs": {"custom_instructions": "s", "enable_thinking": True},
        },
        (Turn("system", "s"), U("u")),
    ),
    (
        "prompt_completion",
        {"system": "Be brief.", "prompt": "Be brief.\n\nHi", "completion": "Ho"},
        (Turn("system", "Be brief."), U("Hi"), A("Ho")),
    ),
    (
        "prompt_completion",
        {"system": "Hi", "prompt": "Hi there\n", "completion": "Ho"},
        (Turn("system", "Hi"), U("Hi there\n"), A("Ho")),
    ),
    (
        "prompt_completion",
        {"prompt": "p", "response": "r", "helpfulness": 4, "verbosity": 1},
        (U("p"), A("r")),
    ),
    ("query_response", {"query": "q", "answers": ["a", "b"]}, (U("q"), A("a"))),
    (
        "query_calls",
        {
            "query": "q",
            "answers": '[{"name": "f", "arguments": {"x": 1}}]',
            "tools": [{"name": "f"}],
        },
        (U("q"), Turn("assistant", "", '[{"arguments": {"x": 1}, "name": "f"}]')),
    ),
    (
        "user_assistant",
        {"system": "s", "user": "u", "assistant": "a"},
        (Turn("system", "s"), U("u"), A("a")),
    ),
    ("input_output", {"input": "i", "output": "o"}, (U("i"), A("o"))),
    ("input_output", {"kind": "k", "input": "i", "target": "t"}, (U("i"), A("t"))),
    (
        "question_answer",
        {"context": "c", "question": "q", "answers": {"text": ["a", "b"], "answer_start": [1]}},
        (U("q\n\nc"), A("a")),
    ),
    (
        "question_answer",
        {"question": "q", "answers": {"text": [], "answer_start": []}},
        (U("q"), A("")),
    ),
    (
        "question_answer",
        {"question": "q", "answer": {"value": "v", "aliases": []}},
        (U("q"), A("v")),
    ),
    ("question_answer", {"question": "q", "answer": ["a", "b"]}, (U("q"), A("a"))),
    ("question_answer", {"question": "q", "answer": [1, 2]}, (U("q"), A("[1, 2]"))),
    (
        "chat_text",
        {
            "text": "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu\n\nv<|im_end|>\n"
            "<|im_start|>assistant\n<think>t</think>a<|im_end|>\n"
        },
        (Turn("system", "s"), U("u\n\nv"), Turn("assistant", "a", reasoning="t")),
    ),
    (
        "chat_text",
        {"text": "<|im_start|>user\nu\n<|im_start|>assistant\na < b", "system": "s"},
        (Turn("system", "s"), U("u"), A("a < b")),
    ),
    (
        "chat_text",
        {"text": "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\nu [/INST] a </s><s>[INST] v [/INST] b </s>"},
        (Turn("system", "s"), U("u"), A("a"), U("v"), A("b")),
    ),
    (
        "chat_text",
        {"text": "[INST] u [/INST] a[0]</s>[INST] v [/INST] b"},
        (U("u"), A("a[0]"), U("v"), A("b")),
    ),
    (
        "chat_text",
        {
            "text": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nu<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\na<|eot_id|><|end_of_text|>"
        },
        (U("u"), A("a")),
    ),
    (
        "chat_text",
        {
            "chat": "<bos><start_of_turn>user\nu<end_of_turn>\n"
            "<start_of_turn>model\na<end_of_turn>\n"
        },
        (U("u"), A("a")),
    ),
    ("marked_text", {"text": "\n\nHuman: u\n\nAssistant: a"}, (U("u"), A("a"))),
    ("marked_text", {"text": "<human>: u\n<bot>: a"}, (U("u"), A("a"))),
    ("question_answer", {"question": "q", "answer": Decimal("1.50")}, (U("q"), A("1.50"))),
    ("chat_text", {"text": "<|user|>\nu</s>\n<|assistant|>\na</s>"}, (U("u"), A("a"))),
    (
        "marked_text",
        {"system": "SYSTEM: s", "chat": "USER: u\n\n\nASSISTANT: a <|endoftext|>"},
        (Turn("system", "s"), U("u"), A("a")),
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "instruction", "value": "i"},
                {"from": "function-call", "value": "f(1)"},
                {"from": "tool_response", "value": "1"},
                {"from": "gpt4", "value": "a"},
            ]
        },
        (U("i"), Turn("assistant", "", "f(1)"), Turn("tool", "1"), A("a")),
    ),
    (
        "input_output",
        {"input": [{"role": "user", "content": "u"}], "output": "a", "reasoning": "on"},
        (U("u"), A("a")),
    ),
    (
        "messages",
        {
            "system": [{"type": "text", "text": "s"}, {"text": "t"}],
            "messages": [
                {"role": "user", "content": {"type": "text", "text": "u"}},
                {"role": "tool", "content": {"text": "x"}},
                {"role": "assistant", "content": {"content_type": "text", "parts": ["a"]}},
            ],
        },
        (Turn("system", "s\nt"), U("u"), Turn("tool", '{"text": "x"}'), A("a")),
    ),
    (
        "messages",
        {
            "system": {"role": "system", "content": "s"},
            "messages": [{"role": "user", "content": "u"}],
        },
        (Turn("system", "s"), U("u")),
    ),
    (
        "question_answer",
        {"question": "q", "history": [["human", "u"], ["ai", "b"]], "answer": "a"},
        (U("u"), A("b"), U("q"), A("a")),
    ),
    (
        "question_answer",
        {"question": "q", "history": [], "chat_history": [["u", "b"]], "answer": "a"},
        (U("u"), A("b"), U("q"), A("a")),
    ),
    (
        "question_answer",
        {"question": "q", "A": "x", "B": "y", "C": None, "answer": "B"},
        (U("q\n\nA. x\nB. y"), A("B")),
    ),
    (
        "question_answer",
        {"question": "q", "option a": "x", "option b": "y", "answer": "b"},
        (U("q\n\nA. x\nB. y"), A("b")),
    ),
    (
        "question_answer",
        {"question": "q", "answers": [{"text": "a", "answer_start": 0}, {"text": "b"}]},
        (U("q"), A("a")),
    ),
    (
        "prompt_completion",
        {"prompt": "<s>[INST] u [/INST]", "completion": " a </s>"},
        (U("u"), A("a")),
    ),
    (
        "prompt_completion",
        {"prompt": "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant", "response": "a"},
        (U("u"), A("a")),
    ),
    (
        "prompt_completion",
        {"prompt": "### Instruction:\nu\n\n### Response:\n", "completion": "a"},
        (U("u"), A("a")),
    ),
    (
        "prompt_completion",
        {"prompt": "<|user|> is a mark.", "completion": "a</s>"},
        (U("<|user|> is a mark."), A("a</s>")),
    ),
    (
        "prompt_completion",
        {"prompt": "[INST] u [/INST] is what?", "completion": "a"},
        (U("[INST] u [/INST] is what?"), A("a")),
    ),
    (
        "prompt_completion",
        {"prompt": "<|im_start|>user\nu<|im_end|>", "completion": "a"},
        (U("u"), A("a")),
    ),
    ("prompt_completion", {"prompt": "u", "completion": "</s>"}, (U("u"), A("</s>"))),
]


def reply(**fields: object) -> Turn:
    """Return the turn of an assistant's message."""
    record = {"messages": [{"role": "assistant", **fields}]}
    (turn,) = FORMATS["messages"].parse(record).turns
    return turn


def test_reasoning_is_kept_with_its_turn():
    """Whatever the field is called, as a part of the content, or in tags before the content."""
    expected = Turn("assistant", "a", reasoning="r")
    assert reply(content="a", reasoning_content="r") == expected
    assert reply(content="a", reasoning="r") == expected
    assert reply(content="a", thinking="r") == expected
    assert reply(content="<think>r</think>\na") == expected
    parts = [{"type": "thinking", "thinking": "r"}, {"type": "text", "text": "a"}]
    assert reply(content=parts) == expected
    parts = [{"type": "reasoning", "value": "r"}, {"type": "text", "value": "a"}]
    assert reply(content=parts) == expected


@pytest.mark.parametrize("calls", ["[]", "null", "{}", [None], [{}]])
def test_empty_calls_are_none(calls):
    """What programs write where no tool was called."""
    assert reply(content="a", tool_calls=calls) == A("a")


def test_a_refusal_is_the_answer():
    """In a field of its own, or as a part of the content."""
    assert reply(content=None, refusal="No.") == A("No.")
    assert reply(content=[{"type": "refusal", "refusal": "No."}]) == A("No.")


def test_names_and_weights_are_kept():
    """Weight 0, train false and a mask take the loss from a turn of the assistant, none other."""
    assert reply(content="a", name="n") == Turn("assistant", "a", name="n")
    for field, value in {
        "weight": 0,
        "train": False,
        "training": False,
        "loss_weight": 0.0,
        "mask": 1,
    }.items():
        assert reply(content="a", **{field: value}) == Turn("assistant", "a", loss=False)
    assert reply(content="a", weight=1, mask=0) == A("a")
    user = {"messages": [{"role": "user", "content": "u", "weight": 0}]}
    assert FORMATS["messages"].parse(user) == Sample((U("u"),))
    with pytest.raises(RejectionError, match=r"weight is 0\.5; a turn counts wholly"):
        reply(content="a", weight=0.5)


def test_blocks_of_tools_become_calls_and_answers():
    """A tool_use part is a call of its turn, a tool_result part a turn of the tool."""
    call = {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1, "y": None}}
    text = '[{"function": {"arguments": {"x": 1}, "name": "f"}, "id": "1", "type": "function"}]'
    assert reply(content=[{"type": "text", "text": "a"}, call]) == Turn("assistant", "a", text)
    result = {"type": "tool_result", "tool_use_id": "1", "content": "3"}
    record = {"messages": [{"role": "user", "content": [result]}]}
    assert FORMATS["messages"].parse(record) == Sample((Turn("tool", "3"),))


@pytest.mark.parametrize(
    "rating",
    [
        {"label": True},
        {"label": 0},
        {"kto_tag": False},
        {"label": "false"},
        {"label": "0.0"},
        {"label": "bad"},
        {"desirable": False},
        {"label": "thumbs_down"},
    ],
)
def test_a_rated_record_is_never_a_conversation(rating):
    """Neither told by the fields nor by a person's hint; a label that is a topic rates nothing."""
    for record in (
        {"prompt": "p", "completion": "c"},
        {"messages": [{"role": "user", "content": "u"}]},
    ):
        found = detect_format([record | rating], "sft")
        assert found is not None
        with pytest.raises(
            RejectionError, match=r"a rating of its own in (label|kto_tag|desirable)"
        ) as caught:
            found.parse(record | rating)
        assert caught.value.reason == "rated_record"


@pytest.mark.parametrize(
    "answers",
    [
        [{"text": "a", "score": 0}],
        {"text": ["a", "b"], "score": [0, 9]},
        [{"text": "a", "is_accepted": False}, {"text": "b", "is_accepted": True}],
    ],
)
def test_scored_answers_are_no_answer(answers):
    """The first of them may be the worst."""
    with pytest.raises(RejectionError, match=r"rated_record: answers has \w+ for each answer"):
        FORMATS["question_answer"].parse({"question": "q", "answers": answers})


def test_what_was_rejected_in_prodigy_is_no_answer():
    """Its field answer says accept, reject or ignore; without the mark of Prodigy it is a text."""
    record = {"question": "q", "answer": "reject"}
    assert FORMATS["question_answer"].parse(record) == Sample((U("q"), A("reject")))
    with pytest.raises(RejectionError, match=r"rated_record: .* a rating of its own in answer"):
        FORMATS["question_answer"].parse(record | {"_task_hash": 1})


@pytest.mark.parametrize("label", ["art", {"ability": ["maths"]}, ["maths"]])
def test_a_label_that_is_a_topic_rates_nothing(label):
    """The record is a conversation of SFT, and preference sends it there."""
    record = {"prompt": "p", "completion": "c", "label": label}
    assert FORMATS["prompt_completion"].parse(record) == Sample((U("p"), A("c")))
    assert detect_format([record], "preference") is None
    assert describe_unknown(record, "preference").endswith("of sft; drop the file there")


@pytest.mark.parametrize(
    "rating", [{"chosen": "x"}, {"rejected_response": "r"}, {"label": 0}, {"label": 3}]
)
def test_the_stages_never_send_a_record_to_each_other(rating):
    """What SFT refuses for its rating, preference takes, or refuses for a reason of its own."""
    record = {"prompt": "p", "completion": "c"} | rating
    with pytest.raises(RejectionError) as caught:
        FORMATS["prompt_completion"].parse(record)
    found = detect_format([record], "preference")
    if "drop it under preference" in caught.value.detail and "chosen" not in rating:
        assert found is not None
        assert found.parse(record)
    else:
        assert "drop the file there" not in describe_unknown(record, "preference")


@pytest.mark.parametrize(("name", "record", "turns"), CASES)
def test_sft_format_gives_turns(name, record, turns):
    """A record of each SFT format becomes exactly these turns, and the format is told."""
    found = detect_format([record], "sft")
    assert found is not None
    assert found.name == name
    assert FORMATS[name].parse(record) == Sample(turns)


def test_sft_cases_cover_every_format():
    """Every SFT format has a case above; those of several rows are tested in test_trees.py."""
    formats = {f.name for f in FORMATS.values() if f.stage == "sft"}
    assert {name for name, _, _ in CASES} | {"message_tree", "message_table"} == formats


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": {"role": "user"}}, "wrong_type"),
        ({"messages": None}, "wrong_type"),
        ({"messages": ["hello"]}, "wrong_type"),
        ({"messages": "[{'role': 'user', 'content': 'cut off}]"}, "printed_list"),
        (
            {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
            "unsupported_content",
        ),
        ({"messages": [{"role": "user", "content": [["t"]]}]}, "unsupported_content"),
        ({"messages": [{"role": "user", "content": [{"toolUse": {}}]}]}, "unsupported_content"),
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


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nu<|im_end|>\nlost\n<|im_start|>assistant\na<|im_end|>",
        "[INST] u [/INST] a </s> lost",
    ],
)
def test_text_outside_of_the_turns_of_a_chat_is_not_lost(text):
    """The row is refused with what stands there."""
    with pytest.raises(RejectionError, match="not_a_dialogue: no mark of a turn before 'lost"):
        FORMATS["chat_text"].parse({"text": text})


def test_a_pair_of_outputs_is_no_answer():
    """In alpaca's layout a list of two texts is a better and a worse answer, else any list."""
    record = {"instruction": "i", "output": ["a", "b"]}
    assert FORMATS["alpaca"].parse(record) == Sample((U("i"), A('["a", "b"]')))
    with pytest.raises(RejectionError, match="rated_record: output is a list of two answers"):
        FORMATS["alpaca"].parse(record | {"input": ""})


def test_numbers_are_text_and_nan_is_none():
    """Numbers read from tables count as their digits, missing ones as no text."""
    record = {"question": 6.5, "answer": float("nan")}
    assert FORMATS["question_answer"].parse(record) == Sample((U("6.5"), A("")))
