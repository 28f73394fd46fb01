"""All definitions over one data root."""

from pathlib import Path

import dagster as dg

from zip_pipeline.defs.ingestion import compression_state_asset, raw_pool_asset
from zip_pipeline.defs.jobs import ingest_job, reselection_job
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.defs.schedules import reselection_schedule
from zip_pipeline.defs.sensors import drop_sensor
from zip_pipeline.defs.subset_checks import less_redundant_check, within_budget_check
from zip_pipeline.defs.subsets import zip_subset_asset
from zip_pipeline.samples import STAGES


def code_location(data_root: Path) -> dg.Definitions:
    """Return assets, checks, jobs, sensors and schedule over the folder ``data_root``.

    Raises:
        ValueError: its ``selection.toml`` is wrong.
    """
    assets = [
        asset
        for stage in STAGES
        for asset in (
            raw_pool_asset(stage),
            compression_state_asset(stage),
            zip_subset_asset(stage, data_root),
        )
    ]
    checks = [
        check
        for stage in STAGES
        for check in (within_budget_check(stage), less_redundant_check(stage))
    ]
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=[*(ingest_job(stage) for stage in STAGES), reselection_job()],
        sensors=[drop_sensor(stage) for stage in STAGES],
        schedules=[reselection_schedule()],
        resources={"data_root": DataRootResource(path=str(data_root))},
        # The steps of a run follow one another and use all cores themselves.
        executor=dg.in_process_executor,
    )
