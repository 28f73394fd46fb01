"""The rows that a trainer sees, from a subset file; nothing is cut or dropped uncounted."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from zip_pipeline.chat_tokens import (
    Encoded,
    Message,
    encode,
    knows,
    messages,
    special_tokens,
    tool_schemas,
)
from zip_pipeline.errors import UserError
from zip_pipeline.samples import TURN_COLUMNS, Stage, Turn, turns_of_column, with_all_columns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
Turns: TypeAlias = tuple[Turn, ...]


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """What became of the samples of a subset."""

    num_samples: int
    num_rows: int
    num_tokens: int
    """tokens that the model reads in one epoch"""
    num_target_tokens: int
    """tokens of which it learns to write"""
    rows_truncated: int
    """rows cut at the maximum length"""
    rows_dropped: int
    """rows of which the maximum length leaves nothing to learn"""
    media_not_shown: int = 0
    """samples with pictures and the like, of which a template writes nothing"""
    names_not_shown: int = 0
    """samples with names of speakers or tools that the template has no words for"""

    def as_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)

    def not_shown(self) -> str:
        """Return what the model does not get to see in words, empty for nothing."""
        counts = {"media": self.media_not_shown, "names": self.names_not_shown}
        return ", ".join(f"{what} of {n:,} samples" for what, n in counts.items() if n)


@dataclass(frozen=True)
class TokenRows:
    """Rows as tokens; a label is the token itself, or IGNORED where no loss falls."""

    input_ids: list[list[int]]
    labels: list[list[int]]
    counts: RowCounts


@dataclass(frozen=True)
class AnswerRow:
    """One answer for KTO."""

    prompt: list[Message]
    completion: list[Message]
    tools: str
    """JSON text of the schemas for a template that knows them, empty otherwise"""
    desirable: bool
    num_tokens: int
    """of prompt and answer, before they are cut"""
    num_prompt_tokens: int


@dataclass(frozen=True)
class AnswerRows:
    """KTO's rows."""

    rows: list[AnswerRow]
    counts: RowCounts


def read_subset(path: Path, stage: Stage) -> pl.DataFrame:
    """Return the samples of a subset file ordered by sample_id, whatever order picked them.

    Raises:
        UserError: there is no such file, it is no Parquet file or a damaged one, it is empty, or
            it belongs to the other stage.
    """
    if not path.is_file():
        raise UserError(f"subset: {path} does not exist. Give the subset.parquet of a version")
    try:
        subset = _read_columns(path, stage)
    # Polars panics on some damaged files, and that is no Exception.
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{path}: cannot be read as Parquet ({reason}). Give the subset.parquet of a version, "
            "or what select wrote with -o NAME.parquet; if it is one, it is damaged: select again"
        ) from error
    if subset.is_empty():
        raise UserError(f"{path}: the subset has no rows. Select a larger budget")
    return subset


def _read_columns(path: Path, stage: Stage) -> pl.DataFrame:
    wanted = ["sample_id", *TURN_COLUMNS[stage], "tools", "media"]
    table = with_all_columns(pl.scan_parquet(path, glob=False), stage)
    known = table.collect_schema()
    missing = [name for name in wanted if name not in known]
    if missing:
        raise UserError(
            f"{path}: the column {missing[0]} is missing, so this is no subset of the {stage} "
            "stage. Give the subset of that stage"
        )
    return table.select(wanted).collect().sort("sample_id")


def conversation_rows(
    subset: pl.DataFrame, stage: Stage, tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> TokenRows:
    """Return one row per sample with the loss on what the assistant says.

    Of a preference pair the row is the prompt with the chosen answer, and the loss falls on
    that answer alone; so it is for a desirable answer. An undesirable one is nothing to learn to
    write: it is dropped and counted.

    Args:
        subset: as :func:`read_subset` gives it.
        stage: the stage of the subset.
        tokenizer: one that ``apply_template`` has prepared.
        max_length: tokens at which a row is cut.

    Raises:
        UserError: nothing is left to learn in any row.
    """
    tools = subset["tools"].to_list()
    if stage == "sft":
        encoded = encode(tokenizer, turns_of_column(subset["turns"]), tools)
        starts = [0] * len(encoded)
    else:
        prompts = turns_of_column(subset["prompt"])
        chosen = turns_of_column(subset["chosen"])
        encoded = encode(tokenizer, [p + c for p, c in zip(prompts, chosen, strict=True)], tools)
        starts = [len(e.input_ids) for e in encode(tokenizer, prompts, tools)]
    rows = [_token_row(e, start, max_length) for e, start in zip(encoded, starts, strict=True)]
    kept = [row for row in rows if row is not None]
    counts = RowCounts(
        num_samples=len(rows),
        num_rows=len(kept),
        num_tokens=sum(len(ids) for ids, _ in kept),
        num_target_tokens=sum(num_targets(labels) for _, labels in kept),
        rows_truncated=sum(
            len(e.input_ids) > max_length and row is not None
            for e, row in zip(encoded, rows, strict=True)
        ),
        rows_dropped=len(rows) - len(kept),
        **_not_shown(subset, stage, tokenizer),
    )
    _require_rows(counts, max_length)
    return TokenRows([ids for ids, _ in kept], [labels for _, labels in kept], counts)


def _not_shown(
    subset: pl.DataFrame, stage: Stage, tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, int]:
    """Return how many samples have something that the chat template does not write."""
    names = 0
    if "name" not in knows(tokenizer):
        turn = pl.element().struct
        # What users say begins with their names instead.
        is_lost = (turn.field("name") != "") & (turn.field("role") != "user")
        columns = [pl.col(name).list.eval(is_lost).list.any() for name in TURN_COLUMNS[stage]]
        names = subset.filter(pl.any_horizontal(columns)).height
    media = subset.filter(pl.col("media") != "").height
    return {"media_not_shown": media, "names_not_shown": names}


def num_targets(labels: Sequence[int]) -> int:
    """Return how many tokens of a row are learnt; the first one has nothing to predict it from."""
    return sum(label != IGNORED for label in labels[1:])


def _token_row(encoded: Encoded, start: int, max_length: int) -> tuple[list[int], list[int]] | None:
    ids = encoded.input_ids[:max_length].tolist()
    mask = encoded.assistant_mask[:max_length]
    labels = [
        token if speaks and place >= start else IGNORED
        for place, (token, speaks) in enumerate(zip(ids, mask, strict=True))
    ]
    return (ids, labels) if num_targets(labels) else None


def answer_rows(
    subset: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> AnswerRows:
    """Return two rows per pair, the chosen answer as desirable, the rejected one as undesirable.

    A rated answer gives one row. An answer whose prompt alone reaches the maximum length gives
    none.

    Args:
        subset: preference pairs, as :func:`read_subset` gives them.
        tokenizer: one that ``apply_template`` has prepared.
        max_length: tokens at which prompt and answer are cut.

    Raises:
        UserError: nothing is left to learn in any row.
    """
    rows = [
        row
        for column, desirable in (("chosen", True), ("rejected", False))
        for row in _answers(
            tokenizer,
            subset.filter(pl.col(column).list.len() > 0),
            column,
            desirable=desirable,
        )
    ]
    kept = [row for row in rows if row.completion and row.num_prompt_tokens < max_length]
    num_tokens = sum(min(row.num_tokens, max_length) for row in kept)
    counts = RowCounts(
        num_samples=subset.height,
        num_rows=len(kept),
        num_tokens=num_tokens,
        num_target_tokens=num_tokens - sum(row.num_prompt_tokens for row in kept),
        rows_truncated=sum(row.num_tokens > max_length for row in kept),
        rows_dropped=len(rows) - len(kept),
        **_not_shown(subset, "preference", tokenizer),
    )
    _require_rows(counts, max_length)
    return AnswerRows(kept, counts)


def _answers(
    tokenizer: "PreTrainedTokenizerBase", subset: pl.DataFrame, column: str, *, desirable: bool
) -> Iterator[AnswerRow]:
    """Yield a row for each answer in a column; what begins one without loss ends the prompt."""
    special, known = special_tokens(tokenizer), knows(tokenizer)
    tools = subset["tools"].to_list()
    both = zip(turns_of_column(subset["prompt"]), turns_of_column(subset[column]), strict=True)
    parts = [_with_loss_in_answer(prompt, answer) for prompt, answer in both]
    prompts = [prompt for prompt, _ in parts]
    lengths = [len(e.input_ids) for e in encode(tokenizer, [p + a for p, a in parts], tools)]
    openings = [len(e.input_ids) for e in encode(tokenizer, prompts, tools, open_answer=True)]
    for (prompt, answer), own, length, opening in zip(parts, tools, lengths, openings, strict=True):
        schemas = tool_schemas(own, special, known)
        yield AnswerRow(
            prompt=messages(prompt, special, own, known),
            completion=messages(answer, special, "", known),
            tools="" if schemas is None else json.dumps(schemas),
            desirable=desirable,
            num_tokens=length,
            num_prompt_tokens=opening,
        )


def _with_loss_in_answer(prompt: Turns, answer: Turns) -> tuple[Turns, Turns]:
    start = next((place for place, turn in enumerate(answer) if turn.loss), len(answer))
    return prompt + answer[:start], answer[start:]


@dataclass(frozen=True, kw_only=True)
class AnswerWeights:
    """How many answers of either kind there are, and how much each counts in KTO's loss."""

    num_desirable: int
    num_undesirable: int
    desirable: float
    undesirable: float

    def __str__(self) -> str:
        return (
            f"{self.num_desirable:,} desirable answers of weight {self.desirable:g}, "
            f"{self.num_undesirable:,} undesirable ones of weight {self.undesirable:g}"
        )


def answer_weights(desirable: Sequence[bool]) -> AnswerWeights:
    """Return the weights of desirable and undesirable answers from their numbers.

    Both are 1 while there are as many desirable answers as others, or up to a third more. Else
    the side with fewer answers weighs more, so that weight times number is the same on both.

    Source: KTO, section 4.2: lambda_D n_D / (lambda_U n_U) in [1, 4/3].
    """
    num_good = sum(desirable)
    num_bad = len(desirable) - num_good
    weights = (1.0, 1.0)
    if num_good and num_bad and not 1 <= num_good / num_bad <= 4 / 3:
        weights = (max(1.0, num_bad / num_good), max(1.0, num_good / num_bad))
    return AnswerWeights(
        num_desirable=num_good,
        num_undesirable=num_bad,
        desirable=weights[0],
        undesirable=weights[1],
    )


def _require_rows(counts: RowCounts, max_length: int) -> None:
    if counts.num_rows == 0:
        raise UserError(
            f"max_length: at {max_length} tokens none of the {counts.num_samples} samples leaves "
            "anything to learn. Raise max_length, or select samples in which the assistant speaks"
        )


def interleave(desirable: Sequence[bool], window: int, seed: int) -> list[int]:
    """Return an order of the rows in which every window of consecutive rows has both labels.

    The trainer takes rows in the order given and estimates its KL term inside windows of the
    per-device batch. Each window gets its share of both labels; inside a window, and over all
    windows, rows of one label come in random order, so that the two answers to a prompt seldom
    meet. A last window of a single row is left out, for it has no other answer to compare with.

    Args:
        desirable: the label of each row.
        window: rows that one device takes at once, 2 or more.
        seed: of the shuffling.

    Returns:
        Positions of rows, each at most once.

    Raises:
        UserError: one label is too rare to be in every window, or the window is below 2.
    """
    if window < 2:
        raise UserError(f"per_device_batch_size: KTO needs 2 or more rows at once; got {window}")
    rng = random.Random(seed)
    by_label = {
        label: [place for place, has in enumerate(desirable) if has == label]
        for label in (True, False)
    }
    for places in by_label.values():
        rng.shuffle(places)
    if len(desirable) % window == 1:
        max(by_label.values(), key=len).pop()
    num_windows = -(-sum(map(len, by_label.values())) // window)
    rarer = min(map(len, by_label.values()))
    if rarer < num_windows or num_windows == 0:
        raise UserError(
            f"preference rows: {rarer} rows have the rarer label, but {num_windows} batches need "
            f"one each. {_remedy(len(desirable), rarer, window)}"
        )
    order: list[int] = []
    for windows_left in range(num_windows, 0, -1):
        left = {label: len(places) for label, places in by_label.items()}
        size = min(window, sum(left.values()))
        num_desirable = _share(left, size, windows_left)
        chosen = [by_label[True].pop() for _ in range(num_desirable)]
        chosen += [by_label[False].pop() for _ in range(size - num_desirable)]
        rng.shuffle(chosen)
        order += chosen
    return order


def _remedy(num_rows: int, rarer: int, window: int) -> str:
    """Return what to do where the rows of the rarer label are too few for a window of that size."""
    if rarer == 0:
        return "KTO compares good answers with bad ones: select pairs, or answers of both kinds"
    # A last window of a single row is left out.
    larger = range(window + 1, num_rows + 1)
    least = next(size for size in larger if -(-(num_rows - 1) // size) <= rarer)
    return (
        f"Select more answers of that kind, or raise per_device_batch_size to {least} or more "
        "(batch_size must be a multiple of it)"
    )


def _share(left: dict[bool, int], size: int, windows_left: int) -> int:
    """Return how many desirable rows a window takes, so that all later ones can have both."""
    fair = round(size * left[True] / sum(left.values()))
    most = min(size - 1, left[True] - (windows_left - 1))
    least = max(1, size - (left[False] - (windows_left - 1)))
    return min(max(fair, least), most)
