"""Every night each stage whose pool or configuration changed gets a new version."""

import os
from typing import Any

import dagster as dg

from zip_pipeline.defs.configuration import default_op_config, default_selection
from zip_pipeline.defs.jobs import RESELECTION
from zip_pipeline.defs.partitions import zip_subset_key
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.defs.subsets import current_version
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.storage import DataRoot

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
        description="Selects the stages whose pool or configuration changed since their latest "
        "version; skips the others and says why.",
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, data_root: DataRootResource
    ) -> dg.RunRequest | dg.SkipReason:
        reasons = {stage: why_not(data_root.root, stage) for stage in STAGES}
        changed = [stage for stage, reason in reasons.items() if reason is None]
        said = "; ".join(f"{stage}: {reason}" for stage, reason in reasons.items() if reason)
        if not changed:
            return dg.SkipReason(said)
        if said:
            context.log.info(f"left out: {said}")
        return dg.RunRequest(
            asset_selection=[zip_subset_key(stage) for stage in changed],
            run_config={"ops": dict(_op_config(data_root.root, stage) for stage in changed)},
        )

    return schedule


def why_not(root: DataRoot, stage: Stage) -> str | None:
    """Return why a stage needs no new version, None where it does.

    Raises:
        ValueError: ``selection.toml`` is wrong.
    """
    if not root.batches(stage):
        return "the pool is empty"
    number = current_version(root, stage, default_selection(root.path, stage))
    if number is None:
        return None
    return f"neither pool nor configuration changed since version {number}"


def _op_config(root: DataRoot, stage: Stage) -> tuple[str, dict[str, Any]]:
    name = zip_subset_key(stage).to_python_identifier()
    return name, {"config": default_op_config(root.path, stage)}
