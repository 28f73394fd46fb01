"""The batches of a stage, and where the rows of each one lie."""

from zip_pipeline.pool.batches import stored_metadata
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot
from zip_pipeline.stored_batches import (
    Member,
    batches_stay,
    is_compacted,
    live_members,
    scan_rows,
)

__all__ = ["Member", "members", "scan_rows", "whole_members"]


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
