"""Tasks in the formats in which drops arrive, broken rows included."""

import gzip
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import polars as pl
import zstandard

from zip_pipeline.sample_data.task import Task
from zip_pipeline.samples import Turn

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
