"""Where things lie: the data root and the numbered versions of each stage."""

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.errors import UserError
from zip_pipeline.files import (
    HASHES,
    LAYOUT,
    TEMPORARY,
    Table,
    check_hash,
    check_layout,
    files_in,
    hashing,
    locked,
    read_json,
    read_metadata,
    read_table,
    readable,
    scan_table,
    sync,
    write_hashes,
    write_json,
    write_table,
)
from zip_pipeline.samples import Stage

VERSION_FILES = ("subset.parquet", "ledger.parquet", "manifest.json", HASHES)
SECONDS_PER_WEEK = 604_800.0
GENERATED = (
    "pool", "quarantine", "duplicates", "state", "ngrams", "signals", "checkpoints", "versions",
    "held_out", "models", "cache", "entropy_law", "comparison", "reports",
)  # fmt: skip


@dataclass(frozen=True)
class DataRoot:
    """The folder that holds drops, pool, state and versions: ``root["sft"]`` is a stage's part."""

    path: Path

    def __getitem__(self, stage: Stage) -> "StageFolder":
        """Return what belongs to one stage.

        Raises:
            UserError: an earlier release folded its batches, and they cannot be unfolded.
        """
        folder = StageFolder(self, stage)
        _unfold(folder)
        return folder

    @property
    def cache(self) -> Path:
        """The folder of files that can be made again, as the tiny base model."""
        return self.path / "cache"

    @property
    def comparisons(self) -> Path:
        """The folder of the comparisons of strategies."""
        return self.path / "comparison"


@dataclass(frozen=True)
class StageFolder:
    """Where the files of one stage lie; all but the drops are written by the pipeline."""

    root: DataRoot
    stage: Stage

    @property
    def raw(self) -> Path:
        """The drop folder."""
        return self.root.path / "raw" / self.stage

    def remedy(self, path: Path) -> str:
        """Return what to do where a file of the stage is damaged."""
        kind, _, *names = path.relative_to(self.root.path).parts
        backup = "restore it from a backup"
        if kind == "versions":
            return self.versions.remedy(names[0])
        batch = names[-1].removesuffix(".parquet").removesuffix(f".{HASHES}") if names else ""
        if kind in ("ngrams", "signals"):
            return "remove it, and it is made again"
        if kind == "state":
            return f"{backup}, or materialise {self.stage}/compression_state for {batch!r}"
        if kind in ("pool", "quarantine", "duplicates"):
            return f"{backup}, or ingest the batch {batch!r} of {self.stage} again"
        if kind == "models":
            if names[1] not in ("model", "training.json"):
                return f"{backup}, or remove it to measure it again"
            folder = self.models(int(names[0][1:])) / "model"
            return f"{backup}, or remove {folder} to train it again"
        return backup

    def samples(self, batch: str) -> Path:
        """Return the pool table of a batch."""
        return self._table("pool", batch)

    def quarantine(self, batch: str) -> Path:
        """Return the table of a batch's rejected rows."""
        return self._table("quarantine", batch)

    def duplicates(self, batch: str) -> Path:
        """Return the table of a batch's exact duplicates."""
        return self._table("duplicates", batch)

    def state(self, batch: str) -> Path:
        """Return the compression state of a batch."""
        return self._table("state", batch)

    def ngrams(self, batch: str) -> Path:
        """Return the n-gram counts of a batch."""
        return self._table("ngrams", batch)

    def signal(self, name: str, batch: str) -> Path:
        """Return the table of a signal of a batch."""
        return self.root.path / "signals" / self.stage / name / f"{batch}.parquet"

    def write(self, path: Path, table: Table, metadata: Mapping[str, str]) -> None:
        """Write a table with string metadata to ``path`` of the stage, and keep its hash."""
        with hashing(path):
            write_table(path, table, metadata)

    def scan(self, path: Path) -> pl.LazyFrame:
        """Return the rows of a table of the stage, yet to be read.

        Raises:
            UserError: the file is missing, or is no whole table.
        """
        return read_table(path, self.remedy(path))

    def read_json(self, path: Path) -> dict[str, Any]:
        """Return the JSON object that a file of the stage holds.

        Raises:
            UserError: the file is missing, damaged, or was changed since it was written.
        """
        content = read_json(path, self.remedy(path))
        self.check(path)
        return content

    def metadata(self, path: Path) -> dict[str, str]:
        """Return the metadata of a table of the stage.

        Raises:
            UserError: the file is missing, or is no whole table.
        """
        with readable(path, self.remedy(path)):
            return read_metadata(path)

    def check(self, path: Path) -> None:
        """Raise UserError where a file of the stage has another hash than it was written with.

        Raises:
            FileNotFoundError: there is no such file.
        """
        check_hash(path, self.remedy(path))

    def _table(self, kind: str, batch: str) -> Path:
        return self.root.path / kind / self.stage / f"{batch}.parquet"

    def batches(self) -> list[str]:
        """Return the names of all stored batches, sorted."""
        suffix = ".parquet"
        names = (self.root.path / "pool" / self.stage).glob(f"*{suffix}")
        return sorted(p.name.removesuffix(suffix) for p in names if not p.name.startswith("."))

    @property
    def held_out(self) -> Path:
        """The table of the samples that are kept for evaluation."""
        return self.root.path / "held_out" / f"{self.stage}.parquet"

    @property
    def checkpoints(self) -> Path:
        """The folder of unfinished selections."""
        return self.root.path / "checkpoints" / self.stage

    @property
    def versions(self) -> "VersionStore":
        """The versions."""
        return VersionStore(self.root.path / "versions" / self.stage)

    @property
    def reports(self) -> Path:
        """The folder of the reports on versions."""
        return self.root.path / "reports" / self.stage

    def models(self, number: int) -> Path:
        """Return the folder of what was probed, trained and evaluated of a version."""
        return self.root.path / "models" / self.stage / version_name(number)


_MEMBERS = "members"
_FOLDED_TABLE = re.compile(r"compacted-[0-9a-f]{12}\.parquet")
# What counts the rows of each table of a batch; the pool table completes it.
_COUNTS = {
    "quarantine": "num_quarantined",
    "duplicates": "num_duplicates",
    "state": "num_samples",
    "pool": "num_samples",
}


def _unfold(folder: StageFolder) -> None:
    """Give each batch tables of its own, where an earlier release folded many into one.

    Killed at any moment it loses no row, and the next call does the rest: what was folded is
    removed last, and a batch that has tables of its own supersedes the folded one.
    """
    if not any(_tables_of_folded(folder, kind) for kind in ("pool", "state")):
        return
    try:
        with locked(folder.root.path / "pool" / f".{folder.stage}.lock"):
            pools, states = _folded(folder, "pool"), _folded(folder, "state")
            # A batch that came again may have been folded again: the later one counts.
            for name in sorted(pools, key=lambda name: -int(pools[name]["generation"])):
                described = json.loads(states.get(name, {}).get(_MEMBERS, "{}"))
                _unfold_members(folder, name, json.loads(pools[name][_MEMBERS]), described)
            for name in {*pools, *states}:
                for kind in _COUNTS:
                    folder._table(kind, name).unlink(missing_ok=True)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(
            f"{folder.root.path}: batches of {folder.stage} that an earlier release folded into "
            f"one cannot be unfolded ({error}); let this user write there, or remove "
            f"compacted-*.parquet of {folder.stage} from {', '.join(_COUNTS)} and ingest the drops "
            "again"
        ) from error


def _tables_of_folded(folder: StageFolder, kind: str) -> list[Path]:
    path = folder._table(kind, "any").parent
    try:
        # Every access to a stage comes here: no Path is made for each of a thousand batches.
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return []
    return [path / name for name in names if _FOLDED_TABLE.fullmatch(name)]


def _folded(folder: StageFolder, kind: str) -> dict[str, dict[str, str]]:
    """Return the metadata of the tables that hold many batches, by name."""
    found = {path.stem: read_metadata(path) for path in _tables_of_folded(folder, kind)}
    return {name: metadata for name, metadata in found.items() if _MEMBERS in metadata}


def _unfold_members(
    folder: StageFolder,
    name: str,
    members: Mapping[str, Mapping[str, str]],
    states: Mapping[str, Mapping[str, str]],
) -> None:
    """Write the tables of those batches of a folded one that have no pool table."""
    first_rows = dict.fromkeys(_COUNTS, 0)
    for batch, counts in members.items():
        kinds = [kind for kind in _COUNTS if kind != "state" or batch in states]
        for kind in kinds if not folder.samples(batch).exists() else ():
            num_rows = int(counts[_COUNTS[kind]])
            rows = scan_table(folder._table(kind, name)).slice(first_rows[kind], num_rows).collect()
            if rows.height != num_rows:
                raise OSError(f"{folder._table(kind, name)}: rows of {batch!r} are missing")
            metadata = states[batch] if kind == "state" else counts
            folder.write(folder._table(kind, batch), rows, metadata)
        for kind, counted in _COUNTS.items():
            first_rows[kind] += int(counts[counted])


def remove_leftovers(root: DataRoot, older_than_seconds: float = SECONDS_PER_WEEK) -> int:
    """Remove what killed writers left in the generated folders; return how many entries it was.

    Entries changed within the last ``older_than_seconds`` may belong to a writer at work and
    stay.
    """
    latest = time.time() - older_than_seconds
    found = [path for name in GENERATED for path in (root.path / name).rglob(f"{TEMPORARY}*")]
    num_removed = 0
    for path in found:
        # A writer at work may finish, and its entry vanish, at any moment.
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_mtime > latest:
                continue
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink()
            num_removed += 1
    return num_removed


def version_name(number: int) -> str:
    """Return the name of a version's folders."""
    return f"v{number:06d}"


def version_number(path: Path) -> int | None:
    """Return the number of a version's folder by its name, None where it is no such name."""
    number = int(path.name[1:]) if re.fullmatch(r"v[0-9]{6,}", path.name) else 0
    return number if number and path.name == version_name(number) else None


class VersionStore:
    """The immutable, numbered versions of one stage's subset."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def numbers(self) -> list[int]:
        """Return the numbers of all versions, ascending."""
        if not self.folder.exists():
            return []
        numbers = (version_number(path) for path in self.folder.iterdir() if path.is_dir())
        return sorted(number for number in numbers if number is not None)

    def path(self, number: int) -> Path:
        """Return the folder of version ``number``.

        Raises:
            UserError: there is no such version.
        """
        path = self.folder / version_name(number)
        if not path.is_dir():
            known = ", ".join(str(n) for n in self.numbers()) or "none yet"
            raise UserError(f"{self.folder}: no version {number}; there are: {known}")
        return path

    def remedy(self, name: str) -> str:
        """Return what to do where a file of a version's folder is damaged."""
        folder = self.folder / name
        return f"restore {folder} from a backup, or move it away and select again"

    def manifest(self, number: int) -> dict[str, Any]:
        """Return the manifest of version ``number``.

        Raises:
            UserError: there is no such version; its manifest is missing, damaged or changed, or of
                a later release.
        """
        path = self.path(number) / "manifest.json"
        remedy = self.remedy(path.parent.name)
        manifest = read_json(path, remedy)
        check_layout(path, manifest)
        check_hash(path, remedy, path.with_name(HASHES))
        # What has its hash is as it was written.
        for name, kind in () if path.with_name(HASHES).exists() else _MANIFEST.items():
            if not isinstance(manifest.get(name), kind):
                raise UserError(f"{path}: {name} is {manifest.get(name)!r}; {remedy}")
        return manifest

    def subset(self, number: int) -> pl.LazyFrame:
        """Return the subset of version ``number``: the picks in pick order, yet to be read.

        Raises:
            UserError: there is no such version; the file is missing, damaged or changed.
        """
        return self._table(number, "subset.parquet")

    def ledger(self, number: int) -> pl.LazyFrame:
        """Return the ledger of version ``number``: the fate of every sample, yet to be read.

        Raises:
            UserError: there is no such version; the file is missing, damaged or changed.
        """
        return self._table(number, "ledger.parquet")

    def _table(self, number: int, name: str) -> pl.LazyFrame:
        path = self.path(number) / name
        remedy = self.remedy(path.parent.name)
        table = read_table(path, remedy)
        check_hash(path, remedy, path.with_name(HASHES))
        return table

    def latest(self) -> int | None:
        """Return the highest version number, None where there is no version."""
        numbers = self.numbers()
        return numbers[-1] if numbers else None

    def write(self, subset: Table, ledger: Table, manifest: Mapping[str, object]) -> int:
        """Write one new version, whole or not at all, and return its number.

        The files are completed in a hidden folder that is renamed to the next free number; two
        writers at once get two numbers.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=self.folder))
        try:
            write_table(temporary / "subset.parquet", subset, {})
            write_table(temporary / "ledger.parquet", ledger, {})
            return self._publish(temporary, manifest)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @contextlib.contextmanager
    def placing(self, number: int) -> Iterator[Path]:
        """Let the block write the files of version ``number`` into a folder that becomes its own.

        Raises:
            OSError: there is such a version.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=self.folder))
        try:
            yield temporary
            temporary.chmod(0o755)
            temporary.rename(self.folder / version_name(number))
            sync(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def copy(self, number: int, to: int) -> None:
        """Write a version once more, under a number that is free."""
        manifest = self.manifest(number)
        with self.placing(to) as place:
            for name in ("subset.parquet", "ledger.parquet"):
                shutil.copyfile(self.path(number) / name, place / name)
                sync(place / name)
            _describe(place, to, manifest)

    def remove(self, number: int) -> None:
        """Remove a version, whole or not at all."""
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=self.folder) as temporary:
            self.path(number).rename(Path(temporary) / version_name(number))
            sync(self.folder)

    def _publish(self, temporary: Path, manifest: Mapping[str, object]) -> int:
        temporary.chmod(0o755)
        number = (self.latest() or 0) + 1
        while True:
            _describe(temporary, number, manifest)
            try:
                temporary.rename(self.folder / version_name(number))
            except OSError:
                if not (self.folder / version_name(number)).exists():
                    raise
                number += 1
                continue
            sync(self.folder)
            return number


def _describe(folder: Path, number: int, manifest: Mapping[str, object]) -> None:
    """Write what says which version the files of a folder are, and their hashes."""
    described = {"version": number, "layout": LAYOUT, **manifest} | {"version": number}
    write_json(folder / "manifest.json", described)
    write_hashes(folder / HASHES, files_in(folder))


# What commands read of every manifest: those of releases that kept no hashes are looked at.
_MANIFEST: Mapping[str, type] = {
    **dict.fromkeys(("stage", "strategy", "config_fingerprint", "created_at"), str),
    **dict.fromkeys(("config", "inputs", "budget"), dict),
    **dict.fromkeys(("compression_ratio", "pool_compression_ratio"), dict),
    **dict.fromkeys(("num_samples", "num_picked", "unused_budget"), int),
}
