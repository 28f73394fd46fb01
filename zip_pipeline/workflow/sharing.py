"""A data root and the store that it shares with others: what is new on one side goes to the other.

An entry of the store's log gives units their contents; what they are after all entries is the head.
A root keeps the head that it last agreed with, its base; :mod:`.merging` compares both with what is
here. An entry is claimed after all entries before it were taken in, and names only files that lie
in the store.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.files import (
    LAYOUT,
    TEMPORARY,
    check_layout,
    locked,
    read_json,
    write_json,
)
from zip_pipeline.pool.parts import Parts
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.settings import read_settings
from zip_pipeline.store import TABLE, Store, StoreSettings
from zip_pipeline.terminal_text import counted
from zip_pipeline.workflow.merging import Content, Log, Merge, remove_tables, some

STATE, LOCK = ".store.json", ".store.lock"
_REMEDY = "remove it, and the next run compares all that is here with the store"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class _State:
    """The head that a root last agreed with: the store, number and id of its entry, the units.

    ``disputed``: what the store has of batches that both sides changed; ``units`` has what they
    agreed on before.
    """

    store: str = ""
    entry: int = 0
    id: str = ""
    units: Mapping[str, Content] = field(default_factory=dict)
    disputed: Mapping[str, Content] = field(default_factory=dict)


def store_settings(root: DataRoot) -> StoreSettings:
    """Return what the table [store] says.

    Raises:
        UserError: see :func:`.read_settings`.
    """
    return read_settings(root.path, TABLE, StoreSettings)


def share(root: DataRoot, log: Log = lambda _: None, rests_on: str | None = "") -> None:
    """Take in what the store has, and publish what it lacks; without a store do nothing.

    Args:
        root: the data root.
        log: is told what was shared, and of what the caller does not rest on why it was not.
        rests_on: a batch as ``STAGE/BATCH``, ``STAGE/`` for those of a stage; all if not given.

    Raises:
        UserError: the store cannot be used, or both sides have another content of the same; where
            that is a batch, all else is shared nevertheless, and only who rests on it is stopped.
    """
    with _exchange(root, log) as exchange:
        if exchange is not None:
            exchange.run()
            exchange.tell(rests_on)


@contextmanager
def shared(root: DataRoot, log: Log) -> Iterator[None]:
    """Share what there is before the block, which rests on no batch, and what it makes."""
    share(root, log, rests_on=None)
    yield
    share(root, log, rests_on=None)


def publish_version(
    folder: StageFolder,
    subset: Parts,
    ledger: pl.DataFrame | pl.LazyFrame,
    manifest: Mapping[str, object],
    log: Log = lambda _: None,
) -> int | None:
    """Write a version and publish it; return its number, which no other version has.

    Another writer's version of the same content is taken in its place.

    Returns:
        None where samples that it picked are held out by others by now: it is not kept, and to be
        selected again.

    Raises:
        UserError: the store cannot be used; the version is here then, and published later.
    """
    # Nothing may come between, which would give the version another number.
    with _exchange(folder.root, log) as exchange:
        number = folder.versions.write(subset.row_groups(), ledger, manifest)
        if exchange is None:
            return number
        exchange.run()
        exchange.tell(None)
        return exchange.number_of(folder.stage, number)


def remove_batch(folder: StageFolder, batch: str, log: Log = lambda _: None) -> None:
    """Take a batch out of the pool, and out of those of all who share the store.

    Raises:
        UserError: there is no such batch, its drop is there still, the store cannot be used, or
            has another content of this batch.
    """
    if os.path.lexists(folder.raw / batch):
        raise UserError(f"{folder.raw / batch}: would be ingested again; remove it first")
    with _exchange(folder.root, log) as exchange:
        if exchange is not None:
            exchange.run()
        if batch not in folder.batches():
            known = ", ".join(folder.batches()) or "none"
            raise UserError(f"batch {batch!r} is not in the pool of {folder.stage}; it has {known}")
        unit = f"batch/{folder.stage}/{batch}"
        if exchange is None or not exchange.has(unit):
            remove_tables(folder, batch)
        else:
            if not exchange.disputes(unit):
                exchange.run(without=unit)
            exchange.tell(unit.removeprefix("batch/"))


def clean_store(root: DataRoot, log: Log = lambda _: None) -> tuple[int, int]:
    """Remove what killed writers left in the store; see :meth:`.Store.clean`.

    Returns:
        How many files were removed, and how many wait for it.

    Raises:
        UserError: there is no store, it cannot be used, or a file that an entry names is missing.
    """
    with _exchange(root, log) as exchange:
        if exchange is None:
            raise no_store(root)
        exchange.run()
        exchange.tell(None)
        return exchange.clean()


@dataclass(frozen=True)
class StoreStatus:
    """How a root stands to its store.

    ``num_behind``: entries that it has not taken in. ``waiting``: units that are not published.
    """

    url: str
    entry: int
    num_behind: int
    waiting: Sequence[str]


def store_status(root: DataRoot) -> StoreStatus | None:
    """Return how a root stands to its store, None where it has none; nothing is changed.

    Raises:
        UserError: as :func:`share`.
    """
    with _exchange(root, lambda _: None) as exchange:
        return None if exchange is None else exchange.status()


def no_store(root: DataRoot) -> UserError:
    """Return what to tell of a data root that is shared with nobody."""
    return UserError(
        f"{root.path}: is shared by no store; name one as url in the table [{TABLE}] of its "
        "settings"
    )


@contextmanager
def _exchange(root: DataRoot, log: Log) -> Iterator["_Exchange | None"]:
    settings = store_settings(root)
    if not settings.url:
        yield None
        return
    with locked(root.path / LOCK):
        yield _Exchange(root, settings, log)


class _Exchange:
    """One root and its store, for as long as the lock is held."""

    def __init__(self, root: DataRoot, settings: StoreSettings, log: Log) -> None:
        self._root, self._settings, self._log = root, settings, log
        self._store = Store(settings.url)
        self._merge = Merge(root, settings, self._store.fetch, log)

    def run(self, without: str = "") -> None:
        """Take in and publish until there is nothing left of either; ``without`` a batch."""
        self._root.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=self._root.cache) as folder:
            self._merge.fetched = Path(folder)
            self._run(without)

    def _run(self, without: str) -> None:
        state, merge = self._state(), self._merge
        merge.is_first = not state.store
        identity, last_id = self._agreed(state)
        merge.base, merge.head = state.units, {**state.units, **state.disputed}
        number = state.entry
        stale_before: list[str] = []
        while True:
            for entry in self._store.entries(number):
                merge.head |= self._checked(entry)
                number, last_id = number + 1, str(entry.get("id", ""))
            merge.run()
            merge.withdraw(without)
            if not merge.new:
                break
            stale = [
                f"{path}: is not as it was written; {self._root[STAGES[0]].remedy(path)}"
                for sha256, path in merge.files_of(merge.new).items()
                if not self._store.add(path, sha256)
            ]
            if stale:
                # It may have been written anew meanwhile.
                if stale == stale_before:
                    raise UserError(stale[0])
                stale_before = stale
                continue
            at = datetime.now().astimezone().isoformat(timespec="seconds")
            if self._store.claim(number + 1, {"at": at, "units": merge.new}):
                self._log(f"{self._settings.url}: published {some(merge.new)}")
        if merge.is_settled:
            # What is disputed is not agreed on, or ours would count as the newer one.
            disputed = {unit: merge.head[unit] for unit in merge.disputed}
            before = {unit: merge.base[unit] for unit in disputed if unit in merge.base}
            agreed = {unit: c for unit, c in merge.head.items() if unit not in disputed}
            units = {"units": agreed | before, "disputed": disputed}
            known = {"store": identity, "entry": number, "id": last_id}
            write_json(self._root.path / STATE, {"layout": LAYOUT, **known, **units})

    def tell(self, rests_on: str | None) -> None:
        """Raise what was refused of what the caller rests on, and log the rest; see share."""
        problems: list[str] = []
        for unit, words in (self._merge.disputed | self._merge.refused).items():
            name = unit.removeprefix("batch/")
            is_all = rests_on is not None and (not rests_on or rests_on.endswith("/"))
            if name == rests_on or (is_all and name.startswith(str(rests_on))):
                problems.append(words)
            else:
                self._log(words)
        if problems:
            more = f" (and {counted(len(problems) - 1, 'more batch')})" if problems[1:] else ""
            raise UserError(f"{problems[0]}{more}")

    def _state(self) -> _State:
        path = self._root.path / STATE
        if not path.exists():
            return _State()
        stored = read_json(path, _REMEDY)
        check_layout(path, stored)
        if not {"store", "entry", "units"} <= stored.keys():
            raise UserError(f"{path}: does not tell what was shared; {_REMEDY}")
        known = {entry.name: stored[entry.name] for entry in fields(_State) if entry.name in stored}
        return _State(**known)

    def _agreed(self, state: _State) -> tuple[str, str]:
        """Return what tells the store from any other, and the id of the last entry agreed on."""
        if not state.store:
            return self._store.begin(), ""
        last = self._store.entry(state.entry)
        last_id = "" if last is None else str(last.get("id", ""))
        if state.id and last_id == state.id:
            return state.store, last_id
        if (found := self._store.identity()) != state.store:
            raise UserError(
                f"{self._settings.url}: is {'empty' if found is None else 'another store'}, and "
                f"{self._root.path} was shared by one with entries; correct the address, or remove "
                f"{self._root.path / STATE} to share all that is here by this one"
            )
        # Earlier releases noted no id.
        if last is None or state.id:
            raise UserError(
                f"{self._settings.url}: lacks entry {state.entry}, which {self._root.path} has "
                "taken in, as after a restore of an older backup; restore a newer one, or begin "
                f"another store: name an empty place in [{TABLE}] of each data root, remove its "
                f"{STATE}, and share the one first that has most"
            )
        return state.store, last_id

    def _checked(self, entry: Mapping[str, Any]) -> dict[str, Content]:
        """Return the units of an entry, whose hashes are hashes: they become names of files."""
        units = entry.get("units")
        contents = list(units.values()) if isinstance(units, dict) else [None]
        files = [c.get("files", {}) if isinstance(c, dict) else None for c in contents]
        for found in files:
            if not isinstance(found, dict) or not all(map(_SHA256.fullmatch, found.values())):
                raise UserError(
                    f"{self._settings.url}: an entry of its log is damaged; restore it from a "
                    "backup of the store"
                )
        return dict(units or {})

    def has(self, unit: str) -> bool:
        """Return whether the store has a unit."""
        return unit in self._merge.head

    def disputes(self, unit: str) -> bool:
        """Return whether both sides changed a batch."""
        return unit in self._merge.disputed

    def number_of(self, stage: Stage, written: int) -> int | None:
        """Return the number of a version that was written as another, None if it is not kept."""
        return self._merge.moved.get((stage, written), written)

    def status(self) -> StoreStatus:
        """Return how the root stands to the store."""
        state = self._state()
        if state.store:
            self._agreed(state)
        self._merge.base, self._merge.head = state.units, {**state.units, **state.disputed}
        num_behind = sum(1 for _ in self._store.entries(state.entry))
        here = {**dict(self._merge.units_here()), **self._merge.rows_here()}
        waiting = [
            unit
            for unit, content in here.items()
            # What was measured of a version goes with it.
            if content != self._merge.base.get(unit) and unit.replace("law/", "version/", 1) in here
        ]
        return StoreStatus(self._settings.url, state.entry, num_behind, waiting)

    def clean(self) -> tuple[int, int]:
        """Remove files of the store that no unit has."""
        named = (content.get("files", {}).values() for content in self._merge.head.values())
        return self._store.clean({*chain.from_iterable(named)})
