"""What the assets tell about themselves in the UI, in the order in which a person reads it.

The verdict or a sentence comes first, then figures, tables and pictures, what is long last. Numbers
that never change are words: Dagster draws a chart of every number.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import dagster as dg
import polars as pl

from zip_pipeline.report.markdown import Shown, bullets, markdown
from zip_pipeline.terminal_text import shown as readable
from zip_pipeline.terminal_text import shown_in_cell

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
    "stage": "sft or preference",
    "version": "number of the version, from 1 in each stage",
    "created_at": "when the version was first measured, UTC",
    "strategy": "how the version was selected",
    "R": "redundancy of the subset, raw / compressed bytes, higher = more redundant",
    "R_spread": "measuring error of R, one standard deviation",
    "L": "loss of the probe in nats per token, higher = harder to learn",
    "L_spread": "measuring error of L in nats per token, one standard deviation",
    "Z": "quality of the trained model, higher = better; empty until it is evaluated",
    "Z_spread": "measuring error of Z, one standard deviation in its unit",
    "Z_name": "how and on what Z was measured; only values of one name compare",
    "Q": "quality of the samples, higher = better",
    "Q_spread": "measuring error of Q, one standard deviation",
    "Q_name": "how Q was measured; only values of one name compare",
    "series": "hash of budget and probe settings; R and L compare within one series alone",
    "verdict": "what the entropy law says; a risk is not trained",
    "reason": "the verdict in words, with the figures and versions that it rests on",
    "override": "why, and by whom, a blocked version was let through",
}


Origins = Mapping[str, Sequence[dg.TableColumnDep]]


def table_metadata(
    table: pl.DataFrame, num_rows: int | None = None, origins: Origins | None = None
) -> dict[str, dg.MetadataValue]:
    """Return columns with what they mean, row count and lineage: the last items of an asset.

    Not as ``dagster/column_schema``, which the UI lists in full above everything else; OpenLineage
    knows both names.

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
        "column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns)),
        "dagster/row_count": dg.MetadataValue.int(table.height if num_rows is None else num_rows),
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


# As long as this, or longer, Markdown waits for a click in the UI; tables never do.
_LONG = 1_000


def shown_table(table: pl.DataFrame) -> dg.MetadataValue:
    """Return a small table that stands in place in the UI, ``none`` where it has no rows.

    Names of columns may break at their underscores, so that the table is no wider than the page.
    """
    rows = [[_cell(value) for value in row] for row in table.iter_rows()]
    header = [name.replace("_", " ") for name in table.columns]
    return shown((header, rows)) if rows else dg.MetadataValue.md("none")


def shown(table: Shown) -> dg.MetadataValue:
    """Return header and cells as Markdown, or as Dagster's own table where that is long."""
    header, rows = table
    text = markdown([table])
    if len(text) < _LONG:
        return dg.MetadataValue.md(text)
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(zip(header, map(shown_in_cell, row), strict=True))) for row in rows],
        dg.TableSchema([dg.TableColumn(name) for name in header]),
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values whose floats have the four digits that a person reads."""
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}


def figures_table(*rows: tuple[str, object, str]) -> dg.MetadataValue:
    """Return figures with their units, where there are any; what is not known is left out."""
    known = [[name, _cell(value), unit] for name, value, unit in rows if value is not None]
    return shown((["figure", "value", "unit"], known))


def collapsed(values: Mapping[str, Any]) -> dg.MetadataValue:
    """Return settings and the like as one item that the UI opens at a click."""
    text = json.dumps(values, indent=2, sort_keys=True, default=str, ensure_ascii=False)
    return dg.MetadataValue.md(f"```json\n{readable(text)}\n```".ljust(_LONG))


def listed(lines: Sequence[str]) -> dg.MetadataValue:
    """Return lines of words as a list, ``none`` where there are none."""
    return dg.MetadataValue.md(bullets(lines) or "none")


def counts_table(table: pl.LazyFrame, column: str, limit: int = 10) -> dg.MetadataValue:
    """Return the most frequent values of a column, with their counts."""
    counts = table.group_by(column).len("num_rows").collect(engine="streaming")
    return shown_table(counts.sort("num_rows", column, descending=[True, False]).head(limit))


def code_block(text: str) -> dg.MetadataValue:
    """Return a text that the UI shows as it is."""
    fence = "~~~~"
    inside = readable(text).replace(fence, "~ ~ ~ ~")
    return dg.MetadataValue.md(f"{fence}text\n{inside}\n{fence}")


def drawing(svg: str | None, title: str) -> dg.MetadataValue:
    """Return a small SVG drawing, which the UI shows in place where it is short enough."""
    if svg is None:
        return dg.MetadataValue.md("not drawn: that takes two points")
    encoded = quote(svg, safe="/:=,;()' ")
    return dg.MetadataValue.md(f"![{_title(title)}](<data:image/svg+xml,{encoded}>)")


def picture(png: bytes | None, title: str) -> dg.MetadataValue:
    """Return a PNG picture that the UI shows at a click, or that there is none."""
    if png is None:
        return dg.MetadataValue.md("not drawn: that takes two points")
    encoded = base64.b64encode(png).decode("ascii")
    return dg.MetadataValue.md(f"![{_title(title)}](data:image/png;base64,{encoded})")


def _title(text: str) -> str:
    """Return the title of a picture without the signs that could end it."""
    return re.sub(r"[^\w .,:;%()+-]", " ", text)
