"""The job that folds old batches into one, which keeps the number of partitions small."""

import os
from collections.abc import Iterator
from enum import StrEnum

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG
from pydantic import Field

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.defs.jobs import TIMEZONE_VARIABLE
from zip_pipeline.defs.keys import compression_state_key, partitions_name, raw_pool_key
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.defs.stage import POOL_FINGERPRINT, describe_pool, describe_state
from zip_pipeline.pool.batches import read_state, state_metadata
from zip_pipeline.pool.compaction import KEEP_LATEST, compact
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.stored_batches import batches_stay, is_compacted, stored_members


def tidy_partitions(instance: dg.DagsterInstance, root: DataRoot, stage: Stage) -> None:
    """Give each compacted batch a partition, and take those of what is folded away.

    The history of folded batches stays, by which an unchanged drop is known to be ingested. A
    partition with an unfinished run stays until the next time, for a changed drop may be on its
    way. Stopped at any moment, the next call does the rest.

    Raises:
        UserError: a compacted batch is damaged.
    """
    name = partitions_name(stage)
    with batches_stay(root[stage]):
        keys, stored = set(instance.get_dynamic_partitions(name)), set(root[stage].batches())
        folded = {member.batch for member in stored_members(root[stage])} - stored
        for batch in sorted(filter(is_compacted, stored - keys)):
            for materialization in _materializations(root[stage], batch):
                instance.report_runless_asset_event(materialization)
            instance.add_dynamic_partitions(name, [batch])
    gone = {key for key in keys - stored if key in folded or is_compacted(key)}
    for batch in sorted(gone - _at_work(instance)):
        instance.delete_dynamic_partition(name, batch)


def _at_work(instance: dg.DagsterInstance) -> set[str]:
    """Return the partitions that some unfinished run is about."""
    runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return {run.tags[PARTITION_NAME_TAG] for run in runs if PARTITION_NAME_TAG in run.tags}


def _materializations(folder: StageFolder, batch: str) -> Iterator[dg.AssetMaterialization]:
    """Yield what the two assets would tell of a batch, the pool first, as the state needs it."""
    pool, state = describe_pool(folder, batch), state_metadata(folder, batch)
    yield dg.AssetMaterialization(
        raw_pool_key(folder.stage),
        metadata=pool,
        partition=batch,
        tags={DATA_VERSION_TAG: pool[POOL_FINGERPRINT]},
    )
    if state is not None:
        yield dg.AssetMaterialization(
            compression_state_key(folder.stage),
            metadata=describe_state(read_state(folder, batch))
            | {POOL_FINGERPRINT: state["pool_fingerprint"]},
            partition=batch,
            tags={DATA_VERSION_TAG: state["fingerprint"]},
        )


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
        result = compact(data_root.root[stage], keep_latest=config.keep_latest)
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
