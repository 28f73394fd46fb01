"""A drop in the folder becomes a partition and a run, with no click."""

import base64
import json
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import dagster as dg

from zip_pipeline.data_root import StageFolder
from zip_pipeline.defs.automation import ingest_job_name
from zip_pipeline.defs.keys import (
    BATCHES,
    compression_state_key,
    partitions_name,
    raw_pool_key,
)
from zip_pipeline.defs.private import NOT_FINISHED_STATUSES, BulkActionsFilter, BulkActionStatus
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.defs.stage import (
    COMPRESSION_STATE_CODE_VERSION,
    DROP_FINGERPRINT,
    POOL_FINGERPRINT,
    RAW_POOL_CODE_VERSION,
)
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.drops import Drops, list_drops
from zip_pipeline.ingest.ingest import batch_metadata
from zip_pipeline.pool.batches import is_current
from zip_pipeline.samples import Stage

SECONDS_UNTIL_RETRY = (600.0, 3600.0, 21_600.0, 86_400.0)
"""How long after each request a failed drop is asked for again; the last one is for all others."""


@dataclass
class Seen:
    """One drop: what it looked like at the last tick, and what was asked for it.

    ``generation`` counts the requests of this drop, so that a return to an earlier content is
    a request of its own; ``num_retries`` counts those after the first of the content at hand.
    At ``look_again``, in seconds since 1970, it is time to see what came of the last one.
    """

    looks: str
    requested: str | None = None
    generation: int = 0
    num_retries: int = 0
    look_again: float | None = None


@dataclass
class DropCursor:
    """The memory of one sensor; ``warned`` holds the unusable names already reported."""

    seen: dict[str, Seen] = field(default_factory=dict)
    warned: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, text: str | None) -> "DropCursor":
        """Return the memory that :meth:`dump` wrote, an empty one where there is none."""
        if not text:
            return cls()
        # Earlier releases wrote plain JSON.
        stored = json.loads(
            text if text.startswith("{") else zlib.decompress(base64.b64decode(text))
        )
        seen = {batch: Seen(**values) for batch, values in stored["seen"].items()}
        return cls(seen, stored["warned"])

    def dump(self) -> str:
        """Return the memory as compressed JSON: Dagster stores it with each tick, for a day."""
        text = json.dumps(asdict(self), sort_keys=True)
        return base64.b64encode(zlib.compress(text.encode())).decode("ascii")

    def look(self, drops: Drops) -> tuple[list[str], list[str]]:
        """Take in what lies in the folder.

        Returns:
            The drops that have looked the same for two ticks in a row and were not asked for
            in this form, and those that changed since the last tick, both in name order.
        """
        for batch in self.seen.keys() - drops.found.keys():
            self.seen[batch].looks = ""
        settled, changing = [], []
        for batch, looks in drops.found.items():
            seen = self.seen.setdefault(batch, Seen(looks=""))
            if looks != seen.looks:
                seen.looks = looks
                if looks != seen.requested:
                    changing.append(batch)
            elif looks != seen.requested:
                settled.append(batch)
        return settled, changing

    def due(self, drops: Drops, now: float) -> list[str]:
        """Return the drops of which it is time to see what came of their requests, sorted."""
        return [
            batch
            for batch, looks in drops.found.items()
            if (seen := self.seen[batch]).requested == looks
            and seen.look_again is not None
            and seen.look_again <= now
        ]

    def request(self, batch: str, now: float) -> str:
        """Record that a drop is asked for as it looks now; return the key of the request."""
        seen = self.seen[batch]
        seen.num_retries = seen.num_retries + 1 if seen.requested == seen.looks else 0
        seen.requested = seen.looks
        seen.generation += 1
        self.wait(batch, now)
        return f"{batch}:{seen.looks}:{seen.generation}"

    def wait(self, batch: str, now: float) -> None:
        """Put off the look at what came of a request, longer each time."""
        place = min(self.seen[batch].num_retries, len(SECONDS_UNTIL_RETRY) - 1)
        self.seen[batch].look_again = now + SECONDS_UNTIL_RETRY[place]

    def accept(self, batch: str) -> None:
        """Record that a drop needs no further request as it looks now."""
        self.seen[batch].requested = self.seen[batch].looks
        self.seen[batch].look_again = None

    def new_warnings(self, drops: Drops) -> dict[str, str]:
        """Return the unusable names not reported before, with their reasons."""
        new = {n: reason for n, reason in drops.unusable.items() if n not in self.warned}
        self.warned = sorted(drops.unusable)
        return new


_CODE_VERSION_TAG = "dagster/code_version"


def ingested(
    instance: dg.DagsterInstance, folder: StageFolder, drops: Mapping[str, str]
) -> set[str]:
    """Return the drops of which history and disk agree that they are ingested as they look.

    Needed are: the latest materialisation of the batch's pool partition read the drop with
    this stat fingerprint, its compression state followed from it, both by today's code, and
    the tables on disk are those of that materialisation.

    Args:
        instance: has the history.
        folder: of the stage, as ``root["sft"]``.
        drops: the stat fingerprint of each.
    """
    pools = _latest(instance, raw_pool_key(folder.stage), drops)
    states = _latest(instance, compression_state_key(folder.stage), drops)
    return {
        batch
        for batch, looks in drops.items()
        if _is_ingested(folder, batch, looks, pools.get(batch), states.get(batch))
    }


def _is_ingested(
    folder: StageFolder,
    batch: str,
    stat_fingerprint: str,
    pool: dg.AssetMaterialization | None,
    state: dg.AssetMaterialization | None,
) -> bool:
    if not _is_by(pool, RAW_POOL_CODE_VERSION) or not _is_by(state, COMPRESSION_STATE_CODE_VERSION):
        return False
    read = _value(pool, POOL_FINGERPRINT)
    if _value(pool, DROP_FINGERPRINT) != stat_fingerprint:
        return False
    if _value(state, POOL_FINGERPRINT) != read:
        return False
    try:
        on_disk = batch_metadata(folder, batch)["fingerprint"]
        return on_disk == read and is_current(folder, batch)
    except (UserError, OSError):
        # Nothing, or only a part of it, is on disk: to be ingested.
        return False


# Databases take some hundreds of values in a query.
_RECORDS_AT_A_TIME = 500


def _latest(
    instance: dg.DagsterInstance, key: dg.AssetKey, batches: Iterable[str]
) -> dict[str, dg.AssetMaterialization]:
    """Return the latest materialisation of each batch that has one, in a few queries for all."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    latest = instance.get_latest_storage_id_by_partition(key, kind)
    ids = [latest[batch] for batch in batches if batch in latest]
    found = {}
    for start in range(0, len(ids), _RECORDS_AT_A_TIME):
        part = ids[start : start + _RECORDS_AT_A_TIME]
        wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=part)
        for record in instance.fetch_materializations(wanted, limit=len(part)).records:
            materialization = record.asset_materialization
            if materialization is not None and materialization.partition is not None:
                found[materialization.partition] = materialization
    return found


def _is_by(materialization: dg.AssetMaterialization | None, code_version: str) -> bool:
    tags = materialization.tags if materialization else None
    return bool(tags) and tags.get(_CODE_VERSION_TAG) == code_version  # type: ignore[union-attr]


def _value(materialization: dg.AssetMaterialization | None, name: str) -> object:
    assert materialization is not None
    metadata = materialization.metadata.get(name)
    return metadata.value if metadata is not None else None


SECONDS_BETWEEN_TICKS = 5
# A tick must stay short; what is left waits for the next one.
MAX_DROPS_PER_TICK = 50
PARTITION_TAG = "dagster/partition"
# From 100 keys on, Dagster's UI does not tell any more whether a subset is stale.
NUM_KEYS = 50
_NUM_NAMES_IN_REASON = 5


def keys_to_archive(instance: dg.DagsterInstance, folder: StageFolder) -> list[str]:
    """Return the partition keys of all ingested batches but the latest, sorted.

    Selections find batches on disk, so a batch needs no key; history and files stay, and a drop
    that comes again gets its key back. Keys with work ahead stay until that is done.
    """
    keys = instance.get_dynamic_partitions(partitions_name(folder.stage))
    ingested = {key: _ingested_at(folder, key) for key in keys} if len(keys) > NUM_KEYS else {}
    known = sorted((time, key) for key, time in ingested.items() if time is not None)
    old = {key for _, key in known[:-NUM_KEYS]}
    if not old or instance.get_backfills(
        BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED]), limit=1
    ):
        return []
    runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return sorted(old - {run.tags.get(PARTITION_TAG) for run in runs})


def _ingested_at(folder: StageFolder, batch: str) -> int | None:
    try:
        return folder.samples(batch).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def drop_sensor(stage: Stage) -> dg.SensorDefinition:
    """Return the sensor that ingests each new or changed drop of a stage.

    It lists and stats only, and archives the keys of old batches (:func:`keys_to_archive`). A
    drop is asked for once it looks the same (names, sizes, times) in two ticks in a row, so that
    a file still being written is left alone. A drop whose run failed is asked for again, later and
    later, then once a day: what kept it from being read may be gone.
    """

    @dg.sensor(
        name=f"{stage}_drops",
        job_name=ingest_job_name(stage),
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Ingests every file or folder dropped into raw/{stage}.",
    )
    def sensor(context: dg.SensorEvaluationContext, data_root: DataRootResource) -> dg.SensorResult:
        folder = data_root.root[stage]
        drops = list_drops(folder.raw)
        cursor = DropCursor.load(context.cursor)
        for name, reason in cursor.new_warnings(drops).items():
            context.log.warning(f"{folder.raw}: {name!r} is not ingested: {reason}")
        settled, changing = cursor.look(drops)
        now = time.time()
        wanted = _wanted(context.instance, folder, cursor, settled[:MAX_DROPS_PER_TICK])
        wanted += [
            batch
            for batch in cursor.due(drops, now)[:MAX_DROPS_PER_TICK]
            if _has_failed(context.instance, folder, cursor, batch, now)
        ]
        requests = [_request(cursor, batch, now) for batch in wanted]
        archived = set(keys_to_archive(context.instance, folder)) - set(wanted)
        reason = _why_nothing(folder.raw, drops, changing)
        return _result(stage, cursor, requests, sorted(archived), reason)

    return sensor


def _wanted(
    instance: dg.DagsterInstance, folder: StageFolder, cursor: DropCursor, settled: Sequence[str]
) -> list[str]:
    """Return which settled drops to ask for; at first sight history may know some already."""
    new = {
        batch: cursor.seen[batch].looks for batch in settled if not cursor.seen[batch].generation
    }
    known = ingested(instance, folder, new) if new else set()
    for batch in known:
        cursor.accept(batch)
    return [batch for batch in settled if batch not in known]


def _has_failed(
    instance: dg.DagsterInstance, folder: StageFolder, cursor: DropCursor, batch: str, now: float
) -> bool:
    """Return whether the last run for a drop failed; look later where it has not ended yet."""
    runs = dg.RunsFilter(job_name=ingest_job_name(folder.stage), tags={PARTITION_TAG: batch})
    last = next(iter(instance.get_runs(runs, limit=1)), None)
    if last is not None and not last.is_finished:
        cursor.wait(batch, now)
        return False
    failed = last is not None and last.status == dg.DagsterRunStatus.FAILURE
    if failed and not ingested(instance, folder, {batch: cursor.seen[batch].looks}):
        return True
    cursor.accept(batch)
    return False


def _request(cursor: DropCursor, batch: str, now: float) -> dg.RunRequest:
    return dg.RunRequest(run_key=cursor.request(batch, now), partition_key=batch)


def _result(
    stage: Stage,
    cursor: DropCursor,
    requests: list[dg.RunRequest],
    archived: list[str],
    reason: str,
) -> dg.SensorResult:
    added = [request.partition_key for request in requests if request.partition_key]
    changes: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if added:
        changes.append(BATCHES[stage].build_add_request(added))
    if archived:
        changes.append(BATCHES[stage].build_delete_request(archived))
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else reason,
        dynamic_partitions_requests=changes,
        cursor=cursor.dump(),
    )


def _why_nothing(folder: Path, drops: Drops, changing: Sequence[str]) -> str:
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
