"""Tables of versions for the tests of the entropy law."""

import polars as pl

from zip_pipeline.entropy_law.table import SCHEMA


def version_row(version: int, **columns: object) -> dict[str, object]:
    """Return a row of an SFT version with the columns that every test needs."""
    row: dict[str, object] = dict.fromkeys(SCHEMA)
    row |= {"stage": "sft", "version": version, "series": "s", "R": 3.0, "L": 1.5}
    return row | {"R_spread": 0.02, "L_spread": 0.01} | columns


def versions(*rows: dict[str, object]) -> pl.DataFrame:
    """Return rows as a table of versions."""
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def series_of(ratios: list[float], losses: list[float], **columns: object) -> pl.DataFrame:
    """Return versions 1, 2, ... with these R and L."""
    pairs = enumerate(zip(ratios, losses, strict=True), start=1)
    return versions(*(version_row(n, R=r, L=loss, **columns) for n, (r, loss) in pairs))
