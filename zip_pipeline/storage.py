"""Where things lie on disk; every write is whole or not there at all."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from zip_pipeline.samples import Stage

VERSION_FILES = ("subset.parquet", "ledger.parquet", "manifest.json")
SECONDS_PER_WEEK = 604_800.0
_TEMPORARY = ".tmp-"
# Who reads a few rows decodes little of a table in small groups; large pages compress better.
_ROWS_PER_GROUP = 1 << 14
_PAGE_BYTES = 1 << 22
GENERATED = (
    "pool", "quarantine", "duplicates", "state", "checkpoints", "versions", "held_out", "models",
    "cache", "entropy_law",
)  # fmt: skip


@dataclass(frozen=True)
class DataRoot:
    """The folder that holds drops, pool, state and versions.

    ``raw/<stage>`` is the drop folder; everything else is written by the pipeline.
    """

    path: Path

    def raw(self, stage: Stage) -> Path:
        """Return the drop folder of a stage."""
        return self.path / "raw" / stage

    def samples(self, stage: Stage, batch: str) -> Path:
        """Return the pool table of a batch."""
        return self.path / "pool" / stage / f"{batch}.parquet"

    def quarantine(self, stage: Stage, batch: str) -> Path:
        """Return the table of a batch's rejected rows."""
        return self.path / "quarantine" / stage / f"{batch}.parquet"

    def duplicates(self, stage: Stage, batch: str) -> Path:
        """Return the table of a batch's exact duplicates."""
        return self.path / "duplicates" / stage / f"{batch}.parquet"

    def state(self, stage: Stage, batch: str) -> Path:
        """Return the compression state of a batch."""
        return self.path / "state" / stage / f"{batch}.parquet"

    def checkpoints(self, stage: Stage) -> Path:
        """Return the folder of unfinished selections."""
        return self.path / "checkpoints" / stage

    def models(self, stage: Stage, number: int) -> Path:
        """Return the folder of what was probed, trained and evaluated of a version."""
        return self.path / "models" / stage / version_name(number)

    @property
    def cache(self) -> Path:
        """The folder of files that can be made again, as the tiny base model."""
        return self.path / "cache"

    def held_out(self, stage: Stage) -> Path:
        """Return the table of the samples that are kept for evaluation."""
        return self.path / "held_out" / f"{stage}.parquet"

    def batches(self, stage: Stage) -> list[str]:
        """Return the names of all stored batches, sorted; a compacted one holds many."""
        suffix = ".parquet"
        names = (self.path / "pool" / stage).glob(f"*{suffix}")
        return sorted(p.name.removesuffix(suffix) for p in names if not p.name.startswith("."))

    def versions(self, stage: Stage) -> "VersionStore":
        """Return the versions of a stage."""
        return VersionStore(self.path / "versions" / stage)


def sync(path: Path) -> None:
    """Return when the content of a file, or the names in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place.

    A reader sees the old file or the new one, never a part; a killed writer leaves only a
    hidden temporary file, which :func:`remove_leftovers` clears.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def scan_table(path: Path) -> pl.LazyFrame:
    """Return the rows of one Parquet file, yet to be read, whatever its name looks like."""
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def write_table(path: Path, table: pl.DataFrame, metadata: Mapping[str, str]) -> None:
    """Write a table with string metadata to ``path``, atomically."""
    write_atomically(
        path,
        lambda p: table.write_parquet(
            p,
            compression="zstd",
            row_group_size=_ROWS_PER_GROUP,
            data_page_size=_PAGE_BYTES,
            metadata=dict(metadata),
        ),
    )


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata that :func:`write_table` stored, without reading the rows."""
    return dict(pl.read_parquet_metadata(path))


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write ``value`` as indented JSON to ``path``, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, atomically."""
    write_atomically(path, lambda p: p.write_bytes(content))


def remove_leftovers(root: DataRoot, older_than_seconds: float = SECONDS_PER_WEEK) -> int:
    """Remove what killed writers left in the generated folders; return how many entries it was.

    Entries changed within the last ``older_than_seconds`` may belong to a writer at work and
    stay.
    """
    latest = time.time() - older_than_seconds
    found = [path for name in GENERATED for path in (root.path / name).rglob(f"{_TEMPORARY}*")]
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


def fingerprint(parts: Iterable[str]) -> str:
    """Return a hash of the sequence of strings: 32 hexadecimal digits.

    Each part is hashed with its length, so no two sequences run together.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def version_name(number: int) -> str:
    """Return the name of a version's folders."""
    return f"v{number:06d}"


class VersionStore:
    """The immutable, numbered versions of one stage's subset."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def numbers(self) -> list[int]:
        """Return the numbers of all complete versions, ascending."""
        names = (p.name for p in self.folder.glob("v[0-9]*")) if self.folder.exists() else ()
        return sorted(int(name[1:]) for name in names if name[1:].isdigit())

    def path(self, number: int) -> Path:
        """Return the folder of version ``number``.

        Raises:
            ValueError: there is no such version.
        """
        path = self.folder / version_name(number)
        if not path.exists():
            known = ", ".join(str(n) for n in self.numbers()) or "none yet"
            raise ValueError(f"{self.folder}: no version {number}; there are: {known}")
        return path

    def manifest(self, number: int) -> dict[str, object]:
        """Return the manifest of version ``number``."""
        text = (self.path(number) / "manifest.json").read_text(encoding="utf-8")
        manifest = json.loads(text)
        assert isinstance(manifest, dict)
        return manifest

    def latest(self) -> int | None:
        """Return the highest version number, None where there is no version."""
        numbers = self.numbers()
        return numbers[-1] if numbers else None

    def write(
        self, subset: pl.DataFrame, ledger: pl.DataFrame, manifest: Mapping[str, object]
    ) -> int:
        """Write one new version, whole or not at all, and return its number.

        The three files are completed in a hidden folder that is renamed to the next free
        number; two writers at once get two numbers.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.folder))
        try:
            write_table(temporary / "subset.parquet", subset, {})
            write_table(temporary / "ledger.parquet", ledger, {})
            return self._publish(temporary, manifest)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _publish(self, temporary: Path, manifest: Mapping[str, object]) -> int:
        temporary.chmod(0o755)
        while True:
            number = (self.latest() or 0) + 1
            write_json(temporary / "manifest.json", {"version": number, **manifest})
            try:
                temporary.rename(self.folder / version_name(number))
            except OSError as error:
                if (self.folder / version_name(number)).exists():
                    continue
                raise error
            sync(self.folder)
            return number
