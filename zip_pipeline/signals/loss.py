"""Signal ``loss``: how hard a language model finds what the assistant says."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from statistics import fmean
from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field

from zip_pipeline.chat_models import ScoredRow, token_losses
from zip_pipeline.chat_tokens import Encoded, encode
from zip_pipeline.errors import require
from zip_pipeline.samples import Stage, turns_of_column
from zip_pipeline.settings import Settings
from zip_pipeline.signals import Measure, Signal, Tools

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ANSWER_COLUMNS: dict[Stage, tuple[str, ...]] = {
    "sft": ("turns",),
    "preference": ("prompt", "chosen"),
}


class LossSettings(Settings):
    """Which model is asked: the table ``[signals.loss]``."""

    model: str = Field(
        default="tiny",
        description="The name of a preset, such as smollm2-135m, whose model and template are "
        "taken; or the folder of a model whose own template marks what the assistant says.",
    )
    max_length: int = Field(
        default=1024, ge=8, description="Tokens at which a conversation is cut."
    )


class Loss(Signal):
    """Loss of the assistant's tokens, and by how much the question helps to write the answer.

    ``loss`` is their mean in nats. ``ifd`` is exp(loss of a turn after all that came before it)
    over exp(loss of the same tokens on their own), the mean over turns: near 1 the question does
    not help. Null where no answer lies within the maximum length, ``ifd`` also where none has two
    tokens. Of a pair the chosen answer counts.

    Source: Superfiltering (arXiv 2402.00530), section 3; at most 1,024 tokens as there.
    Deviation: several turns, and the template's tokens around them.
    """

    name = "loss"
    description = "how hard a language model finds the answer, with the question and without"
    settings = LossSettings
    columns = pl.Schema({"loss": pl.Float64, "ifd": pl.Float64, "num_scored": pl.Int64})
    block = 256

    def identity(self, settings: LossSettings, tools: Tools) -> str:
        """Return the model, its template and the maximum length."""
        return f"{tools.model(settings.model).identity}, {settings.max_length} tokens"

    @contextmanager
    def open(self, settings: LossSettings, stage: Stage, tools: Tools) -> Iterator[Measure]:
        """Load the model."""
        require("torch", "signal loss")
        model = tools.model(settings.model)
        tokenizer, network = model.tokenizer(), model.network()

        def measure(samples: pl.DataFrame) -> pl.DataFrame:
            said = said_in(samples, ANSWER_COLUMNS[stage], tokenizer, settings.max_length)
            return _table(said, network)

        yield measure


@dataclass(frozen=True)
class Said:
    """A conversation, and where the assistant speaks; nothing predicts the first token."""

    input_ids: list[int]
    is_target: list[bool]

    @property
    def spans(self) -> list[slice]:
        """Where each of the assistant's turns stands."""
        runs = groupby(range(len(self.is_target)), key=self.is_target.__getitem__)
        places = [list(run) for speaks, run in runs if speaks]
        return [slice(run[0], run[-1] + 1) for run in places]

    @property
    def turns(self) -> list[list[int]]:
        """The tokens of each of the assistant's turns."""
        return [self.input_ids[span] for span in self.spans]


def said_in(
    samples: pl.DataFrame,
    columns: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> list[Said]:
    """Return what the assistant says in the last of some columns, after the turns of the others.

    Args:
        samples: rows of a pool table.
        columns: of turns, in the order in which they are said.
        tokenizer: with a chat template that marks what the assistant says.
        max_length: tokens at which a conversation is cut.
    """
    tools = samples["tools"].to_list()
    rows = list(zip(*(turns_of_column(samples[column]) for column in columns), strict=True))
    encoded = encode(tokenizer, [[turn for part in row for turn in part] for row in rows], tools)
    starts = [0] * len(rows)
    if len(columns) > 1:
        prompts = [[turn for part in row[:-1] for turn in part] for row in rows]
        starts = [len(prompt.input_ids) for prompt in encode(tokenizer, prompts, tools)]
    return [_cut(e, start, max_length) for e, start in zip(encoded, starts, strict=True)]


def _cut(encoded: Encoded, start: int, max_length: int) -> Said:
    mask = enumerate(encoded.assistant_mask[:max_length])
    speaks = [bool(bit) and place >= max(start, 1) for place, bit in mask]
    return Said(encoded.input_ids[:max_length].tolist(), speaks)


def _table(said: Sequence[Said], network: "PreTrainedModel") -> pl.DataFrame:
    rows = [ScoredRow(each.input_ids, each.is_target) for each in said if any(each.is_target)]
    turns = [ids for each in said for ids in each.turns if len(ids) > 1]
    rows += [ScoredRow(ids, [False] + [True] * (len(ids) - 1)) for ids in turns]
    losses = token_losses(network, rows)
    num_whole = len(rows) - len(turns)
    whole, alone = iter(losses[:num_whole]), iter(losses[num_whole:])
    values = [_values(each, whole, alone) for each in said]
    return pl.DataFrame(values, schema=Loss.columns, orient="row")


def _values(
    said: Said, whole: Iterator[list[float]], alone: Iterator[list[float]]
) -> tuple[float | None, float | None, int]:
    """Return a row of the signal, given the losses of what is to come."""
    if not said.turns:
        return None, None, 0
    losses = next(whole)
    left = iter(losses)
    ratios = []
    for ids in said.turns:
        after_all_before = fmean(islice(left, len(ids)))
        if len(ids) > 1:
            ratios.append(math.exp(after_all_before - fmean(next(alone))))
    return fmean(losses), fmean(ratios) if ratios else None, len(losses)


SIGNAL = Loss()
