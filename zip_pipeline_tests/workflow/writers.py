"""Writers who share a store: each has its turn at every word with it, and any may be killed."""

import json
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import obstore

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.training.tokens import configured_tokens
from zip_pipeline.workflow.sharing import LOCK, STATE, share
from zip_pipeline.workflow.versions import current_version, select_version
from zip_pipeline_tests.cli.pools import write_jsonl
from zip_pipeline_tests.end_to_end.crash_points import OPERATIONS, writes

CONFIG = SelectionConfig(strategy="random", budget_samples=3)


def new_root(path: Path, url: str, settings: str = "") -> DataRoot:
    """Return a data root that is shared by the store at ``url``."""
    root = DataRoot(path)
    root["sft"].raw.mkdir(parents=True)
    held_out = "[held_out]\nshare = 0.0\n" if "[held_out]" not in settings else ""
    (path / "zip_pipeline.toml").write_text(f'{held_out}[store]\nurl = "{url}"\n{settings}')
    return root


def rows(num: int, first: int = 0) -> list[dict[str, object]]:
    """Return distinct records of two sources."""
    return [
        {"instruction": f"Say {n}.", "output": f"{n}, {n * n}", "source": f"s{first}-{n % 2}"}
        for n in range(first, first + num)
    ]


def drop(root: DataRoot, name: str, records: list[dict[str, object]]) -> None:
    """Drop a file, and do what the graph does of it."""
    share(root)
    measure(root, name, records)
    share(root)


def measure(root: DataRoot, name: str, records: list[dict[str, object]]) -> None:
    """Drop a file, and make a batch of it that is not published."""
    write_jsonl(root["sft"].raw / name, records)
    ingest_drop(root["sft"], name)
    write_state(root["sft"], name, tokens=configured_tokens(root.path))


def take_in(root: DataRoot, name: str) -> None:
    """Do what the graph does of a drop."""
    share(root)
    ingest_drop(root["sft"], name)
    write_state(root["sft"], name, tokens=configured_tokens(root.path))
    share(root)


def night(root: DataRoot, config: SelectionConfig = CONFIG) -> int:
    """Select where something changed, as the graph does; return the version."""
    share(root)
    number = current_version(root["sft"], config)
    if number is None:
        number = select_version(root["sft"], config, lambda _: None)
    share(root)
    return number


def picks(folder: StageFolder, number: int) -> list[str]:
    """Return the ids of a version in pick order."""
    found: list[str] = folder.versions.subset(number).collect()["sample_id"].to_list()
    return found


def tree(root: DataRoot) -> dict[str, bytes]:
    """Return all that is shared of a root by name, without times that only records have."""
    kinds = ("pool", "quarantine", "duplicates", "state", "versions", "held_out")
    return {
        path.relative_to(root.path).as_posix(): path.read_bytes()
        for kind in kinds
        for path in sorted((root.path / kind).rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def differing(one: DataRoot, other: DataRoot) -> list[str]:
    """Return the names of files that two roots do not share."""
    here, there = tree(one), tree(other)
    return sorted(name for name in {*here, *there} if here.get(name) != there.get(name))


def entry_of(root: DataRoot) -> int:
    """Return the entry of the store that a root has taken in last."""
    return int(json.loads((root.path / STATE).read_text())["entry"])


class KilledError(BaseException):
    """Stands for a process that ends here; nothing catches it."""


@dataclass
class Writer:
    """Somebody with a data root, who is killed at the operation of that number."""

    root: DataRoot
    store_operations: int = 0
    """after how many operations of the store; before the effect of the last where it is negative"""
    file_operations: int = 0


@dataclass
class Turns:
    """Lets one of some threads run at a time; who goes on at each operation is drawn."""

    draw: random.Random
    running: list[int] = field(default_factory=list)
    turn: int = -1
    changed: threading.Condition = field(default_factory=threading.Condition)

    def next(self, me: int, *, ends: bool = False) -> None:
        """Draw whose turn it is, and wait for one's own."""
        with self.changed:
            if ends:
                self.running.remove(me)
            if self.draw.random() < 0.4 or me not in self.running:
                self.turn = self.draw.choice(self.running) if self.running else -1
            self.changed.notify_all()
            self.changed.wait_for(lambda: ends or self.turn == me)


_LOCAL = threading.local()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    writer: Writer | None = getattr(_LOCAL, "writer", None)
    if writer is None or not writer.file_operations or event not in OPERATIONS:
        return
    if event == "open" and not writes(*arguments):
        return
    named = [str(argument) for argument in arguments[:2]]
    if any(str(writer.root.path) in name and LOCK not in name for name in named):
        writer.file_operations -= 1
        if not writer.file_operations:
            raise KilledError


_HOOKED = threading.Event()


@contextmanager
def disturbed(turns: Turns | None = None) -> Iterator[None]:
    """Let writers take turns, and die, at operations of the store and of their disks."""
    if not _HOOKED.is_set():
        sys.addaudithook(_audit)
        _HOOKED.set()

    def at_each(operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            writer: Writer | None = getattr(_LOCAL, "writer", None)
            if writer is None:
                return operation(*arguments, **options)
            if turns is not None:
                turns.next(_LOCAL.number)
            if writer.store_operations < 0:
                writer.store_operations += 1
                if not writer.store_operations:
                    raise KilledError
            result = operation(*arguments, **options)
            if writer.store_operations > 0:
                writer.store_operations -= 1
                if not writer.store_operations:
                    raise KilledError
            return result

        return wrapped

    names = ("get", "put", "head", "list", "delete", "rename")
    with (
        patch.multiple(obstore, **{name: at_each(getattr(obstore, name)) for name in names}),
        # Nobody loses power here, and it takes most of the time.
        patch.object(os, "fsync", lambda _: None),
    ):
        yield


@contextmanager
def as_writer(writer: Writer, number: int = 0) -> Iterator[None]:
    """Do as that writer what the block does."""
    _LOCAL.writer, _LOCAL.number = writer, number
    try:
        yield
    finally:
        _LOCAL.writer = None
        writer.store_operations = writer.file_operations = 0


def at_once(turns: Turns, works: list[Callable[[], None]], writers: list[Writer]) -> None:
    """Let writers do their works at once, in turns; raise what one of them raises."""
    failures: list[BaseException] = []
    turns.running = [*range(len(works))]

    def work(number: int) -> None:
        with turns.changed:
            turns.changed.wait_for(lambda: turns.turn == number)
        _LOCAL.number = number
        try:
            works[number]()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)
        finally:
            turns.next(number, ends=True)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in turns.running]
    for thread in threads:
        thread.start()
    with turns.changed:
        turns.turn = turns.draw.choice(turns.running)
        turns.changed.notify_all()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
