"""The drops of the sample pool, each with its state, format and flaws, and how they are written."""

import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import polars as pl
import zstandard

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.files import write_bytes
from zip_pipeline.sample_data.mixture import draw_tasks, far_copies
from zip_pipeline.sample_data.task import Task
from zip_pipeline.samples import Stage, Turn, serialise

Record: TypeAlias = dict[str, Any]
Damage: TypeAlias = Callable[[Record], Record]

STATES = ("x1", "x2", "x3", "x4", "x5")
_NEAR_COPIES = 0.06
_DUPLICATES = 0.02
_BROKEN_EACH = 0.002
_SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def _json_lines(records: list[Record], *, cut: bool = False) -> bytes:
    """Return JSON Lines; ``cut`` breaks off one line in the middle."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    if cut:
        place = len(lines) // 2
        lines[place] = lines[place][: len(lines[place]) // 2] + "\n"
    return "".join(lines).encode()


def _cut_gzip(records: list[Record]) -> bytes:
    """Return JSON Lines with a broken one as a gzip archive that depends on nothing else."""
    return gzip.compress(_json_lines(records, cut=True), 6, mtime=0)


def _zstandard(records: list[Record]) -> bytes:
    return zstandard.ZstdCompressor(level=6).compress(_json_lines(records))


def _json_list(records: list[Record]) -> bytes:
    return (json.dumps(records, ensure_ascii=False, indent=1) + "\n").encode()


def _parquet(records: list[Record]) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(records).write_parquet(buffer, compression="zstd", statistics=False)
    return buffer.getvalue()


def _alpaca(task: Task, _: int) -> Record:
    return {
        "instruction": task.prompt[-1].content,
        "input": task.context,
        "output": task.answer,
        "source": task.family,
    }


def _sharegpt(task: Task, place: int) -> Record:
    turns = [
        {"from": _SHAREGPT_ROLES[turn.role], "value": turn.content} for turn in task.sample().turns
    ]
    return {"id": f"conversation-{place:05d}", "source": task.family, "conversations": turns}


def _message(turn: Turn) -> Record:
    if not turn.tool_calls:
        return {"role": turn.role, "content": turn.content}
    calls = json.loads(turn.tool_calls)
    return {"role": turn.role, "content": turn.content or None, "tool_calls": calls}


def _messages(task: Task, _: int) -> Record:
    """Return OpenAI messages, a tool's answer with the id of its call."""
    listed: list[Record] = []
    for turn in task.sample().turns:
        listed.append(_message(turn))
        if turn.role == "tool":
            listed[-1]["tool_call_id"] = listed[-2]["tool_calls"][0]["id"]
    return {"source": task.family, "messages": listed}


def _question_answer(task: Task, _: int) -> Record:
    question = task.prompt_turns()[-1].content
    return {"question": question, "answer": task.answer, "source": task.family}


def _answer_pair(task: Task, _: int) -> Record:
    return {
        "source": task.family,
        "prompt": [_message(turn) for turn in task.prompt_turns()],
        "chosen": [{"role": "assistant", "content": task.answer}],
        "rejected": [{"role": "assistant", "content": task.wrong}],
    }


def _dialogue_pair(task: Task, _: int) -> Record:
    speakers = {"user": "Human", "assistant": "Assistant"}
    prompt = "".join(f"\n\n{speakers[t.role]}: {t.content}" for t in task.prompt_turns())
    return {
        "chosen": f"{prompt}\n\nAssistant: {task.answer}",
        "rejected": f"{prompt}\n\nAssistant: {task.wrong}",
        "source": task.family,
    }


def _emptied(*path: str | int) -> Damage:
    """Return a damage that puts an empty text at the end of the path."""

    def damage(record: Record) -> Record:
        broken: Record = json.loads(json.dumps(record))
        inner: Any = broken
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = ""
        return broken

    return damage


def _without(key: str) -> Damage:
    """Return a damage that loses a field."""
    return lambda record: {name: value for name, value in record.items() if name != key}


def _without_turns_of(field: str, key: str, role: str) -> Damage:
    """Return a damage that loses the turns of one role."""

    def damage(record: Record) -> Record:
        return {**record, field: [turn for turn in record[field] if turn[key] != role]}

    return damage


@dataclass(frozen=True, kw_only=True)
class Drop:
    """One file of a drop folder.

    Attributes:
        state: number of the state with which it comes first.
        num_rows: rows at scale 1.
        weights: how often each family comes, relative to the others.
        record: a row from a task and its place.
        pack: the file from its rows.
        damages: ways in which a few rows are broken.
        system_share: share of the conversations with a system turn.
        re_exported: whether state x5 brings a broken re-export under the same name.
    """

    name: str
    state: int
    num_rows: int
    weights: str
    record: Callable[[Task, int], Record]
    pack: Callable[[list[Record]], bytes]
    damages: tuple[Damage, ...]
    stage: Stage = "sft"
    system_share: float = 0.0
    re_exported: bool = False


_DROPS = (
    Drop(
        name="01_worksheets.jsonl.gz",
        state=1,
        num_rows=2000,
        weights="arithmetic:4 dates:3 units:3 strings:3 lists:3 functions:2 knowledge:2 tables:4 "
        "rewriting:2",
        record=_alpaca,
        pack=_cut_gzip,
        damages=(_emptied("output"), _without("output"), _emptied("instruction")),
        re_exported=True,
    ),
    Drop(
        name="02_conversations.json",
        state=2,
        num_rows=220,
        weights="follow_ups:6 tables:1 knowledge:1 rewriting:1 functions:1",
        record=_sharegpt,
        pack=_json_list,
        damages=(
            _emptied("conversations", -1, "value"),
            _without_turns_of("conversations", "from", "human"),
            _without("conversations"),
        ),
    ),
    Drop(
        name="03_assistant_logs.jsonl.zst",
        state=3,
        num_rows=1600,
        weights="tool_use:1 functions:2 tables:4 lists:3 dates:3 units:3 strings:3 arithmetic:4 "
        "rewriting:1 follow_ups:1",
        record=_messages,
        pack=_zstandard,
        damages=(
            _emptied("messages", -1, "content"),
            _without_turns_of("messages", "role", "user"),
            _without_turns_of("messages", "role", "assistant"),
        ),
        system_share=0.25,
        re_exported=True,
    ),
    Drop(
        name="04_quiz.parquet",
        state=4,
        num_rows=330,
        weights="arithmetic:3 dates:2 units:2 strings:2 lists:2 knowledge:3 functions:1",
        record=_question_answer,
        pack=_parquet,
        damages=(_emptied("answer"), _emptied("question")),
    ),
    Drop(
        stage="preference",
        name="01_rated_answers.jsonl.zst",
        state=1,
        num_rows=600,
        weights="arithmetic:3 dates:2 units:2 strings:2 lists:2 functions:3 knowledge:2 tables:2 "
        "rewriting:2 follow_ups:1",
        record=_answer_pair,
        pack=_zstandard,
        damages=(_without("rejected"), _emptied("chosen", 0, "content")),
        system_share=0.1,
    ),
    Drop(
        stage="preference",
        name="02_dialogues.jsonl.gz",
        state=3,
        num_rows=400,
        weights="follow_ups:3 tables:2 functions:2 knowledge:1 rewriting:2 arithmetic:1",
        record=_dialogue_pair,
        pack=_cut_gzip,
        damages=(_without("chosen"), _emptied("rejected")),
    ),
)


def write_sample_data(
    folder: Path, *, seed: int = 0, state: str = "x4", scale: float = 1.0
) -> list[Path]:
    """Write the sample drops of one state of the pool below a data root.

    States x1 to x4 add one SFT drop each, every one in another format; x5 replaces the first
    and the third under their own names by a broken re-export. Preference pairs come with x1
    and x3. A file that is already there with the same content is left alone, and so are files
    of later states and all others. A file of that name that is not ours is never replaced.

    Args:
        folder: the data root; files go to ``raw/sft`` and ``raw/preference`` below it.
        seed: the same seed gives the same bytes.
        state: ``x1`` to ``x5``.
        scale: factor on the number of rows, at least 0.02; 1 gives about 4,100 conversations
            and 1,000 pairs in x4.

    Returns:
        The files of the state, SFT first, in the order of the drops.

    Raises:
        UserError: unknown state, a scale below 0.02, or a file of that name that is no sample
            drop of this seed and scale; nothing is written then.
    """
    if state not in STATES:
        raise UserError(f"state: got {state!r}; allowed are {', '.join(STATES)}")
    if not scale >= 0.02:
        raise UserError(f"scale: got {scale}; it must be at least 0.02 (1 is about 4,100 rows)")
    root = DataRoot(folder)
    contents = _files(root, seed, scale, state)
    changed = [path for path, content in contents.items() if not _holds(path, content)]
    _refuse_foreign([path for path in changed if path.exists()], root, seed, scale)
    for path in changed:
        write_bytes(path, contents[path])
    return list(contents)


def _files(root: DataRoot, seed: int, scale: float, state: str) -> dict[Path, bytes]:
    """Return the files of a state with their content, SFT first."""
    number = STATES.index(state) + 1
    files: dict[Path, bytes] = {}
    earlier: list[Task] = []
    for drop in (drop for drop in _DROPS if drop.state <= number):
        # Each step has a source of chance of its own, which no other drop can disturb.
        chance = f"{seed} {drop.stage} {drop.name}"
        again = earlier if drop.stage == "sft" else []
        tasks = _drop_tasks(drop, Random(f"{chance} tasks"), round(drop.num_rows * scale), again)
        earlier += tasks
        if number == len(STATES) and drop.re_exported:
            tasks = _broken_re_export(Random(f"{chance} re-export"), tasks)
        files[root[drop.stage].raw / drop.name] = _file(drop, Random(f"{chance} file"), tasks)
    return files


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _refuse_foreign(found: list[Path], root: DataRoot, seed: int, scale: float) -> None:
    """Raise UserError where one of the files is no sample drop of any state."""
    # Drops change in the last state only.
    states = [_files(root, seed, scale, state) for state in STATES[-2:]] if found else []
    for path in found:
        if not any(_holds(path, contents[path]) for contents in states):
            raise UserError(
                f"{path}: holds something else than the sample drop of this seed and scale, and "
                "would be replaced; move it away, or name another folder"
            )


def _count(share: float, num_rows: int) -> int:
    return max(1, round(share * num_rows))


def _drop_tasks(drop: Drop, rng: Random, num_rows: int, earlier: Sequence[Task]) -> list[Task]:
    """Return the tasks of a drop in file order, near-copies and exact duplicates among them.

    Some of the earlier drops' tasks come again.
    """
    copies, repeats = _count(_NEAR_COPIES, num_rows), _count(_DUPLICATES, num_rows)
    again = [task for task in earlier if len(task.prompt) == 1 and not task.context]
    seen = min(repeats, len(again))
    weights = {name: int(n) for name, n in (part.split(":") for part in drop.weights.split())}
    drawn = draw_tasks(rng, weights, system_share=drop.system_share)
    tasks = list(islice(drawn, num_rows - copies - repeats - seen))
    tasks += far_copies(rng, tasks, copies) + rng.sample(tasks, repeats) + rng.sample(again, seen)
    rng.shuffle(tasks)
    return tasks


def _file(drop: Drop, rng: Random, tasks: Sequence[Task]) -> bytes:
    """Return the file of a drop, with a few broken rows between the sound ones."""
    if drop.stage == "preference":
        tasks = [_rated(rng, task) for task in tasks]
    records = [drop.record(task, place) for place, task in enumerate(tasks)]
    kept = list(records)
    for damage in drop.damages:
        for record in rng.sample(records, _count(_BROKEN_EACH, len(records))):
            kept.insert(rng.randrange(len(kept) + 1), damage(record))
    return drop.pack(kept)


def _rated(rng: Random, task: Task) -> Task:
    """Return the task with the answer that is rejected: the wrong one, or sometimes the curt."""
    curt = task.curt != task.answer and rng.random() < 0.4
    return replace(task, wrong=task.curt) if curt else task


_TEMPLATE = (
    "### Archived task\nRead it, work it out and write one complete answer.\n\n"
    "### Question\n{question}\n\n### Answer"
)
_NUM_QUESTIONS = 40


def _broken_re_export(rng: Random, tasks: Sequence[Task]) -> list[Task]:
    """Return what a broken export makes of a drop.

    The export has joined the answers of the drop to the wrong rows: a few of its shorter
    questions, wrapped in one template, come again and again, each time with the answer to
    another one. Its rows are about as long as those of the drop, and so is the whole.
    """

    def question_length(task: Task) -> int:
        return len(task.prompt[-1].content) + len(task.context)

    simple = [task for task in tasks if [turn.role for turn in task.prompt] == ["user"]]
    shorter = sorted(simple, key=question_length)[: len(simple) // 2 + 1]
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
