"""What all runs of a comparison share: settings, budget, and what nothing is trained on."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, field_validator

from zip_pipeline.chat_models import model_identity
from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.errors import UserError, require
from zip_pipeline.files import fingerprint, write_json, write_table
from zip_pipeline.pool.held_out import (
    HeldOutSettings,
    held_out_settings,
    is_held_out,
    read_held_out,
)
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.report.comparison import WHERE, YARDSTICK, Measure
from zip_pipeline.samples import Stage
from zip_pipeline.selection.config import (
    ALLOWED_BUDGETS,
    MIXTURES,
    TOKEN_UNITS,
    SelectionConfig,
    budget_share,
    check_budget,
    stage_selection,
)
from zip_pipeline.selection.strategies import strategies
from zip_pipeline.settings import MAX_NUMBER, Choices, Settings, read_settings, training_settings
from zip_pipeline.training.presets import load_preset
from zip_pipeline.training.tokens import configured_tokens
from zip_pipeline.training.trainers import DEFAULT_TRAINERS, Trainer, trainer_for
from zip_pipeline.workflow.models import starting_model
from zip_pipeline.workflow.sources import target_samples
from zip_pipeline.workflow.versions import pool_inputs, recount, refuse_none

TABLES: Mapping[Stage, str] = {"sft": "comparison", "preference": "preference_comparison"}
MAX_SEEDS = 5
_USUAL = (YARDSTICK, "random", "zip", "long_range", "coverage")
_USUAL_WITH_TARGET = ("target_coverage", "zip_fit", "dsir")
_LEAST_TARGET = 4
_SHARE_OF_POOL = 0.2
_LEAST_SOURCES, _UNSEEN_SHARE = 5, 0.2
# Of a source so many samples at most are evaluated.
_MOST_OF_SOURCE: Mapping[str, int] = {"unseen": 150, "seen": 40}
_SEEN = HeldOutSettings(share=0.05, min_source_samples=20, max_source_samples=40)
Log = Callable[[str], object]


class ComparisonSettings(Settings):
    """What is compared: the tables ``[comparison]`` and ``[preference_comparison]``."""

    choices: ClassVar[Choices] = {
        "unit": lambda: {"tokens": "", "target_tokens": "those that the loss falls on"}
    }

    strategies: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Each a STRATEGY or STRATEGY+MIXTURE; if not given, random+natural, random, "
        "zip, long_range, coverage, and with a target target_coverage, zip_fit and dsir. "
        "random+natural is always compared.",
    )
    seeds: int = Field(
        default=3,
        ge=1,
        le=MAX_SEEDS,
        description="How often everything is drawn anew; a verdict takes two.",
    )
    budget_tokens: int | str | None = Field(
        default=None,
        description="What each strategy may pick, in the unit; if not given, a fifth of the pool, "
        "or the share of it that the nightly run selects where that is less.",
    )
    unit: str = Field(default="tokens", description="What all get as much of.")
    unseen_sources: tuple[str, ...] | None = Field(
        default=None,
        strict=False,
        description="Sources that nothing is trained on; if not given, a fifth of them is drawn "
        "where there are 5 or more.",
    )
    target: str = Field(
        default="",
        description="File of samples like those that the model is for (in the settings its "
        "place is seen from the data root). Strategies that select by a target are told of one "
        "half; a quarter chooses the best one, and a quarter reports.",
    )
    evaluation_samples: int | None = Field(
        default=None,
        ge=2,
        le=MAX_NUMBER,
        description="Of each set so many samples at most are evaluated, from all of its sources; "
        "fewer take less time. If not given, up to 150 of an unseen source and 40 of a seen one.",
    )

    @field_validator("budget_tokens", mode="before")
    @classmethod
    def _is_budget(cls, value: int | str | None) -> int | str | None:
        return check_budget(value)

    @classmethod
    def allowed(cls, name: str) -> str:
        """Return what a field takes; see :meth:`.Settings.allowed`."""
        return ALLOWED_BUDGETS if name == "budget_tokens" else super().allowed(name)

    @field_validator("strategies")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            strategy, plus, mixture = name.partition("+")
            if strategies[strategy] and plus and mixture not in MIXTURES:
                raise UserError(
                    f"got {name!r}; allowed mixtures are {', '.join(MIXTURES)}, as in {YARDSTICK}"
                )
        return names

    def names(self) -> list[str]:
        """Return the strategies to compare, the yardstick first."""
        usual = (*_USUAL, *(_USUAL_WITH_TARGET if self.target else ()))
        usual = tuple(name for name in usual if name.partition("+")[0] in strategies)
        return list(dict.fromkeys((YARDSTICK, *(self.strategies or usual))))


@dataclass(frozen=True)
class Comparison:
    """A comparison on disk: what all of its runs share.

    Args:
        root: the data root.
        stage: of the pool and of the models.
        folder: holds all of it, named after a hash of what the runs depend on but for strategy and
            seed: so more strategies and seeds go on with the same comparison.
        settings: what is compared.
        job: what every training process is told, but for subset, output and seed.
        plan: the contents of plan.json.
    """

    root: DataRoot
    stage: Stage
    folder: Path
    settings: ComparisonSettings
    job: Mapping[str, Any]
    plan: Mapping[str, Any]

    @property
    def trainer(self) -> Trainer:
        """What trains every model."""
        return trainer_for(self.stage, self.job["trainer"])

    def run(self, strategy: str, seed: int) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / f"{strategy}-{seed}"

    def wanted(self) -> dict[Path, tuple[str, int]]:
        """Return strategy and seed of the runs that the settings ask for, by their folders."""
        seeds, names = range(self.settings.seeds), self.settings.names()
        return {self.run(name, seed): (name, seed) for seed in seeds for name in names}

    def held(self, name: str) -> Path:
        """Return a table of samples that nothing is trained on."""
        return self.folder / "held" / f"{name}.parquet"

    @property
    def is_tiny(self) -> bool:
        """Whether the model that is trained is the one that ships with this package."""
        return bool(self.plan["preset"]["model"] == "tiny")

    @property
    def evaluated(self) -> list[str]:
        """The sets of samples that every model is evaluated on."""
        return [name for name in self.plan["num_held"] if name != "target_told"]

    @cached_property
    def held_ids(self) -> pl.Series:
        """The ids of all samples that nothing is trained on."""
        tables = [
            pl.read_parquet(self.held(n), columns=["sample_id"]) for n in self.plan["num_held"]
        ]
        return pl.concat(tables)["sample_id"]


def open_comparison(
    root: DataRoot,
    changes: Mapping[str, Any] | None = None,
    log: Log = lambda _: None,
    *,
    stage: Stage = "sft",
) -> Comparison:
    """Return the comparison of a pool as it is now; what all runs share is drawn at first.

    Args:
        root: the data root.
        changes: settings that replace those of the stage's table.
        log: told what takes long.
        stage: whose pool is selected from.

    Raises:
        UserError: the settings or the target file are wrong, the pool is empty or too small, what
            trains is not installed, or there is no SFT model to start preference training from.
    """
    require("torch", "a comparison")
    folder = root[stage]
    refuse_none(folder, folder.batches())
    settings = read_settings(root.path, TABLES[stage], ComparisonSettings, changes=changes)
    training = training_settings(root.path)
    preset = load_preset(training.preset, training.overrides)
    tokens = configured_tokens(root.path)
    recount(folder, tokens, log)
    if not folder.held_out.exists():
        with open_selection_pool(folder, hold_out=held_out_settings(root)):
            pass
    frozen = read_held_out(folder)
    job = training.job()
    if trainer_for(stage, training.trainer).starts_from_sft:
        job["sft_model"] = starting_model(root, training.sft_model)
    target = _target(folder, settings)
    nightly = stage_selection(root.path, stage)
    shared: dict[str, Any] = {
        "settings": settings.model_dump(include={"budget_tokens", "unit", "unseen_sources"}),
        "target": None if target is None else fingerprint(sorted(target["sample_id"])),
        "selects": None if settings.budget_tokens else [nightly.unit, nightly.asked_budget],
        "pool": pool_inputs(folder),
        "held_out": frozen.hash if frozen else None,
        "preset": preset.settings(),
        "model": model_identity(preset.source, preset.revision),
        "tokenizer": tokens.identity,
    }
    # What was begun before there were these settings goes on.
    others = {
        "evaluation_samples": settings.evaluation_samples,
        "quality": nightly.quality,
        "signals": nightly.signals or None,
        **_training_method(stage, job),
    }
    shared |= {name: value for name, value in others.items() if value is not None}
    name = fingerprint([json.dumps(shared, sort_keys=True)])[:16]
    found = Comparison(root, stage, root.comparisons / name, settings, job, shared)
    plan = found.folder / "plan.json"
    if not plan.exists():
        write_json(plan, {**shared, **_draw(found, target, preset.max_length, nightly)})
    return replace(found, plan=json.loads(plan.read_text(encoding="utf-8")))


def _target(folder: StageFolder, settings: ComparisonSettings) -> pl.DataFrame | None:
    if not settings.target:
        return None
    target = target_samples(folder.root.path / settings.target, folder.stage)
    if target.height < _LEAST_TARGET:
        raise UserError(
            f"target: {settings.target} has {target.height} samples; give {_LEAST_TARGET} or more, "
            "better 200"
        )
    return target


def _training_method(stage: Stage, job: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what training depends on besides preset and base model; None for the default."""
    trainer = trainer_for(stage, job["trainer"])
    return {
        "stage": None if stage == "sft" else stage,
        "trainer": None if trainer.name == DEFAULT_TRAINERS[stage] else trainer.name,
        "sft_model": model_identity(job["sft_model"], None) if "sft_model" in job else None,
    }


def _draw(
    comparison: Comparison, target: pl.DataFrame | None, max_length: int, nightly: SelectionConfig
) -> dict[str, Any]:
    """Write the samples that nothing is trained on; return what the plan tells of them."""
    settings = comparison.settings
    with open_selection_pool(comparison.root[comparison.stage]) as pool:
        index = pool.index.with_row_index("position").hstack(pool.state)
        frozen = pool.frozen.samples if pool.frozen else pool.rows([])
        sources = set(index["source"])
        whole = set(frozen["source"]) - sources
        unseen = _unseen_sources(sources, whole, settings.unseen_sources)
        is_unseen = pl.col("source").is_in(unseen)
        # Rows that are cut would make the tokens of the strategies unequal.
        fitting = index.filter(pl.col("num_tokens") <= max_length)
        others = fitting.filter(~is_unseen)
        drawn = _at_most(fitting.filter(is_unseen), "unseen")["position"]
        held = {"unseen": pl.concat([frozen.filter(is_unseen), pool.rows(drawn)])}
        drawn = others.filter(is_held_out(others, _SEEN))["position"]
        held["seen"] = pl.concat([frozen.filter(~is_unseen), pool.rows(drawn)])
    held = {name: _at_most(samples, name) for name, samples in held.items()}
    if comparison.stage == "preference":
        # What was rated undesirable has no answer that a model should give.
        held = {n: samples.filter(pl.col("chosen").list.len() > 0) for n, samples in held.items()}
    held = {name: samples for name, samples in held.items() if samples.height > 1}
    if target is not None:
        held["target_told"], held["target"] = _halves(target, "sample_id")
    measure: Measure | None = next((name for name in WHERE if name in held), None)
    if measure is None:
        raise UserError(
            f"{comparison.root.path}: the pool is too small for a comparison, no source leaves "
            "samples to hold out; ingest more"
        )
    has_sources = measure == "unseen" and held[measure]["source"].n_unique() > 1
    by = "source" if has_sources else "sample_id"
    held[f"{measure}_choice"], held[measure] = _halves(held[measure], by)
    if (num := settings.evaluation_samples) is not None:
        held |= {n: _spread(held[n], num) for n in held if n != "target_told"}
    for name, samples in held.items():
        write_table(comparison.held(name), samples, {})
    ids = pl.concat([samples["sample_id"] for samples in held.values()])
    candidates = others.filter(~pl.col("sample_id").is_in(ids.to_list()))
    return {
        "measure": measure,
        "unseen_sources": unseen,
        "max_length": max_length,
        "num_held": {name: samples.height for name, samples in held.items()},
        "num_too_long": index.height - fitting.height,
        "num_candidates": candidates.height,
        "budget": _budget(candidates, settings, nightly),
    }


def _budget(
    candidates: pl.DataFrame, settings: ComparisonSettings, nightly: SelectionConfig
) -> int:
    asked = settings.budget_tokens
    if isinstance(asked, int):
        return asked
    supply = {unit: int(candidates[f"num_{unit}"].sum()) for unit in TOKEN_UNITS}
    share = budget_share(asked)
    if share is None:
        has = (supply | {"samples": candidates.height}).get(nightly.unit, 0)
        of_pool = nightly.of_pool(has).budget / has if has else _SHARE_OF_POOL
        return max(1, int(min(_SHARE_OF_POOL, of_pool) * supply[settings.unit]))
    return max(1, int(share * supply[settings.unit]))


def _unseen_sources(sources: set[str], whole: set[str], given: tuple[str, ...] | None) -> list[str]:
    """Return the sources to train on nothing of; those that are held out whole are among them."""
    if given is None:
        num = round(_UNSEEN_SHARE * len(sources)) if len(sources) >= _LEAST_SOURCES else 0
        return sorted(whole or _in_drawn_order(sources)[:num])
    unknown = sorted(set(given) - sources - whole)
    if unknown or sources <= set(given):
        fault = f"{unknown[0]!r} is none of the pool" if unknown else "these are all of the pool"
        raise UserError(f"unseen_sources: {fault}; it has {', '.join(sorted(sources))}")
    return sorted({*given, *whole})


def _in_drawn_order(names: Iterable[str]) -> list[str]:
    """Return names in an order that depends on nothing but each of them."""
    return sorted(set(names), key=lambda name: fingerprint(["comparison", name]))


def _halves(samples: pl.DataFrame, by: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    names = _in_drawn_order(samples[by])
    # In turn: a half of a half is drawn by the same order.
    is_first = pl.col(by).is_in(names[::2][: len(names) // 2])
    return samples.filter(is_first), samples.filter(~is_first)


def _spread(samples: pl.DataFrame, num: int) -> pl.DataFrame:
    """Return the first ``num`` samples, as many of one source as of another while it has some."""
    return samples.sort(pl.int_range(pl.len()).over("source"), "source").head(num)


def _at_most(samples: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the first of each source by id, a random draw since ids are hashes."""
    ordered = samples.unique("sample_id").sort("source", "sample_id")
    return ordered.group_by("source", maintain_order=True).head(_MOST_OF_SOURCE[name])
