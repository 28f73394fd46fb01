"""All definitions over one data root."""

from pathlib import Path

import dagster as dg

from zip_pipeline.defs.alerts import alert_sensors
from zip_pipeline.defs.automation import (
    evaluation_job,
    ingest_job,
    law_sensor,
    openlineage_sensors,
    reselection_job,
    reselection_schedule,
    step_jobs,
    training_job,
    training_sensor,
)
from zip_pipeline.defs.comparison import comparison_assets
from zip_pipeline.defs.drops import drop_sensor
from zip_pipeline.defs.law import (
    entropy_law_asset,
    evaluation_asset,
    loss_probe_asset,
    model_asset,
    report_asset,
)
from zip_pipeline.defs.resources import DataRootResource, RayClusterResource
from zip_pipeline.defs.stage import (
    as_written_check,
    compression_state_asset,
    less_redundant_check,
    raw_pool_asset,
    signals_asset,
    within_budget_check,
    zip_subset_asset,
)
from zip_pipeline.samples import STAGES


def code_location(data_root: Path) -> dg.Definitions:
    """Return assets, checks, jobs, sensors and schedules over the folder ``data_root``."""
    assets = [
        asset
        for stage in STAGES
        for asset in (
            raw_pool_asset(stage),
            compression_state_asset(stage),
            signals_asset(stage),
            zip_subset_asset(stage),
            loss_probe_asset(stage),
            model_asset(stage),
            report_asset(stage),
            *comparison_assets(stage),
        )
    ]
    assets += [evaluation_asset(), entropy_law_asset()]
    checks = [
        check
        for stage in STAGES
        for check in (
            within_budget_check(stage),
            less_redundant_check(stage),
            as_written_check(stage),
        )
    ]
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=[
            *(ingest_job(stage) for stage in STAGES),
            *(job for stage in STAGES for job in step_jobs(stage)),
            reselection_job(),
            training_job(),
            evaluation_job(),
        ],
        sensors=[
            *(drop_sensor(stage) for stage in STAGES),
            training_sensor(),
            law_sensor(),
            *alert_sensors(),
            *openlineage_sensors(),
        ],
        schedules=[reselection_schedule()],
        resources={
            "data_root": DataRootResource(path=str(data_root)),
            "ray_cluster": RayClusterResource.from_environment(),
        },
        # The steps of a run follow one another and use all cores themselves.
        executor=dg.in_process_executor,
    )
