"""The option that names the data root, shared by several commands."""

from pathlib import Path
from typing import Annotated

import typer

from zip_pipeline.storage import DataRoot

DATA_ROOT_VARIABLE = "ZIP_PIPELINE_DATA"

DataRootOption = Annotated[
    Path,
    typer.Option(
        "--data-root",
        metavar="DIR",
        envvar=DATA_ROOT_VARIABLE,
        help="Folder of drops, pool and versions.",
    ),
]
DEFAULT_DATA_ROOT = Path("data")


def existing_root(folder: Path) -> DataRoot:
    """Return the data root at ``folder``.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such data root; name one with --data-root or {DATA_ROOT_VARIABLE}, "
            f"or make one with: zip-pipeline sample-data {folder}"
        )
    return DataRoot(folder)
