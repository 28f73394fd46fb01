"""What the entropy law says about the versions, in tables for people."""

from typing import Any

import polars as pl
from rich.console import Console
from rich.text import Text

from zip_pipeline.cli.console import new_table, styled
from zip_pipeline.entropy_law.fit import relations
from zip_pipeline.entropy_law.versions_table import figures_folder, is_blocked, read_versions
from zip_pipeline.samples import STAGES
from zip_pipeline.storage import DataRoot

_NUM_VERSIONS = 10
_LEGEND = """\
R  redundancy: raw / compressed bytes of the subset, higher = more redundant
L  probe loss: mean loss of the first training steps, nats per token, higher = less consistent
Z  quality of the trained model, higher = better (a loss is negated); - where it is not trained
The law: Z falls as R and L rise. A version of which both rise is a risk, and is not trained.
"""


def show_law(console: Console, root: DataRoot) -> None:
    """Print R, L, Z and the verdict of the latest versions, and where the figures lie.

    Args:
        console: where to print.
        root: the data root.
    """
    table = read_versions(root).with_columns(blocked=is_blocked())
    if table.is_empty():
        return
    console.rule(styled(("entropy law", "bold")), align="left")
    console.print(_LEGEND)
    for stage in STAGES:
        rows = table.filter(pl.col("stage") == stage)
        if not rows.is_empty():
            _show_versions(console, stage, rows.tail(_NUM_VERSIONS))
            _show_relations(console, stage, table.drop("blocked"))
    figures = sorted(figures_folder(root).glob("*.png"))
    if figures:
        names = ", ".join(path.name for path in figures)
        console.print(f"Figures in {figures[0].parent}: {names}\n", soft_wrap=True)


def _show_versions(console: Console, stage: str, rows: pl.DataFrame) -> None:
    table = new_table(f"{stage} version", "strategy", "tokens", "R", "L", "Z", "verdict", left=1)
    for row in rows.iter_rows(named=True):
        table.add_row(
            str(row["version"]),
            row["strategy"],
            f"{row['num_tokens']:,}",
            *(_measure(row, name) for name in ("R", "L", "Z")),
            _verdict_words(row),
        )
    console.print(table)
    console.print(f"{rows['reason'][-1]}\n", soft_wrap=True)
    if rows["blocked"][-1]:
        console.print(
            f"To train it nevertheless, give a reason under `override` in the launchpad of "
            f"{stage}/model. What came in: the diff below.\n",
            soft_wrap=True,
        )


def _measure(row: dict[str, Any], name: str) -> str:
    value, spread = row[name], row[f"{name}_spread"]
    if value is None:
        return "-"
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"


def _verdict_words(row: dict[str, Any]) -> Text:
    words = str(row["verdict"]).replace("_", " ")
    if row["blocked"]:
        return styled((f"{words}: blocked", "bold red"))
    return styled(f"{words}, overridden" if row["override"] else words)


def _show_relations(console: Console, stage: str, table: pl.DataFrame) -> None:
    for relation in relations(table, stage):
        console.print(f"  {relation.y} over {relation.x}: {relation.note}")
    console.print()
