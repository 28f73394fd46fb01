"""``zip-pipeline compact``: old batches become one."""

from typing import Annotated

import typer
from rich.console import Console

from zip_pipeline.cli.console import output, styled
from zip_pipeline.cli.data_roots import DEFAULT_DATA_ROOT, DataRootOption, existing_root
from zip_pipeline.cli.history_commands import AnyStage
from zip_pipeline.cli.progress import stage_progress
from zip_pipeline.pool.compaction import KEEP_LATEST, CompactionResult, compact
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.storage import DataRoot

KeepLatest = Annotated[
    int, typer.Option(min=0, help="How many of the batches ingested last stay on their own.")
]


def compact_batches(
    stage: AnyStage = None,
    data_root: DataRootOption = DEFAULT_DATA_ROOT,
    keep_latest: KeepLatest = KEEP_LATEST,
) -> None:
    """Fold old batches into one stored batch; no sample, id or later selection changes.

    A pool of many drops stays quick to handle, and Dagster tells what is stale for fewer than 100
    partitions only. The partitions follow with the next [bold]run[/] or the job compact_batches.
    """
    root = existing_root(data_root)
    for name in STAGES if stage is None else (stage,):
        with stage_progress() as progress:
            progress.stage(f"{name}: folding, when no run reads or writes the pool")
            result = compact(root, name, keep_latest=keep_latest)
        _show(output(), root, name, keep_latest, result)


def _show(
    console: Console,
    root: DataRoot,
    stage: Stage,
    keep_latest: int,
    result: CompactionResult | None,
) -> None:
    if result is None:
        num_stored = len(root.batches(stage))
        words = f"nothing to fold: {num_stored:,} stored batches, the latest {keep_latest:,} stay"
    else:
        words = result.summary
    console.print(styled((stage, "bold"), f": {words}"), soft_wrap=True)
    for batch, reason in result.left_alone.items() if result else ():
        console.print(f"  {batch} left alone: {reason}", soft_wrap=True)
