"""What runs together, every night or by itself: jobs, the schedule and two sensors."""

import importlib.util
import logging
import os
from collections.abc import Iterator

import dagster as dg

from zip_pipeline.data_root import StageFolder
from zip_pipeline.defs.keys import (
    AS_WRITTEN_CHECK,
    ENTROPY_LAW,
    EVALUATION,
    compression_state_key,
    loss_probe_key,
    model_key,
    raw_pool_key,
    report_key,
    signals_key,
    zip_subset_key,
)
from zip_pipeline.defs.private import UnresolvedAssetJobDefinition
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.entropy_law.table import has_verdict, read_versions
from zip_pipeline.errors import not_installed
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.selection.config import stage_selection
from zip_pipeline.workflow.versions import current_version

TRAINING_SENSOR = "training_of_new_versions"
LAW_SENSOR = "entropy_law_figures"


def training_sensor() -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that trains and evaluates new versions; off until switched on."""
    return dg.AutomationConditionSensorDefinition(
        name=TRAINING_SENSOR,
        target=dg.AssetSelection.assets(*(model_key(stage) for stage in STAGES), EVALUATION),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Trains each new version that the entropy law does not block, then evaluates "
        "it. Switch it on when GPU hours may be spent without a click.",
    )


def law_sensor() -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that draws figures and writes reports when something was measured."""
    return dg.AutomationConditionSensorDefinition(
        name=LAW_SENSOR,
        target=dg.AssetSelection.assets(ENTROPY_LAW, *map(report_key, STAGES)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Draws the figures of the entropy law anew, and writes the report of a stage, "
        "when a version was probed or evaluated.",
    )


OPENLINEAGE_SENSOR = "openlineage"
OPENLINEAGE_VARIABLE = "OPENLINEAGE_URL"
# A tick takes the latest records of each kind: fewer, and a busy night would lose some.
_MAX_LINEAGE_EVENTS = 10_000


def openlineage_sensors() -> list[dg.SensorDefinition]:
    """Return the sensor that tells an OpenLineage server what was made, if a server is named.

    ``OPENLINEAGE_URL`` names it, ``OPENLINEAGE_NAMESPACE`` the namespace of the assets.
    """
    if not os.environ.get(OPENLINEAGE_VARIABLE):
        return []
    if importlib.util.find_spec("dagster_openlineage") is None:
        # The variable may be meant for others on this machine.
        missing = not_installed("dagster_openlineage", OPENLINEAGE_VARIABLE)
        logging.getLogger(__name__).warning(str(missing))
        return []
    from dagster_openlineage import openlineage_sensor

    kinds = dg.DagsterEventType
    # Every history finds these by itself; checks, only one that is a single database.
    told = {True: {kinds.ASSET_MATERIALIZATION, kinds.ASSET_OBSERVATION}}
    told[False] = told[True] | {kinds.ASSET_CHECK_EVALUATION}
    tell = {
        is_sharded: openlineage_sensor(
            concerned_event_types=found,
            record_filter_limit=_MAX_LINEAGE_EVENTS,
            include_asset_events=True,
        )
        for is_sharded, found in told.items()
    }

    @dg.sensor(
        name=OPENLINEAGE_SENSOR,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the server of OPENLINEAGE_URL what was made from what, column by "
        "column; and which checks passed, where the history is one database.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.SkipReason]:
        yield from tell[context.instance.event_log_storage.is_run_sharded](context)

    return [sensor]


RESELECTION = "nightly_reselection"
TRAINING = "training"
EVALUATION_JOB = "evaluation_and_law"


def ingest_job_name(stage: Stage) -> str:
    """Return the name of the job that ingests one drop of a stage."""
    return f"ingest_{stage}"


def ingest_job(stage: Stage) -> UnresolvedAssetJobDefinition:
    """Return the job that ingests one drop: pool partition, compression state and signals."""
    return dg.define_asset_job(
        name=ingest_job_name(stage),
        selection=dg.AssetSelection.assets(
            raw_pool_key(stage), compression_state_key(stage), signals_key(stage)
        ),
        description=f"Ingest one drop of {stage}: samples, quarantine, compression state, and the "
        "signals that zip_pipeline.toml asks for.",
    )


def select_job_name(stage: Stage) -> str:
    """Return the name of the job that selects the subset of one stage."""
    return f"select_{stage}"


def probe_job_name(stage: Stage) -> str:
    """Return the name of the job that asks the entropy law about one stage."""
    return f"probe_{stage}"


def train_job_name(stage: Stage) -> str:
    """Return the name of the job that trains the latest version of one stage."""
    return f"train_{stage}"


def step_jobs(stage: Stage) -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs of single steps, under which a run from the command line is found."""
    jobs = (
        (select_job_name(stage), zip_subset_key(stage), "Select the subset of {} and check it."),
        (probe_job_name(stage), loss_probe_key(stage), "Ask the law about the latest {} version."),
        (train_job_name(stage), model_key(stage), "Train the latest version of {}."),
    )
    # What reads all files is for the night.
    nightly = dg.AssetSelection.checks(as_written_key(stage))
    return [
        dg.define_asset_job(
            name=name,
            selection=dg.AssetSelection.assets(key) - nightly,
            description=words.format(stage),
        )
        for name, key, words in jobs
    ]


def as_written_key(stage: Stage) -> dg.AssetCheckKey:
    """Return the key of the check that reads all files of a stage."""
    return dg.AssetCheckKey(zip_subset_key(stage), AS_WRITTEN_CHECK)


def reselection_job() -> UnresolvedAssetJobDefinition:
    """Return the job that selects the subsets of all stages, checks them and probes them."""
    keys = [key(stage) for stage in STAGES for key in (zip_subset_key, loss_probe_key)]
    return dg.define_asset_job(
        name=RESELECTION,
        selection=dg.AssetSelection.assets(*keys),
        description="Select the subset of each stage anew, check it, measure its probe loss, and "
        "ask the entropy law whether it may be trained.",
    )


def training_job() -> UnresolvedAssetJobDefinition:
    """Return the job that trains the latest version of both stages, SFT first."""
    return dg.define_asset_job(
        name=TRAINING,
        selection=dg.AssetSelection.assets(*(model_key(stage) for stage in STAGES)),
        description="Train the latest version of both stages: SFT, then KTO from the SFT model.",
    )


def evaluation_job() -> UnresolvedAssetJobDefinition:
    """Return the job that evaluates what is trained, draws the law's figures, and reports."""
    return dg.define_asset_job(
        name=EVALUATION_JOB,
        selection=dg.AssetSelection.assets(EVALUATION, ENTROPY_LAW, *map(report_key, STAGES)),
        description="Evaluate every trained version, draw the figures of the entropy law, and "
        "write the reports.",
    )


TIMEZONE_VARIABLE = "ZIP_PIPELINE_TIMEZONE"
EVERY_NIGHT = "0 2 * * *"


def reselection_schedule() -> dg.ScheduleDefinition:
    """Return the nightly schedule: 02:00 in the time zone of ``ZIP_PIPELINE_TIMEZONE``, or UTC."""

    @dg.schedule(
        name=RESELECTION,
        job_name=RESELECTION,
        cron_schedule=EVERY_NIGHT,
        execution_timezone=os.environ.get(TIMEZONE_VARIABLE) or "UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Selects and probes the stages whose pool or configuration changed since their "
        "latest version; the log says why it leaves out others. Checks the files of all.",
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, data_root: DataRootResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        reasons = {stage: why_not(data_root.root[stage]) for stage in STAGES}
        changed = [stage for stage, reason in reasons.items() if reason is None]
        said = "; ".join(f"{stage}: {reason}" for stage, reason in reasons.items() if reason)
        checks = [
            as_written_key(stage)
            for stage in STAGES
            if stage not in changed and data_root.root[stage].batches()
        ]
        if not changed and not checks:
            return dg.SkipReason(said)
        if said:
            context.log.info(f"left out: {said}")
        keys = [key(stage) for stage in changed for key in (zip_subset_key, loss_probe_key)]
        # What is selected brings its checks.
        requests = [dg.RunRequest("selection", asset_selection=keys)] if keys else []
        return requests + ([dg.RunRequest("check", asset_check_keys=checks)] if checks else [])

    return schedule


def why_not(folder: StageFolder) -> str | None:
    """Return why a stage needs neither a new version nor a verdict, None where it does.

    Raises:
        UserError: ``zip_pipeline.toml`` is wrong.
    """
    if not folder.batches():
        return "the pool is empty"
    number = current_version(folder, stage_selection(folder.root.path, folder.stage))
    if number is None or not has_verdict(read_versions(folder.root), folder.stage, number):
        return None
    return f"neither pool nor configuration changed since version {number}"
