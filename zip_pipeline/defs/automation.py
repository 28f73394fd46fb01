"""Training that follows a new version by itself, and figures that follow what is measured."""

import dagster as dg

from zip_pipeline.defs.keys import ENTROPY_LAW, EVALUATION, model_key
from zip_pipeline.samples import STAGES

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
    """Return the sensor that draws the law's figures anew when something was measured."""
    return dg.AutomationConditionSensorDefinition(
        name=LAW_SENSOR,
        target=dg.AssetSelection.assets(ENTROPY_LAW),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Draws the figures of the entropy law anew when a version was probed or "
        "evaluated.",
    )
