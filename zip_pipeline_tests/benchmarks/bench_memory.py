"""An input in every shape: peak memory and processor time of each step, each alone.

Each is measured at an eighth of the size besides, so that one sees what grows, and how.
``python -m zip_pipeline_tests.benchmarks.bench_memory [MEGABYTES [SHAPE or STEP ...]]``; ``TMPDIR``
names the folder of the data, which takes four times their size. 1024 megabytes in all shapes take
hours, so name a shape there.
"""

import csv
import gzip
import itertools
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import polars as pl
import zstandard

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import batch_metadata, write_state
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.training.tokens import configured_tokens
from zip_pipeline.workflow.sources import read
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.benchmarks.machine import cpu_seconds, report
from zip_pipeline_tests.processes import peak_bytes

MEGABYTES = 16
Records = Iterator[dict[str, object]]


def texts(num_bytes: int) -> Iterator[str]:
    """Yield texts of random words, none twice, of about so many bytes each."""
    draw = random.Random(num_bytes)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.randrange(1, 4))) for _ in range(5_000)]
    block = " ".join(draw.choices(words, k=200_000 + num_bytes // 2))
    for number in itertools.count():
        start = draw.randrange(len(block) - num_bytes)
        yield f"{number} {block[start : start + num_bytes]}"


def pairs(num_bytes: int) -> Records:
    """Yield questions with answers."""
    return ({"prompt": f"Why {text[:30]}?", "completion": text} for text in texts(num_bytes))


def messages(num_bytes: int) -> Records:
    """Yield conversations of four messages."""
    for text in texts(num_bytes // 4):
        turns = [(role, f"{text} {n}") for n in range(2) for role in ("user", "assistant")]
        yield {"messages": [{"role": role, "content": content} for role, content in turns]}


def reply(names: Iterator[int], said: Iterator[str], depth: int) -> dict[str, object]:
    """Return a message with two replies, each with two of its own, as deep as told."""
    role = "assistant" if depth % 2 == 0 else "prompter"
    fields = {"message_id": f"{next(names)}", "role": role, "text": next(said)}
    return {**fields, "replies": [reply(names, said, depth - 1) for _ in range(2 if depth else 0)]}


def chats(num_bytes: int) -> Records:
    """Yield conversations of many short messages."""
    for text in texts(num_bytes):
        places = range(0, num_bytes // 40, 2)
        said = [text[place : place + 2] for place in places]
        turns = [(("user", "assistant")[n % 2], content) for n, content in enumerate(said)]
        yield {"messages": [{"role": role, "content": content} for role, content in turns]}


def mixed(num_bytes: int) -> Records:
    """Yield tiny rows and long ones in turn, four times as much of them each time."""
    kinds = (pairs(60), pairs(num_bytes))
    for power, records in enumerate(itertools.cycle(kinds)):
        num_characters = 0
        while num_characters < 1 << (20 + 2 * power):
            record = next(records)
            num_characters += len(json.dumps(record))
            yield record


def alike(num_bytes: int) -> Records:
    """Yield answers of one letter again and again."""
    for number in itertools.count():
        yield {"prompt": f"Why {number}?", "completion": f"{number} {'n' * num_bytes}"}


def letters(num_bytes: int) -> Records:
    """Yield answers in words of one letter."""
    for text in texts(num_bytes // 2):
        yield {"prompt": f"Why {text[:30]}?", "completion": " ".join(text.replace(" ", ""))}


def salad(num_bytes: int) -> Records:
    """Yield answers in words that are in no order, so that each is noise."""
    draw = random.Random(num_bytes)
    words = next(texts(100_000)).split()[:5_000]
    for number in itertools.count():
        said = " ".join(draw.choices(words, k=num_bytes // 5))
        yield {"prompt": f"Why {number}?", "completion": said}


def named(num_bytes: int) -> Records:
    """Yield answers with fields of names of their own, and a source that two others have."""
    for number, record in enumerate(pairs(num_bytes)):
        yield {**record, f"field {number}": number, "source": f"{number // 3} {'s' * 190}"}


def trees(num_bytes: int) -> Records:
    """Yield trees of 15 messages, which have eight conversations."""
    names, said = itertools.count(), texts(num_bytes // 15)
    return ({"prompt": reply(names, said, 3)} for _ in itertools.count())


def messages_of_trees(num_bytes: int) -> Records:
    """Yield the messages of such trees, each with the name of its parent."""
    for tree in trees(num_bytes * 15):
        waiting = [(None, tree["prompt"])]
        while waiting:
            parent, message = waiting.pop()
            replies = message.pop("replies")
            yield {**message, "parent_id": parent}
            waiting += [(message["message_id"], one) for one in replies]


def answers(num_bytes: int) -> Records:
    """Yield questions with one of three answers and its score."""
    for number, text in enumerate(texts(num_bytes)):
        prompt = f"Why {number // 3}?"
        yield {"prompt": prompt, "response": text, "helpfulness": number % 3}


def lines(records: Records, file: Path) -> Iterator[int]:
    """Write records one per line; yield the bytes of each."""
    kinds: dict[str, Callable[..., IO[bytes]]] = {".gz": gzip.open, ".zst": zstandard.open}
    with kinds.get(file.suffix, Path.open)(file, "wb") as out:
        for record in records:
            yield out.write(json.dumps(record).encode() + b"\n")


def array(records: Records, file: Path) -> Iterator[int]:
    """Write records as one list; yield the bytes of each."""
    with file.open("w") as out:
        for number, record in enumerate(records):
            yield out.write(("," if number else "[") + json.dumps(record))
        out.write("]")


def cells(records: Records, file: Path) -> Iterator[int]:
    """Write records as CSV; yield the bytes of each."""
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("prompt", "completion"))
        for record in records:
            yield writer.writerow(record.values())


def table(records: Records, file: Path) -> Iterator[int]:
    """Write records as Parquet in one row group; yield the bytes of each."""
    rows = []
    try:
        for record in records:
            rows.append(record)
            yield len(json.dumps(record))
    finally:
        pl.DataFrame(rows).write_parquet(file, row_group_size=len(rows))


Write = Callable[[Records, Path], Iterator[int]]
# (stage, records, bytes of each, how they are written, ending)
SHAPES: dict[str, tuple[str, Callable[[int], Records], int, Write, str]] = {
    "tiny rows": ("sft", pairs, 60, lines, "jsonl"),
    "short rows": ("sft", pairs, 1_000, lines, "jsonl"),
    "long rows": ("sft", pairs, 100_000, lines, "jsonl"),
    "longest rows": ("sft", pairs, 15_000_000, lines, "jsonl"),
    "mixed rows": ("sft", mixed, 15_000_000, lines, "jsonl"),
    "alike rows": ("sft", alike, 100_000, lines, "jsonl"),
    "letters": ("sft", letters, 15_000_000, lines, "jsonl"),
    "named rows": ("sft", named, 60, lines, "jsonl"),
    "noise": ("sft", salad, 60, lines, "jsonl"),
    "many turns": ("sft", chats, 15_000_000, lines, "jsonl"),
    "array": ("sft", pairs, 3_000, array, "json"),
    "csv": ("sft", pairs, 1_000, cells, "csv"),
    "parquet": ("sft", pairs, 1_000, table, "parquet"),
    "parquet of messages": ("sft", messages, 1_000, table, "parquet"),
    "zstd": ("sft", pairs, 1_000, lines, "jsonl.zst"),
    "gzip": ("sft", pairs, 1_000, lines, "jsonl.gz"),
    "trees": ("sft", trees, 6_000, lines, "jsonl"),
    "table of messages": ("sft", messages_of_trees, 400, lines, "jsonl"),
    "scored rows": ("preference", answers, 1_000, lines, "jsonl"),
}


def select(root: DataRoot, stage: str, **options: object) -> None:
    """Select a version."""
    select_version(root[stage], SelectionConfig(**options), log=lambda _: None)


# By name what is measured, given the root, the stage and the drop.
STEPS: dict[str, Callable[[DataRoot, str, str], object]] = {
    "ingestion": lambda root, stage, name: ingest_drop(root[stage], name),
    "state": lambda root, stage, name: write_state(
        root[stage], name, tokens=configured_tokens(root.path)
    ),
    "coverage": lambda root, stage, name: select(root, stage, budget_samples=200),
    "zip": lambda root, stage, name: select(root, stage, strategy="zip", budget_samples=200),
    "long_range": lambda root, stage, name: select(
        root, stage, strategy="long_range", budget_bytes=2_000_000
    ),
    "random half": lambda root, stage, name: select(
        root,
        stage,
        strategy="random",
        budget_samples=int(batch_metadata(root[stage], name)["num_samples"]) // 2,
    ),
    "near-duplicates": lambda root, stage, name: select(
        root, stage, strategy="random", budget_samples=200, signals={"near_duplicates": {}}
    ),
    "cluster": lambda root, stage, name: select(
        root, stage, strategy="cluster", budget_samples=200
    ),
    "d4": lambda root, stage, name: select(root, stage, strategy="d4", budget_samples=200),
    "read": lambda root, stage, name: read(root[stage].raw / name, stage),
}


def measured(step: str, *place: str) -> dict[str, float]:
    """Return what a step takes in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--step", step, *place]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(megabytes: int, names: list[str]) -> None:
    """Measure steps of shapes at both sizes: those that are named, else all."""
    steps = [name for name in names if name in STEPS] or STEPS
    for shape in [name for name in names if name in SHAPES] or SHAPES:
        stage, records, num_bytes, write, ending = SHAPES[shape]
        for size in (megabytes // 8, megabytes):
            with tempfile.TemporaryDirectory() as folder:
                drop = DataRoot(Path(folder))[stage].raw / f"drop.{ending}"
                drop.parent.mkdir(parents=True)
                written = write(records(num_bytes), drop)
                num_rows = next(
                    n
                    for n, total in enumerate(itertools.accumulate(written))
                    if total >= size << 20
                )
                written.close()
                for step in steps:
                    facts = {"shape": shape, "megabytes": size, "num_rows": num_rows, "step": step}
                    report("memory", facts | measured(step, folder, stage, drop.name))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        step, root, *place = sys.argv[2:]
        before = peak_bytes() >> 20
        STEPS[step](DataRoot(Path(root)), *place)
        growth = {
            "before_mb": before,
            "peak_mb": peak_bytes() >> 20,
            "cpu_seconds": round(cpu_seconds(), 1),
        }
        print(json.dumps(growth))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else MEGABYTES, sys.argv[2:])
