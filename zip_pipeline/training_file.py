"""``training.toml`` of a data root: the tables that it may have."""

import tomllib
from pathlib import Path
from typing import Any

from zip_pipeline.errors import UserError

TRAINING_FILE = "training.toml"
TABLES = ("training", "held_out", "quality_audit", "mt_bench")


def read_training_table(data_root: Path, table: str) -> dict[str, Any] | None:
    """Return one table of ``training.toml``; None where the file or the table is not there.

    Names outside the tables are looked at whichever table is read, as a misspelt table would
    else count as none. Values are not shown: one may be a key.

    Args:
        data_root: the folder with the file.
        table: one of ``TABLES``.

    Raises:
        UserError: the file is no TOML in UTF-8, has another table or a key outside the tables,
            or a value in place of a table.
    """
    path = data_root / TRAINING_FILE
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: not valid TOML in UTF-8: {error}. Correct the file") from error
    for name, value in tables.items():
        _check(path, name, value)
    return tables.get(table)


def _check(path: Path, name: str, value: object) -> None:
    if name not in TABLES:
        found = f"the table [{name}]" if isinstance(value, dict) else f"{name}, outside the tables,"
        allowed = ", ".join(f"[{table}]" for table in TABLES)
        raise UserError(
            f"{path}: {found} is not known; allowed are the tables {allowed}. Correct or remove it"
        )
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise UserError(f"{path}: {name} must be a table [{name}], is {kind}. Correct it")
