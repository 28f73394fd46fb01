"""Rules of reading JSON files."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.pool.json_values import read_json
from zip_pipeline.pool.quarantine import RejectionError
from zip_pipeline.pool.streams import DEFAULT_LIMITS, ReadLimits
from zip_pipeline_tests.pool.test_lines import cut

TEXTS = st.text(alphabet='ab"\\,[]{}:\n\té', max_size=8)
RECORDS = st.lists(
    st.dictionaries(TEXTS, TEXTS | st.integers() | st.lists(TEXTS, max_size=2), max_size=3),
    max_size=4,
)


def read(text: bytes, size: int = 1 << 20, limits: ReadLimits = DEFAULT_LIMITS) -> list:
    """Return the rows of a JSON text that comes in pieces."""
    return list(read_json(iter(cut(text, size)), "f.json", limits))


@settings(deadline=None)
@given(RECORDS, st.integers(1, 7), st.sampled_from([None, 2]), st.booleans())
def test_read_json_equals_loading_it_whole(records, size, indent, ascii_only):
    """However the bytes come in, a list and an envelope give the records of one load."""
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_only)
    for whole in (text, f'{{"v": [1, {{}}], "data" : {text}, "w": {{"data": [2]}}}}'):
        rows = read(whole.encode(), size)
        assert [row.record for row in rows] == records
        assert [row.source_row for row in rows] == list(range(1, len(records) + 1))
        assert [json.loads(row.raw) for row in rows] == records


@settings(deadline=None)
@given(RECORDS, st.integers(1, 7), st.sampled_from([None, 2]), st.sampled_from(["\n", " ", ""]))
def test_read_json_takes_one_object_after_another(records, size, indent, separator):
    """Objects that follow one another, a line each or not, are rows."""
    text = separator.join(json.dumps(record, indent=indent) for record in records)
    assert [row.record for row in read(text.encode(), size)] == records


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (b"", []),
        (b" \n", []),
        (b"[]", []),
        (b'{"data": []}', []),
        (b'[{"a": 1},]', [None]),
        (b'[{"a": 1},, {"a": NaN}]', [None, "invalid_json", None]),
        (b'[{"a": 1}, {"a": oops}, {"a": 2}]', [None, "invalid_json", None]),
        (b'[{"a": 1} {"b": 2}, {"a": 2}]', ["invalid_json", None]),
        (b'[{"a": "\xff"}, {"a": 2}]', ["bad_encoding", None]),
        (b'[1, "x", [], null, {"a": 2}]', ["not_an_object"] * 4 + [None]),
        (b'[{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b'}, {"a": 2}]', ["nested_too_deep", None]),
        (b'[{"a": 1}] [{"a": 2}]', [None, None]),
        (b'[{"a": 1}] and more', [None, "invalid_json"]),
        (b'{"a": 1}]', [None, "invalid_json"]),
        (b'{"a": 1}\n{"a": \n{"a": 2}\n', [None, "invalid_json", None]),
        (b"null", ["not_an_object"]),
        (b'{"prompt": "p", "data": [1]}\n{"prompt": "q", "data": [2]}', [None, None]),
    ],
)
def test_read_json_costs_one_row_for_each_broken_value(text, reasons):
    """A broken value is one rejected row, its neighbours survive."""
    assert [row.reason for row in read(text)] == reasons


def test_read_json_skips_an_item_above_the_limit():
    """An item above the limit is one rejected row with its beginning; the others survive."""
    text = json.dumps([{"a": 1}, {"b": "x" * 9000}, {"c": 3}]).encode()
    rows = read(text, 700, ReadLimits(max_row_bytes=5000))
    assert [row.record for row in rows] == [{"a": 1}, None, {"c": 3}]
    assert rows[1].reason == "row_too_long"
    assert rows[1].detail.startswith("9010 bytes, allowed are 5000;")


@pytest.mark.parametrize("end", ['{"a": 2', '{"a": 2}', '{"a": "2', ""])
def test_read_json_gives_the_rows_before_a_cut_off_end(end):
    """Where the file ends inside the list, its whole items come first; the rest is rejected."""
    rows = read_json(iter([f'[{{"a": 1}}, {end}'.encode()]), "f.json", DEFAULT_LIMITS)
    assert next(rows).record == {"a": 1}
    with pytest.raises(RejectionError, match="the file ends inside a list or object") as caught:
        next(rows)
    assert caught.value.raw.strip() == end
