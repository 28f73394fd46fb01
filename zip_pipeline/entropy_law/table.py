"""The table of all versions of both stages: what was measured of each, and the verdict on it."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.files import check_hash, hashing, locked, readable, scan_table, write_table
from zip_pipeline.samples import STAGES

KEY = ("stage", "version")
_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "stage": pl.String,
    "version": pl.Int64,
    "created_at": pl.Datetime("us", "UTC"),
    "strategy": pl.String,
    "R": pl.Float64,
    "R_spread": pl.Float64,
    "L": pl.Float64,
    "L_spread": pl.Float64,
    "Z": pl.Float64,
    "Z_spread": pl.Float64,
    "Z_name": pl.String,
    "Q": pl.Float64,
    "Q_spread": pl.Float64,
    "Q_name": pl.String,
    "num_tokens": pl.Int64,
    "series": pl.String,
    "verdict": pl.String,
    "reason": pl.String,
    "override": pl.String,
}
SCHEMA = pl.Schema(_COLUMNS)
"""One row per stage and version; all but the key may be null.

R: compression ratio of the subset, raw / compressed bytes, higher = more redundant. L: loss of
the probe in nats per token. Z: quality of the trained model, higher = better (store a loss
negated), measured as ``Z_name`` says. Q: quality of the samples, higher = better, measured as
``Q_name`` says. A ``_spread`` is one standard deviation in the unit of its column, over seeded
re-draws or repeated measurements. ``series``: fingerprint of the probe's settings. ``override``:
why, and by whom, a blocked version was let through; null where nobody did.
"""
BLOCKING_VERDICT = "risk"
_MEASURES = ("R", "L", "Z", "Q")
_REMEDY = "restore it from a backup, or move it away: the next version starts a new table"


def versions_path(root: DataRoot) -> Path:
    """Return where the table of versions lies."""
    return root.path / "entropy_law" / "versions.parquet"


def figures_folder(root: DataRoot) -> Path:
    """Return where the law's figures lie."""
    return versions_path(root).with_name("figures")


def read_versions(root: DataRoot) -> pl.DataFrame:
    """Return the table of versions by stage and version; empty where none was recorded.

    A column that the stored table does not have yet is null.

    Raises:
        UserError: the file has unknown columns, other types or no key.
    """
    path = versions_path(root)
    if not path.exists():
        return pl.DataFrame(schema=SCHEMA)
    with readable(path, _REMEDY):
        check_hash(path, _REMEDY)
        table = scan_table(path).collect()
    _check_schema(path, table.schema)
    return pl.concat([pl.DataFrame(schema=SCHEMA), table], how="diagonal").sort(KEY)


def _check_schema(path: Path, schema: pl.Schema) -> None:
    problems = [f"no column {name!r}" for name in KEY if name not in schema]
    for name, dtype in schema.items():
        if name not in SCHEMA:
            problems.append(f"unknown column {name!r}")
        elif dtype != SCHEMA[name]:
            problems.append(f"column {name!r} is {dtype}, must be {SCHEMA[name]}")
    if problems:
        raise UserError(
            f"{path}: not a table of versions of this release: {'; '.join(problems)}; {_REMEDY}"
        )


def upsert_version(root: DataRoot, row: Mapping[str, object]) -> pl.DataFrame:
    """Record what is known of one version, and return the whole table.

    Columns of :data:`SCHEMA` that ``row`` names are set, also to None; the others keep what they
    hold, so that Z can be added when the model is trained. ``stage`` and ``version`` are required.
    Writers at once wait for each other and no row is lost; readers see the table before or after.

    Raises:
        UserError: a column is unknown or its value is of the wrong type or out of range, or
            the stored table is not one of this release.
    """
    checked = _checked(row)
    path = versions_path(root)
    with locked(path.with_name(".versions.lock")):
        table = read_versions(root)
        is_same = (pl.col("stage") == checked["stage"]) & (pl.col("version") == checked["version"])
        known = table.filter(is_same).to_dicts() or [{"created_at": datetime.now(UTC)}]
        merged = pl.DataFrame([known[0] | checked], schema=SCHEMA, orient="row")
        table = pl.concat([table.filter(~is_same), merged]).sort(KEY)
        with hashing(path):
            write_table(path, table, {})
    return table


def _checked(row: Mapping[str, object]) -> dict[str, Any]:
    """Return the row with values of the table's types."""
    unknown = sorted(set(row) - set(SCHEMA))
    if unknown:
        raise UserError(f"unknown columns {unknown}; the table of versions has {list(SCHEMA)}")
    checked = {name: _value(name, value) for name, value in row.items()}
    if checked.get("stage") not in STAGES:
        raise UserError(f"stage: {row.get('stage')!r} is not allowed; must be one of {STAGES}")
    if checked.get("version") is None:
        raise UserError("version: missing; must be the number of a version")
    return checked


def _value(name: str, value: object) -> object:
    if value is None:
        return None
    dtype = SCHEMA[name]
    if dtype == pl.Float64:
        return _measure(name, value)
    if isinstance(dtype, pl.Datetime):
        return _moment(name, value)
    expected = int if dtype == pl.Int64 else str
    if not isinstance(value, expected) or isinstance(value, bool):
        raise UserError(f"{name}: {value!r} is not allowed; must be {expected.__name__} or None")
    if isinstance(value, int) and value < 0:
        raise UserError(f"{name}: {value} is negative; must be 0 or more")
    return value


def _measure(name: str, value: object) -> float:
    allowed = "0 or more" if name not in _MEASURES else "more than 0" if name == "R" else "a number"
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        number = float(value)
        if (name in _MEASURES or number >= 0) and (name != "R" or number > 0):
            return number
    raise UserError(
        f"{name}: {value!r} is not allowed; must be {allowed}, or None where it was not measured. "
        "A probe or model that diverged must not be recorded: lower its learning rate"
    )


def _moment(name: str, value: object) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise UserError(f"{name}: {value!r} is not allowed; must be a time with its zone")
    return moment.astimezone(UTC)


def is_blocked() -> pl.Expr:
    """Return the expression that is true for versions that must not be trained.

    True where the verdict is ``risk`` and nobody gave a reason to override it.
    """
    overridden = pl.col("override").fill_null("").str.strip_chars() != ""
    return (pl.col("verdict").fill_null("") == BLOCKING_VERDICT) & ~overridden


def version_row(table: pl.DataFrame, stage: str, version: int) -> dict[str, Any] | None:
    """Return what a table of versions holds of one version, None where it has no row."""
    is_this = (pl.col("stage") == stage) & (pl.col("version") == version)
    return next(table.filter(is_this).iter_rows(named=True), None)


def has_verdict(table: pl.DataFrame, stage: str, version: int) -> bool:
    """Return whether a version was judged."""
    row = version_row(table, stage, version)
    return row is not None and row["verdict"] is not None


def training_refusal(table: pl.DataFrame, stage: str, version: int) -> str | None:
    """Return why a version must not be trained, None where it may."""
    if not has_verdict(table, stage, version):
        return f"{stage} version {version} has no verdict yet; materialise {stage}/loss_probe first"
    row = version_row(table.filter(is_blocked()), stage, version)
    if row is None:
        return None
    return (
        f"{stage} version {version} is blocked: {row['reason'] or 'no reason was recorded'} To "
        "train it nevertheless, give a reason under `override` in the launchpad"
    )
