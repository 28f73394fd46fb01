"""What flows through everything: conversations, preference pairs and their tables."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import polars as pl

Stage: TypeAlias = Literal["sft", "preference"]
STAGES: tuple[Stage, ...] = ("sft", "preference")
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message; ``tool_calls`` is JSON text, empty where the turn calls no tool."""

    role: str
    content: str
    tool_calls: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One SFT conversation."""

    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A prompt with a preferred and a less preferred continuation.

    The scores are the pool's own ratings of the two continuations, None where it has none.
    """

    prompt: tuple[Turn, ...]
    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]
    chosen_score: float | None = None
    rejected_score: float | None = None


AnySample: TypeAlias = Sample | PreferencePair

_TURNS = pl.List(pl.Struct({"role": pl.String, "content": pl.String, "tool_calls": pl.String}))
_PROVENANCE: dict[str, pl.DataType | type[pl.DataType]] = {
    "sample_id": pl.String,
    "batch": pl.String,
    "source": pl.String,
    "source_file": pl.String,
    "source_row": pl.Int64,
    "format": pl.String,
}
_TURN_COLUMNS: dict[Stage, tuple[str, ...]] = {
    "sft": ("turns",),
    "preference": ("prompt", "chosen", "rejected"),
}


def pool_schema(stage: Stage) -> pl.Schema:
    """Return the columns of a stage's pool table: provenance, turns, scores and the raw record.

    ``source_row`` counts from 1: the line of a JSONL file, the item of a JSON list, the row of
    a table. ``raw`` is the record as it came, as JSON text.
    """
    columns = dict(_PROVENANCE) | dict.fromkeys(_TURN_COLUMNS[stage], _TURNS)
    if stage == "preference":
        columns |= {"chosen_score": pl.Float64, "rejected_score": pl.Float64}
    return pl.Schema(columns | {"raw": pl.String})


def turn_groups(sample: AnySample) -> tuple[tuple[Turn, ...], ...]:
    """Return the turns by column of the pool table: one group for SFT, three for a pair."""
    if isinstance(sample, Sample):
        return (sample.turns,)
    return (sample.prompt, sample.chosen, sample.rejected)


def sample_columns(sample: AnySample) -> dict[str, object]:
    """Return the sample's own columns of the pool table, ready for a row dictionary."""
    stage: Stage = "sft" if isinstance(sample, Sample) else "preference"
    groups = [
        [{"role": t.role, "content": t.content, "tool_calls": t.tool_calls} for t in group]
        for group in turn_groups(sample)
    ]
    columns: dict[str, object] = dict(zip(_TURN_COLUMNS[stage], groups, strict=True))
    if isinstance(sample, PreferencePair):
        columns["chosen_score"] = sample.chosen_score
        columns["rejected_score"] = sample.rejected_score
    return columns


def normalise_text(text: str) -> str:
    """Return the form in which two contents count as equal: NFC, LF line ends, outer space cut."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def sample_id(sample: AnySample) -> str:
    """Return the content hash of the normalised turns: 32 hexadecimal digits.

    Two samples share an id exactly when roles, normalised contents and tool calls are equal in
    every turn, so an id survives re-ingestion, another file format and another position.
    """
    key = [
        [(t.role, normalise_text(t.content), t.tool_calls) for t in group]
        for group in turn_groups(sample)
    ]
    encoded = json.dumps(key, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


def _line(turn: Turn) -> str:
    return f"{turn.role}: {turn.content}{turn.tool_calls}\n"


def serialise(sample: AnySample) -> str:
    """Return the text whose compressibility is measured: one ``role: content`` line per turn.

    Ids and metadata are left out; a pair gives prompt, chosen and rejected once each. Every
    turn ends with a line feed, so serialised samples can be joined without a separator.
    """
    return "".join(_line(turn) for group in turn_groups(sample) for turn in group)


def contents(sample: AnySample) -> str:
    """Return the turn contents joined by line feeds, without roles: the text of benchmarks."""
    return "\n".join(turn.content for group in turn_groups(sample) for turn in group)


def serialised_text(stage: Stage) -> pl.Expr:
    """Return the expression that computes :func:`serialise` for each row of a pool table."""
    turn = pl.element().struct
    line = pl.concat_str(
        turn.field("role"),
        pl.lit(": "),
        turn.field("content"),
        turn.field("tool_calls"),
        pl.lit("\n"),
    )
    return pl.concat_str(
        pl.col(column).list.eval(line).list.join("") for column in _TURN_COLUMNS[stage]
    )


def contents_text(stage: Stage) -> pl.Expr:
    """Return the expression that computes :func:`contents` for each row of a pool table."""
    field = pl.element().struct.field("content")
    return pl.concat_str(
        [pl.col(column).list.eval(field).list.join("\n") for column in _TURN_COLUMNS[stage]],
        separator="\n",
    )


def frame_of(stage: Stage, rows: Iterable[dict[str, object]]) -> pl.DataFrame:
    """Return rows (keys as in :func:`pool_schema`) as a pool table of that stage."""
    return pl.DataFrame(list(rows), schema=pool_schema(stage), orient="row")
