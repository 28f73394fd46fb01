"""What a selection is asked to do."""

import json
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import Field, field_validator, model_validator
from pydantic.config import JsonDict

from zip_pipeline.compression.codecs import check_codec, codecs, selection_codecs
from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.samples import Stage
from zip_pipeline.selection.strategies import Strategy, strategies
from zip_pipeline.settings import (
    MAX_NUMBER,
    SETTINGS_FILE,
    Choices,
    Settings,
    read_settings,
    read_table,
    write_table,
)
from zip_pipeline.signals import check_signals, signals

BUDGET_UNITS = ("samples", "tokens", "target_tokens", "bytes")
TOKEN_UNITS = ("tokens", "target_tokens")
BUDGETS = tuple(f"budget_{unit}" for unit in BUDGET_UNITS)
DEFAULT_BUDGET_TOKENS: dict[Stage, int] = {"sft": 200_000, "preference": 100_000}
_ROUNDING = 1e-9
MAX_SHARDS = 1000
# The shards of a selection together pick so many times the budget.
SHARD_OVERSAMPLING = 2

MIXTURES = {
    "none": "as it comes",
    "natural": "its share of the pool, in the unit of the budget",
    "equal": "as much as any other",
}

_OWN_TO_SOME = ("beta", "quality", "quality_power", "tag_cosine", "target")

BUDGET: JsonDict = {"group": "Budget (give exactly one)", "metavar": "N|SHARE%"}
_STRATEGY: JsonDict = {"group": "Strategy"}
_MEASURING: JsonDict = {"group": "Measuring"}


def _budget(description: str) -> Any:  # noqa: ANN401
    return Field(default=None, description=description, json_schema_extra=BUDGET)


ALLOWED_BUDGETS = "1 to 2^63 - 1, or a share of the pool such as 20%"
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?) ?%", re.ASCII)


def budget_share(value: object) -> Fraction | None:
    """Return what share of the pool a budget such as ``20%`` is, 0 to 1; None for a number."""
    found = _SHARE.fullmatch(value) if isinstance(value, str) else None
    return Fraction(found[1]) / 100 if found else None


def as_typed_budget(text: str) -> int | str:
    """Return a budget as a person types it: a number where it is one."""
    try:
        return int(text)
    except ValueError:
        return text


def check_budget(value: int | str | None) -> int | str | None:
    """Return a budget as it was given.

    Raises:
        UserError: it is neither a whole number, 1 and up, nor a share of the pool up to 100%.
    """
    share = budget_share(value)
    is_share = share is not None and 0 < share <= 1
    is_number = type(value) is int and 1 <= value <= MAX_NUMBER
    if not (value is None or is_share or is_number):
        raise UserError(f"got {value!r}; allowed are whole numbers, {ALLOWED_BUDGETS}")
    return value


class SelectionConfig(Settings):
    """A strategy, one budget and the strategy's parameters.

    The fields are the one declaration of all options: those of ``zip-pipeline select``, of the
    launchpad and of the tables ``[sft]`` and ``[preference]`` are made from them.

    Raises:
        UserError: a field outside its range, or not exactly one budget.

    Source: ZIP, algorithm 1 and section 5.1 for k1, k2 and k3.
    """

    choices: ClassVar[Choices] = {
        "strategy": lambda: {strategy.name: strategy.description for strategy in strategies},
        "codec": lambda: dict.fromkeys(selection_codecs(), ""),
        "mixture": lambda: MIXTURES,
    }

    strategy: str = Field(
        default="coverage", description="How to select.", json_schema_extra=_STRATEGY
    )
    budget_samples: int | str | None = _budget("Most samples to pick.")
    budget_tokens: int | str | None = _budget("Most tokens to pick.")
    budget_target_tokens: int | str | None = _budget(
        "Most tokens to pick of those that the loss falls on."
    )
    budget_bytes: int | str | None = _budget("Most bytes of serialised text to pick.")
    k1: int = Field(
        default=10_000,
        ge=1,
        description="Candidate pool: samples of lowest known ratio that are measured anew in a "
        "round.",
        json_schema_extra=_STRATEGY,
    )
    k2: int = Field(
        default=200,
        ge=1,
        description="Shortlist: candidates that reach the fine stage, at most k1.",
        json_schema_extra=_STRATEGY,
    )
    k3: int = Field(
        default=100,
        ge=1,
        description="Picks per round, at most k2.",
        json_schema_extra=_STRATEGY,
    )
    codec: str | None = Field(
        default=None,
        description="What measures redundancy; if not given, deflate for zip and zstd for "
        "long_range.",
        json_schema_extra=_MEASURING,
    )
    level: int | None = Field(
        default=None,
        description="Compression level, deflate 1 to 9, zstd 1 to 22; if not given, 9 for deflate "
        "and 3 for zstd.",
        json_schema_extra=_MEASURING,
    )
    overhead_bytes: int = Field(
        default=24,
        ge=0,
        le=1_000_000,
        description="long_range: constant bytes per compressed piece, left out of its size.",
        json_schema_extra=_MEASURING,
    )
    quotas: dict[str, tuple[float | None, float | None]] = Field(
        default={},
        description="Least and largest share of the budget by source, 0 to 1, for example "
        "{web: {min_share: 0.1, max_share: 0.3}}.",
        json_schema_extra=_STRATEGY,
    )
    mixture: str | None = Field(
        default=None,
        description="What share of the budget each source gets. What a source cannot fill goes to "
        "the others. If not given, natural for coverage, long_range and random_balanced, else "
        "none. In a pool of one source, or mostly of sources of a few samples, clusters of "
        "samples with like words stand in for sources, unless quotas or mixture_weights name some.",
        json_schema_extra=_STRATEGY,
    )
    mixture_temperature: float = Field(
        default=1.0,
        gt=0,
        description="Of the natural mixture: shares are raised to 1 / temperature, so that above "
        "1 small sources get more.",
        json_schema_extra=_STRATEGY,
    )
    mixture_weights: dict[str, float] = Field(
        default={},
        description="By source: what its share of the mixture is multiplied by, for example "
        "{maths: 2, web: 0.5}.",
        json_schema_extra=_STRATEGY,
    )
    shares_by: str | None = Field(
        default=None,
        description="What quotas and the mixture share the budget out to, instead of sources: what "
        "a signal tells in words, such as signals.language.language; samples of which it tells "
        "nothing are unknown.",
        json_schema_extra=_STRATEGY | {"metavar": "NAME"},
    )
    beta: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="coverage, target_coverage: 0 rewards words that are new to the subset, 1 "
        "those that are typical of the average source, or of the target; if not given, 1.",
        json_schema_extra=_STRATEGY,
    )
    quality: str | None = Field(
        default=None,
        description="score, alpagasus, deita, car: what they select by; long_range, coverage, mig: "
        "what a sample adds is multiplied by it; facility_location adds it. A number of the "
        "records, such as meta.score, a product of some, such as meta.quality * meta.complexity, "
        "what a signal tells, such as signals.judge.rating, or a .parquet or .csv file with the "
        "columns sample_id and score.",
        json_schema_extra=_STRATEGY | {"metavar": "NAME"},
    )
    quality_power: float | None = Field(
        default=None,
        gt=0,
        description="The power to which quality is raised; if not given, 1.",
        json_schema_extra=_STRATEGY,
    )
    tag_cosine: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="mig: the least cosine of two tags, from which on what is told of one counts "
        "for the other as well; if not given, 0.9.",
        json_schema_extra=_STRATEGY,
    )
    target: str | None = Field(
        default=None,
        description="For strategies that select by a target: file of such samples, in any format "
        "that is read.",
        json_schema_extra=_STRATEGY | {"metavar": "FILE"},
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=MAX_NUMBER,
        description="Seed of all that is random.",
        json_schema_extra=_STRATEGY,
    )
    num_shards: int = Field(
        default=1,
        ge=1,
        le=MAX_SHARDS,
        description="Select in so many shards, then from what they picked: for pools beyond one "
        "machine.",
        json_schema_extra=_STRATEGY,
    )
    noise_guard: bool | None = Field(
        default=None,
        description="Mark noise, such as base64, word salad and minified code: it takes no part. "
        "If not given, on, but for zip and the random ones.",
        json_schema_extra=_STRATEGY,
    )
    trusted: str | None = Field(
        default=None,
        description="File of trusted samples: how compressible an answer may be is taken from it "
        "instead of from the pool.",
        json_schema_extra=_STRATEGY | {"metavar": "FILE"},
    )
    signals: dict[str, dict[str, Any]] = Field(
        default={},
        description="Settings of signals, for example {embedding: {model: wordllama}}. Those that "
        "mark samples are switched on by it, such as {near_duplicates: {}}.",
        json_schema_extra=_STRATEGY,
    )
    reference_compat: bool = Field(
        default=False,
        description="Pick as the published code does: every row as it comes, no quarantine, no "
        "deduplication, budget overshot to a multiple of k3; whole shortlists are used up, so a "
        "small pool may end first.",
        json_schema_extra=_STRATEGY,
    )

    @field_validator(*BUDGETS, mode="before")
    @classmethod
    def _is_budget(cls, value: int | str | None) -> int | str | None:
        return check_budget(value)

    @classmethod
    def allowed(cls, name: str) -> str:
        """Return what a field takes; see :meth:`.Settings.allowed`."""
        return ALLOWED_BUDGETS if name in BUDGETS else super().allowed(name)

    @field_validator("quotas", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {source: _shares(source, shares) for source, shares in value.items()}

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:  # noqa: ANN401
        """Take the paper's strategy for the mode of its published code."""
        if isinstance(values, dict) and values.get("reference_compat"):
            return {"strategy": "zip"} | values
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._check_budget()
        if not self.k3 <= self.k2 <= self.k1:
            raise UserError(
                f"k1, k2, k3: got {self.k1}, {self.k2}, {self.k3}; needed is k1 >= k2 >= k3"
            )
        check_codec(self.resolved_codec, self.resolved_level)
        self._check_quotas()
        self._check_mixture()
        self._strategy.check(self)
        check_signals(self.signals)
        if self.trusted is not None and not self.guards_noise:
            raise UserError(
                f"trusted: got {self.trusted!r}, and strategy {self.strategy} has no noise guard; "
                "turn noise_guard on, or leave trusted out"
            )
        if self.reference_compat:
            self._check_reference()
        return self

    def _check_budget(self) -> None:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise UserError(f"budget: got {found}; give exactly one of {', '.join(BUDGETS)}")

    def _check_quotas(self) -> None:
        for source, (least, largest) in self.quotas.items():
            low, high = (0.0 if least is None else least), (1.0 if largest is None else largest)
            if not 0 <= low <= high <= 1:
                raise UserError(
                    f"quotas: of source {source!r}: got minimum {least} and maximum {largest}; "
                    "allowed are shares with 0 <= minimum <= maximum <= 1"
                )
        minimums = sum(least or 0 for least, _ in self.quotas.values())
        if minimums > 1 + _ROUNDING:
            raise UserError(
                f"quotas: the minimums add up to {minimums:.3g} of the budget; allowed is at most 1"
            )

    def _check_mixture(self) -> None:
        if self.shares_by is not None:
            told = [
                f"signals.{signal.name}.{column}"
                for signal in signals
                for column, dtype in signal.columns.items()
                if dtype == pl.String
            ]
            if self.shares_by not in told:
                raise UserError(
                    f"shares_by: got {self.shares_by!r}; allowed are {', '.join(sorted(told))}"
                )
        for source, weight in self.mixture_weights.items():
            if not 0 <= weight < math.inf:
                raise UserError(
                    f"mixture_weights: got {weight} for source {source!r}; allowed are numbers, 0 "
                    "and up"
                )
        if self.resolved_mixture == "none" and (
            self.mixture_weights or self.mixture_temperature != 1
        ):
            raise UserError(
                "mixture: got weights or a temperature, and no mixture; give mixture natural or "
                "equal as well"
            )

    def _check_reference(self) -> None:
        if not self._strategy.uses("reference_compat") or self.unit != "samples" or self.quotas:
            raise UserError(
                "reference_compat: the published implementation knows strategy zip with "
                "budget_samples and no quotas only; leave reference_compat off for the rest"
            )
        if self.resolved_mixture != "none":
            raise UserError(
                f"reference_compat: got mixture {self.mixture!r}; the published implementation "
                "knows none, leave it out"
            )
        if self.guards_noise:
            raise UserError(
                "reference_compat: got noise_guard; the published implementation takes every row, "
                "leave noise_guard off"
            )
        if self.num_shards > 1:
            raise UserError(
                f"reference_compat: got {self.num_shards} shards; the published implementation "
                "knows none, leave num_shards at 1"
            )
        if (self.resolved_codec, self.resolved_level) != ("deflate", 9):
            raise UserError(
                f"reference_compat: got codec {self.resolved_codec!r} at level "
                f"{self.resolved_level}; the published implementation knows deflate at 9 only"
            )

    @property
    def unit(self) -> str:
        """The unit of the budget, one of ``BUDGET_UNITS``."""
        return next(u for u in BUDGET_UNITS if getattr(self, f"budget_{u}") is not None)

    @property
    def asked_budget(self) -> int | str:
        """The budget as it was given, in its unit or as a share of the pool."""
        value: int | str = getattr(self, f"budget_{self.unit}")
        return value

    @property
    def budget(self) -> int:
        """The budget, in its unit; a share of the pool is none before :meth:`of_pool`."""
        value = self.asked_budget
        assert isinstance(value, int), f"the pool settles a budget of {value}"
        return value

    def of_pool(self, supply: int) -> "SelectionConfig":
        """Return the configuration with a number as its budget.

        Args:
            supply: what the samples that may be picked hold together, in the unit of the budget; a
                share of it is rounded down.
        """
        if (share := budget_share(self.asked_budget)) is None:
            return self
        return self.model_copy(update={f"budget_{self.unit}": int(share * supply)})

    @property
    def resolved_codec(self) -> str:
        """The codec, with the strategy's default filled in."""
        return self.codec or self._strategy.codec

    @property
    def resolved_level(self) -> int:
        """The level, with the codec's default filled in."""
        level = codecs[self.resolved_codec].selection_level if self.level is None else self.level
        assert level is not None
        return level

    @property
    def resolved_mixture(self) -> str:
        """The mixture, with the strategy's default filled in."""
        return self.mixture or self._strategy.mixture

    @property
    def weight_of_source(self) -> Callable[[str, int], float] | None:
        """What a source with a supply, in budget units, weighs in the mixture; None without one."""
        if self.resolved_mixture == "none":
            return None

        def weight(source: str, supply: int) -> float:
            is_natural = self.resolved_mixture == "natural"
            share = float(supply if is_natural else supply > 0)
            tempered: float = share ** (1 / self.mixture_temperature)
            return tempered * self.mixture_weights.get(source, 1.0)

        return weight

    def with_mixture_of(self, supply: Mapping[str, int]) -> "SelectionConfig":
        """Return the configuration for parts of a pool whose sources have this supply."""
        weigh = self.weight_of_source
        if weigh is None:
            return self
        weights = {source: weigh(source, has) for source, has in supply.items()}
        settled = {"mixture": "equal", "mixture_temperature": 1.0, "mixture_weights": weights}
        return self.model_copy(update=settled)

    @property
    def guards_noise(self) -> bool:
        """Whether noise is marked, with the strategy's default filled in."""
        return self._strategy.guards_noise if self.noise_guard is None else self.noise_guard

    @property
    def needed_signals(self) -> tuple[str, ...]:
        """The names of the signals that the strategy, its quality and the shares are told by."""
        others = (self.quality_signal, _told_by(self.shares_by))
        names = [place[0] for place in others if place is not None]
        return tuple(dict.fromkeys((*self._strategy.signals, *names)))

    @property
    def shares_signal(self) -> tuple[str, str] | None:
        """Signal and column that ``shares_by`` names; None where sources share the budget."""
        return _told_by(self.shares_by)

    @property
    def marking_signals(self) -> tuple[str, ...]:
        """The names of the signals with settings that say which samples take no part."""
        return tuple(name for name in sorted(self.signals) if signals[name].fate)

    @property
    def embeds_tags(self) -> bool:
        """Whether the strategy asks for the vectors of tags."""
        return self._strategy.embeds_tags

    @property
    def told_signals(self) -> tuple[str, ...]:
        """The needed signals, and the one whose model gives the vectors of tags."""
        return tuple(dict.fromkeys((*self.needed_signals, *("embedding",) * self.embeds_tags)))

    @property
    def quality_signal(self) -> tuple[str, str] | None:
        """Signal and column that ``quality`` names as ``signals.NAME.COLUMN``; None otherwise."""
        return _told_by(self.heeded("quality"))

    @property
    def is_sharded(self) -> bool:
        """Whether the pool is split into shards; some strategies pay no heed to them."""
        return self.num_shards > 1 and self._strategy.uses("num_shards")

    @property
    def _strategy(self) -> Strategy:
        return strategies[self.strategy]

    def heeded(self, name: str) -> Any:  # noqa: ANN401
        """Return the value of an option, None where the strategy has no use for it."""
        return getattr(self, name) if self._strategy.uses(name) else None

    def for_a_shard(self) -> "SelectionConfig":
        """Return the configuration of each shard: together they pick twice the budget, or it all.

        Source: GreeDi (Mirzasoleiman et al. 2013): greedy in every shard, then over their union.
        Deviation: each shard picks 2 / num_shards of the budget instead of the whole of it.
        """
        share = min(self.budget, -(-SHARD_OVERSAMPLING * self.budget // self.num_shards))
        return self.model_copy(update={"num_shards": 1, f"budget_{self.unit}": share})

    def as_dict(self) -> dict[str, object]:
        """Return the fields, codec and level filled in, as JSON can hold them.

        Without a mixture or a noise guard none of its fields is there, and of those that only some
        strategies heed the ones that make a difference.
        """
        quotas = {source: list(shares) for source, shares in sorted(self.quotas.items())}
        filled = {"codec": self.resolved_codec, "level": self.resolved_level, "quotas": quotas}
        values = self.model_dump() | filled | {"mixture": self.resolved_mixture}
        for name in _OWN_TO_SOME:
            if self.heeded(name) is None:
                del values[name]
        if self.shares_by is None:
            del values["shares_by"]
        del values["signals"]
        if asked := sorted({*self.told_signals, *self.marking_signals}):
            values["signals"] = {name: self.signals.get(name, {}) for name in asked}
        del values["noise_guard"]
        if self.guards_noise:
            values["noise_guard"] = True
        if self.trusted is None:
            del values["trusted"]
        has_mixture = self.resolved_mixture != "none"
        return {n: value for n, value in values.items() if has_mixture or "mixture" not in n}

    def fingerprint(self) -> str:
        """Return a hash of the configuration."""
        values = self.as_dict()
        # What gave no such budget keeps the hash that it had before there was one.
        if self.budget_target_tokens is None:
            del values["budget_target_tokens"]
        return fingerprint([json.dumps(values, sort_keys=True)])


def _told_by(path: str | None) -> tuple[str, str] | None:
    """Return signal and column of ``signals.NAME.COLUMN``, None for any other text."""
    prefix, _, rest = (path or "").partition(".")
    name, _, column = rest.partition(".")
    return (name, column) if prefix == "signals" else None


def _shares(source: str, shares: object) -> object:
    """Return a table with ``min_share`` and ``max_share`` as a pair, and a list as a tuple."""
    if isinstance(shares, Mapping):
        if not set(shares) <= {"min_share", "max_share"}:
            raise UserError(
                f"{source}: got {', '.join(map(str, shares))}; allowed are min_share and max_share"
            )
        return shares.get("min_share"), shares.get("max_share")
    return tuple(shares) if isinstance(shares, list) else shares


class MixtureSettings(Settings):
    """The mixture of both stages, the table ``[mixture]``; a stage's own table overrides it."""

    choices: ClassVar[Choices] = {"shares": lambda: MIXTURES}

    shares: str | None = Field(default=None, description="As mixture.")
    temperature: float = Field(default=1.0, gt=0, description="As mixture_temperature.")
    weights: dict[str, float] = Field(default={}, description="As mixture_weights.")
    quotas: dict[str, Any] = Field(default={}, description="As quotas.")

    def as_options(self) -> dict[str, Any]:
        """Return the fields of :class:`SelectionConfig` that the table sets."""
        names = {name: f"mixture_{name}" for name in ("temperature", "weights")}
        names |= {"shares": "mixture", "quotas": "quotas"}
        return {names[name]: value for name, value in self.model_dump(exclude_unset=True).items()}


def stage_selection(
    data_root: Path, stage: Stage, changes: Mapping[str, Any] | None = None
) -> SelectionConfig:
    """Return what the table of a stage in ``zip_pipeline.toml`` says, with some values changed.

    Where the table sets no budget it is 200,000 tokens for sft and 100,000 for preference. A
    changed budget takes the place of the table's, whatever the units.

    Raises:
        UserError: the file is wrong, or a value unknown or out of range; ``reference_compat`` is,
            as that mode takes raw files as they come, not a pool.
    """
    path, values = read_table(data_root, stage) or (data_root, {})
    if values.get("reference_compat"):
        raise UserError(
            f"{path}: [{stage}] reference_compat: takes raw files, not a pool. Remove it, and use "
            "zip-pipeline select"
        )
    has_budget = any(name in values for name in BUDGETS)
    defaults = read_settings(data_root, "mixture", MixtureSettings).as_options()
    if (given := read_table(data_root, "signals")) is not None:
        defaults["signals"] = given[1]
    if not has_budget:
        defaults["budget_tokens"] = DEFAULT_BUDGET_TOKENS[stage]
    changes = dict(changes or {})
    if any(name in changes for name in BUDGETS):
        changes = {**dict.fromkeys(BUDGETS), **changes}
    return read_settings(data_root, stage, SelectionConfig, changes=changes, defaults=defaults)


def make_default(data_root: Path, stage: Stage, changes: Mapping[str, Any]) -> None:
    """Write changed values into the table of a stage in ``zip_pipeline.toml``.

    A budget takes the place of the one that stands there.

    Raises:
        UserError: as :func:`stage_selection`, or the table stands in a file of an older release.
    """
    stage_selection(data_root, stage, changes)
    others = dict.fromkeys(BUDGETS) if any(name in changes for name in BUDGETS) else {}
    write_table(data_root, stage, {**others, **changes})


def one_off(data_root: Path, stage: Stage, changes: Mapping[str, Any]) -> str:
    """Return in words that changed values count for one selection alone; empty where none differ.

    Raises:
        UserError: as :func:`stage_selection`.
    """
    usual, wanted = stage_selection(data_root, stage), stage_selection(data_root, stage, changes)
    if usual == wanted:
        return ""
    given = ", ".join(f"{name} {value}" for name, value in changes.items())
    return (
        f"One-off: {given} of the launchpad count for this run alone. The next nightly run selects "
        f"by {SETTINGS_FILE} again (strategy {usual.strategy}, budget_{usual.unit} "
        f"{usual.asked_budget}). To keep them, launch with make_default: true"
    )
