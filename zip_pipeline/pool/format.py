"""What a record format is."""

from collections.abc import Callable
from dataclasses import dataclass

from zip_pipeline.pool.rows import Record
from zip_pipeline.samples import AnySample, Stage


@dataclass(frozen=True)
class Format:
    """A way to write a sample as a record.

    Args:
        name: what people write in a sidecar or on the command line.
        stage: the stage whose samples it holds.
        fields: the fields in words, for messages.
        matches: tells whether a record looks like this format.
        parse: returns the sample; raises ``RejectionError`` where the record holds none.
    """

    name: str
    stage: Stage
    fields: str
    matches: Callable[[Record], bool]
    parse: Callable[[Record], AnySample]
