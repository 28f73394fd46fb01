"""Signal ``shape``: how long a sample is, what it repeats, and which stock phrases are in it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import polars as pl
from pydantic import Field

from zip_pipeline.samples import TURN_COLUMNS, Stage, Turn, normalise_text, turns_of_column
from zip_pipeline.settings import Settings
from zip_pipeline.signals import Measure, Signal, Tools

REFUSALS = (
    "i'm sorry, but",
    "i am sorry, but",
    "i apologize, but",
    "i cannot assist with",
    "i can't assist with",
    "i cannot help with",
    "i can't help with",
    "i cannot fulfill",
    "i can't fulfill",
    "i cannot provide",
    "i can't provide",
    "i am not able to",
    "i'm not able to",
    "i am unable to",
    "i'm unable to",
    "i must decline",
)
"""What answers say that refuse, in lower case with straight apostrophes."""
BOILERPLATE = (
    "as an ai language model",
    "as a language model",
    "as an ai assistant",
    "as an artificial intelligence",
    "as an ai, i",
    "my knowledge cutoff",
    "as of my last update",
    "as of my knowledge cutoff",
    "i don't have personal opinions",
    "i do not have personal opinions",
    "i don't have personal experiences",
    "i do not have personal experiences",
    "i hope this helps",
    "let me know if you have any other questions",
    "is there anything else i can help you with",
    "certainly! here",
    "developed by openai",
    "trained by openai",
)
"""What answers say whatever they are asked, in lower case with straight apostrophes."""


class ShapeSettings(Settings):
    """What is left out: the table ``[signals.shape]``; without a limit nothing is."""

    max_turns: int | None = Field(
        default=None, ge=1, description="Samples with more turns take no part."
    )
    max_characters: int | None = Field(
        default=None, ge=1, description="Samples with more characters take no part."
    )
    max_repeated_turns: int | None = Field(
        default=None, ge=0, description="Samples with more turns that repeat one take no part."
    )
    max_refusals: int | None = Field(
        default=None, ge=0, description="Samples with more phrases that refuse take no part."
    )
    max_boilerplate: int | None = Field(
        default=None, ge=0, description="Samples with more stock phrases take no part."
    )


class Shape(Signal):
    """Turns, characters of their contents, repeated turns, refusals and stock phrases of answers.

    A turn is repeated where the same role has said the same before, in the same column.
    """

    name = "shape"
    description = "turns, characters, repeated turns, refusals and stock phrases"
    settings = ShapeSettings
    columns = pl.Schema(
        {
            "turns": pl.Int64,
            "characters": pl.Int64,
            "repeated_turns": pl.Int64,
            "refusals": pl.Int64,
            "boilerplate": pl.Int64,
        }
    )
    block = 4096
    fate = "shape"

    def identity(self, settings: ShapeSettings, tools: Tools) -> str:
        """Return what is looked for."""
        return f"shape, {'; '.join((*REFUSALS, *BOILERPLATE))}"

    @contextmanager
    def open(self, settings: ShapeSettings, stage: Stage, tools: Tools) -> Iterator[Measure]:
        """Give what counts."""

        def measure(samples: pl.DataFrame) -> pl.DataFrame:
            columns = [turns_of_column(samples[name]) for name in TURN_COLUMNS[stage]]
            rows = [_counts(groups) for groups in zip(*columns, strict=True)]
            return pl.DataFrame(rows, schema=self.columns, orient="row")

        yield measure

    def marks(self, table: pl.DataFrame, settings: ShapeSettings) -> pl.Series:
        """Return the first count that is above its limit."""
        limits = {name: getattr(settings, f"max_{name}") for name in self.columns}
        words = [
            pl.when(pl.col(name) > limit).then(
                pl.format("{} " + f"{name.replace('_', ' ')}, more than {limit}", name)
            )
            for name, limit in limits.items()
            if limit is not None
        ]
        nothing = pl.repeat(None, pl.len(), dtype=pl.String)
        return table.select(pl.coalesce(*words, nothing).alias("mark"))["mark"]


def _counts(groups: tuple[tuple[Turn, ...], ...]) -> tuple[int, ...]:
    turns = list(chain.from_iterable(groups))
    answers = [_plain(turn.content) for turn in turns if turn.role == "assistant"]
    num_different = sum(
        len({(turn.role, normalise_text(turn.content)) for turn in group}) for group in groups
    )
    return (
        len(turns),
        sum(len(turn.content) for turn in turns),
        len(turns) - num_different,
        *(sum(len(phrases.findall(answer)) for answer in answers) for phrases in _PHRASES),
    )


_PHRASES = [re.compile("|".join(map(re.escape, phrases))) for phrases in (REFUSALS, BOILERPLATE)]


def _plain(text: str) -> str:
    return text.lower().replace("\u2019", "'")


SIGNAL = Shape()
