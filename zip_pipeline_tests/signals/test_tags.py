"""Signal tags: from lists and texts of the records, also nested ones."""

import json
from typing import Any

import pytest

from zip_pipeline_tests.signals.measured import measured, table_of, talk


@pytest.mark.parametrize(
    ("record", "tags"),
    [
        ({"tags": ["a", "b c", " a ", "", 3]}, ["a", "b c"]),
        ({"tags": "b, a,, b"}, ["b", "a"]),
        ({"tags": []}, None),
        ({"tags": " "}, None),
        ({"tags": None}, None),
        ({"tags": 7}, None),
        ({"tags": {"a": 1}}, None),
        ({"other": ["a"]}, None),
    ],
)
def test_tags_are_the_different_ones_in_order(record: dict[str, Any], tags: object) -> None:
    """What is no text, or empty, is left out; null where nothing is left."""
    nested = {"meta": record}
    for given, field in ((record, "tags"), (nested, "meta.tags")):
        table = table_of([talk("1", "2")], raw=[json.dumps(given)])
        assert measured("tags", table, field=field)["tags"].to_list() == [tags]


def test_other_fields_are_measured_apart() -> None:
    """Neither a record that is no object nor a path through a text is an error."""
    table = table_of([talk("1", "2"), talk("3", "4")], raw=['["tags"]', '{"tags": "a"}'])
    assert measured("tags", table)["tags"].to_list() == [None, ["a"]]
    assert measured("tags", table, field="tags.deep")["tags"].to_list() == [None, None]
