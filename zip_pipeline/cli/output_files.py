"""The three files of a selection, which appear together or not at all."""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from zip_pipeline.selection.select import shards_beside
from zip_pipeline.storage import write_atomically, write_json, write_table

OUTPUT_SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class OutputFiles:
    """OUT, and what stands beside it under the same stem."""

    out: Path

    def __post_init__(self) -> None:
        if self.out.suffix not in OUTPUT_SUFFIXES or self.out.is_dir():
            raise ValueError(
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
        """Raise ValueError where writing would replace or join one of the inputs."""
        written = [path.resolve() for path in (self.out, self.ledger, self.manifest)]
        for given in inputs:
            clash = [p for p in written if p == given.resolve() or given.resolve() in p.parents]
            if clash:
                raise ValueError(
                    f"--output: {clash[0]} is or lies in the input {given}; "
                    "write outside of what is read"
                )

    def prepare(self, *, resume: bool) -> None:
        """Make the work folder, empty but for the checkpoints to resume from."""
        self.work.mkdir(parents=True, exist_ok=True)
        kept = {self.checkpoint, shards_beside(self.checkpoint)} if resume else set()
        for path in set(self.work.iterdir()) - kept:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

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
        shutil.rmtree(self.work, ignore_errors=True)
        return content


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
