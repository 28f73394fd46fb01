"""What a data root has of what is shared, merged with what a store has of it.

What is shared comes in units: a batch, a version, a set of held-out samples, what was measured of
a version. Of each there are three contents to compare, as where branches are merged: the one here,
the one in the store, and the one that both agreed on last. What only one side changed goes to the
other side, and what both changed is settled by the kind of the unit, or refused.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import polars as pl

from zip_pipeline.data_root import VERSION_FILES, DataRoot, StageFolder
from zip_pipeline.entropy_law.table import read_versions, upsert_version
from zip_pipeline.errors import UserError
from zip_pipeline.files import (
    HASHES,
    TEMPORARY,
    file_hash,
    files_in,
    fingerprint,
    hashing,
    is_locked,
    read_hashes,
    readable,
    record_of,
    sync,
    write_hashes,
)
from zip_pipeline.ingest.drops import is_batch_name
from zip_pipeline.pool.batches import batch_metadata, is_current
from zip_pipeline.pool.held_out import HeldOut, read_held_out
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.store import StoreSettings
from zip_pipeline.training.job import finished_training

Content: TypeAlias = dict[str, Any]
"""Of a unit: ``files``, the hash of each by its name, and what else tells two contents apart."""
Log: TypeAlias = Callable[[str], object]
_TABLES = ("quarantine", "duplicates", "pool", "state")
# Two selections of the same from the same differ in these.
_TIMES = ("version", "created_at", "seconds")
# What says that a probe or a model is whole: it goes first and comes last.
_MARKS = ("loss.json", "training.json")


class Merge:
    """The units of a root and those of its store, merged kind by kind.

    Args:
        root: the data root.
        settings: of the store.
        fetch: brings a file of the store, named by its hash, to a path.
        log: is told what was taken in.

    ``base``: the units that both agreed on last. ``head``: those of the store. ``is_first``:
    nothing was agreed on yet. ``fetched``: the folder that files are fetched to. :meth:`run` tells
    ``new``: what the store lacks; ``is_settled``: nothing is being written; ``moved``: by stage
    and the number under which a version was written here the one that it has now, None where it is
    not kept; ``disputed``: by batch that both sides changed what to tell; ``refused``: by batch
    that the store replaced what to tell.
    """

    def __init__(
        self,
        root: DataRoot,
        settings: StoreSettings,
        fetch: Callable[[str, Path], object],
        log: Log,
    ) -> None:
        self._root, self._settings, self._fetch_file, self._log = root, settings, fetch, log
        self.base: Mapping[str, Content] = {}
        self.head: dict[str, Content] = {}
        self.is_first, self.is_settled = False, True
        self.fetched = Path()
        self.new: dict[str, Content] = {}
        self.moved: dict[tuple[Stage, int], int | None] = {}
        self.disputed: dict[str, str] = {}
        self.refused: dict[str, str] = {}

    def units_here(self) -> Iterator[tuple[str, Content]]:
        """Yield what there is of each unit, but for the rows of the table of versions."""
        for stage in STAGES:
            folder = self._root[stage]
            for batch in folder.batches():
                if found := self._batch_here(folder, batch):
                    yield f"batch/{stage}/{batch}", found
            for number in folder.versions.numbers():
                yield f"version/{stage}/{number}", self._version_here(folder, number)
            if held := _held_out_here(folder):
                yield f"held_out/{stage}", held
            for kind in self._kinds:
                for number in folder.versions.numbers():
                    if measured := _measured_here(folder, kind, number):
                        yield f"{kind}/{stage}/{number}", measured

    @property
    def _kinds(self) -> tuple[str, ...]:
        return ("probe", "model") if self._settings.models else ("probe",)

    def run(self) -> None:
        """Take in what is new in the head; gather what is new here, and what is refused.

        Raises:
            UserError: both sides have another content of what is no batch.
        """
        self.new.clear()
        self.is_settled = True
        self.disputed.clear()
        for stage in STAGES:
            folder = self._root[stage]
            self._merge_batches(folder)
            self._merge_versions(folder)
            self._merge_held_out(folder)
            for kind in self._kinds:
                self._merge_measured(folder, kind)
        self._merge_rows()

    def _units(self, kind: str, stage: Stage, units: Mapping[str, Content]) -> dict[str, Content]:
        start = f"{kind}/{stage}/"
        found = {u.removeprefix(start): c for u, c in units.items() if u.startswith(start)}
        is_name = is_batch_name if kind == "batch" else str.isdecimal
        for name in found:
            if PurePosixPath(name).name != name or not is_name(name):
                raise UserError(f"{self._settings.url}: {kind} {name!r} is no name of one")
        return found

    def _numbered(
        self, kind: str, stage: Stage, units: Mapping[str, Content]
    ) -> dict[int, Content]:
        return {int(name): c for name, c in self._units(kind, stage, units).items()}

    def _fetch(self, contents: Iterable[Content]) -> None:
        """Bring files of the store to where they can be moved into place from."""
        for content in contents:
            for sha256 in content["files"].values():
                if not (path := self.fetched / sha256).exists():
                    self._fetch_file(sha256, path)
                    sync(path)

    def _place(self, sha256: str, path: Path) -> None:
        """Put a fetched file where it belongs; one of the same content may be wanted again."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{TEMPORARY}{sha256}")
        shutil.copyfile(self.fetched / sha256, beside)
        sync(beside)
        beside.replace(path)
        sync(path.parent)

    def withdraw(self, unit: str) -> None:
        """Let there be no such batch from now on, where the head has it."""
        if "files" in self.head.get(unit, {}):
            self.new[unit] = {"before": _before({}, self.head[unit])}

    def files_of(self, units: Mapping[str, Content]) -> dict[str, Path]:
        """Return where the files of units lie, by their hashes, but those that the head has."""
        known = {s for content in self.head.values() for s in content.get("files", {}).values()}
        return {
            sha256: self._path(unit, name)
            for unit, content in units.items()
            for name, sha256 in content.get("files", {}).items()
            if sha256 not in known
        }

    def _path(self, unit: str, name: str) -> Path:
        kind, stage, *rest = unit.split("/", 2)
        folder = self._root[stage]  # type: ignore[index]
        if kind == "batch":
            return _table(folder, name, rest[0])
        if kind == "held_out":
            return folder.held_out
        if kind == "version":
            return folder.versions.path(int(rest[0])) / name
        return _measured_folder(folder, kind, int(rest[0])) / name

    # Batches

    def _batch_here(self, folder: StageFolder, batch: str) -> Content | None:
        """Return a batch, empty where there is none, None for one that is being written.

        There is none, too, where a person, or a writer that was killed, left a part of what is
        shared.
        """
        unit = f"batch/{folder.stage}/{batch}"
        shared = [units[unit] for units in (self.base, self.head) if "files" in units.get(unit, {})]
        paths = {kind: _table(folder, kind, batch) for kind in _TABLES}
        files = {kind: _hash(path) for kind, path in paths.items() if path.exists()}
        for content in shared:
            if content["files"] == files:
                # Who is killed as it takes one in leaves a table of which nothing is claimed.
                for path in paths.values():
                    if not record_of(path).exists():
                        write_hashes(record_of(path), [path])
                return content
        try:
            if is_current(folder, batch):
                told = batch_metadata(folder, batch)["fingerprint"]
                return {"files": files, "fingerprint": told}
        except (UserError, FileNotFoundError):
            pass
        is_part = all(
            any(content["files"][kind] == sha256 for content in shared)
            for kind, sha256 in files.items()
        )
        return {} if is_part else None

    def _merge_batches(self, folder: StageFolder) -> None:
        """Merge the batches of a stage, but for those that both sides changed.

        Versions that rest on such a batch are shared, as are those of a batch that was replaced
        since: a version holds its samples itself.
        """
        base, head = (self._units("batch", folder.stage, u) for u in (self.base, self.head))
        taken: dict[str, Content] = {}
        for batch in sorted({*folder.batches(), *head}):
            here, was, there = self._batch_here(folder, batch), base.get(batch), head.get(batch)
            if here is None:
                self.is_settled &= there == was
                continue
            match _settled(here, was, there), there:
                case "publish", _:
                    replaced = {"before": _before(here, there)}
                    self.new[f"batch/{folder.stage}/{batch}"] = {**here, **replaced}
                case "refuse", dict():
                    unit = f"batch/{folder.stage}/{batch}"
                    self.disputed[unit] = self._both_changed(folder, batch, there)
                case "take", dict() if self._is_wanted(folder, batch, there):
                    taken[batch] = there
                    told = here.get("fingerprint")
                    if told not in (None, (was or {}).get("fingerprint"), there.get("fingerprint")):
                        unit = f"batch/{folder.stage}/{batch}"
                        self.refused[unit] = self._is_old(folder, batch, there)
        self._take_batches(folder, taken)

    def _is_wanted(self, folder: StageFolder, batch: str, there: Content) -> bool:
        """Return whether a batch is not here, or a part of one that was removed is."""
        return "files" in there or any(_table(folder, kind, batch).exists() for kind in _TABLES)

    def _is_old(self, folder: StageFolder, batch: str, there: Content) -> str:
        what = "replaced" if "files" in there else "removed"
        return (
            f"{folder.raw / batch}: this content was {what} in {self._settings.url} since; remove "
            "the drop, or give it another name to take it in again"
        )

    def _both_changed(self, folder: StageFolder, batch: str, there: Content) -> str:
        what = "removed" if "files" not in there else "given another content"
        return (
            f"{folder.samples(batch)}: batch {batch!r} of {folder.stage} was {what} in "
            f"{self._settings.url}, and has another content here, which is not published. Rename "
            f"the drop {folder.raw / batch} to have both; to give yours up, remove it. Either "
            f"way remove {batch}.* of {folder.stage} from {', '.join(_TABLES)} as well"
        )

    def _take_batches(self, folder: StageFolder, taken: Mapping[str, Content]) -> None:
        for batch, content in taken.items():
            if "files" not in content:
                remove_tables(folder, batch)
                continue
            self._fetch([content])
            for kind in _TABLES:
                with hashing(path := _table(folder, kind, batch)):
                    self._place(content["files"][kind], path)
        self._tell("batch", folder.stage, taken)

    # Versions

    def _version_here(self, folder: StageFolder, number: int) -> Content:
        path = folder.versions.path(number)
        record = path / HASHES
        names = [name for name in VERSION_FILES if name != HASHES]
        remedy = folder.versions.remedy(path.name)
        hashes = read_hashes(record, remedy)
        files = dict(hashes or {})
        for name in () if hashes else names:
            with readable(path / name, remedy):
                files[name] = file_hash(path / name)
        if hashes:
            files[HASHES] = file_hash(record)
        unit = f"version/{folder.stage}/{number}"
        for units in (self.base, self.head):
            if unit in units and units[unit]["files"] == files:
                return units[unit]
        manifest = folder.versions.manifest(number)
        told = json.dumps({k: v for k, v in manifest.items() if k not in _TIMES}, sort_keys=True)
        tables = [sha256 for name, sha256 in sorted(files.items()) if name.endswith(".parquet")]
        return {"files": files, "content": fingerprint([*tables, told])}

    def _merge_versions(self, folder: StageFolder) -> None:
        """Take in the versions of others, and give our own the numbers that follow."""
        base, head = (self._numbered("version", folder.stage, u) for u in (self.base, self.head))
        here = {n: self._version_here(folder, n) for n in folder.versions.numbers()}
        for number in here.keys() & base.keys():
            if here[number] != base[number]:
                raise UserError(
                    f"{folder.versions.path(number)}: was changed since it was shared by "
                    f"{self._settings.url}; move it away, and the next run brings it back"
                )
        own = [n for n in sorted(here) if n not in base and here[n] != head.get(n)]
        if self.is_first and self.head and own:
            raise UserError(
                f"{folder.versions.path(own[0])}: is none of the versions in "
                f"{self._settings.url}, to which this data root is new; share it by a store of its "
                "own, or move its versions away"
            )
        for number in self._numbered_anew(folder, own, here, base, head):
            unit = f"version/{folder.stage}/{number}"
            self.new[unit] = self._version_here(folder, number)
        missing = {n: c for n, c in head.items() if n not in folder.versions.numbers()}
        self._fetch(missing.values())
        for number, content in missing.items():
            if not set(content["files"]) <= set(VERSION_FILES):
                raise UserError(f"{self._settings.url}: version {number} has unknown files")
            with folder.versions.placing(number) as place:
                for name, sha256 in content["files"].items():
                    self._place(sha256, place / name)
        self._tell("version", folder.stage, missing)

    def _numbered_anew(
        self,
        folder: StageFolder,
        own: Sequence[int],
        here: Mapping[int, Content],
        base: Mapping[int, Content],
        head: Mapping[int, Content],
    ) -> list[int]:
        """Make way for versions of others; return the numbers of our own, ascending."""
        of_others = {content["content"]: n for n, content in head.items() if n not in base}
        last = max(head, default=0)
        twins = {n: of_others[c] for n in own if (c := here[n]["content"]) in of_others}
        if own and own[0] <= last:
            # Of a version that got another number before a kill there are two.
            twins |= {a: b for a, b in pairwise(own) if here[a]["content"] == here[b]["content"]}
        numbers: dict[int, int] = {}
        for number in own:
            if number not in twins:
                last = numbers[number] = max(number, last + 1)
        for number, twin in twins.items():
            self._move(folder, number, twin)
        for number, free in reversed(numbers.items()):
            if number != free:
                self._move(folder, number, free, is_free=True)
        return list(numbers.values())

    def _move(
        self, folder: StageFolder, number: int, to: int | None, *, is_free: bool = False
    ) -> None:
        """Give a version of ours a free number, or remove it, where there is its like or none."""
        if folder.models(number).exists() or (folder.stage, number) in self._measured():
            raise UserError(
                f"{folder.versions.path(number)}: was probed or trained before it was published, "
                f"and {self._settings.url} has another version {number}; move both it and "
                f"{folder.models(number)} away"
            )
        if is_free and to is not None:
            folder.versions.copy(number, to)
        folder.versions.remove(number)
        key = (folder.stage, number)
        self.moved[next((k for k, v in self.moved.items() if (k[0], v) == key), key)] = to

    def _measured(self) -> set[tuple[str, int]]:
        return set(read_versions(self._root).select("stage", "version").iter_rows())

    # What is held out

    def _merge_held_out(self, folder: StageFolder) -> None:
        """Merge the held-out set, so that no version that is published picks any of it."""
        unit = f"held_out/{folder.stage}"
        here, was, there = _held_out_here(folder), self.base.get(unit), self.head.get(unit)
        own = self._numbered("version", folder.stage, self.new)
        is_mine = here is not None and here not in (was, there)
        mine = read_held_out(folder) if is_mine else None
        is_given = mine is not None and mine.is_given
        is_kept = is_mine and there == was and (is_given or not self._is_picked(folder, mine))
        if is_given and not is_kept:
            raise UserError(
                f"{folder.held_out}: {self._settings.url} has another set; move this one away to "
                "take that"
            )
        if here == there and not own:
            return
        place = folder.held_out
        if there and not is_kept:
            self._fetch([there])
            place = self.fetched / there["files"]["held_out"]
        ids = set(pl.read_parquet(place)["sample_id"]) if is_kept or there else set[str]()
        if (is_mine and not is_kept) or any(ids & _picks(folder, number) for number in own):
            for number in own:
                self._move(folder, number, None)
                del self.new[f"version/{folder.stage}/{number}"]
                self._log(
                    f"{folder.stage}: what was selected is not kept, since others held samples "
                    "out meanwhile"
                )
        if is_kept:
            self.new[unit] = here or {}
        elif there and here != there:
            self._place(there["files"]["held_out"], folder.held_out)
        elif not there:
            folder.held_out.unlink(missing_ok=True)

    def _is_picked(self, folder: StageFolder, mine: HeldOut | None) -> bool:
        """Return whether versions that others published meanwhile picked what is held out here."""
        base, head = (self._numbered("version", folder.stage, u) for u in (self.base, self.head))
        ids = set(mine.samples["sample_id"]) if mine else set[str]()
        return any(ids & _picks(folder, number) for number in head.keys() - base.keys())

    # What was measured of versions

    def _merge_measured(self, folder: StageFolder, kind: str) -> None:
        """Merge probes or models; of two of the same version the one that came first stays."""
        base, head = (self._numbered(kind, folder.stage, u) for u in (self.base, self.head))
        taken: dict[int, Content] = {}
        for number in folder.versions.numbers():
            here = _measured_here(folder, kind, number)
            was, there = base.get(number), head.get(number)
            if here == there or is_locked(folder.models(number) / ".lock"):
                continue
            if here is not None and there == was:
                self.new[f"{kind}/{folder.stage}/{number}"] = here
            elif there is not None:
                taken[number] = there
        self._fetch(taken.values())
        for number, content in taken.items():
            place = _measured_folder(folder, kind, number)
            here = _measured_here(folder, kind, number) or {"files": {}}
            for name in here["files"].keys() - content["files"].keys():
                (place / name).unlink(missing_ok=True)
            self._take_measured(place, content["files"])
        self._tell(kind, folder.stage, taken)

    def _take_measured(self, place: Path, files: Mapping[str, str]) -> None:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or any(part.startswith(".") for part in path.parts):
                raise UserError(f"{self._settings.url}: {name!r} is no name for a file of a model")
        for name in _MARKS:
            (place / name).unlink(missing_ok=True)
        for name in sorted(files, key=lambda name: (name in _MARKS, name)):
            record_of(place / name).unlink(missing_ok=True)
        for name in sorted(files, key=lambda name: (name.endswith(HASHES), name in _MARKS, name)):
            self._place(files[name], place / name)

    def rows_here(self) -> dict[str, Content]:
        """Return the rows of the table of versions, as units."""
        return {
            f"law/{row['stage']}/{row['version']}": {
                name: value.isoformat() if isinstance(value, datetime) else value
                for name, value in row.items()
                if value is not None
            }
            for row in read_versions(self._root).iter_rows(named=True)
        }

    def _merge_rows(self) -> None:
        """Merge the rows of the table of versions, column by column."""
        here, known = self.rows_here(), {*self.head, *self.new}
        for unit in sorted({*here, *(u for u in self.head if u.startswith("law/"))}):
            if unit.replace("law/", "version/", 1) not in known:
                continue
            mine, was, there = (units.get(unit, {}) for units in (here, self.base, self.head))
            names = {*mine, *there} if mine else set(there)
            merged = {name: _merged(name, mine or was, was, there) for name in sorted(names)}
            merged = {name: value for name, value in merged.items() if value is not None}
            if merged != there:
                self.new[unit] = merged
            if merged != mine:
                upsert_version(self._root, dict.fromkeys(mine) | merged)

    def _tell(self, kind: str, stage: Stage, taken: Mapping[Any, Content]) -> None:
        if taken:
            names = [f"{kind}/{stage}/{name}" for name in taken]
            self._log(f"{self._settings.url}: took in {some(names)}")


def _merged(name: str, mine: Content, was: Content, there: Content) -> object:
    """Return the value of a column: ours where we alone changed it, else that of the store."""
    is_changed = mine.get(name) != was.get(name)
    is_changed_there = there.get(name) not in (was.get(name), None)
    return mine.get(name) if is_changed and not is_changed_there else there.get(name)


def some(names: Iterable[str]) -> str:
    """Return names in a few words."""
    first, *others = names
    return f"{first} and {len(others):,} more" if others else first


def _settled(
    here: Content, was: Content | None, there: Content | None
) -> Literal["keep", "publish", "take", "refuse"]:
    """Return what becomes of a batch with these contents; the same samples are the same batch."""
    if here == (there or {}):
        return "keep"
    if there is None:
        return "publish"
    if not here or here["fingerprint"] in there.get("before", ()):
        return "take"
    if was == there:
        return "publish"
    return "take" if here["fingerprint"] == there.get("fingerprint") else "refuse"


def _before(here: Content, there: Content | None) -> list[str]:
    """Return the fingerprints that a batch had before, so that none of them comes back."""
    before = {*(there or {}).get("before", ()), (there or {}).get("fingerprint")}
    return sorted(before - {None, here.get("fingerprint")})


def _hash(path: Path) -> str:
    """Return the hash that is kept of a file, that of its content where none is."""
    kept = read_hashes(record_of(path), "remove it")
    return (kept or {}).get(path.name) or file_hash(path)


def _table(folder: StageFolder, kind: str, batch: str) -> Path:
    tables = {
        "pool": folder.samples,
        "quarantine": folder.quarantine,
        "duplicates": folder.duplicates,
        "state": folder.state,
    }
    return tables[kind](batch)


def remove_tables(folder: StageFolder, batch: str) -> None:
    """Remove all of a batch: a state without its samples would be a batch that is gone."""
    signals = folder.signal("any", batch).parents[1].glob("[!.]*")
    derived = [folder.state(batch), folder.ngrams(batch)]
    derived += [folder.signal(path.name, batch) for path in signals]
    for path in (
        *derived,
        folder.samples(batch),
        folder.quarantine(batch),
        folder.duplicates(batch),
    ):
        # In this order nothing is left that claims to be of a table.
        record_of(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _held_out_here(folder: StageFolder) -> Content | None:
    if not folder.held_out.exists():
        return None
    return {"files": {"held_out": file_hash(folder.held_out)}}


def _picks(folder: StageFolder, number: int) -> set[str]:
    return set(folder.versions.subset(number).select("sample_id").collect()["sample_id"])


def _measured_folder(folder: StageFolder, kind: str, number: int) -> Path:
    return folder.models(number) / "probe" if kind == "probe" else folder.models(number)


def _measured_here(folder: StageFolder, kind: str, number: int) -> Content | None:
    """Return what a probe or training has written of a version, None until it is whole."""
    place = _measured_folder(folder, kind, number)
    if kind == "probe":
        is_whole = record_of(place / "loss.json").exists()
    else:
        is_whole = finished_training(place) is not None
    if not is_whole:
        return None
    names = {path.relative_to(place).as_posix(): path for path in files_in(place)}
    wanted = {name: path for name, path in names.items() if _is_of(kind, name)}
    kept = read_hashes(record_of(place / "model"), "remove it") or {}
    return {"files": {name: kept.get(name) or file_hash(path) for name, path in wanted.items()}}


def _is_of(kind: str, name: str) -> bool:
    first = PurePosixPath(name).parts[0]
    of_root = first in ("probe", "checkpoints", "job.json") or f"/{name}".find("/.") >= 0
    return kind == "probe" or not of_root
