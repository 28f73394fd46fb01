"""Rules of telling rows, envelopes and whole tables apart in a JSON file."""

import json

import pytest

from zip_pipeline.ingest.json_values import read_json
from zip_pipeline.ingest.rows import ReadLimits, RejectionError
from zip_pipeline_tests.ingest.test_json_values import read, turns


def known(number: int) -> dict:
    """Return a record of a known format."""
    return {"prompt": f"{number}?", "completion": f"{number}."}


SERVED = [{"row_idx": number, "row": known(number), "truncated_cells": []} for number in (1, 2)]
FEATURES = [{"feature_idx": 0, "name": "prompt", "type": {"dtype": "string", "_type": "Value"}}]


@pytest.mark.parametrize(
    ("value", "records"),
    [
        ({"prompt": ["1?", "2?"], "completion": ["1.", "2."]}, [known(1), known(2)]),
        ({"prompt": {"0": "1?"}, "completion": {"0": "1."}}, [known(1)]),
        (
            {"prompt": {"0": "1?", "1": "2?"}, "completion": {"1": "2.", "0": "1."}},
            None,
        ),
        ({"messages": [turns("a"), turns("b")]}, None),
        (
            {"messages": [turns("a"), turns("b")], "n": [1, 2]},
            [{"messages": turns("a"), "n": 1}, {"messages": turns("b"), "n": 2}],
        ),
        (
            {"Frage": ["a", "b"], "Antwort": ["c", None]},
            [{"Frage": "a", "Antwort": "c"}, {"Frage": "b", "Antwort": None}],
        ),
        ({"columns": ["q", "a"], "index": [0], "data": [["b", "c"]]}, [{"q": "b", "a": "c"}]),
        ({"x": known(1), "y": known(2)}, [{"id": "x"} | known(1), {"id": "y"} | known(2)]),
        ({"x": {"id": 7} | known(1)}, [{"id": 7} | known(1)]),
        ({"x": {"q": 1}, "y": {"q": 2}}, [{"id": "x", "q": 1}, {"id": "y", "q": 2}]),
        ({"features": FEATURES, "rows": SERVED, "num_rows_total": 2}, [known(1), known(2)]),
        ({"rows": [known(1), known(2)], "total": 2}, [known(1), known(2)]),
        ([turns("a"), turns("b")], [{"messages": turns("a")}, {"messages": turns("b")}]),
        ([["a", "b"], ["c", "d"]], [{"messages": ["a", "b"]}, {"messages": ["c", "d"]}]),
        (turns("a"), [{"messages": turns("a")}]),
        ({"data": [turns("a"), turns("b")]}, [{"messages": turns("a")}, {"messages": turns("b")}]),
        # Rows, each in its own right.
        ({"id": "0", "data": turns("a")}, None),
        ({"id": "0", "data": ["a", "b"]}, None),
        ({"chosen": turns("a"), "rejected": turns("b")}, None),
        ({"prompt": turns("a")[:1], "completion": turns("a")[1:]}, None),
        ({"messages": ["a", "b"], "scores": [1, 2]}, None),
        ({"prompt": turns("a")[0], "completion": turns("a")[1]}, None),
        ({"chosen": {"text": "a"}, "rejected": {"text": "b"}}, None),
        ({"question": "a", "answer": "b", "rows": [["c", "d"]]}, None),
        ({"tokens": ["a"], "tags": ["b"]}, None),
        ({"tokens": [], "tags": []}, None),
        ({"x": known(1), "y": {"q": 2}}, None),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_read_json_tells_a_table_from_a_row(value, records, indent, size):
    """A file that is one table gives its rows; an object that is a row is one (None)."""
    rows = read(json.dumps(value, indent=indent).encode(), size)
    assert [row.record for row in rows] == ([value] if records is None else records)
    assert [json.loads(row.raw) for row in rows] == [row.record for row in rows]


def test_read_json_takes_fields_of_no_format_for_columns_only_in_a_file_of_their_own():
    """Lines of equally long lists are rows; lines of columns of a known format are tables."""
    tagged = b'{"tokens": ["a", "b"], "tags": ["X", "Y"]}\n'
    assert len(read(tagged)) == 2
    assert [row.record for row in read(tagged * 2)] == [json.loads(tagged)] * 2
    columns = b'{"prompt": ["1?"], "completion": ["1."]}\n'
    assert [row.record for row in read(columns * 2)] == [known(1), known(1)]


def test_read_json_keeps_names_that_come_twice_in_one_row():
    """A table would lose one of the columns."""
    text = b'{"prompt": ["1?"], "prompt": ["2?"], "completion": ["1."]}'
    assert [row.raw for row in read(text)] == [text.decode()]


def test_read_json_rejects_cells_that_the_server_cut():
    """What was left out is not taken for the whole text."""
    [row] = read(json.dumps({"rows": [SERVED[0] | {"truncated_cells": ["prompt"]}]}).encode())
    assert (row.reason, row.detail) == (
        "unexpected_content",
        "the datasets server has cut the cells ['prompt']; download the data set instead",
    )


def test_read_json_says_what_to_do_about_a_table_longer_than_a_row():
    """Columns are read as a whole, so they must fit into a row."""
    text = json.dumps({"prompt": ["x"] * 50, "completion": ["y"] * 50}, indent=1).encode()
    [row] = read(text, limits=ReadLimits(max_row_bytes=100))
    assert row.reason == "row_too_long"
    assert row.detail.endswith("; if the object is a whole table, write its rows one per line")


def test_read_json_bounds_a_table_whose_names_are_long():
    """Names are repeated in each row, so a small file could fill the memory."""
    text = json.dumps({"x" * 9000: [1] * 9000, "y": [2] * 9000}).encode()
    rows = read_json(iter([text]), "f.json", ReadLimits(allowance_bytes=1 << 20))
    assert next(rows).record == {"x" * 9000: 1, "y": 2}
    with pytest.raises(RejectionError, match="decompression_bomb"):
        list(rows)
