"""The batches of a stage, and where the rows of each one lie."""

import contextlib
from collections.abc import Iterable

from zip_pipeline.pool.batches import stored_metadata
from zip_pipeline.pool.states import measured_batches
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot, read_metadata
from zip_pipeline.stored_batches import (
    Member,
    batches_stay,
    is_compacted,
    live_members,
    members_of,
    scan_rows,
)

__all__ = [
    "Member",
    "all_members",
    "gone_error",
    "members",
    "refuse_gone",
    "scan_rows",
    "whole_members",
]


def members(root: DataRoot, stage: Stage) -> list[Member]:
    """Return all batches of a stage, in the order of their names, from metadata alone.

    That order does not depend on which of them are compacted (:func:`.live_members`).

    Raises:
        ValueError: a batch is incomplete, as after a stopped ingestion.
    """
    with batches_stay(root, stage):
        stored = root.batches(stage)
        return live_members({name: stored_metadata(root, stage, name) for name in stored})


def whole_members(root: DataRoot, stage: Stage) -> list[Member]:
    """Return those batches of a stage that are complete, in the order of their names."""
    stored: dict[str, dict[str, str]] = {}
    with batches_stay(root, stage):
        for name in root.batches(stage):
            try:
                stored[name] = stored_metadata(root, stage, name)
            except ValueError:
                # Half a batch still supersedes the one of its name in a compacted batch.
                stored |= {} if is_compacted(name) else {name: {}}
    return [member for member in live_members(stored) if member.metadata]


def all_members(root: DataRoot, stage: Stage, before: Iterable[Member] = ()) -> list[Member]:
    """Return :func:`members`, of which none is missing.

    Args:
        root: the data root.
        stage: ``sft`` or ``preference``.
        before: batches that were there a moment ago.

    Raises:
        ValueError: a batch is incomplete; or it is gone, though it was there a moment ago or has
            a compression state, which is never written before its samples.
    """
    with batches_stay(root, stage):
        found = members(root, stage)
        wanted = {member.batch for member in before} | measured_batches(root, stage)
        if gone := wanted - {member.batch for member in found}:
            raise gone_error(root, stage, gone)
        return found


def refuse_gone(root: DataRoot, stage: Stage, batches: Iterable[str]) -> None:
    """Raise ValueError where one of these batches is not in the pool of a stage any more.

    One that is replaced right now, and so is incomplete, is there.
    """
    with batches_stay(root, stage):
        stored = root.batches(stage)
        there = set(stored)
        for name in filter(is_compacted, stored):
            with contextlib.suppress(FileNotFoundError):
                metadata = read_metadata(root.samples(stage, name))
                there |= {member.batch for member in members_of(name, metadata)}
    if gone := set(batches) - there:
        raise gone_error(root, stage, gone)


def gone_error(root: DataRoot, stage: Stage, gone: Iterable[str]) -> ValueError:
    """Return what to say of batches that are not in the pool of a stage any more."""
    first, *others = sorted(gone)
    words = f"batch {first!r} is" if not others else f"batch {first!r} and {len(others):,} more are"
    return ValueError(
        f"{root.samples(stage, first).parent}: {words} gone from the pool of {stage}; ingest what "
        f"is missing again, or, to do without it, remove it from {root.state(stage, first).parent} "
        "as well"
    )
