"""What the assets tell about themselves in the UI."""

import base64
from collections.abc import Iterable, Mapping, Sequence

import dagster as dg
import polars as pl

COLUMN_DESCRIPTIONS = {
    "sample_id": "content hash of the normalised turns",
    "batch": "name of the dropped file or folder",
    "source": "where the sample comes from, as sidecar, record or file name say",
    "source_file": "file inside the batch",
    "source_row": "row in that file, from 1",
    "format": "record format that was recognised",
    "turns": "the conversation",
    "prompt": "the turns that both continuations answer",
    "chosen": "the preferred continuation, or the only one where it was rated desirable",
    "rejected": "the less preferred continuation, or the only one where it was rated undesirable",
    "chosen_score": "the pool's own rating of the chosen continuation",
    "rejected_score": "the pool's own rating of the rejected continuation",
    "tools": "schemas of the tools that may be called, JSON text",
    "media": "references to pictures, sound and the like, JSON text",
    "raw": "the record as it came",
    "num_bytes": "bytes of the serialised text",
    "num_tokens": "tokens that the model reads",
    "num_target_tokens": "tokens of these that the loss falls on",
    "deflate_bytes": "compressed alone with deflate",
    "zstd_bytes": "compressed alone with zstd",
    "pi": "last known ratio, raw / compressed bytes, higher = more redundant",
    "rank": "place in pick order, from 1",
    "round": "round in which it was picked",
}


Origins = Mapping[str, Sequence[dg.TableColumnDep]]


def table_metadata(
    table: pl.DataFrame, num_rows: int | None = None, origins: Origins | None = None
) -> dict[str, dg.MetadataValue]:
    """Return row count, column schema and lineage under the keys that Dagster shows on its own.

    Args:
        table: the table.
        num_rows: its rows, where ``table`` has only its columns.
        origins: by column the columns of other assets that it is made from; those of no column of
            the table are left out.
    """
    columns = [
        dg.TableColumn(name, str(dtype), description=COLUMN_DESCRIPTIONS.get(name))
        for name, dtype in table.schema.items()
    ]
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/row_count": dg.MetadataValue.int(table.height if num_rows is None else num_rows),
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns)),
    }
    if origins is not None:
        found = {name: origins[name] for name in table.columns if name in origins}
        lineage = dg.TableColumnLineage(deps_by_column=found)
        metadata["dagster/column_lineage"] = dg.MetadataValue.column_lineage(lineage)
    return metadata


def column_origins(
    key: dg.AssetKey, columns: Iterable[str], made_of: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[dg.TableColumnDep]]:
    """Return the origins of columns that are taken over, and of those that are made of some.

    Args:
        key: of the asset that they come from.
        columns: taken over under the same name.
        made_of: by further column those of the asset that it is computed from.
    """
    names = {name: [name] for name in columns} | dict(made_of or {})
    return {
        name: [dg.TableColumnDep(asset_key=key, column_name=source) for source in sources]
        for name, sources in names.items()
    }


def markdown_table(table: pl.DataFrame) -> dg.MetadataValue:
    """Return a small table as Markdown, ``none`` where it has no rows."""
    if table.is_empty():
        return dg.MetadataValue.md("none")
    # A pipe or line end inside a name would end its cell.
    text = pl.col(pl.String).str.replace_all(r"[|\r\n]", " ")
    with pl.Config(
        tbl_formatting="MARKDOWN",
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=10_000,
        fmt_str_lengths=100,
        float_precision=3,
        thousands_separator=",",
    ):
        return dg.MetadataValue.md(str(table.with_columns(text)))


def counts_table(table: pl.DataFrame, column: str, limit: int = 10) -> dg.MetadataValue:
    """Return the most frequent values of a column, with their counts, as Markdown."""
    counts = (
        table.group_by(column).len("num_rows").sort("num_rows", column, descending=[True, False])
    )
    return markdown_table(counts.head(limit))


def code_block(text: str) -> dg.MetadataValue:
    """Return a text that the UI shows as it is."""
    fence = "~~~~"
    return dg.MetadataValue.md(f"{fence}text\n{text.replace(fence, '~ ~ ~ ~')}\n{fence}")


def picture(png: bytes, title: str) -> dg.MetadataValue:
    """Return a PNG picture that the UI shows in place."""
    encoded = base64.b64encode(png).decode("ascii")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")
