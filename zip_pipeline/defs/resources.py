"""Where the data lies, as a Dagster resource."""

import os
from pathlib import Path

import dagster as dg
from pydantic import Field

from zip_pipeline.storage import DataRoot

DATA_ROOT_VARIABLE = "ZIP_PIPELINE_DATA"
CACHE_VARIABLE = "ZIP_PIPELINE_CACHE"


def default_data_root() -> Path:
    """Return the folder that ``ZIP_PIPELINE_DATA`` names, else ``data`` in the working folder."""
    return Path(os.environ.get(DATA_ROOT_VARIABLE) or "data")


def cache_folder(root: DataRoot) -> Path:
    """Return the folder that ``ZIP_PIPELINE_CACHE`` names, which data roots can share, else
    ``cache`` in the data root.
    """
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else root.cache


class DataRootResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder that holds drops, pool, state and versions."""

    path: str = Field(
        description="Folder of drops, pool, state and versions; relative to the working folder."
    )

    @property
    def root(self) -> DataRoot:
        """The data root."""
        return DataRoot(Path(self.path))
