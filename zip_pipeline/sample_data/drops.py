"""The drops of the sample pool: what each holds, in which state it comes, in which format."""

import gzip
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from typing import Any, TypeAlias

import polars as pl
import zstandard

from zip_pipeline.sample_data import drops
from zip_pipeline.sample_data.mixture import draw_tasks, far_copies
from zip_pipeline.sample_data.task import Task
from zip_pipeline.samples import Stage, Turn, serialise

Record: TypeAlias = dict[str, Any]
Damage: TypeAlias = Callable[[Record], Record]

_SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def _json_line(record: Mapping[str, object]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def json_lines(records: Iterable[Record], *, cut: bool = False) -> bytes:
    """Return JSON Lines; ``cut`` breaks off one line in the middle."""
    lines = [_json_line(record) for record in records]
    if cut:
        place = len(lines) // 2
        lines[place] = lines[place][: len(lines[place]) // 2] + "\n"
    return "".join(lines).encode()


def gzipped(content: bytes) -> bytes:
    """Return a gzip archive that depends on nothing but its content."""
    return gzip.compress(content, 6, mtime=0)


def zstandard_packed(content: bytes) -> bytes:
    """Return a Zstandard frame."""
    return zstandard.ZstdCompressor(level=6).compress(content)


def json_list(records: Sequence[Record]) -> bytes:
    """Return one JSON list."""
    return (json.dumps(records, ensure_ascii=False, indent=1) + "\n").encode()


def parquet(records: Sequence[Record]) -> bytes:
    """Return a Parquet file."""
    buffer = io.BytesIO()
    pl.DataFrame(records).write_parquet(buffer, compression="zstd", statistics=False)
    return buffer.getvalue()


def alpaca(task: Task, _: int) -> Record:
    """Return instruction, input and output."""
    return {
        "instruction": task.prompt[-1].content,
        "input": task.context,
        "output": task.answer,
        "source": task.family,
    }


def sharegpt(task: Task, place: int) -> Record:
    """Return a conversation of from/value turns."""
    turns = [
        {"from": _SHAREGPT_ROLES[turn.role], "value": turn.content} for turn in task.sample().turns
    ]
    return {"id": f"conversation-{place:05d}", "source": task.family, "conversations": turns}


def message(turn: Turn) -> Record:
    """Return an OpenAI message."""
    if not turn.tool_calls:
        return {"role": turn.role, "content": turn.content}
    calls = json.loads(turn.tool_calls)
    return {"role": turn.role, "content": turn.content or None, "tool_calls": calls}


def messages(task: Task, _: int) -> Record:
    """Return OpenAI messages, a tool's answer with the id of its call."""
    listed: list[Record] = []
    for turn in task.sample().turns:
        listed.append(message(turn))
        if turn.role == "tool":
            listed[-1]["tool_call_id"] = listed[-2]["tool_calls"][0]["id"]
    return {"source": task.family, "messages": listed}


def question_answer(task: Task, _: int) -> Record:
    """Return question and answer."""
    return {
        "question": task.prompt_turns()[-1].content,
        "answer": task.answer,
        "source": task.family,
    }


def prompt_chosen_rejected(task: Task, rejected: str) -> Record:
    """Return a pair of answers as lists of messages."""
    return {
        "source": task.family,
        "prompt": [message(turn) for turn in task.prompt_turns()],
        "chosen": [{"role": "assistant", "content": task.answer}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def dialogue_pair(task: Task, rejected: str) -> Record:
    """Return a pair of dialogues."""
    speakers = {"user": "Human", "assistant": "Assistant"}
    prompt = "".join(f"\n\n{speakers[t.role]}: {t.content}" for t in task.prompt_turns())
    return {
        "chosen": f"{prompt}\n\nAssistant: {task.answer}",
        "rejected": f"{prompt}\n\nAssistant: {rejected}",
        "source": task.family,
    }


def emptied(*path: str | int) -> Damage:
    """Return a damage that puts an empty text at the end of the path."""

    def damage(record: Record) -> Record:
        broken: Record = json.loads(json.dumps(record))
        inner: Any = broken
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = ""
        return broken

    return damage


def without(key: str) -> Damage:
    """Return a damage that loses a field."""
    return lambda record: {name: value for name, value in record.items() if name != key}


def without_turns_of(field: str, key: str, role: str) -> Damage:
    """Return a damage that loses the turns of one role."""

    def damage(record: Record) -> Record:
        return {**record, field: [turn for turn in record[field] if turn[key] != role]}

    return damage


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
    record: Callable[[Task, int], Record] = drops.messages
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
        record=drops.alpaca,
        pack=lambda records: drops.gzipped(drops.json_lines(records, cut=True)),
        damages=(
            drops.emptied("output"),
            drops.without("output"),
            drops.emptied("instruction"),
        ),
        re_exported=True,
    ),
    Drop(
        name="02_conversations.json",
        state=2,
        num_rows=220,
        weights=_weights("follow_ups:6 tables:1 knowledge:1 rewriting:1 functions:1"),
        record=drops.sharegpt,
        pack=drops.json_list,
        damages=(
            drops.emptied("conversations", -1, "value"),
            drops.without_turns_of("conversations", "from", "human"),
            drops.without("conversations"),
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
        record=drops.messages,
        pack=lambda records: drops.zstandard_packed(drops.json_lines(records)),
        damages=(
            drops.emptied("messages", -1, "content"),
            drops.without_turns_of("messages", "role", "user"),
            drops.without_turns_of("messages", "role", "assistant"),
        ),
        system_share=0.25,
        re_exported=True,
    ),
    Drop(
        name="04_quiz.parquet",
        state=4,
        num_rows=330,
        weights=_weights("arithmetic:3 dates:2 units:2 strings:2 lists:2 knowledge:3 functions:1"),
        record=drops.question_answer,
        pack=drops.parquet,
        damages=(drops.emptied("answer"), drops.emptied("question")),
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
        pack=lambda records: drops.zstandard_packed(drops.json_lines(records)),
        damages=(drops.without("rejected"), drops.emptied("chosen", 0, "content")),
        system_share=0.1,
    ),
    Drop(
        stage="preference",
        name="02_dialogues.jsonl.gz",
        state=3,
        num_rows=400,
        weights=_weights("follow_ups:3 tables:2 functions:2 knowledge:1 rewriting:2 arithmetic:1"),
        pack=lambda records: drops.gzipped(drops.json_lines(records, cut=True)),
        damages=(drops.without("chosen"), drops.emptied("rejected")),
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
    shape = drops.dialogue_pair if "dialogues" in drop.name else drops.prompt_chosen_rejected
    records = []
    for task in tasks:
        curt = task.curt != task.answer and rng.random() < 0.4
        records.append(shape(task, task.curt if curt else task.wrong))
    return drop.pack(_damaged(rng, records, drop.damages))


_TEMPLATE = (
    "### Archived task\nRead it, work it out and write one complete answer.\n\n"
    "### Question\n{question}\n\n### Answer"
)
_NUM_QUESTIONS = 40


def _question_length(task: Task) -> int:
    return len(task.prompt[-1].content) + len(task.context)


def broken_re_export(rng: Random, tasks: Sequence[Task]) -> list[Task]:
    """Return what a broken export makes of a drop.

    The export has joined the answers of the drop to the wrong rows: a few of its shorter
    questions, wrapped in one template, come again and again, each time with the answer to
    another one. Its rows are about as long as those of the drop, and so is the whole.

    Args:
        rng: draws everything.
        tasks: the tasks of the drop that is replaced.
    """
    simple = [task for task in tasks if [turn.role for turn in task.prompt] == ["user"]]
    shorter = sorted(simple, key=_question_length)[: len(simple) // 2 + 1]
    kept = rng.sample(shorter, min(_NUM_QUESTIONS, len(shorter)))
    wanted_bytes = sum(len(serialise(task.sample()).encode()) for task in tasks)
    exported: list[Task] = []
    while wanted_bytes > 0:
        for task in rng.sample(tasks, len(tasks)):
            question = rng.choice(kept)
            text = _TEMPLATE.format(question=question.prompt_turns()[-1].content)
            prompt = (Turn("user", text),)
            exported.append(replace(question, prompt=prompt, answer=task.answer, context=""))
            wanted_bytes -= len(serialise(exported[-1].sample()).encode())
            if wanted_bytes <= 0:
                break
    return exported
