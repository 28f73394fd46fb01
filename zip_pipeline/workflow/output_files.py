"""The three files of a selection, which appear together or not at all."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from zip_pipeline.errors import UserError
from zip_pipeline.files import (
    empty_own_folder,
    own_folder,
    remove_own_folder,
    scan_table,
    write_atomically,
    write_json,
    write_table,
)
from zip_pipeline.selection.shards import SHARDS_SUFFIX

OUTPUT_SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class OutputFiles:
    """OUT, and what stands beside it under the same stem."""

    out: Path

    def __post_init__(self) -> None:
        if self.out.suffix not in OUTPUT_SUFFIXES or self.out.is_dir():
            raise UserError(
                f"--output: got {self.out}; allowed are files named *{', *'.join(OUTPUT_SUFFIXES)}"
            )

    def _beside(self, name: str) -> Path:
        return self.out.with_name(f"{self.out.stem}.{name}")

    @property
    def ledger(self) -> Path:
        """The fate of every sample."""
        return self._beside("ledger.parquet")

    @property
    def manifest(self) -> Path:
        """What was selected from what, and how."""
        return self._beside("manifest.json")

    @property
    def work(self) -> Path:
        """The hidden folder of an unfinished selection."""
        return self.out.with_name(f".{self.out.stem}.checkpoint")

    @property
    def checkpoint(self) -> Path:
        """The state of an unfinished selection."""
        return self.work / "selection"

    def refuse_inputs(self, inputs: Sequence[Path]) -> None:
        """Raise UserError where writing would replace or join one of the inputs."""
        written = [path.resolve() for path in (self.out, self.ledger, self.manifest)]
        for given in inputs:
            clash = [p for p in written if p == given.resolve() or given.resolve() in p.parents]
            if clash:
                raise UserError(
                    f"--output: {clash[0]} is or lies in the input {given}; "
                    "write outside of what is read"
                )

    @contextmanager
    def open(self, *, resume: bool) -> Iterator[None]:
        """Hold the work folder, empty but for the checkpoints to resume from.

        Raises:
            UserError: another selection writes OUT now, or what stands beside it is another
                OUT's or was not written by a selection.
        """
        with own_folder(self.work, f"a selection with the output {self.out}"):
            self._refuse_foreign_neighbours()
            shards = self.work.glob(f"*{SHARDS_SUFFIX}")
            empty_own_folder(self.work, {self.checkpoint, *shards} if resume else ())
            yield

    def _refuse_foreign_neighbours(self) -> None:
        if self.manifest.exists():
            owner = _output_of(self.manifest)
            if owner is None:
                raise self._taken(self.manifest, "was not written by a selection")
            if owner != self.out.name and self.out.with_name(owner).exists():
                raise self._taken(self.manifest, f"belongs to {owner}")
        elif self.ledger.exists() and not _is_ledger(self.ledger):
            raise self._taken(self.ledger, "was not written by a selection")

    def _taken(self, path: Path, whose: str) -> UserError:
        return UserError(
            f"--output: {path} {whose}, and {self.out.name} would replace it; give OUT a name "
            "with another stem"
        )

    def publish(
        self,
        write_out: Callable[[Path], object],
        ledger: pl.DataFrame,
        manifest: Callable[[], dict[str, object]],
    ) -> dict[str, object]:
        """Write the three files, OUT last, and remove the work folder; return the manifest.

        All are complete in the work folder before an older OUT goes away, and OUT appears
        last: whenever OUT is there, it agrees with its ledger and manifest.
        """
        staged = [self.work / path.name for path in (self.ledger, self.manifest, self.out)]
        write_atomically(staged[2], write_out)
        write_table(staged[0], ledger, {})
        content = manifest()
        write_json(staged[1], content)
        self.out.unlink(missing_ok=True)
        for path, place in zip(staged, (self.ledger, self.manifest, self.out), strict=True):
            path.replace(place)
        remove_own_folder(self.work)
        return content


def _output_of(manifest: Path) -> str | None:
    """Return the OUT that a manifest names, None where it is no manifest of a selection."""
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    output = content.get("output") if isinstance(content, dict) else None
    return output if isinstance(output, str) else None


def _is_ledger(path: Path) -> bool:
    try:
        return {"sample_id", "fate"} <= set(scan_table(path).collect_schema())
    except (OSError, pl.exceptions.PolarsError):
        return False


def write_records(path: Path, records: Iterable[str]) -> None:
    """Write records, each a JSON text, as ``.json`` (a list) or ``.jsonl`` (one per line)."""
    lines = (_one_line(record) for record in records)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        if path.suffix == ".jsonl":
            file.writelines(f"{line}\n" for line in lines)
            return
        file.write("[")
        for position, line in enumerate(lines):
            file.write(f"{',' if position else ''}\n{line}")
        file.write("\n]\n")


def _one_line(record: str) -> str:
    """Return JSON text without line breaks; those between its values mean nothing."""
    if "\n" not in record and "\r" not in record:
        return record
    return json.dumps(json.loads(record), ensure_ascii=False)
