"""What the launchpad offers: the fields of the settings, each of which may stay empty."""

from typing import Any, get_origin

import dagster as dg
from pydantic import Field, create_model

from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.settings import SETTINGS_FILE, Settings, TrainingSettings

_EMPTY = f"Empty: what {SETTINGS_FILE} says."


class _Options(dg.Config):
    """Options that are empty unless somebody gives them."""

    def given(self) -> dict[str, Any]:
        """Return the options that somebody gave, by name."""
        return {name: value for name, value in self if value is not None}


def _options_of(kind: type[Settings], *, without: tuple[str, ...] = ()) -> Any:  # noqa: ANN401
    """Return the launchpad's form of settings, made from their fields."""
    fields: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        allowed = kind.allowed(name)
        words = f"{kind.about(name)} {f'Allowed: {allowed}. ' if allowed else ''}{_EMPTY}"
        # Dagster knows dictionaries of anything, and no tuples in them.
        type_: Any = dict[str, Any] if get_origin(field.annotation) is dict else field.annotation
        if name not in without:
            fields[name] = (type_ | None, Field(default=None, description=words))
    return create_model(f"{kind.__name__}Options", __base__=_Options, **fields)


class SelectionOptions(_options_of(SelectionConfig, without=("reference_compat",))):  # type: ignore[misc]
    """What a selection can be told; ``reference_compat`` takes raw files, not a pool."""


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
