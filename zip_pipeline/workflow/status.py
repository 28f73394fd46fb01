"""What a data root holds and what is pending: versions, drops, quarantined rows."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.entropy_law.table import read_versions, version_row
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.drops import SIDECAR_SUFFIX, list_drops, snapshot
from zip_pipeline.pool.batches import is_current, read_quarantine, whole_batches
from zip_pipeline.samples import Stage
from zip_pipeline.selection.config import stage_selection
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
