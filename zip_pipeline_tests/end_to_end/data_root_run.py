"""One run over a data root, by the use cases that Dagster's assets call: quick to start.

``python -m zip_pipeline_tests.end_to_end.data_root_run DIR [again]`` prints each phase as it
begins; ``again`` ingests every drop anew.
"""

import sys
from pathlib import Path
from typing import Any

from zip_pipeline.data_root import DataRoot, VersionStore
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.drops import list_drops
from zip_pipeline.ingest.ingest import batch_metadata, ingest_drop
from zip_pipeline.pool.batches import is_current, write_state
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.workflow.versions import current_version, select_version

CONFIG = SelectionConfig(strategy="zip", budget_samples=120, k1=300, k2=24, k3=8)


def run(root: DataRoot, *, again: bool) -> None:
    """Ingest and measure what is not yet, then select a version unless it is there already."""
    folder = root["sft"]
    drops = sorted(list_drops(folder.raw).found)
    for batch in drops:
        _say(f"ingest {batch}")
        if again or not _is_ingested(root, batch):
            ingest_drop(folder, batch)
    for batch in drops:
        _say(f"state {batch}")
        if not is_current(folder, batch):
            write_state(folder, batch)
    _say("select")
    if current_version(folder, CONFIG) is None:
        select_version(folder, CONFIG, log=lambda _: None)
    _say("end")


def _say(phase: str) -> None:
    print(phase, flush=True)


def _is_ingested(root: DataRoot, batch: str) -> bool:
    try:
        batch_metadata(root["sft"], batch)
    except UserError:
        return False
    return True


def _tell_when_a_version_is_written() -> None:
    write = VersionStore.write

    def told(self: VersionStore, *arguments: Any) -> int:
        _say("write")
        return write(self, *arguments)

    VersionStore.write = told  # type: ignore[method-assign]


if __name__ == "__main__":
    _tell_when_a_version_is_written()
    run(DataRoot(Path(sys.argv[1])), again="again" in sys.argv[2:])
