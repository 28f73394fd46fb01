"""The drops of the sample pool: what each holds, in which state it comes, in which format."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from zip_pipeline.sample_data import exports
from zip_pipeline.sample_data.exports import Damage, Record
from zip_pipeline.sample_data.mixture import draw_tasks, far_copies
from zip_pipeline.sample_data.task import Task
from zip_pipeline.samples import Stage

_NEAR_COPIES = 0.06
_DUPLICATES = 0.02
_BROKEN_EACH = 0.002


@dataclass(frozen=True, kw_only=True)
class Drop:
    """One file of a drop folder.

    Attributes:
        name: its file name.
        state: number of the state with which it comes first.
        num_rows: rows at scale 1.
        weights: how often each family comes.
        record: a row from a task and its place.
        pack: the file from its rows.
        damages: ways in which a few rows are broken.
        system_share: share of the conversations with a system turn.
        re_exported: whether state x5 brings a broken re-export under the same name.
    """

    name: str
    state: int
    num_rows: int
    weights: Mapping[str, int]
    pack: Callable[[list[Record]], bytes]
    damages: tuple[Damage, ...]
    stage: Stage = "sft"
    record: Callable[[Task, int], Record] = exports.messages
    system_share: float = 0.0
    re_exported: bool = False


def _weights(text: str) -> dict[str, int]:
    return {name: int(weight) for name, weight in (part.split(":") for part in text.split())}


SFT_DROPS = (
    Drop(
        name="01_worksheets.jsonl.gz",
        state=1,
        num_rows=2000,
        weights=_weights(
            "arithmetic:4 dates:3 units:3 strings:3 lists:3 functions:2 knowledge:2 tables:4 "
            "rewriting:2"
        ),
        record=exports.alpaca,
        pack=lambda records: exports.gzipped(exports.json_lines(records, cut=True)),
        damages=(
            exports.emptied("output"),
            exports.without("output"),
            exports.emptied("instruction"),
        ),
        re_exported=True,
    ),
    Drop(
        name="02_conversations.json",
        state=2,
        num_rows=220,
        weights=_weights("follow_ups:6 tables:1 knowledge:1 rewriting:1 functions:1"),
        record=exports.sharegpt,
        pack=exports.json_list,
        damages=(
            exports.emptied("conversations", -1, "value"),
            exports.without_turns_of("conversations", "from", "human"),
            exports.without("conversations"),
        ),
    ),
    Drop(
        name="03_assistant_logs.jsonl.zst",
        state=3,
        num_rows=1600,
        weights=_weights(
            "tool_use:1 functions:2 tables:4 lists:3 dates:3 units:3 strings:3 arithmetic:4 "
            "rewriting:1 follow_ups:1"
        ),
        record=exports.messages,
        pack=lambda records: exports.zstandard_packed(exports.json_lines(records)),
        damages=(
            exports.emptied("messages", -1, "content"),
            exports.without_turns_of("messages", "role", "user"),
            exports.without_turns_of("messages", "role", "assistant"),
        ),
        system_share=0.25,
        re_exported=True,
    ),
    Drop(
        name="04_quiz.parquet",
        state=4,
        num_rows=330,
        weights=_weights("arithmetic:3 dates:2 units:2 strings:2 lists:2 knowledge:3 functions:1"),
        record=exports.question_answer,
        pack=exports.parquet,
        damages=(exports.emptied("answer"), exports.emptied("question")),
    ),
)
PREFERENCE_DROPS = (
    Drop(
        stage="preference",
        name="01_rated_answers.jsonl.zst",
        state=1,
        num_rows=600,
        weights=_weights(
            "arithmetic:3 dates:2 units:2 strings:2 lists:2 functions:3 knowledge:2 tables:2 "
            "rewriting:2 follow_ups:1"
        ),
        pack=lambda records: exports.zstandard_packed(exports.json_lines(records)),
        damages=(exports.without("rejected"), exports.emptied("chosen", 0, "content")),
        system_share=0.1,
    ),
    Drop(
        stage="preference",
        name="02_dialogues.jsonl.gz",
        state=3,
        num_rows=400,
        weights=_weights("follow_ups:3 tables:2 functions:2 knowledge:1 rewriting:2 arithmetic:1"),
        pack=lambda records: exports.gzipped(exports.json_lines(records, cut=True)),
        damages=(exports.without("chosen"), exports.emptied("rejected")),
    ),
)


def _count(share: float, num_rows: int) -> int:
    return max(1, round(share * num_rows))


def drop_tasks(drop: Drop, rng: Random, num_rows: int, earlier: Sequence[Task]) -> list[Task]:
    """Return the tasks of a drop in file order, near-copies and exact duplicates among them.

    Args:
        drop: the drop.
        rng: draws everything.
        num_rows: how many to return.
        earlier: tasks of the drops before, some of which come again.
    """
    copies, repeats = _count(_NEAR_COPIES, num_rows), _count(_DUPLICATES, num_rows)
    again = [task for task in earlier if len(task.prompt) == 1 and not task.context]
    seen = min(repeats, len(again))
    drawn = draw_tasks(rng, drop.weights, system_share=drop.system_share)
    tasks = list(islice(drawn, num_rows - copies - repeats - seen))
    tasks += far_copies(rng, tasks, copies) + rng.sample(tasks, repeats) + rng.sample(again, seen)
    rng.shuffle(tasks)
    return tasks


def _damaged(rng: Random, records: list[Record], damages: Sequence[Damage]) -> list[Record]:
    """Return the records with a few broken ones between them."""
    kept = list(records)
    for damage in damages:
        for record in rng.sample(records, _count(_BROKEN_EACH, len(records))):
            kept.insert(rng.randrange(len(kept) + 1), damage(record))
    return kept


def sft_file(drop: Drop, rng: Random, tasks: Sequence[Task]) -> bytes:
    """Return the file of an SFT drop."""
    records = [drop.record(task, place) for place, task in enumerate(tasks)]
    return drop.pack(_damaged(rng, records, drop.damages))


def preference_file(drop: Drop, rng: Random, tasks: Sequence[Task]) -> bytes:
    """Return the file of a preference drop: right answers against wrong or curt ones."""
    shape = exports.dialogue_pair if "dialogues" in drop.name else exports.prompt_chosen_rejected
    records = []
    for task in tasks:
        curt = task.curt != task.answer and rng.random() < 0.4
        records.append(shape(task, task.curt if curt else task.wrong))
    return drop.pack(_damaged(rng, records, drop.damages))
