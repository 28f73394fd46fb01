"""Rules of telling a file's format."""

import pytest

from zip_pipeline.ingest.formats import FORMATS, describe_unknown, detect_format, format_named

ALPACA = {"instruction": "i", "output": "o"}
QUESTION = {"question": "q", "answer": "a"}


def test_detection_takes_the_format_of_most_records():
    """The format that most of the first records look like is taken."""
    assert detect_format([QUESTION, ALPACA, ALPACA], "sft") is FORMATS["alpaca"]
    assert detect_format([QUESTION, {}, {}], "sft") is FORMATS["question_answer"]


def test_detection_is_not_misled_by_a_broken_record():
    """One dialogue without its answer does not make the others a wider format."""
    side = "\n\nHuman: q\n\nAssistant: "
    pair = {"chosen": side + "a", "rejected": side + "b"}
    broken = pair | {"rejected": ""}
    assert detect_format([pair, broken, pair, pair], "preference") is FORMATS["dialogue_pair"]
    assert detect_format([ALPACA, QUESTION, QUESTION], "sft") is FORMATS["question_answer"]


def test_detection_gives_none_where_nothing_fits():
    """Records of no known format have no format, nor have no records at all."""
    assert detect_format([{"a": 1}], "sft") is None
    assert detect_format([], "sft") is None
    assert detect_format([ALPACA], "preference") is None


def test_unknown_format_message_names_the_other_stage():
    """A file in the wrong stage's folder is told where it belongs."""
    text = describe_unknown(ALPACA, "preference")
    assert text == "fields instruction, output: this is alpaca of sft; drop the file there"


def test_a_pair_is_sent_to_preference_and_half_of_one_nowhere():
    """A record with a rating that is no pair is told how to be mapped."""
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    assert describe_unknown(pair, "sft").endswith("of preference; drop the file there")
    half = describe_unknown({"prompt": "p", "completion": "a", "rejected": "b"}, "preference")
    assert "rated in rejected, but no pair or rated answer as it stands" in half
    assert "--map chosen=… --map rejected=…" in half


def test_a_header_below_the_first_line_is_told():
    """As of tables that begin with a title."""
    row = {"Survey 2024": "Prompt", "": "Completion"}
    assert describe_unknown(row, "sft").endswith("names of the fields; remove the lines above it")
    assert "names of the fields" not in describe_unknown({"x": "prompt", "y": "Hi"}, "sft")


def test_a_conversation_under_another_name_says_where_it_is():
    """Only where it is the only one, and ends with an answer."""
    said = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    text = describe_unknown({"id": 1, "params": {"messages": said}}, "sft")
    assert text.endswith("sidecar, or --map messages=params.messages")
    assert "--map messages" not in describe_unknown({"good": said, "bad": said}, "sft")
    assert "--map messages" not in describe_unknown({"asked": said[:1]}, "sft")


def test_unknown_format_message_names_fields_and_formats():
    """A record of no format is described by its fields and by what is known."""
    text = describe_unknown({"b": 1, "a": 2}, "sft")
    assert text.startswith("fields a, b; known are messages (messages[role, content, tool_calls]);")
    assert describe_unknown({}, "sft").startswith("fields none;")


def test_format_named_refuses_names_of_the_other_stage():
    """A format is known only in its own stage; the error lists the choice."""
    assert format_named("alpaca", "sft") is FORMATS["alpaca"]
    with pytest.raises(ValueError, match="'alpaca' is no format of preference; choose one of"):
        format_named("alpaca", "preference")


def test_an_object_that_holds_rows_says_where_they_are():
    """Rows for training come first; lists of other things are none."""
    file = {"test": [ALPACA], "train": [ALPACA], "authors": [{"name": "x"}]}
    assert describe_unknown(file, "sft") == (
        "fields authors, test, train: the object holds rows; say "
        'rows = "train" or rows = "test" in the sidecar, or --rows train'
    )
    assert "--rows result.items" in describe_unknown({"result": {"items": [ALPACA]}}, "sft")
    several = {"conversations": [{"messages": [{"role": "user", "content": "u"}]}]}
    assert detect_format([several], "sft") is None
    assert "--rows conversations" in describe_unknown(several, "sft")
    assert "rows =" not in describe_unknown({"authors": [{"name": "x"}], "x": {"y": []}}, "sft")
