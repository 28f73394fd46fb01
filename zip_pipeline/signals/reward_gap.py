"""Signal ``reward_gap``: by how much training has taught a model to prefer the chosen answer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import polars as pl
from pydantic import Field

from zip_pipeline.chat_models import ScoredRow, token_losses
from zip_pipeline.errors import require
from zip_pipeline.samples import Stage
from zip_pipeline.settings import Settings
from zip_pipeline.signals import Measure, Signal, Tools
from zip_pipeline.signals.loss import said_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BETA = 0.1


class RewardGapSettings(Settings):
    """Which models are asked: the table ``[signals.reward_gap]``."""

    model: str = Field(
        description="The model after training on preferences: the name of a preset, or the folder "
        "of a model whose own template marks what the assistant says.",
    )
    reference: str = Field(
        default="tiny", description="The model before it, a preset or a folder as well."
    )
    max_length: int = Field(
        default=1024, ge=8, description="Tokens at which prompt and answer are cut."
    )


class RewardGap(Signal):
    """DPO's implicit reward of the chosen answer less that of the rejected one.

    The reward of an answer is 0.1 (log p_model - log p_reference), sums over its tokens after the
    prompt, in nats. Null for a single rated answer, and where the maximum length leaves nothing of
    an answer.

    Source: arXiv 2508.04149, section 3, with its beta of 0.1.
    Deviation: each model reads its own template, and answers count by what its loss falls on.
    """

    name = "reward_gap"
    description = "by how much a trained model prefers the chosen answer more than its reference"
    settings = RewardGapSettings
    columns = pl.Schema({"gap": pl.Float64})
    stages: ClassVar[tuple[Stage, ...]] = ("preference",)
    block = 128

    def identity(self, settings: RewardGapSettings, tools: Tools) -> str:
        """Return both models, their templates and the maximum length."""
        both = [tools.model(name).identity for name in (settings.model, settings.reference)]
        return f"{both[0]} to {both[1]}, {settings.max_length} tokens"

    @contextmanager
    def open(self, settings: RewardGapSettings, stage: Stage, tools: Tools) -> Iterator[Measure]:
        """Load both models."""
        require("torch", "signal reward_gap")
        found = [tools.model(name) for name in (settings.model, settings.reference)]
        loaded = [(model.tokenizer(), model.network()) for model in found]

        def measure(samples: pl.DataFrame) -> pl.DataFrame:
            own, reference = (
                _preferences(samples, *each, max_length=settings.max_length) for each in loaded
            )
            return pl.DataFrame({"gap": BETA * (own - reference)})

        yield measure


def _preferences(
    samples: pl.DataFrame,
    tokenizer: "PreTrainedTokenizerBase",
    network: "PreTrainedModel",
    max_length: int,
) -> pl.Series:
    """Return log p(chosen) - log p(rejected) of each pair, in nats, null where one is missing."""
    said = [
        each
        for answer in ("chosen", "rejected")
        for each in said_in(samples, ("prompt", answer), tokenizer, max_length)
    ]
    rows = [ScoredRow(each.input_ids, each.is_target) for each in said if any(each.is_target)]
    losses = iter(token_losses(network, rows))
    logs = [-sum(next(losses)) if any(each.is_target) else None for each in said]
    return _column(logs[: samples.height]) - _column(logs[samples.height :])


def _column(values: Sequence[float | None]) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64)


SIGNAL = RewardGap()
