"""What runs are given: the data root and the Ray cluster, and options from the launchpad."""

import os
from enum import Enum
from pathlib import Path
from typing import Any, get_origin

import dagster as dg
from pydantic import Field, create_model

from zip_pipeline.data_root import DataRoot
from zip_pipeline.selection.config import BUDGETS, SelectionConfig
from zip_pipeline.selection.select import Cluster
from zip_pipeline.settings import SETTINGS_FILE, Settings, TrainingSettings
from zip_pipeline.store import local_folder

DATA_ROOT_VARIABLE = "ZIP_PIPELINE_DATA"
RAY_VARIABLE = "ZIP_PIPELINE_RAY"
SHARDS_VARIABLE = "ZIP_PIPELINE_SHARDS"


def default_data_root() -> Path:
    """Return the folder that ``ZIP_PIPELINE_DATA`` names, else ``data`` in the working folder."""
    return local_folder(Path(os.environ.get(DATA_ROOT_VARIABLE) or "data"))


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


_EMPTY = f"Empty: what {SETTINGS_FILE} says."


class _Options(dg.Config):
    """Options that are empty unless somebody gives them."""

    def given(self) -> dict[str, Any]:
        """Return the options that somebody gave, by name."""
        values = {name: value for name, value in self if value is not None}
        return {n: value.value if isinstance(value, Enum) else value for n, value in values.items()}


def _type_of(kind: type[Settings], name: str) -> Any:  # noqa: ANN401
    """Return the type of a field in the launchpad, which checks as much before it launches."""
    annotation: Any = kind.model_fields[name].annotation
    if name in kind.choices:
        # Through Any: a type checker wants to know the names of an enumeration.
        enumeration: Any = Enum
        return enumeration(name, [(choice, choice) for choice in kind.choices[name]()]) | None
    if name in BUDGETS:
        # A number or a share: Dagster knows no choice of types.
        return Any
    # Dagster knows dictionaries of anything, and no tuples in them.
    return (dict[str, Any] if get_origin(annotation) is dict else annotation) | None


def _options_of(
    kind: type[Settings], base: type[_Options] = _Options, *, without: tuple[str, ...] = ()
) -> Any:  # noqa: ANN401
    """Return the launchpad's form of settings, made from their fields."""
    fields: dict[str, Any] = {}
    for name in kind.model_fields:
        allowed = kind.allowed(name)
        words = f"{kind.about(name)} {f'Allowed: {allowed}. ' if allowed else ''}{_EMPTY}"
        if name not in without:
            fields[name] = (_type_of(kind, name), Field(default=None, description=words))
    return create_model(f"{kind.__name__}Options", __base__=base, **fields)


class _SelectionOptions(_Options):
    """What is asked besides the options of a selection."""

    make_default: bool = Field(
        default=False,
        description=f"Whether to write what is given here into the stage's table of "
        f"{SETTINGS_FILE}, so that it counts for the nightly run as well. Otherwise it counts for "
        "this run alone.",
    )

    def given(self) -> dict[str, Any]:
        """Return the options that somebody gave, without what becomes of them."""
        return {name: value for name, value in super().given().items() if name != "make_default"}


def selection_options() -> type[_SelectionOptions]:
    """Return what a selection can be told; ``reference_compat`` takes raw files, not a pool.

    It is made anew, with the strategies and codecs that are registered by now.
    """
    kind: type[_SelectionOptions] = _options_of(
        SelectionConfig, _SelectionOptions, without=("reference_compat",)
    )
    return kind


class TrainingOptions(_options_of(TrainingSettings)):  # type: ignore[misc]
    """How a stage is probed and trained."""

    override: str = Field(
        default="",
        description="To train a version that the entropy law blocks: why, and who says so. It is "
        "recorded with the version for good. Empty: the verdict holds.",
    )

    def given(self) -> dict[str, Any]:
        """Return the options that somebody gave, without the override, which no file has."""
        return {name: value for name, value in super().given().items() if name != "override"}
