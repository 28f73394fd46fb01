"""What of a record is read: all that is said, and nothing unsaid of the rest."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.ingest.formats import FORMATS
from zip_pipeline.ingest.ingest import ingest_rows
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.ingest.rows import RawRow
from zip_pipeline.pool.batches import IngestResult
from zip_pipeline.samples import Stage
from zip_pipeline_tests.ingest.test_preference_formats import CASES as PREFERENCE_CASES
from zip_pipeline_tests.ingest.test_sft_formats import CASES as SFT_CASES

TOOL = {"type": "function", "function": {"name": "f", "description": None, "parameters": {}}}
TOOL_TEXT = '[{"function": {"name": "f", "parameters": {}}, "type": "function"}]'


def taken_in(records: Sequence[Any], stage: Stage = "sft", **options: Any) -> IngestResult:
    """Return what becomes of records."""
    rows = [RawRow("f", n, json.dumps(r, default=str), r) for n, r in enumerate(records, 1)]
    return ingest_rows(rows, stage, batch="b", options=ReadOptions(**options))


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a conversation of a question, an answer, and more."""
    said = [{"role": "user", "content": "u"}, *messages, {"role": "assistant", "content": "a"}]
    return {"messages": said, **fields}


def test_tools_are_part_of_a_sample() -> None:
    """As a list or as JSON text, without null keys; other tools make another sample."""
    same = [chat(tools=[TOOL]), chat(tools=json.dumps([TOOL])), chat(functions=[TOOL])]
    body = {"body": chat(tools=[TOOL])}
    result = taken_in([*same, body, chat(), chat(tools=[])])
    assert result.samples["tools"].to_list() == [TOOL_TEXT, ""]
    assert result.samples["source_row"].to_list() == [1, 5]
    assert result.duplicates["source_row"].to_list() == [2, 3, 4, 6]


def test_tools_of_the_first_message_are_those_of_the_sample() -> None:
    """As GLM has them, in the message of the system."""
    system = {"role": "system", "content": "s", "tools": [TOOL]}
    result = taken_in([{"messages": [system, *chat()["messages"]]}])
    assert result.samples["tools"].to_list() == [TOOL_TEXT]
    assert result.unread == {}


def test_tools_of_a_chat_template_are_part_of_a_sample() -> None:
    """What else is given to the template is listed."""
    kwargs = {"xml_tools": [TOOL], "python_tools": [], "enable_thinking": True}
    result = taken_in([chat(chat_template_kwargs=kwargs)])
    assert result.samples["tools"].to_list() == [TOOL_TEXT]
    assert result.unread == {"chat_template_kwargs.enable_thinking": 1}


IMAGES = [
    chat(images=["1.png"]),
    chat(images=["2.png"]),
    chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "1.png"}}]}),
    chat({"role": "user", "content": [{"type": "image", "image": b"png"}]}),
]


def test_rows_with_media_are_quarantined_unless_they_are_kept() -> None:
    """One rule for every spelling: the reason says how to keep them."""
    result = taken_in(IMAGES)
    assert result.quarantine["reason"].to_list() == ["unsupported_content"] * 4
    assert 'media = "keep" in the sidecar' in result.quarantine["detail"][0]
    assert taken_in([chat(images=[], image=None)]).samples.height == 1


def test_references_of_kept_media_tell_samples_apart() -> None:
    """The text is measured, and two pictures make two samples."""
    samples = taken_in(IMAGES, media="keep").samples
    assert samples["media"].to_list() == [
        '{"images": ["1.png"]}',
        '{"images": ["2.png"]}',
        '{"parts": [{"image_url": {"url": "1.png"}, "type": "image_url"}]}',
        '{"parts": [{"image": "blake2b:3449a8e147e9b8b4dede218577f3fe88", "type": "image"}]}',
    ]
    assert samples["turns"][2].to_list()[1]["content"] == "<image>"


def test_fields_that_are_not_read_are_counted() -> None:
    """With the path of those inside others; empty ones hold nothing to read."""
    message = {"role": "assistant", "content": "b", "tool_call_id": "7"}
    records = [
        chat(message, id=1, source="web", score=None),
        chat({**message, "content": "c"}, id=2, meta={"topic": "x"}, tags=[]),
    ]
    result = taken_in(records)
    assert list(result.unread.items()) == [("id", 2), ("messages[].tool_call_id", 2), ("meta", 1)]
    assert json.loads(result.metadata()["unread"]) == result.unread


def test_fields_that_have_names_of_their_own_are_not_counted_without_end() -> None:
    """A thousand names are kept, each of 200 characters at most; of the rest, the rows."""
    wide = {f"field {n:03}": 1 for n in range(990)} | {"x" * 300: 1}
    own = [{f"id {n}": 1, f"id {n} too": 1, "field 007": 1} for n in range(20)]
    result = taken_in(
        [
            chat({"role": "user", "content": f"{n}"}, **fields)
            for n, fields in enumerate([wide, *own])
        ]
    )
    first = [f"field {n:03}" for n in range(990)] + ["x" * 200 + "…"]
    first += [f"id {n}" for n in range(5)] + [f"id {n} too" for n in range(4)]
    ones = dict.fromkeys(first, 1)
    assert result.unread == ones | {"field 007": 21, "fields beyond the first 1,000": 16}


def test_duplicates_that_differ_in_what_is_not_read_are_told() -> None:
    """Their text is the same, so one is kept; but nobody need find out by chance."""
    same = {"id": 1, "difficulty": "easy", "meta": {"x": 1}}
    records = [
        chat(**same),
        chat(**same),
        chat(**same | {"difficulty": "hard"}),
        chat(**same | {"id": 2, "meta": {"x": 2}}),
        chat({"role": "user", "content": "other"}, id=3),
    ]
    result = taken_in(records)
    assert (result.samples.height, result.duplicates.height) == (2, 3)
    told = {name: num for name, num in result.unread.items() if "duplicates" in name}
    assert told == {
        "difficulty (differs between duplicates)": 1,
        "id (differs between duplicates)": 1,
        "meta (differs between duplicates)": 1,
    }


def test_what_is_read_otherwise_makes_no_difference_between_duplicates() -> None:
    """Of a field inside others only its own value is compared, not what stands beside it."""
    messages = [{"role": "assistant", "content": text, "tool_call_id": "7"} for text in ("b", "b ")]
    result = taken_in([chat(message) for message in messages])
    assert (result.duplicates.height, result.unread) == (1, {"messages[].tool_call_id": 2})
    result = taken_in([chat({**messages[0], "tool_call_id": number}) for number in "78"])
    assert result.unread["messages[].tool_call_id (differs between duplicates)"] == 1


_VALUES = st.sampled_from(["", "other", 3, True, None, [], ["x"], {"k": "v"}, [{"k": "v"}]])


@given(st.data())
def test_no_change_of_a_record_goes_unnoticed(data: st.DataObject) -> None:
    """Adding, changing or removing a field changes the sample, is refused, or is counted."""
    stage, cases = data.draw(
        st.sampled_from([("sft", SFT_CASES), ("preference", PREFERENCE_CASES)])
    )
    name, record, _ = data.draw(st.sampled_from(cases))
    known = sorted({field for _, other, _ in cases for field in other})
    field = data.draw(st.sampled_from([*known, "topic", "note"]))
    before = taken_in([record], stage, format=name)
    changed = {k: v for k, v in record.items() if k != field}
    if data.draw(st.booleans()) or field not in record:
        changed[field] = data.draw(_VALUES)
    after = taken_in([changed], stage, format=name)
    if not before.samples.height or not after.samples.height:
        return
    hidden = ["raw"]
    same = before.samples.drop(hidden).equals(after.samples.drop(hidden))
    said = [
        value
        for value in (record.get(field), changed.get(field))
        if value not in ("", " ", None, [], {})
    ]
    if same and record.get(field) != changed.get(field) and said:
        inside = (f"{field}.", f"{field}[")
        is_told = any(
            name == field or name.startswith(inside) for name in (*before.unread, *after.unread)
        )
        # The two sides may hold the whole prompt themselves.
        is_repeated = field == "prompt" and not changed.get(field) and "chosen" in record
        assert (
            is_told or is_repeated or _only_in_another_form(record.get(field), changed.get(field))
        ), (
            field,
            record,
            changed,
            before.unread,
            after.unread,
        )


def _only_in_another_form(one: object, other: object) -> bool:
    """Return whether two values say the same: a text and its JSON, a flag and its word."""
    return str(one).lower() == str(other).lower()


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_that_does_not_fit_rejects(name: str) -> None:
    """Whatever a person says the format is, no record breaks its parser."""
    records = [record for _, record, _ in (*SFT_CASES, *PREFERENCE_CASES)]
    result = taken_in(records, FORMATS[name].stage, format=name)
    assert "unexpected_content" not in result.quarantine["reason"].to_list()
    assert result.num_rows_read == len(records) or FORMATS[name].gather


def test_fields_that_joined_tables_leave_empty_tell_no_format() -> None:
    """Each row is read by the fields that hold something in it."""
    fields = dict.fromkeys(("instruction", "output", "messages", "chosen"))
    said = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    rows = [
        {**fields, "instruction": "i", "output": "o"},
        {**fields, "messages": said},
        {**fields, "messages": [], "chosen": "", "instruction": "j", "output": "p"},
    ]
    assert taken_in(rows).samples["format"].to_list() == ["alpaca", "messages", "alpaca"]
    assert taken_in(rows[1:] + rows[:1]).samples.height == 3


def test_references_to_pictures_have_many_names() -> None:
    """None of them is taken for text that may be left out."""
    for field in ("image_url", "image_path", "attachments"):
        assert taken_in([chat(**{field: "x.png"})]).quarantine["reason"].to_list() == [
            "unsupported_content"
        ]


def test_all_pairs_leave_lists_of_another_length_alone() -> None:
    """A list beside the answers that is shorter belongs to none of them."""
    record = {"prompt": "p", "responses": ["a", "b", "c"], "ratings": [1, 2, 3], "rewards": [1]}
    assert taken_in([record], "preference", pairs="all").samples.height == 3
