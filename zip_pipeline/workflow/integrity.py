"""What a data root holds against the hashes that were taken when it was written."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from zip_pipeline.data_root import DataRoot, StageFolder, version_number
from zip_pipeline.entropy_law.table import read_versions
from zip_pipeline.errors import UserError
from zip_pipeline.files import HASHES, file_hash, files_in, read_hashes, record_of
from zip_pipeline.pool.batches import gone_error, measured_batches
from zip_pipeline.samples import STAGES, Stage

_TABLES = ("pool", "quarantine", "duplicates", "state", "ngrams", "signals")
_HASHED = (*_TABLES, "models")


@dataclass(frozen=True)
class Integrity:
    """What was found of the files of some stages.

    ``damages``: a line for each file that was changed, is missing or was added, with its place and
    the remedy. ``not_hashed``: versions and tables of releases that kept no hashes, about which
    nothing is known.
    """

    num_files: int
    damages: list[str]
    not_hashed: list[Path]


def verify(root: DataRoot, *stages: Stage) -> Integrity:
    """Compare the files of versions, batches and models with the hashes of their writing.

    Args:
        root: the data root.
        stages: whose files; both if none is named.
    """
    checks = [_Check(root[stage]) for stage in stages or STAGES]
    damages = [line for check in checks for line in check.run()]
    try:
        read_versions(root)
    except UserError as error:
        damages.append(str(error))
    return Integrity(
        sum(check.num_files for check in checks),
        damages,
        [path for check in checks for path in check.not_hashed],
    )


class _Check:
    def __init__(self, folder: StageFolder) -> None:
        self._folder = folder
        self.num_files = 0
        self.not_hashed: list[Path] = []

    def run(self) -> Iterator[str]:
        """Yield what is wrong, a line for each file."""
        for kind in _HASHED:
            base = self._folder.root.path / kind / self._folder.stage
            for record in sorted(base.rglob(f"[!.]*.{HASHES}")):
                yield from self._record(record)
            pattern = "*/[!.]*.parquet" if kind == "signals" else "[!.]*.parquet"
            for path in sorted(base.glob(pattern)) if kind in _TABLES else ():
                if not record_of(path).exists():
                    yield from self._of_before(path, partial(self._folder.metadata, path))
        gone = measured_batches(self._folder) - set(self._folder.batches())
        for batch in sorted(gone):
            if not record_of(self._folder.samples(batch)).exists():
                yield str(gone_error(self._folder, [batch]))
        store = self._folder.versions
        for path in sorted(store.folder.glob("[!.]*")):
            number = version_number(path) if path.is_dir() else None
            if number is None:
                yield f"{path}: was added: it is no version; move it away"
            else:
                yield from self._version(number, path)

    def _version(self, number: int, path: Path) -> Iterator[str]:
        if (path / HASHES).exists():
            yield from self._record(path / HASHES)
            return
        store = self._folder.versions
        reads = (store.manifest, store.ledger, store.subset)
        yield from self._of_before(path, lambda: [read(number) for read in reads])

    def _of_before(self, path: Path, look: Callable[[], object]) -> Iterator[str]:
        """Yield why something without hashes cannot be read, or note that nothing else is known."""
        try:
            look()
        except UserError as error:
            yield str(error)
        else:
            self.not_hashed.append(path)

    def _record(self, record: Path) -> Iterator[str]:
        """Yield what is wrong with the files of a record."""
        try:
            hashes = read_hashes(record, self._folder.remedy(record))
        except UserError as error:
            yield str(error)
            return
        while hashes is not None:
            found = [*self._compared(record, hashes)]
            # What is written anew meanwhile gets another record.
            if (again := read_hashes(record, "")) == hashes:
                yield from found
                self.num_files += len(hashes)
                return
            hashes = again

    def _compared(self, record: Path, hashes: dict[str, str]) -> Iterator[str]:
        for name, expected in hashes.items():
            path = record.parent / name
            if not path.is_file():
                yield f"{path}: is missing; {self._folder.remedy(path)}"
            elif file_hash(path) != expected:
                yield f"{path}: was changed since it was written; {self._folder.remedy(path)}"
        whole = record.parent / record.name.removesuffix(HASHES).removesuffix(".")
        for path in files_in(whole) if whole.is_dir() else ():
            if path != record and path.relative_to(record.parent).as_posix() not in hashes:
                yield f"{path}: was added; move it away"
