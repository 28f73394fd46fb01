"""Many old batches become one stored batch; no sample, id or later selection changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from zip_pipeline.pool.batches import check_columns, stored_metadata
from zip_pipeline.pool.compacted_tables import (
    TABLES,
    count_rows,
    remove_files,
    remove_stored,
    table_path,
    write_compacted,
)
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot, read_metadata
from zip_pipeline.stored_batches import (
    GENERATION,
    batches_move,
    is_compacted,
    live_members,
    members_of,
)

KEEP_LATEST = 50


@dataclass(frozen=True)
class CompactionResult:
    """What a compaction did.

    Args:
        stored: the compacted batch.
        folded: the stored batches that went into it, earlier compacted ones among them.
        num_batches: batches that it holds.
        num_samples: their samples.
        left_alone: old batches that could not be folded, and why.
    """

    stored: str
    folded: tuple[str, ...]
    num_batches: int
    num_samples: int
    left_alone: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """What was folded, in words."""
        return (
            f"{len(self.folded):,} stored batches folded into {self.stored}, which holds "
            f"{self.num_batches:,} batches with {self.num_samples:,} samples"
        )


def compact(
    root: DataRoot, stage: Stage, *, keep_latest: int = KEEP_LATEST
) -> CompactionResult | None:
    """Fold the old batches of a stage, and what was folded before, into one stored batch.

    It waits until nobody reads or writes the stored batches, and whoever wants to waits for it.
    Killed at any moment it loses no sample and counts none twice; the next call goes on. Memory
    holds a few groups of rows, however large the pool is.

    Args:
        root: the data root.
        stage: ``sft`` or ``preference``.
        keep_latest: how many of the batches ingested last stay on their own.

    Returns:
        What was done; None where there are fewer than two stored batches to fold.

    Raises:
        ValueError: ``keep_latest`` is negative, or a compacted batch is damaged.
    """
    if keep_latest < 0:
        raise ValueError(f"keep_latest: got {keep_latest}; allowed are whole numbers from 0")
    if not root.batches(stage):
        return None
    with batches_move(root, stage):
        metadata = _all_metadata(root, stage)
        _remove_remains(root, stage, metadata)
        reasons = {name: _why_not(root, stage, name) for name in _old(root, stage, keep_latest)}
        fold = [name for name, reason in reasons.items() if reason is None]
        if len(fold) < 2:
            return None
        live = [member for member in live_members(metadata) if member.stored_in in fold]
        stored = write_compacted(root, stage, live, 1 + _last_generation(metadata))
        remove_stored(root, stage, [name for name in fold if name != stored])
        return CompactionResult(
            stored,
            tuple(sorted(fold)),
            len(live),
            sum(member.num_samples for member in live),
            {name: reason for name, reason in reasons.items() if reason is not None},
        )


def _all_metadata(root: DataRoot, stage: Stage) -> dict[str, dict[str, str]]:
    """Return the metadata of each stored batch, none of half a batch, which no one can read."""
    found: dict[str, dict[str, str]] = {}
    for name in root.batches(stage):
        try:
            found[name] = stored_metadata(root, stage, name)
        except ValueError:
            if is_compacted(name):
                raise
            found[name] = {}
    return found


def _last_generation(metadata: Mapping[str, Mapping[str, str]]) -> int:
    return max(
        (int(metadata[name][GENERATION]) for name in metadata if is_compacted(name)), default=0
    )


def _old(root: DataRoot, stage: Stage, keep_latest: int) -> list[str]:
    """Return the compacted batches, then the others from the first ingested, but for the latest."""
    stored = root.batches(stage)
    single = [name for name in stored if not is_compacted(name)]
    single.sort(key=lambda name: (root.samples(stage, name).stat().st_mtime_ns, name))
    return [*filter(is_compacted, stored), *single[: max(0, len(single) - keep_latest)]]


def _why_not(root: DataRoot, stage: Stage, stored: str) -> str | None:
    """Return why a stored batch cannot be folded, None where it can."""
    try:
        pool = stored_metadata(root, stage, stored)
        check_columns(root, stage, stored)
        path = root.state(stage, stored)
        state = read_metadata(path) if path.exists() else {}
    except (ValueError, OSError, pl.exceptions.PolarsError) as error:
        return str(error)
    if state.get("pool_fingerprint") != pool["fingerprint"]:
        return (
            "it has no compression state for the samples that it holds now; materialise "
            f"{stage}/compression_state for the partition {stored!r}"
        )
    for kind, key in TABLES.items():
        path = table_path(root, stage, stored, kind)
        if (num_rows := count_rows(path)) != int(pool[key]):
            return f"{path}: has {num_rows} rows, must have {pool[key]}; ingest it again"
    return None


def _remove_remains(root: DataRoot, stage: Stage, metadata: dict[str, dict[str, str]]) -> None:
    """Remove what a killed compaction left, from disk and from ``metadata``.

    That are compacted batches whose members all lie elsewhere, and tables without a pool table.
    """
    used = {member.stored_in for member in live_members(metadata)}
    superseded = [name for name in metadata if name not in used]
    remove_stored(root, stage, superseded)
    for name in superseded:
        del metadata[name]
    compacted = filter(is_compacted, metadata)
    folded = {m.batch for name in compacted for m in members_of(name, metadata[name])}
    for kind in TABLES:
        found = table_path(root, stage, "any", kind).parent.glob("*.parquet")
        tables = {path.name.removesuffix(".parquet"): path for path in found}
        remains = [n for n in tables if n not in metadata and (n in folded or is_compacted(n))]
        remove_files([tables[name] for name in remains])
