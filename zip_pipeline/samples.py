"""What flows through everything: conversations, preference pairs and their tables."""

import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import polars as pl

Stage: TypeAlias = Literal["sft", "preference"]
STAGES: tuple[Stage, ...] = ("sft", "preference")
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message, with all that is said in it.

    Args:
        role: one of ``ROLES``.
        content: what is said.
        tool_calls: JSON text, empty where the turn calls no tool.
        reasoning: what was thought before the content, empty where nothing is known of it.
        name: who speaks, where several have one role, or the tool that answers.
        loss: whether the model learns to write the turn, where the assistant speaks.
    """

    role: str
    content: str
    tool_calls: str = ""
    reasoning: str = ""
    name: str = ""
    loss: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """One SFT conversation.

    Args:
        turns: the messages.
        tools: the schemas of the tools that may be called, as JSON text; empty without.
        media: references to pictures, sound and the like, as JSON text; empty without.
    """

    turns: tuple[Turn, ...]
    tools: str = ""
    media: str = ""


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
    tools: str = ""
    media: str = ""


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """A prompt with one answer that was found good (desirable) or bad.

    In a pool table a desirable answer is ``chosen`` and an undesirable one ``rejected``; the other
    column is empty.
    """

    prompt: tuple[Turn, ...]
    answer: tuple[Turn, ...]
    desirable: bool
    tools: str = ""
    media: str = ""


AnySample: TypeAlias = Sample | PreferencePair | RatedAnswer

TURN_FIELDS: dict[str, tuple[type[pl.DataType], Any]] = {
    "role": (pl.String, ""),
    "content": (pl.String, ""),
    "tool_calls": (pl.String, ""),
    "reasoning": (pl.String, ""),
    "name": (pl.String, ""),
    "loss": (pl.Boolean, True),
}
"""The fields of a turn in a table, with what an older table that lacks one of them stands for."""
_TURN_SCHEMA = pl.Schema({name: dtype for name, (dtype, _) in TURN_FIELDS.items()})
_TURNS = pl.List(pl.Struct(_TURN_SCHEMA))
_PROVENANCE: dict[str, pl.DataType | type[pl.DataType]] = {
    "sample_id": pl.String,
    "batch": pl.String,
    "source": pl.String,
    "source_file": pl.String,
    "source_row": pl.Int64,
    "format": pl.String,
}
TURN_COLUMNS: dict[Stage, tuple[str, ...]] = {
    "sft": ("turns",),
    "preference": ("prompt", "chosen", "rejected"),
}


def pool_schema(stage: Stage) -> pl.Schema:
    """Return the columns of a stage's pool table: provenance, turns, scores and the raw record.

    ``source_row`` counts from 1: the line of a JSONL file, the item of a JSON list, the row of
    a table. ``raw`` is the record as it came, as JSON text.
    """
    columns = dict(_PROVENANCE) | dict.fromkeys(TURN_COLUMNS[stage], _TURNS)
    if stage == "preference":
        columns |= {"chosen_score": pl.Float64, "rejected_score": pl.Float64}
    return pl.Schema(columns | {"tools": pl.String, "media": pl.String, "raw": pl.String})


def with_all_columns(rows: pl.LazyFrame, stage: Stage) -> pl.LazyFrame:
    """Return a pool table of any release with the columns of this one; new ones are empty."""
    found = rows.collect_schema()
    wanted = pool_schema(stage)
    if found == wanted:
        return rows
    turns = [
        pl.col(name).list.eval(_with_all_fields(found[name])).alias(name)
        for name in TURN_COLUMNS[stage]
        if name in found and found[name] != _TURNS
    ]
    missing = [pl.lit("").alias(name) for name in ("tools", "media") if name not in found]
    here = [name for name in wanted if name in found or name in ("tools", "media")]
    return rows.with_columns(*turns, *missing).select(*here, *(n for n in found if n not in here))


def _with_all_fields(dtype: pl.DataType) -> pl.Expr:
    assert isinstance(dtype, pl.List)
    assert isinstance(dtype.inner, pl.Struct)
    there = {field.name for field in dtype.inner.fields}
    return pl.struct(
        pl.element().struct.field(name) if name in there else pl.lit(default, kind).alias(name)
        for name, (kind, default) in TURN_FIELDS.items()
    )


def sample_of(row: Mapping[str, Any], stage: Stage) -> AnySample:
    """Return the sample of a row of a pool table, as ``iter_rows(named=True)`` gives it."""
    groups = [tuple(Turn(**turn) for turn in row[name]) for name in TURN_COLUMNS[stage]]
    extras = {"tools": row["tools"], "media": row["media"]}
    if stage == "sft":
        return Sample(groups[0], **extras)
    prompt, chosen, rejected = groups
    if not chosen or not rejected:
        return RatedAnswer(prompt, chosen or rejected, bool(chosen), **extras)
    scores = (row["chosen_score"], row["rejected_score"])
    return PreferencePair(prompt, chosen, rejected, *scores, **extras)


def turns_of_column(column: pl.Series) -> list[tuple[Turn, ...]]:
    """Return the turns of each row of a pool table's column; those of older tables have fewer."""
    return [tuple(Turn(**turn) for turn in turns or ()) for turns in column.to_list()]


def turn_groups(sample: AnySample) -> tuple[tuple[Turn, ...], ...]:
    """Return the turns by column of the pool table: one group for SFT, three for a preference."""
    if isinstance(sample, Sample):
        return (sample.turns,)
    if isinstance(sample, RatedAnswer):
        sides = (sample.answer, ()) if sample.desirable else ((), sample.answer)
        return (sample.prompt, *sides)
    return (sample.prompt, sample.chosen, sample.rejected)


def sample_columns(sample: AnySample) -> dict[str, object]:
    """Return the sample's own columns of a row for :func:`frame_of`; turns stay as they are."""
    stage: Stage = "sft" if isinstance(sample, Sample) else "preference"
    columns: dict[str, object] = dict(zip(TURN_COLUMNS[stage], turn_groups(sample), strict=True))
    columns |= {"tools": sample.tools, "media": sample.media}
    if stage == "preference":
        columns |= {"chosen_score": None, "rejected_score": None}
    if isinstance(sample, PreferencePair):
        columns["chosen_score"] = sample.chosen_score
        columns["rejected_score"] = sample.rejected_score
    return columns


_MANY_MARKS = 64


def normalise_text(text: str) -> str:
    """Return the form in which two contents count as equal: NFC, LF line ends, outer space cut."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = unicodedata.normalize("NFC", _runs_of_marks()[1].sub(_in_order, text))
    return text.strip()


@functools.cache
def _runs_of_marks() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what finds many combining marks in a row, which no writing has, and what may be them.

    The second is quick: of letters of more than 16 bits it takes any.
    """
    marks = "".join(
        chr(code)
        for code in range(0x300, 0x20000)
        if unicodedata.combining(unicodedata.normalize("NFD", chr(code))[0])
    )
    short = re.sub("[^\0-\uffff]", "", marks)
    exact, quick = f"[{marks}]", f"[{short}\U00010000-\U0001ffff]"
    # A set that comes first is searched for without trying the rest.
    exact, quick = (f"{some}{some}{{{_MANY_MARKS},}}" for some in (exact, quick))
    return re.compile(exact), re.compile(quick)


def _in_order(run: re.Match[str]) -> str:
    return _runs_of_marks()[0].sub(_marks_in_order, run[0])


def _marks_in_order(run: re.Match[str]) -> str:
    """Return marks in canonical order, in which normalisation puts them in quadratic time."""
    marks = "".join(unicodedata.normalize("NFD", mark) for mark in run[0])
    return "".join(sorted(marks, key=unicodedata.combining))


_ENCODER = json.JSONEncoder(ensure_ascii=False)


def turn_key(turn: Turn) -> tuple[object, ...]:
    """Return what makes two turns equal: all that is said, contents normalised."""
    key = (turn.role, normalise_text(turn.content), turn.tool_calls)
    # Turns that say no more than that keep the ids that they had before the rest was kept.
    if turn.reasoning or turn.name or not turn.loss:
        return (*key, normalise_text(turn.reasoning), turn.name, turn.loss)
    return key


def sample_id(sample: AnySample) -> str:
    """Return the content hash of the normalised turns: 32 hexadecimal digits.

    Two samples share an id exactly when all that is said in each turn is equal, and so are tools
    and media. So an id survives re-ingestion, another file format and another position.
    """
    key: list[object] = [[turn_key(turn) for turn in group] for group in turn_groups(sample)]
    if sample.tools or sample.media:
        key += [sample.tools, sample.media]
    encoded = _ENCODER.encode(key).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


def turn_text(turn: Turn) -> str:
    """Return what a turn says as one text: reasoning in ``<think>`` tags, content, tool calls."""
    think = f"<think>{turn.reasoning}</think>\n" if turn.reasoning else ""
    return f"{think}{turn.content}{turn.tool_calls}"


def line_of(turn: Turn) -> str:
    """Return a turn as ``role name: text``, ended by a line feed."""
    return f"{turn.role}{turn.name and ' ' + turn.name}: {turn_text(turn)}\n"


def serialise(sample: AnySample) -> str:
    """Return the text whose compressibility is measured: one ``role: content`` line per turn.

    A line ``tools: …`` stands before them where a sample has tools; ids, media and metadata are
    left out. A pair gives prompt, chosen and rejected once each. Every turn ends with a line feed,
    so serialised samples can be joined without a separator.
    """
    tools = f"tools: {sample.tools}\n" if sample.tools else ""
    return tools + "".join(line_of(turn) for group in turn_groups(sample) for turn in group)


def contents(sample: AnySample) -> str:
    """Return the turn contents joined by line feeds, without roles: the text of benchmarks."""
    return "\n".join(turn.content for group in turn_groups(sample) for turn in group)


def serialised_texts(table: pl.DataFrame, stage: Stage) -> pl.Series:
    """Return :func:`serialise` of each row of a pool table or subset, of any release."""
    whole = with_all_columns(table.lazy(), stage)
    return whole.select(_serialised(stage).alias("text")).collect()["text"]


def _serialised(stage: Stage) -> pl.Expr:
    field = pl.element().struct.field
    line = pl.concat_str(
        field("role"),
        _unless_empty(" ", field("name"), ""),
        pl.lit(": "),
        _unless_empty("<think>", field("reasoning"), "</think>\n"),
        field("content"),
        field("tool_calls"),
        pl.lit("\n"),
    )
    turns = [pl.col(column).list.eval(line).list.join("") for column in TURN_COLUMNS[stage]]
    return pl.concat_str(_unless_empty("tools: ", pl.col("tools"), "\n"), *turns)


def _unless_empty(before: str, text: pl.Expr, after: str) -> pl.Expr:
    framed = pl.concat_str(pl.lit(before), text, pl.lit(after))
    return pl.when(text == "").then(pl.lit("")).otherwise(framed)


def contents_text(stage: Stage) -> pl.Expr:
    """Return the expression that computes :func:`contents` for each row of a pool table."""
    turns = pl.concat_list(TURN_COLUMNS[stage])
    return turns.list.eval(pl.element().struct.field("content")).list.join("\n")


def frame_of(stage: Stage, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Return rows (keys as in :func:`pool_schema`) as a pool table of that stage.

    The turns of a row are a sequence of :class:`Turn`; columns that a row lacks are null.
    """
    rows = list(rows)
    values: dict[str, list[Any]] = {n: [row.get(n) for row in rows] for n in pool_schema(stage)}
    return pl.DataFrame(
        {
            name: _turns_column(column) if name in TURN_COLUMNS[stage] else pl.Series(column)
            for name, column in values.items()
        },
        schema=pool_schema(stage),
    )


def _turns_column(groups: Sequence[Sequence[Turn]]) -> pl.Series:
    # By flat columns, since a struct a turn costs eight times as much.
    turns = [turn for group in groups for turn in group]
    flat = {name: [getattr(turn, name) for turn in turns] for name in _TURN_SCHEMA}
    rows = pl.Series("row", [n for n, group in enumerate(groups) for _ in group], dtype=pl.UInt32)
    structs = pl.DataFrame(flat, schema=_TURN_SCHEMA).to_struct("turns")
    nested = pl.DataFrame([rows, structs]).group_by("row", maintain_order=True).agg("turns")
    every = pl.DataFrame({"row": pl.int_range(len(groups), dtype=pl.UInt32, eager=True)})
    joined = every.join(nested, on="row", how="left", maintain_order="left")["turns"]
    return joined.fill_null(pl.Series([[]], dtype=_TURNS))
