"""Column mapping, roles, and rows that lie deep in a file."""

import json
from typing import Any

import pytest

from zip_pipeline.errors import UserError
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.ingest.ratings import RATINGS
from zip_pipeline.pool.batches import IngestResult
from zip_pipeline_tests.ingest.test_reading import taken_in


def said(result: IngestResult, column: str = "turns") -> list[tuple[str, str]]:
    """Return roles and contents of the only sample."""
    (turns,) = result.samples[column].to_list()
    return [(turn["role"], turn["content"]) for turn in turns]


def test_columns_become_a_conversation() -> None:
    """Paths lead into objects and lists; a field whose name has dots comes first."""
    record = {"q": {"t": ["no", "q"]}, "a.b": "a", "s": "s", "h": [["u", "v"]], "topic": "x"}
    names = {"user": "q.t.1", "assistant": "a.b", "system": "s", "history": "h"}
    result = taken_in([record], map=names)
    assert said(result) == [
        ("system", "s"), ("user", "u"), ("assistant", "v"), ("user", "q"), ("assistant", "a"),
    ]  # fmt: skip
    assert result.samples["format"].to_list() == ["prompt_completion"]
    assert result.unread == {"q.t.0": 1, "topic": 1}


def test_what_stands_beside_a_mapped_field_is_not_lost() -> None:
    """Deep in the record it is listed, and a rating there still counts."""
    record: dict[str, Any] = {"n": {"q": "q", "a": {"t": "a", "x": 1}, "topic": "x", "none": None}}
    names = {"user": "n.q", "assistant": "n.a.t"}
    assert taken_in([record], map=names).unread == {"n.a.x": 1, "n.topic": 1}
    record["n"]["label"] = False
    assert taken_in([record], map=names).quarantine["reason"].to_list() == ["rated_record"]


def test_columns_become_a_pair_or_a_rated_answer() -> None:
    """In the stage of preference."""
    record: dict[str, Any] = {"q": "q", "good": "a", "bad": "b", "ok": False}
    pair = {"user": "q", "chosen": "good", "rejected": "bad"}
    assert said(taken_in([record], "preference", map=pair), "rejected") == [("assistant", "b")]
    rated = {"user": "q", "assistant": "bad", "label": "ok"}
    result = taken_in([record], "preference", map=rated)
    assert result.samples["format"].to_list() == ["rated_answer"]
    assert said(result, "rejected") == [("assistant", "b")]


@pytest.mark.parametrize("field", sorted(RATINGS))
def test_a_mapping_does_not_hide_a_rating(field: str) -> None:
    """A record that its owner rated is never an SFT sample, whatever is mapped."""
    record = {"q": "q", "a": "a", field: False}
    result = taken_in([record], map={"user": "q", "assistant": "a"})
    assert result.quarantine["reason"].to_list() == ["rated_record"]


def test_a_mapping_of_neither_question_nor_answer_adds_to_the_record() -> None:
    """So a rating or a system text under another name is all that a person need map."""
    record = {"question": "q", "answer": "a", "is_correct": False, "persona": "s"}
    result = taken_in([record], "preference", map={"label": "is_correct", "system": "persona"})
    assert said(result, "prompt") == [("system", "s"), ("user", "q")]
    assert said(result, "rejected") == [("assistant", "a")]
    assert result.unread == {}
    again = taken_in([record | {"system": "t"}], map={"system": "persona"})
    assert said(again)[0] == ("system", "s")
    assert again.unread == {"system": 1, "is_correct": 1}


def test_a_field_that_is_not_there_is_named() -> None:
    """As the person typed it."""
    result = taken_in([{"q": "q"}], map={"user": "q", "assistant": "a.b"})
    assert result.quarantine["reason"].to_list() == ["missing_field"]
    assert result.quarantine["detail"].to_list() == ["a.b, which is mapped, is not there"]


def test_roles_are_named_by_a_person() -> None:
    """Names count whatever their case."""
    messages = [{"role": "Caller", "content": "u"}, {"role": "agent", "content": "a"}]
    assert taken_in([{"messages": messages}]).quarantine["reason"].to_list() == ["unknown_role"]
    roles = {"caller": "user", "Agent": "assistant"}
    assert said(taken_in([{"messages": messages}], roles=roles)) == [
        ("user", "u"),
        ("assistant", "a"),
    ]


def test_rows_lie_where_a_person_says() -> None:
    """Each item of that list is a row with its place in it; other items are refused by name."""
    file = {"result": {"items": [{"question": "q", "answer": "a"}, "no"]}, "page": 1}
    result = taken_in([file], rows="result.items")
    assert said(result) == [("user", "q"), ("assistant", "a")]
    assert result.samples["source_row"].to_list() == [1]
    assert json.loads(result.samples["raw"][0]) == {"question": "q", "answer": "a"}
    assert result.quarantine["reason"].to_list() == ["not_an_object"]
    beside = {"Definition": "d", "in": {"rows": [{"prompt": "p", "completion": "c"}], "x": 1}}
    assert taken_in([beside], rows="in.rows").unread == {"Definition": 1, "in.x": 1}
    assert taken_in([file], rows="page").quarantine["detail"].to_list() == ["rows: page is no list"]
    missing = taken_in([file], rows="data").quarantine
    assert missing["reason"].to_list() == ["missing_field"]


def test_options_of_the_command_line_come_before_those_of_a_sidecar() -> None:
    """What they do not say is as the sidecar says."""
    sidecar = ReadOptions(format="alpaca", source="web", media="keep")
    both = ReadOptions(format="sharegpt").over(sidecar)
    assert both == ReadOptions(format="sharegpt", source="web", media="keep")


def test_options_are_written_as_a_sidecar() -> None:
    """Only what differs from the defaults."""
    options = ReadOptions(format="alpaca", map={"user": "q.t"}, roles={"Agent": "assistant"})
    assert options.toml() == (
        'format = "alpaca"\nmap = { "user" = "q.t" }\nroles = { "agent" = "assistant" }\n'
    )
    assert ReadOptions().toml() == ""


def test_wrong_options_say_what_is_allowed() -> None:
    """By the name of the option."""
    with pytest.raises(UserError, match=r"^separator: got ';;'"):
        ReadOptions(separator=";;")
