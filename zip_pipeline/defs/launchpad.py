"""What a selection can be told in the launchpad, and its defaults per data root."""

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import dagster as dg
from pydantic import ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from zip_pipeline.errors import UserError
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.selection.config import MAX_SHARDS, SelectionConfig
from zip_pipeline.training_file import TRAINING_FILE, read_training_table

DEFAULTS_FILE = "selection.toml"
DEFAULT_BUDGET_TOKENS: dict[Stage, int] = {"sft": 200_000, "preference": 100_000}
_BUDGETS = ("budget_samples", "budget_tokens", "budget_bytes")
_ONE_BUDGET = "Exactly one of the three budgets must be set: give null to the other two."


class Strategy(StrEnum):
    """A way to select."""

    zip = "zip"
    long_range = "long_range"
    random = "random"


class Codec(StrEnum):
    """What measures redundancy."""

    deflate = "deflate"
    zstd = "zstd"


class Quota(dg.Config):
    """The least and the largest share of the budget that one source may take."""

    min_share: float | None = Field(
        default=None, ge=0, le=1, description="Least share of the budget, 0 to 1."
    )
    max_share: float | None = Field(
        default=None, ge=0, le=1, description="Largest share of the budget, 0 to 1."
    )


class SelectionTunables(dg.Config):
    """The launchpad's form of :class:`SelectionConfig`.

    Without ``reference_compat``: that mode takes raw files as they come, not a pool.
    """

    # Defaults come from a file: they are checked and converted like given values.
    model_config = ConfigDict(validate_default=True)

    strategy: Strategy = Field(
        default=Strategy.zip,
        description="zip: the paper's algorithm. long_range: the same rounds over a window that "
        "holds the whole subset. random: a seeded baseline.",
    )
    budget_samples: int | None = Field(
        default=None, ge=0, description=f"Pick at most so many samples (0 and up). {_ONE_BUDGET}"
    )
    budget_tokens: int | None = Field(
        default=None, ge=0, description=f"Pick at most so many tokens (0 and up). {_ONE_BUDGET}"
    )
    budget_bytes: int | None = Field(
        default=None,
        ge=0,
        description=f"Pick at most so many bytes of serialised text (0 and up). {_ONE_BUDGET}",
    )
    k1: int = Field(
        default=10_000,
        ge=1,
        description="Candidate pool: samples of lowest known ratio looked at in a round (1 and "
        "up, k1 >= k2 >= k3).",
    )
    k2: int = Field(
        default=200,
        ge=1,
        description="Shortlist: how many candidates reach the fine stage (1..k1).",
    )
    k3: int = Field(default=100, ge=1, description="Picks per round (1..k2).")
    codec: Codec | None = Field(
        default=None,
        description="What measures redundancy: deflate or zstd. null: deflate for zip, zstd for "
        "long_range.",
    )
    level: int | None = Field(
        default=None,
        ge=1,
        le=22,
        description="Compression level, deflate 1..9, zstd 1..22. null: 9 for deflate, 3 for zstd.",
    )
    overhead_bytes: int = Field(
        default=24,
        ge=0,
        le=1_000_000,
        description="long_range: constant bytes of a compressed piece, left out of its cost "
        "(0..1000000).",
    )
    quotas: dict[str, Quota] = Field(
        default={},
        description="Share of the budget by source, for example {web: {max_share: 0.3}}.",
    )
    num_shards: int = Field(
        default=1,
        ge=1,
        le=MAX_SHARDS,
        description="Select in so many shards, then from what they picked (1..10000): for pools "
        "beyond one machine. Where they are done: resource ray_cluster.",
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Seed of everything random.")

    def selection(self) -> SelectionConfig:
        """Return the checked configuration.

        Raises:
            UserError: not exactly one budget, or fields that do not go together.
        """
        given = [f"{name}={getattr(self, name)}" for name in _BUDGETS if self._has(name)]
        if len(given) != 1:
            raise UserError(f"budget: got {' and '.join(given) or 'none'}. {_ONE_BUDGET}")
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values["strategy"] = self.strategy.value
        values["codec"] = self.codec.value if self.codec else None
        values["quotas"] = {s: (q.min_share, q.max_share) for s, q in self.quotas.items()}
        return SelectionConfig(**values)

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None


def stage_defaults(data_root: Path, stage: Stage) -> dict[str, Any]:
    """Return the launchpad values that ``selection.toml`` of a data root sets for a stage.

    Without the file, or without a budget in its table, the budget is 200,000 tokens for sft
    and 100,000 for preference.

    Raises:
        UserError: the file is no TOML, or a table or field of it is unknown or out of range.
    """
    path = data_root / DEFAULTS_FILE
    values = dict(_read_tables(path).get(stage, {}))
    if not any(name in values for name in _BUDGETS):
        values["budget_tokens"] = DEFAULT_BUDGET_TOKENS[stage]
    unknown = sorted(set(values) - set(SelectionTunables.model_fields))
    if unknown:
        allowed = ", ".join(SelectionTunables.model_fields)
        raise UserError(f"{path}: [{stage}] sets {', '.join(unknown)}; allowed are {allowed}")
    try:
        SelectionTunables(**values).selection()
    except ValueError as error:
        raise UserError(f"{path}: [{stage}]: {error}") from error
    return values


def tunables(data_root: Path, stage: Stage) -> type[SelectionTunables]:
    """Return the configuration class of a stage, with the defaults of this data root.

    A wrong ``selection.toml`` must not keep the graph from loading, and drops from being
    ingested: the launchpad then shows the built-in defaults, and the selection itself fails.
    """
    known = SelectionTunables.model_fields
    try:
        defaults = stage_defaults(data_root, stage)
    except UserError:
        defaults = {"budget_tokens": DEFAULT_BUDGET_TOKENS[stage]}
    fields: dict[str, Any] = {
        name: (known[name].annotation, FieldInfo.merge_field_infos(known[name], default=value))
        for name, value in defaults.items()
    }
    return create_model(f"{stage.title()}Selection", __base__=SelectionTunables, **fields)


def default_selection(data_root: Path, stage: Stage) -> SelectionConfig:
    """Return what a selection does when nothing is changed in the launchpad.

    Raises:
        UserError: see :func:`stage_defaults`.
    """
    return SelectionTunables(**stage_defaults(data_root, stage)).selection()


def default_op_config(data_root: Path, stage: Stage) -> dict[str, Any]:
    """Return every launchpad value as the file sets it now, whatever it said at load time.

    Raises:
        UserError: see :func:`stage_defaults`.
    """
    return SelectionTunables(**stage_defaults(data_root, stage)).model_dump(mode="json")


def _read_tables(path: Path) -> Mapping[str, Mapping[str, Any]]:
    if not path.exists():
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid TOML in UTF-8: {error}") from error
    wrong = [key for key, value in tables.items() if key not in STAGES or not _is_table(value)]
    if wrong:
        raise UserError(
            f"{path}: got {', '.join(wrong)}; allowed are the tables "
            f"{', '.join(f'[{stage}]' for stage in STAGES)}"
        )
    return cast("Mapping[str, Mapping[str, Any]]", tables)


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


TABLE = "training"
_JOB_NAMES = ("preset", "overrides", "num_devices")
_NAMES = (*_JOB_NAMES, "sft_model")
OVERRIDE = Field(
    default="",
    description="To train a version that the entropy law blocks: why, and who says so. It is "
    "recorded with the version for good. Empty: the verdict holds.",
)


class TrainingTunables(dg.Config):
    """How a stage is probed and trained."""

    preset: str = Field(
        default="tiny",
        description="tiny (small, offline), mistral-7b, llama-3-8b, or the path of a TOML file.",
    )
    overrides: dict[str, Any] = Field(
        default={},
        description='Settings of the preset to replace, as {"model": "/models/mine", '
        '"sft.learning_rate": 1e-5}; `zip-pipeline train-plan` shows what they come to.',
    )
    num_devices: int = Field(
        default=1, ge=1, description="GPUs of this machine that train together (1 and up)."
    )
    sft_model: str = Field(
        default="",
        description="preference/model only: folder of an SFT model to start from. Empty: the "
        "newest one of this data root.",
    )
    override: str = OVERRIDE

    def job(self) -> dict[str, Any]:
        """Return the part of a training job that the launchpad decides."""
        return {name: getattr(self, name) for name in _JOB_NAMES}


def training_defaults(data_root: Path) -> dict[str, Any]:
    """Return the launchpad values that the table [training] of ``training.toml`` sets.

    Raises:
        UserError: the file is wrong (see :func:`.read_training_table`), or a field of the table
            is unknown or out of range.
    """
    path = data_root / TRAINING_FILE
    values = read_training_table(data_root, TABLE) or {}
    unknown = sorted(set(values) - set(_NAMES))
    if unknown:
        raise UserError(
            f"{path}: [{TABLE}] sets {', '.join(unknown)}; allowed are {', '.join(_NAMES)}"
        )
    try:
        TrainingTunables(**values)
    except ValueError as error:
        raise UserError(f"{path}: [{TABLE}]: {error}") from error
    return values


def training_tunables(data_root: Path) -> type[TrainingTunables]:
    """Return the launchpad's form with the defaults of a data root.

    A wrong file must not take the whole code location down: the form then shows the built-in
    defaults, and probe and training themselves fail.
    """
    try:
        defaults = training_defaults(data_root)
    except UserError:
        defaults = {}
    known = TrainingTunables.model_fields
    fields: dict[str, Any] = {
        name: (known[name].annotation, FieldInfo.merge_field_infos(known[name], default=value))
        for name, value in defaults.items()
    }
    return create_model("Training", __base__=TrainingTunables, **fields)


def training_op_config(data_root: Path) -> dict[str, Any]:
    """Return every launchpad value as the file sets it now, whatever it said at load time.

    Raises:
        UserError: see :func:`training_defaults`.
    """
    return TrainingTunables(**training_defaults(data_root)).model_dump(mode="json")
