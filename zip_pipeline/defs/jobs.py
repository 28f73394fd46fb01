"""What runs together: a drop, the nightly selection, training, and what is learnt from it."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,
)

from zip_pipeline.defs.keys import ENTROPY_LAW, EVALUATION, loss_probe_key, model_key
from zip_pipeline.defs.partitions import (
    compression_state_key,
    raw_pool_key,
    zip_subset_key,
)
from zip_pipeline.samples import STAGES, Stage

RESELECTION = "nightly_reselection"
TRAINING = "training"
EVALUATION_JOB = "evaluation_and_law"


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
    """Return the job that evaluates what is trained and draws the law's figures anew."""
    return dg.define_asset_job(
        name=EVALUATION_JOB,
        selection=dg.AssetSelection.assets(EVALUATION, ENTROPY_LAW),
        description="Evaluate every trained version, and draw the figures of the entropy law.",
    )
