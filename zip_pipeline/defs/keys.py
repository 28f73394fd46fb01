"""The keys of what is not partitioned behind the subsets."""

import dagster as dg

from zip_pipeline.samples import STAGES, Stage

EVALUATION = dg.AssetKey(["evaluation"])
ENTROPY_LAW = dg.AssetKey(["entropy_law"])
RISK_CHECK = "entropy_law_risk"


def loss_probe_key(stage: Stage) -> dg.AssetKey:
    """Return the key of the loss probe of a stage."""
    return dg.AssetKey([stage, "loss_probe"])


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
