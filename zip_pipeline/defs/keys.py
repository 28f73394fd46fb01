"""The keys of what is not partitioned behind the subsets."""

import dagster as dg

from zip_pipeline.samples import Stage

EVALUATION = dg.AssetKey(["evaluation"])
ENTROPY_LAW = dg.AssetKey(["entropy_law"])
RISK_CHECK = "entropy_law_risk"


def loss_probe_key(stage: Stage) -> dg.AssetKey:
    """Return the key of the loss probe of a stage."""
    return dg.AssetKey([stage, "loss_probe"])


def model_key(stage: Stage) -> dg.AssetKey:
    """Return the key of the trained model of a stage."""
    return dg.AssetKey([stage, "model"])
