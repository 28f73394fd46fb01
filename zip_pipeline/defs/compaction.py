"""The job that folds old batches into one, which keeps the number of partitions small."""

import os
from enum import StrEnum

import dagster as dg
from pydantic import Field

from zip_pipeline.defs.compacted_partitions import tidy_partitions
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.defs.schedules import TIMEZONE_VARIABLE
from zip_pipeline.pool.compaction import KEEP_LATEST, compact
from zip_pipeline.samples import STAGES, Stage

COMPACTION = "compact_batches"
EVERY_SUNDAY = "0 4 * * 0"


class StageName(StrEnum):
    """A stage."""

    sft = "sft"
    preference = "preference"


class CompactionTunables(dg.Config):
    """What a compaction can be told in the launchpad."""

    stage: StageName | None = Field(
        default=None, description="Whose batches are folded, sft or preference. null: both."
    )
    keep_latest: int = Field(
        default=KEEP_LATEST,
        ge=0,
        description="How many of the batches ingested last keep a partition of their own (0 and "
        "up). From 100 partitions on, the UI does not tell any more whether a subset is stale.",
    )


@dg.op(
    description="Folds old batches of each stage into one stored batch with one partition.",
)
def fold_batches(
    context: dg.OpExecutionContext, config: CompactionTunables, data_root: DataRootResource
) -> None:
    """Fold the old batches of some stages, and set their partitions right."""
    stages: tuple[Stage, ...] = (config.stage.value,) if config.stage else STAGES
    for stage in stages:
        result = compact(data_root.root, stage, keep_latest=config.keep_latest)
        context.log.info(f"{stage}: {result.summary if result else 'nothing to fold'}")
        for batch, reason in result.left_alone.items() if result else ():
            context.log.warning(f"{stage} {batch!r} is left alone: {reason}")
        tidy_partitions(context.instance, data_root.root, stage)


def compaction_job() -> dg.JobDefinition:
    """Return the job that folds old batches into one."""

    @dg.job(
        name=COMPACTION,
        description="Fold old batches into one partition. No sample, id or later selection "
        "changes; a subset that shows as stale afterwards keeps its version.",
    )
    def job() -> None:
        fold_batches()

    return job


def compaction_schedule() -> dg.ScheduleDefinition:
    """Return the weekly schedule of the job, Sundays at 04:00; off until switched on."""
    return dg.ScheduleDefinition(
        name=COMPACTION,
        job_name=COMPACTION,
        cron_schedule=EVERY_SUNDAY,
        execution_timezone=os.environ.get(TIMEZONE_VARIABLE) or "UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Folds old batches into one. Switch it on where dozens of drops come a week.",
    )
