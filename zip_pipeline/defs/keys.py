"""The keys of the assets, and what all of them share: partitions, owners, freshness."""

import os
from datetime import timedelta

import dagster as dg

from zip_pipeline.samples import STAGES, Stage

EVALUATION = dg.AssetKey(["evaluation"])
ENTROPY_LAW = dg.AssetKey(["entropy_law"])
AS_WRITTEN_CHECK = "as_written"
RISK_CHECK = "entropy_law_risk"
OWNERS_VARIABLE = "ZIP_PIPELINE_OWNERS"


def owners() -> list[str]:
    """Return who answers for the assets, as ``ZIP_PIPELINE_OWNERS`` names them, by commas.

    Each is an address of mail or ``team:NAME``; without the variable there are none.
    """
    named = os.environ.get(OWNERS_VARIABLE, "").split(",")
    return [owner.strip() for owner in named if owner.strip()]


def weekly() -> dg.FreshnessPolicy:
    """Return the policy of what comes with new drops: a warning after two days, late after seven.

    The nightly schedule makes no version where nothing changed, so a quiet night is not late.
    """
    return dg.FreshnessPolicy.time_window(
        fail_window=timedelta(days=7), warn_window=timedelta(days=2)
    )


def loss_probe_key(stage: Stage) -> dg.AssetKey:
    """Return the key of the loss probe of a stage."""
    return dg.AssetKey([stage, "loss_probe"])


def report_key(stage: Stage) -> dg.AssetKey:
    """Return the key of the reports on a stage's versions."""
    return dg.AssetKey([stage, "report"])


def model_key(stage: Stage) -> dg.AssetKey:
    """Return the key of the trained model of a stage."""
    return dg.AssetKey([stage, "model"])


BATCHES: dict[Stage, dg.DynamicPartitionsDefinition] = {
    stage: dg.DynamicPartitionsDefinition(name=f"{stage}_batches") for stage in STAGES
}


def partitions_name(stage: Stage) -> str:
    """Return the name under which an instance stores the batches of a stage."""
    name = BATCHES[stage].name
    assert name is not None
    return name


def raw_pool_key(stage: Stage) -> dg.AssetKey:
    """Return the key of the ingested samples of a stage."""
    return dg.AssetKey([stage, "raw_pool"])


def compression_state_key(stage: Stage) -> dg.AssetKey:
    """Return the key of the compression state of a stage."""
    return dg.AssetKey([stage, "compression_state"])


def signals_key(stage: Stage) -> dg.AssetKey:
    """Return the key of the signals of a stage."""
    return dg.AssetKey([stage, "signals"])


def zip_subset_key(stage: Stage) -> dg.AssetKey:
    """Return the key of the selected subset of a stage."""
    return dg.AssetKey([stage, "zip_subset"])
