"""Tables and pictures as the UI shows them."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.events import StepMaterializationData

from zip_pipeline import defs
from zip_pipeline.defs.law import _shown_versions, _sources_table
from zip_pipeline.defs.metadata import (
    COLUMN_DESCRIPTIONS,
    code_block,
    collapsed,
    counts_table,
    drawing,
    figures_table,
    listed,
    picture,
    rounded,
    shown_table,
    table_metadata,
)
from zip_pipeline.entropy_law.table import SCHEMA
from zip_pipeline_tests.defs.graph import Graph, alpaca_rows, error_of
from zip_pipeline_tests.entropy_law.tables import series_of
from zip_pipeline_tests.report.rendered import loads_of

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
    """Bars and line ends inside a cell do not break the table; figures have four digits."""
    table = pl.DataFrame(
        {"source": ["a|b", "c\nd"], "num_rows": [1234, None], "share": [0.123456, 98765.4]}
    )
    assert str(shown_table(table).value).splitlines() == [
        "| source | num rows | share |",
        "| --- | --- | --- |",
        "| a¦b | 1,234 | 0.1235 |",
        r"| `c\nd` |  | 98,765 |",
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


def test_blocks_end_where_they_say() -> None:
    """Whatever the text in them is, which shows what would turn it round."""
    text = "~~~~\n![a](http://b.test)\r~~~~~~~\r![a](http://b.test)\n```\n\u202e"
    for block in (code_block(text), collapsed({text: text})):
        assert loads_of(str(block.value)) == []
        assert r"\u202e" in str(block.value)


# No slash may stand in a name of a file.
_NAME = "![x](evil.test)<img src=x> www.evil.test me@evil.test `|.jsonl"
_WORDS = "](/x)![x](http://evil.test/p.png)<img src=//evil.test> www.evil.test ` |\n\n![](//b.test)"


def _markdown_of(result: dg.ExecuteInProcessResult) -> list[str]:
    """Return what the UI renders as Markdown of a run: metadata, and descriptions of checks."""
    assert result.success, error_of(result)
    checks = result.get_asset_check_evaluations()
    made = [
        event.materialization
        for event in (event.event_specific_data for event in result.all_events)
        if isinstance(event, StepMaterializationData)
    ]
    values = [value for one in (*made, *checks) for value in one.metadata.values()]
    found = [str(v.value) for v in values if isinstance(v, dg.MarkdownMetadataValue)]
    return found + [str(check.description) for check in checks]


def test_a_hostile_pool_loads_nothing_in_the_ui(graph: Graph) -> None:
    """Neither the name of a drop nor sources, fields and texts become links or pictures."""
    rows: list[Any] = [
        {**row, "output": f"{row['output']} {_WORDS}", "source": _WORDS, _WORDS: _WORDS}
        for row in alpaca_rows(30)
    ]
    graph.drop("sft", _NAME, [*rows, {_WORDS: _WORDS}, [_WORDS]])
    found = _markdown_of(graph.ingest("sft", _NAME)) + _markdown_of(graph.select("sft"))
    # One whose checks say why they cannot.
    graph.drop("sft", f"2{_NAME}", [{_WORDS: _WORDS}])
    found += _markdown_of(graph.ingest("sft", f"2{_NAME}"))
    assert len([text for text in found if "evil.test" in text]) > 5
    assert {text: loads for text in found if (loads := loads_of(text))} == {}


def test_a_hostile_law_and_comparison_load_nothing_in_the_ui() -> None:
    """Names of measures, strategies and sources are data as well."""
    table = series_of([3.0, 3.5], [1.0, 1.1], verdict=_WORDS, reason=_WORDS, strategy=_WORDS)
    texts = pl.DataFrame({"strategy": [_WORDS], "source": [_WORDS], "text": [_WORDS]})
    found = [
        _sources_table({"sources": {_WORDS: {"loss": 1.0, "num_samples": 3}}}),
        shown_table(_shown_versions(table)),
        listed([_WORDS]),
        shown_table(texts),
        collapsed({_WORDS: _WORDS}),
        picture(b"\x89PNG", _WORDS),
        drawing("<svg/>", _WORDS),
    ]
    values = [str(value.value) for value in found]
    assert all("evil" in value for value in values)
    assert [loads for value in values if (loads := loads_of(value))] == []


def test_only_one_place_makes_markdown_for_the_ui() -> None:
    """There the words of the data are made words."""
    places = [
        path.name for path in Path(defs.__path__[0]).glob("*.py") if "Value.md(" in path.read_text()
    ]
    assert places == ["metadata.py"]


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
    table = pl.LazyFrame({"reason": ["b", "a", "c", "c"]})
    lines = str(counts_table(table, "reason", limit=2).value).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["c", "a"]
    assert counts_table(table.clear(), "reason").value == "none"


def test_picture_is_an_inline_png_or_says_that_there_is_none() -> None:
    """The picture travels inside the Markdown."""
    assert picture(b"\x89PNG", "title").value == "![title](data:image/png;base64,iVBORw==)"
    assert loads_of(str(picture(b"\x89PNG", "](x) ![a](http://b.test)").value)) == []
    assert picture(None, "title").value == "not drawn: that takes two points"
