"""Rules of parsing one row."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.ingest.rows import (
    DEFAULT_LIMITS,
    RejectionError,
    json_text,
    nesting_depth,
    parse_bytes,
    parse_record,
)

JSON_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


def recursive_depth(value: object) -> int:
    """Return the depth by its definition."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(recursive_depth, value), default=0) if isinstance(value, list) else 0


@settings(deadline=None)
@given(JSON_VALUES)
def test_nesting_depth_equals_its_definition(value):
    """The depth without recursion is that of the recursive definition."""
    assert nesting_depth(value) == recursive_depth(value)


def nested(depth: int) -> str:
    """Return a JSON object of this depth."""
    return '{"a": ' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (nested(65), "nested_too_deep"),
        (nested(10_001), "nested_too_deep"),
        ("null", "not_an_object"),
        ('"x"', "not_an_object"),
        ("NaN", "not_an_object"),
        ("", "invalid_json"),
        ('{"a": 1} x', "invalid_json"),
        ('{"a": ' + "9" * 5000 + "}", "invalid_json"),
    ],
)
def test_parse_record_rejects_what_is_no_record(text, reason):
    """Broken, too deep and other values are rejected for exactly this reason."""
    with pytest.raises(RejectionError) as caught:
        parse_record(text, DEFAULT_LIMITS)
    assert caught.value.reason == reason


def test_parse_record_takes_depth_and_numbers_up_to_the_limits():
    """The deepest allowed nesting, brackets in strings, NaN and long integers are read."""
    assert parse_record(nested(64), DEFAULT_LIMITS)
    assert parse_record(json.dumps({"a": "[" * 1000}), DEFAULT_LIMITS) == {"a": "[" * 1000}
    record = parse_record(
        '{"a": NaN, "b": -Infinity, "c": 12345678901234567890123}', DEFAULT_LIMITS
    )
    assert record["a"] != record["a"]
    assert record["b"] == float("-inf")
    assert record["c"] == 12345678901234567890123


def test_parse_bytes_rejects_half_a_character():
    """Bytes that are not UTF-8, an encoded surrogate too, are a matter of encoding."""
    for line in (b'{"a": "\xff"}', b'{"a": "\xed\xa0\x80"}'):
        with pytest.raises(RejectionError) as caught:
            parse_bytes(line, DEFAULT_LIMITS)
        assert caught.value.reason == "bad_encoding"
        assert caught.value.raw.startswith('{"a": "')


def test_json_text_can_always_be_stored():
    """A record is written readably, and escaped only where UTF-8 cannot hold it."""
    assert json_text({"é": [1, None]}) == '{"é": [1, null]}'
    assert json_text({"é": "\ud800"}) == '{"\\u00e9": "\\ud800"}'
    assert json_text({"a": b"x"}) == '{"a": "eA=="}'
    assert json_text({"a": [float("nan"), {"é": float("inf")}]}) == '{"a": [null, {"é": null}]}'


def test_a_name_that_comes_twice_is_kept_under_another_name() -> None:
    """The last one counts, as everywhere; the first is listed as not read."""
    record = parse_record('{"a": 1, "b": [{"c": 1, "c": 1}], "a": 2, "a": 3}', DEFAULT_LIMITS)
    assert record == {"a": 3, "b": [{"c": 1}], "a (given twice)": 1}
