"""Every night each stage whose pool or configuration changed gets a new version, and a verdict."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import dagster as dg

from zip_pipeline.defs.configuration import default_op_config, default_selection
from zip_pipeline.defs.jobs import RESELECTION
from zip_pipeline.defs.keys import loss_probe_key
from zip_pipeline.defs.partitions import zip_subset_key
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.defs.subsets import current_version
from zip_pipeline.defs.training_configuration import training_op_config
from zip_pipeline.entropy_law.versions_table import has_verdict, read_versions
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
        description="Selects and probes the stages whose pool or configuration changed since their "
        "latest version; skips the others and says why.",
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
        keys = [key(stage) for stage in changed for key in (zip_subset_key, loss_probe_key)]
        return dg.RunRequest(
            asset_selection=keys,
            run_config={"ops": _op_configs(data_root.root, changed)},
        )

    return schedule


def why_not(root: DataRoot, stage: Stage) -> str | None:
    """Return why a stage needs neither a new version nor a verdict, None where it does.

    Raises:
        ValueError: ``selection.toml`` is wrong.
    """
    if not root.batches(stage):
        return "the pool is empty"
    number = current_version(root, stage, default_selection(root.path, stage))
    if number is None or not has_verdict(read_versions(root), stage, number):
        return None
    return f"neither pool nor configuration changed since version {number}"


def _op_configs(root: DataRoot, stages: Sequence[Stage]) -> dict[str, Any]:
    configs: dict[str, Any] = {}
    for stage in stages:
        name = zip_subset_key(stage).to_python_identifier()
        configs[name] = {"config": default_op_config(root.path, stage)}
        # Under a wrong training.toml the selection is made, and the probe says what is wrong.
        with contextlib.suppress(ValueError):
            name = loss_probe_key(stage).to_python_identifier()
            configs[name] = {"config": training_op_config(root.path)}
    return configs
