"""What a data root holds and what is pending: versions, drops, quarantined rows."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.entropy_law.table import is_blocked, read_versions, version_row
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.drops import SIDECAR_SUFFIX, list_drops, snapshot
from zip_pipeline.pool.batches import is_current, read_quarantine, whole_batches
from zip_pipeline.samples import Stage
from zip_pipeline.selection.config import stage_selection
from zip_pipeline.terminal_text import shown_in_cell
from zip_pipeline.workflow.sources import quarantine_of
from zip_pipeline.workflow.verdicts import R_CODEC
from zip_pipeline.workflow.versions import current_version


@dataclass(frozen=True)
class StoredRow:
    """A version in one line.

    ``redundancy`` is R, raw / compressed bytes, higher = more redundant; ``law`` the row of the
    table of versions, None where the version was not probed.
    """

    number: int
    created_at: str
    strategy: str
    budget: Mapping[str, Any]
    redundancy: float | None
    law: Mapping[str, Any] | None


def stored(root: DataRoot, stage: Stage) -> list[StoredRow]:
    """Return all versions of a stage by their numbers.

    Raises:
        UserError: the table of versions is not one of this release.
    """
    law, store = read_versions(root), root[stage].versions
    manifests: dict[int, dict[str, Any]] = {n: store.manifest(n) for n in store.numbers()}
    return [
        StoredRow(
            number,
            manifest["created_at"],
            manifest["strategy"],
            manifest["budget"],
            manifest["compression_ratio"].get(R_CODEC),
            version_row(law, stage, number),
        )
        for number, manifest in manifests.items()
    ]


@dataclass(frozen=True)
class StageStatus:
    """What a stage holds and what is pending.

    ``unusable`` maps entries of the drop folder that are not ingested to the reason. ``is_current``
    tells whether the newest version is that of pool and settings; ``trouble`` why nobody can say.
    """

    new_drops: list[str]
    changed_drops: list[str]
    unusable: Mapping[str, str]
    num_batches: int
    num_samples: int
    num_quarantined: int
    newest: StoredRow | None
    is_current: bool
    trouble: str

    @property
    def is_due(self) -> bool:
        """Whether a run would find something to ingest or to select."""
        has_news = bool(self.new_drops or self.changed_drops)
        return has_news or (self.num_batches > 0 and not self.is_current)


def stage_status(root: DataRoot, stage: Stage) -> StageStatus:
    """Return what a stage holds and what is pending, from what lies on disk.

    A drop counts as changed where one of its files is newer than its batch.

    Raises:
        UserError: the drop folder or the table of versions cannot be read.
    """
    folder = root[stage]
    drops, batches = list_drops(folder.raw), whole_batches(folder)
    ingested = {name for name in batches if is_current(folder, name)}
    rows = stored(root, stage)
    found, trouble = None, ""
    try:
        if batches:
            found = current_version(folder, stage_selection(root.path, stage))
    except UserError as error:
        trouble = str(error)
    return StageStatus(
        new_drops=[name for name in drops.found if name not in ingested],
        changed_drops=[n for n in drops.found if n in ingested and _is_newer(folder, n)],
        unusable=drops.unusable,
        num_batches=len(batches),
        num_samples=sum(int(counts["num_samples"]) for counts in batches.values()),
        num_quarantined=sum(int(counts["num_quarantined"]) for counts in batches.values()),
        newest=rows[-1] if rows else None,
        is_current=found is not None,
        trouble=trouble,
    )


def _is_newer(folder: StageFolder, batch: str) -> bool:
    """Return whether a file of a drop, or its sidecar, changed after its batch was written."""
    names = (batch, f"{batch}{SIDECAR_SUFFIX}")
    paths = [folder.raw / name for name in names if os.path.lexists(folder.raw / name)]
    written = folder.samples(batch).stat().st_mtime_ns
    return any(changed > written for path in paths for _, _, changed, _ in snapshot(path))


def quarantined(folder: StageFolder, batch: str | None = None) -> pl.DataFrame:
    """Return the rejected rows of a batch, or of all whole ones.

    As ``QUARANTINE_SCHEMA``, after the name of the batch.

    Raises:
        UserError: the batch that is named is not there, or not whole.
    """
    batches = whole_batches(folder) if batch is None else [batch]
    return quarantine_of({name: read_quarantine(folder, name) for name in batches})


_Measured = Iterator[tuple[str, str, Mapping[str, str], float]]


def prometheus_text(root: DataRoot, stages: Sequence[Stage]) -> str:
    """Return figures of a data root as Prometheus reads them; what was not measured is left out.

    Source: the text-based exposition format, https://prometheus.io/docs/instrumenting/exposition_formats

    Raises:
        UserError: a drop folder or the table of versions cannot be read.
    """
    samples: dict[tuple[str, str], list[str]] = {}
    measured = (*(_figures(root, stage) for stage in stages), _sizes(root.path))
    for name, words, labels, value in (one for part in measured for one in part):
        listed = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        line = f"zip_pipeline_{name}{{{listed}}} {float(value)!r}"
        samples.setdefault((name, words), []).append(line)
    lines: list[str] = []
    for (name, words), found in samples.items():
        head = f"zip_pipeline_{name}"
        lines += [f"# HELP {head} {words}", f"# TYPE {head} gauge", *found]
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return shown_in_cell(text).replace("\\", r"\\").replace('"', r"\"")


def _figures(root: DataRoot, stage: Stage) -> _Measured:
    found, of = stage_status(root, stage), {"stage": stage}
    yield "pool_samples", "Samples that may be selected.", of, found.num_samples
    yield "pool_batches", "Batches of the pool.", of, found.num_batches
    yield "quarantined_rows", "Rows that are no samples.", of, found.num_quarantined
    words = "Drops that are not in the pool as they are."
    for state, names in (
        ("new", found.new_drops),
        ("changed", found.changed_drops),
        ("unusable", found.unusable),
    ):
        yield "pending_drops", words, {**of, "state": state}, len(names)
    newest = found.newest
    if newest is None:
        return
    yield "version", "Number of the newest version.", of, newest.number
    created = datetime.fromisoformat(newest.created_at).timestamp()
    yield "version_timestamp_seconds", "When the newest version was selected.", of, created
    words = "Whether the newest version is that of pool and settings."
    yield "version_is_current", words, of, found.is_current
    law = newest.law or {}
    for name, words, value in (
        ("redundancy", "R of the newest version: raw / compressed bytes.", newest.redundancy),
        ("probe_loss", "L of the newest version: nats per token.", law.get("L")),
        ("quality", "Z of the newest version, higher is better.", law.get("Z")),
    ):
        if value is not None:
            yield name, words, of, value
    if verdict := law.get("verdict"):
        words = "1 for the verdict of the entropy law on the newest version."
        yield "verdict", words, {**of, "verdict": verdict}, 1
    blocked = read_versions(root).filter(is_blocked(), stage=stage, version=newest.number)
    words = "Whether the entropy law keeps the newest version from being trained."
    yield "version_is_blocked", words, of, blocked.height


def _sizes(root: Path) -> _Measured:
    seen: set[tuple[int, int]] = set()
    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    for name in folders:
        size = sum(_disk_bytes(root / name, seen))
        yield "disk_bytes", "What a folder of the data root takes.", {"folder": name}, size


def _disk_bytes(folder: Path, seen: set[tuple[int, int]]) -> Iterator[int]:
    """Yield the bytes of each file once, though it has several names."""
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found = Path(parent, name).lstat()
            except FileNotFoundError:  # removed meanwhile
                continue
            if (place := (found.st_dev, found.st_ino)) not in seen:
                seen.add(place)
                yield found.st_blocks * 512
