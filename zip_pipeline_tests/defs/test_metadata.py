"""Tables and pictures as the UI shows them."""

import polars as pl
import pytest

from zip_pipeline.defs.metadata import (
    COLUMN_DESCRIPTIONS,
    collapsed,
    counts_table,
    figures_table,
    picture,
    rounded,
    shown_table,
    table_metadata,
)
from zip_pipeline.entropy_law.table import SCHEMA

SHOWN_IN_PLACE = 1_000
"""Dagster's UI shows Markdown below this length in place, and a link for longer one."""


def test_table_metadata_gives_columns_and_row_count_but_no_list_above_everything() -> None:
    """What is described is described; the key that the UI lists first is left out."""
    metadata = table_metadata(pl.DataFrame({"R": [1.0, 2.0], "b": ["x", "y"]}))
    assert list(metadata) == ["column_schema", "dagster/row_count"]
    assert metadata["dagster/row_count"].value == 2
    described = "redundancy of the subset, raw / compressed bytes, higher = more redundant"
    columns = metadata["column_schema"].value.columns
    assert [(column.name, column.type, column.description) for column in columns] == [
        ("R", "Float64", described),
        ("b", "String", None),
    ]


def test_every_column_of_the_law_is_described() -> None:
    """Units and directions among them."""
    assert [name for name in SCHEMA if not COLUMN_DESCRIPTIONS.get(name)] == []


def test_shown_table_keeps_every_row_and_cell_apart() -> None:
    """Pipes and line ends inside a cell do not break the table; figures have four digits."""
    table = pl.DataFrame(
        {"source": ["a|b", "c\nd"], "num_rows": [1234, None], "share": [0.123456, 98765.4]}
    )
    assert str(shown_table(table).value).splitlines() == [
        "| source | num rows | share |",
        "| --- | --- | --- |",
        "| a b | 1,234 | 0.1235 |",
        "| c d |  | 98,765 |",
    ]


def test_long_table_is_one_that_the_ui_shows_in_place() -> None:
    """Long Markdown would hide behind a click."""
    short = pl.DataFrame({"name": ["x" * 20] * 20})
    assert len(str(shown_table(short).value)) < SHOWN_IN_PLACE
    long = shown_table(pl.DataFrame({"name": ["x" * 20] * 50, "n": range(50)}))
    assert [record.data for record in long.records][:2] == [
        {"name": "x" * 20, "n": "0"},
        {"name": "x" * 20, "n": "1"},
    ]
    assert len(long.records) == 50


@pytest.mark.parametrize("num", [1, 500])
def test_settings_wait_for_a_click_however_short(num: int) -> None:
    """And are text that a program can read."""
    text = str(collapsed({f"key{n}": n for n in range(num)}).value)
    assert len(text) >= SHOWN_IN_PLACE
    assert text.startswith('```json\n{\n  "key0": 0')


def test_figures_table_leaves_out_what_is_not_known() -> None:
    """A row is a name, four digits and a unit."""
    table = figures_table(("loss", 1.23456, "nats per token"), ("accuracy", None, ""))
    lines = [
        "| figure | value | unit |",
        "| --- | --- | --- |",
        "| loss | 1.235 | nats per token |",
    ]
    assert str(table.value).splitlines() == lines


def test_rounded_touches_floats_alone() -> None:
    """To four digits, whatever their size."""
    values = {"a": 0.000123456, "b": 1_234_567, "c": "x", "d": True}
    assert rounded(values) == {"a": 0.0001235, "b": 1_234_567, "c": "x", "d": True}


def test_counts_table_sorts_by_count_then_name_and_cuts() -> None:
    """The most frequent values come first; an empty table says none."""
    table = pl.DataFrame({"reason": ["b", "a", "c", "c"]})
    lines = str(counts_table(table, "reason", limit=2).value).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["c", "a"]
    assert counts_table(table.clear(), "reason").value == "none"


def test_picture_is_an_inline_png_or_says_that_there_is_none() -> None:
    """The picture travels inside the Markdown."""
    assert picture(b"\x89PNG", "title").value == "![title](data:image/png;base64,iVBORw==)"
    assert picture(None, "title").value == "not drawn: that takes two points"
