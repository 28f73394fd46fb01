"""The batches of a stage, and where the rows of each one lie."""

from collections.abc import Mapping
from dataclasses import dataclass

from zip_pipeline.pool.batches import batch_metadata
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot


@dataclass(frozen=True)
class Member:
    """One batch, as a slice of a stored table.

    Its samples are the rows ``offset`` to ``offset + num_samples`` of the pool table of
    ``stored_in``, and so are those of the stored compression state. Readers take slices in the
    order of :func:`members`, never whole tables, so that the order of the pool (sorted names of
    batches, then reading order) does not depend on where a batch is stored.

    Args:
        batch: its name.
        stored_in: the stored batch whose files hold its rows; its own name, as each stored batch
            has one member today.
        offset: the first row of its samples.
        metadata: its fingerprint and counts, as :func:`.batch_metadata` gives them.
    """

    batch: str
    stored_in: str
    offset: int
    metadata: Mapping[str, str]

    @property
    def num_samples(self) -> int:
        """The number of its samples."""
        return int(self.metadata["num_samples"])

    @property
    def fingerprint(self) -> str:
        """The hash of its content."""
        return self.metadata["fingerprint"]


def members(root: DataRoot, stage: Stage) -> list[Member]:
    """Return all batches of a stage, in the order of their names, from metadata alone.

    Raises:
        ValueError: a batch is incomplete, as after a stopped ingestion.
    """
    names = root.batches(stage)
    return [Member(name, name, 0, batch_metadata(root, stage, name)) for name in names]
