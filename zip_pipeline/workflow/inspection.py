"""A file before it is dropped: what it is, how its rows will be read, and what to say about it."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

from zip_pipeline.ingest.drops import SIDECAR_SUFFIX
from zip_pipeline.ingest.ingest import ingest_rows
from zip_pipeline.ingest.options import AS_FOUND, ReadOptions
from zip_pipeline.ingest.readers import data_files, describe_file, left_out_splits, read_rows
from zip_pipeline.ingest.remote import DROP_SUFFIX, Fetched
from zip_pipeline.ingest.rows import RawRow, RejectionError
from zip_pipeline.pool.batches import IngestResult
from zip_pipeline.report.trace import readable
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.workflow.sources import located, sidecar_of

NUM_ROWS = 2_000
_NUM_EXAMPLE_CHARACTERS = 200
# As the readers say what bytes look like.
_ENCODING = re.compile(r'encoding = "([^"]+)"')
_ROWS = re.compile(r'rows = "([^"]+)"')
_MESSAGES = re.compile(r'messages = "([^"]+)"')
# What may say whether an answer is good.
_VERDICTS = (
    "is_correct", "correct", "is_safe", "safe", "accepted", "is_good", "thumbs_up", "feedback",
)  # fmt: skip
_REWARDS = ("score", "reward", "rating")
_CONTEXT = ("system", "system_prompt", "context", "history", "tools", "images")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why rows are no samples, with one of them."""

    reason: str
    num_rows: int
    place: str
    detail: str
    raw: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a file or folder gives.

    Args:
        origin: address and revision of what was fetched; empty where it lies here.
        files: kind, compression and encoding of each file.
        left_out: files that are for tests or validation.
        stage: the stage whose samples the rows are.
        num_rows: rows that were looked at.
        is_whole: whether these are all rows.
        num_samples: rows that are samples.
        num_duplicates: rows that repeat one of them.
        formats: the formats found, and the number of samples of each.
        fields_read: top-level fields that were read, and in how many samples each stands.
        fields_not_read: fields that no format reads, and in how many samples each stands.
        first_sample: the first sample as it will be read.
        refusals: why the other rows are no samples, most frequent first.
        sidecar: the name of the sidecar, or of the drop file of an address, and what to write into
            it; empty where nothing is needed.
        advice: what else to do, in words.
    """

    origin: Mapping[str, str]
    files: Mapping[str, str]
    left_out: Sequence[str]
    stage: Stage
    num_rows: int
    is_whole: bool
    num_samples: int
    num_duplicates: int
    formats: Mapping[str, int]
    fields_read: Mapping[str, int]
    fields_not_read: Mapping[str, int]
    first_sample: str
    refusals: Sequence[Refusal]
    sidecar: str
    advice: Sequence[str]


def inspect_file(
    source: str | Path, stage: Stage | None = None, options: ReadOptions = AS_FOUND
) -> Inspection:
    """Read the first rows of a file or folder as an ingestion would, and store nothing.

    Args:
        source: the file or folder, or its address, or a drop file that names it.
        stage: what the rows are; None for the stage that takes more of them.
        options: how to read it; a sidecar counts where they say nothing.

    Raises:
        UserError: the file cannot be read or fetched, or the options are wrong.
    """
    place = located(source)
    path, fetched = (place.path, place) if isinstance(place, Fetched) else (place, None)
    if fetched:
        options = options.over(fetched.options)
    left_out = left_out_splits(path)
    files = {name: file for name, file in data_files(path) if name not in left_out}
    tried = [_Reading(path, one, options) for one in ((stage,) if stage else STAGES)]
    # The first of those that take as many, or at least know as many by their fields.
    best = max(tried, key=_Reading.num_taken)
    samples, refusals = best.result.samples, refusals_of(best.result.quarantine)
    sidecar, advice = _advice(refusals, [] if samples.height else best.rows, options)
    advice += _of_stages(tried, best) + _of_fields(best, options)
    return Inspection(
        origin=fetched.origin if fetched else {},
        files={name: _kind(file, options.encoding) for name, file in files.items()},
        left_out=[*(fetched.left_out if fetched else ()), *left_out],
        stage=best.stage,
        num_rows=best.result.num_rows_read,
        is_whole=len(best.rows) <= NUM_ROWS,
        num_samples=samples.height,
        num_duplicates=best.result.duplicates.height,
        formats=dict(samples["format"].value_counts(sort=True).iter_rows()),
        fields_read=best.fields_read(),
        fields_not_read=best.result.unread,
        first_sample=readable(best.stage, samples.head(1)) if samples.height else "",
        refusals=refusals,
        sidecar=_sidecar(path.name, fetched, sidecar),
        advice=advice,
    )


def _sidecar(name: str, fetched: Fetched | None, options: ReadOptions) -> str:
    """Return the name and the text of what to put into the drop folder."""
    if fetched:
        address = json.dumps(str(fetched), ensure_ascii=False)
        return f"{name}{DROP_SUFFIX}:\nfrom = {address}\n{options.toml()}"
    return f"{name}{SIDECAR_SUFFIX}:\n{options.toml()}" if options.given() else ""


class _Reading:
    """The first rows of a file, read as those of one stage."""

    def __init__(self, path: Path, stage: Stage, options: ReadOptions) -> None:
        self.stage: Stage = stage
        own = options.over(sidecar_of(path, stage))
        rows = read_rows(path, encoding=own.encoding, separator=own.separator)
        self.rows: list[RawRow] = list(islice(rows, NUM_ROWS + 1))
        self.result: IngestResult = ingest_rows(
            self.rows[:NUM_ROWS], stage, batch=path.name, options=own
        )

    def num_taken(self) -> tuple[int, int]:
        """Return how many rows are samples, and how many are of a known format."""
        unknown = self.result.quarantine.filter(reason="unknown_format")
        return self.result.samples.height, -unknown.height

    def tells_good_from_bad(self, name: str) -> bool:
        """Return whether a field is 0 in some rows and 1 in all others."""
        values = [row.record[name] for row in self.rows if row.record and name in row.record]
        return 0 in values and 1 in values and all(value in (0, 1) for value in values)

    def fields_read(self) -> dict[str, int]:
        """Return the fields of the samples that were read."""
        samples, found = self.result.samples, Counter[str]()
        taken = set(zip(samples["source_file"], samples["source_row"], strict=True))
        for row in self.rows:
            if row.record is not None and (row.source_file, row.source_row) in taken:
                found.update(name for name, value in row.record.items() if value not in (None, ""))
        return {name: num for name, num in found.items() if name not in self.result.unread}


def _kind(path: Path, encoding: str | None) -> str:
    try:
        return describe_file(path, encoding)
    except (RejectionError, OSError) as error:
        return str(error)


def refusals_of(quarantine: pl.DataFrame) -> list[Refusal]:
    """Return the reasons in a table of rejected rows, most frequent first, each with a row."""
    found = []
    for (reason,), rows in quarantine.group_by("reason", maintain_order=True):
        first = rows.row(0, named=True)
        refusal = Refusal(
            reason=str(reason),
            num_rows=rows.height,
            place=f"{first['source_file']}, row {first['source_row']}",
            detail=first["detail"],
            raw=first["raw"][:_NUM_EXAMPLE_CHARACTERS],
        )
        found.append(refusal)
    return sorted(found, key=lambda refusal: -refusal.num_rows)


def _advice(
    refusals: Sequence[Refusal], rows: Sequence[RawRow], options: ReadOptions
) -> tuple[ReadOptions, list[str]]:
    """Return the options to put into the sidecar, and what else to do.

    Rows are those that a mapping may help: where some are samples as they are, it would harm these.
    """
    given, words = options.given(), []
    reasons = {refusal.reason for refusal in refusals}
    places = [found[1] for refusal in refusals if (found := _ROWS.search(refusal.detail))]
    if places:
        given["rows"] = places[0]
    elif rows and reasons & {"unknown_format", "missing_field"} and not options.map:
        if names := _mapping(refusals, rows):
            given["map"] = names
            words.append("check the mapping: it goes by the names of the fields")
            if "chosen" in names:
                words.append("drop the file under preference: --stage preference shows its pairs")
        else:
            words.append('say which field is what, as in map = { user = "…", assistant = "…" }')
    if any(r.reason == "unsupported_content" and "pictures" in r.detail for r in refusals):
        given["media"] = "keep"
        words.append('media = "keep" measures the text of rows with pictures or sound')
    for refusal in refusals:
        if refusal.reason == "bad_encoding" and (found := _ENCODING.search(refusal.detail)):
            given["encoding"] = found[1]
    if "unknown_role" in reasons:
        words.append('say what the other roles are, as in roles = { agent = "assistant" }')
    if any(r.reason == "rated_record" and "under preference" in r.detail for r in refusals):
        words.append("drop the file under preference: its records carry ratings")
    return ReadOptions(**given), words


def _of_stages(tried: Sequence[_Reading], best: _Reading) -> list[str]:
    """Return that another stage takes rows, too, where it does."""
    return [
        f"{other.stage} takes {other.result.samples.height:,} samples of it, too: drop it there "
        f"for those, and see them with --stage {other.stage}"
        for other in tried
        if other is not best and other.result.samples.height
    ]


def _of_fields(best: _Reading, options: ReadOptions) -> list[str]:
    """Return what to do about fields that are not read, and that a person may well mean."""
    unread, words = best.result.unread, []
    verdicts = [*_VERDICTS, *filter(best.tells_good_from_bad, _REWARDS)]
    for name in [name for name in verdicts if name in unread and best.stage == "sft"]:
        words.append(
            f"if {name} says whether the answer is good, train KTO on it: --stage preference "
            f"--map label={name}, and the same in the sidecar of a drop under preference"
        )
    if options.map and (names := [n for n in unread if n.rpartition(".")[2] in _CONTEXT]):
        words.append(f"the mapping leaves out {', '.join(names)}; map what belongs to the question")
    return words


_LIKELY = {
    "user": (
        "user", "question", "query", "prompt", "instruction", "input", "problem", "q", "human",
        "input_text", "patient",
    ),
    "assistant": (
        "assistant", "answer", "response", "output", "completion", "target", "reply", "solution",
        "r", "a", "output_text", "generated_solution", "canonical_solution", "correct_answer",
        "doctor",
    ),
    "system": ("system", "system_prompt"),
    "chosen": (
        "chosen", "accepted", "preferred", "better", "good", "win", "chosen_answer",
        "response_chosen", "preferred_response", "better_response",
    ),
    "rejected": (
        "rejected", "dispreferred", "worse", "bad", "lose", "rejected_answer",
        "response_rejected", "dispreferred_response", "worse_response",
    ),
}  # fmt: skip


def _mapping(refusals: Sequence[Refusal], rows: Sequence[RawRow]) -> dict[str, str]:
    found = [place for refusal in refusals if (place := _MESSAGES.search(refusal.detail))]
    return {"messages": found[0][1]} if found else _likely_map(rows)


def _likely_map(rows: Sequence[RawRow]) -> dict[str, str]:
    """Return which fields look like question and answer by their names, empty where none do."""
    record = next((row.record for row in rows if row.record is not None), {})
    texts = {name.lower(): name for name, value in record.items() if isinstance(value, str)}
    found = {
        target: next(texts[name] for name in names if name in texts)
        for target, names in _LIKELY.items()
        if any(name in texts for name in names)
    }
    if {"user", "chosen", "rejected"} <= found.keys():
        return {name: field for name, field in found.items() if name != "assistant"}
    names = {"user", "assistant", "system"}
    kept = {name: field for name, field in found.items() if name in names}
    return kept if {"user", "assistant"} <= kept.keys() else {}
