"""Tables and pictures as the UI shows them."""

import polars as pl

from zip_pipeline.defs.metadata import counts_table, markdown_table, picture, table_metadata


def test_table_metadata_gives_row_count_and_schema() -> None:
    """Both stand under the keys that Dagster knows."""
    metadata = table_metadata(pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}))
    assert metadata["dagster/row_count"].value == 2
    columns = metadata["dagster/column_schema"].value.columns
    assert [(column.name, column.type) for column in columns] == [("a", "Int64"), ("b", "String")]


def test_markdown_table_keeps_every_row_and_cell_apart() -> None:
    """Pipes and line ends inside a cell do not break the table."""
    table = pl.DataFrame({"source": ["a|b", "c\nd"], "num_rows": [1234, 5], "share": [0.25, 1.0]})
    lines = [line.split("|") for line in str(markdown_table(table).value).splitlines()]
    cells = [[cell.strip() for cell in line[1:-1]] for line in lines]
    assert cells[0] == ["source", "num_rows", "share"]
    assert cells[2:] == [["a b", "1,234", "0.250"], ["c d", "5", "1.000"]]


def test_counts_table_sorts_by_count_then_name_and_cuts() -> None:
    """The most frequent values come first; an empty table says none."""
    table = pl.DataFrame({"reason": ["b", "a", "c", "c"]})
    lines = str(counts_table(table, "reason", limit=2).value).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["c", "a"]
    assert counts_table(table.clear(), "reason").value == "none"


def test_picture_is_an_inline_png() -> None:
    """The picture travels inside the Markdown."""
    assert picture(b"\x89PNG", "title").value == "![title](data:image/png;base64,iVBORw==)"
