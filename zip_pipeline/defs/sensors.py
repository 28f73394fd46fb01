"""A drop in the folder becomes a partition and a run, with no click."""

import time
from collections.abc import Sequence

import dagster as dg

from zip_pipeline.defs.drop_cursor import DropCursor
from zip_pipeline.defs.drops import Drops, list_drops
from zip_pipeline.defs.ingested import is_ingested
from zip_pipeline.defs.jobs import ingest_job_name
from zip_pipeline.defs.partitions import BATCHES
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot

SECONDS_BETWEEN_TICKS = 5
# A tick must stay short; what is left waits for the next one.
MAX_DROPS_PER_TICK = 50
PARTITION_TAG = "dagster/partition"
_NUM_NAMES_IN_REASON = 5


def drop_sensor(stage: Stage) -> dg.SensorDefinition:
    """Return the sensor that ingests each new or changed drop of a stage.

    It lists and stats only. A drop is asked for once it looks the same (names, sizes, times)
    in two ticks in a row, so that a file still being written is left alone. A drop whose run
    failed is asked for again a few times, later and later.
    """

    @dg.sensor(
        name=f"{stage}_drops",
        job_name=ingest_job_name(stage),
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Ingests every file or folder dropped into raw/{stage}.",
    )
    def sensor(context: dg.SensorEvaluationContext, data_root: DataRootResource) -> dg.SensorResult:
        root = data_root.root
        drops = list_drops(root.raw(stage))
        cursor = DropCursor.load(context.cursor)
        for name, reason in cursor.new_warnings(drops).items():
            context.log.warning(f"{root.raw(stage)}: {name!r} is not ingested: {reason}")
        settled, changing = cursor.look(drops)
        now = time.time()
        wanted = [
            batch
            for batch in settled[:MAX_DROPS_PER_TICK]
            if _is_wanted(context.instance, root, stage, cursor, batch)
        ]
        wanted += [
            batch
            for batch in cursor.due(drops, now)[:MAX_DROPS_PER_TICK]
            if _has_failed(context.instance, root, stage, cursor, batch, now)
        ]
        requests = [_request(cursor, batch, now) for batch in wanted]
        return _result(stage, cursor, requests, _why_nothing(root, stage, drops, changing))

    return sensor


def _is_wanted(
    instance: dg.DagsterInstance, root: DataRoot, stage: Stage, cursor: DropCursor, batch: str
) -> bool:
    """Return whether to ask for a settled drop; at first sight history may know it already."""
    seen = cursor.seen[batch]
    if seen.generation == 0 and is_ingested(instance, root, stage, batch, seen.looks):
        cursor.accept(batch)
        return False
    return True


def _has_failed(
    instance: dg.DagsterInstance,
    root: DataRoot,
    stage: Stage,
    cursor: DropCursor,
    batch: str,
    now: float,
) -> bool:
    """Return whether the last run for a drop failed; look later where it has not ended yet."""
    runs = dg.RunsFilter(job_name=ingest_job_name(stage), tags={PARTITION_TAG: batch})
    last = next(iter(instance.get_runs(runs, limit=1)), None)
    if last is not None and not last.is_finished:
        cursor.wait(batch, now)
        return False
    failed = last is not None and last.status == dg.DagsterRunStatus.FAILURE
    if failed and not is_ingested(instance, root, stage, batch, cursor.seen[batch].looks):
        return True
    cursor.accept(batch)
    return False


def _request(cursor: DropCursor, batch: str, now: float) -> dg.RunRequest:
    return dg.RunRequest(run_key=cursor.request(batch, now), partition_key=batch)


def _result(
    stage: Stage, cursor: DropCursor, requests: list[dg.RunRequest], reason: str
) -> dg.SensorResult:
    if not requests:
        return dg.SensorResult(skip_reason=reason, cursor=cursor.dump())
    batches = [request.partition_key for request in requests if request.partition_key]
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[BATCHES[stage].build_add_request(batches)],
        cursor=cursor.dump(),
    )


def _why_nothing(root: DataRoot, stage: Stage, drops: Drops, changing: Sequence[str]) -> str:
    folder = root.raw(stage)
    if not folder.is_dir():
        return f"{folder} does not exist; create it and drop a file there"
    parts = [f"{len(drops.found)} drops, none new or changed"]
    if not drops.found:
        parts = ["nothing dropped yet"]
    if changing:
        parts = [f"waiting until they stop changing: {_some([repr(name) for name in changing])}"]
    if drops.unusable:
        reasons = [f"{name!r} ({reason})" for name, reason in drops.unusable.items()]
        parts.append(f"not ingested: {_some(reasons)}")
    return f"{folder}: {'; '.join(parts)}"


def _some(words: Sequence[str]) -> str:
    shown = ", ".join(words[:_NUM_NAMES_IN_REASON])
    num_hidden = len(words) - _NUM_NAMES_IN_REASON
    return f"{shown} and {num_hidden} more" if num_hidden > 0 else shown
