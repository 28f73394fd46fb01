"""What runs together: the ingestion of one drop, and the nightly selection."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,
)

from zip_pipeline.defs.partitions import (
    compression_state_key,
    raw_pool_key,
    zip_subset_key,
)
from zip_pipeline.samples import STAGES, Stage

RESELECTION = "nightly_reselection"


def ingest_job_name(stage: Stage) -> str:
    """Return the name of the job that ingests one drop of a stage."""
    return f"ingest_{stage}"


def ingest_job(stage: Stage) -> UnresolvedAssetJobDefinition:
    """Return the job that ingests one drop: its pool partition and its compression state."""
    return dg.define_asset_job(
        name=ingest_job_name(stage),
        selection=dg.AssetSelection.assets(raw_pool_key(stage), compression_state_key(stage)),
        description=f"Ingest one drop of {stage}: samples, quarantine and compression state.",
    )


def reselection_job() -> UnresolvedAssetJobDefinition:
    """Return the job that selects the subsets of all stages and checks them."""
    return dg.define_asset_job(
        name=RESELECTION,
        selection=dg.AssetSelection.assets(*(zip_subset_key(stage) for stage in STAGES)),
        description="Select the subset of each stage anew and check it.",
    )
