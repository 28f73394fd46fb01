"""Where the data lies and where shards are done, as Dagster resources."""

import os
from pathlib import Path

import dagster as dg
from pydantic import Field

from zip_pipeline.data_root import DataRoot
from zip_pipeline.selection.select import Cluster

DATA_ROOT_VARIABLE = "ZIP_PIPELINE_DATA"
RAY_VARIABLE = "ZIP_PIPELINE_RAY"
SHARDS_VARIABLE = "ZIP_PIPELINE_SHARDS"


def default_data_root() -> Path:
    """Return the folder that ``ZIP_PIPELINE_DATA`` names, else ``data`` in the working folder."""
    return Path(os.environ.get(DATA_ROOT_VARIABLE) or "data")


class DataRootResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder that holds drops, pool, state and versions."""

    path: str = Field(
        description="Folder of drops, pool, state and versions; relative to the working folder."
    )

    @property
    def root(self) -> DataRoot:
        """The data root."""
        return DataRoot(Path(self.path))


class RayClusterResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the shards of a selection with ``num_shards`` above 1 are done."""

    address: str = Field(
        default="",
        description="HOST:PORT of a Ray cluster that runs, local to start one for each "
        "selection, empty to do the shards one after another in the run's own process.",
    )
    shard_folder: str = Field(
        default="",
        description="Where shards lie meanwhile, under the same path on every node; empty for "
        "the data root.",
    )

    @classmethod
    def from_environment(cls) -> "RayClusterResource":
        """Return what ``ZIP_PIPELINE_RAY`` and ``ZIP_PIPELINE_SHARDS`` name."""
        return cls(
            address=os.environ.get(RAY_VARIABLE, ""),
            shard_folder=os.environ.get(SHARDS_VARIABLE, ""),
        )

    @property
    def cluster(self) -> Cluster:
        """Return it as a selection takes it."""
        folder = Path(self.shard_folder) if self.shard_folder else None
        return Cluster(self.address or None, folder)
