"""The trained model of the latest version: SFT from the base model, KTO from the SFT model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from zip_pipeline.defs.ingestion import OWNERS
from zip_pipeline.defs.keys import loss_probe_key, model_key
from zip_pipeline.defs.metadata import picture
from zip_pipeline.defs.partitions import zip_subset_key
from zip_pipeline.defs.probes import recorded_override
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.defs.subprocesses import run_module
from zip_pipeline.defs.subsets import latest_version
from zip_pipeline.defs.trained import trained_versions, training_record
from zip_pipeline.defs.training_configuration import training_defaults, training_tunables
from zip_pipeline.defs.training_jobs import training_job
from zip_pipeline.entropy_law.versions_table import (
    has_verdict,
    read_versions,
    training_refusal,
    upsert_version,
    version_row,
)
from zip_pipeline.report.training_figures import loss_figure
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot

MODEL_CODE_VERSION = "1"
_MODULES: dict[Stage, str] = {
    "sft": "zip_pipeline.training.sft",
    "preference": "zip_pipeline.training.kto",
}
_WORDS: dict[Stage, str] = {
    "sft": "The base model after supervised fine-tuning on the latest version.",
    "preference": "The newest SFT model after KTO on the latest version of pairs.",
}


def model_asset(stage: Stage, data_root_path: Path) -> dg.AssetsDefinition:
    """Return the asset ``<stage>/model``."""
    tunables_of_root = training_tunables(data_root_path)

    @dg.asset(
        key=model_key(stage),
        deps=[
            zip_subset_key(stage),
            loss_probe_key(stage),
            *([model_key("sft")] if stage == "preference" else []),
        ],
        group_name=stage,
        owners=OWNERS,
        kinds={"pytorch", "huggingface"},
        code_version=MODEL_CODE_VERSION,
        pool="gpu",
        automation_condition=when_a_version_may_train(),
        description=f"{_WORDS[stage]} A version that the entropy law blocks is refused, in any "
        "run. A killed run goes on from its checkpoint; what is trained already stays.",
    )
    def model(
        context: dg.AssetExecutionContext,
        config: tunables_of_root,  # type: ignore[valid-type]
        data_root: DataRootResource,
    ) -> dg.MaterializeResult[None]:
        root = data_root.root
        training_defaults(root.path)
        version = latest_version(root, stage)
        override = recorded_override(context, config.override)  # type: ignore[attr-defined]
        require_allowed(root, stage, version.number, override)
        job = training_job(root, stage, version, config.job())  # type: ignore[attr-defined]
        if stage == "preference":
            job["sft_model"] = start_of_kto(root, config.sft_model)  # type: ignore[attr-defined]
        run_module(context, _MODULES[stage], job, root.models(stage, version.number) / "job.json")
        record = training_record(root, stage, version.number)
        assert record is not None
        return _result(root, stage, version.number, record)

    return model


def when_a_version_may_train() -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Return the condition of training: what it rests on changed, and no check blocks it."""
    return (
        when_its_inputs_changed()
        & ~dg.AutomationCondition.any_deps_missing()
        & dg.AutomationCondition.all_deps_blocking_checks_passed()
    ).with_label("a version changed and may be trained")


def when_its_inputs_changed() -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Return the condition that the data version of an input changed, and no run is at it.

    A change counts until automation has asked for a run. Were it forgotten at the next
    materialisation, a version that comes while the one before trains would never be trained.
    """
    changed = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
    return (
        changed.since(dg.AutomationCondition.newly_requested())
        & ~dg.AutomationCondition.in_progress()
    )


def require_allowed(root: DataRoot, stage: Stage, number: int, override: Mapping[str, str]) -> None:
    """Refuse a version that the entropy law blocks or has not judged; record an override first.

    Raises:
        Failure: the version must not be trained.
    """
    table = read_versions(root)
    if override and has_verdict(table, stage, number):
        table = upsert_version(root, {"stage": stage, "version": number, **override})
    refusal = training_refusal(table, stage, number)
    if refusal:
        raise dg.Failure(refusal, allow_retries=False)


def start_of_kto(root: DataRoot, given: str) -> str:
    """Return the folder of the model that KTO starts from: the one given, or the newest SFT model.

    Raises:
        Failure: none is given, and none is trained.
    """
    trained = trained_versions(root, "sft")
    if not (given or trained):
        raise dg.Failure(
            "preference/model starts from an SFT model, and there is none yet; materialise "
            "sft/model first, or name the folder of one under sft_model",
            allow_retries=False,
        )
    return given or str(root.models("sft", trained[-1]) / "model")


def _result(
    root: DataRoot, stage: Stage, number: int, record: Mapping[str, Any]
) -> dg.MaterializeResult[None]:
    output = root.models(stage, number)
    losses = pl.read_ndjson(output / "metrics.jsonl", infer_schema_length=None)["loss"].to_list()
    title = f"{stage} version {number}: training loss"
    row = version_row(read_versions(root), stage, number)
    assert row is not None
    rows, batch = record["rows"], record["batch"]
    return dg.MaterializeResult(
        metadata={
            "version": number,
            "verdict": row["verdict"],
            **({"override": row["override"]} if row["override"] else {}),
            "preset": record["preset"],
            "start_model": str(record["model"]["source"]),
            "start_model_revision": str(record["model"]["revision"]),
            "num_steps": record["num_steps"],
            "train_loss": record["train_loss"],
            "final_loss": record["final_loss"],
            "effective_batch": batch["effective"],
            **{f"rows_{name}" if name.startswith("num") else name: v for name, v in rows.items()},
            "seconds": record["seconds"],
            "resumed_at_step": record["resumed_at_step"],
            "backend": dg.MetadataValue.json(dict(record["backend"])),
            "settings": dg.MetadataValue.json(dict(record["settings"])),
            "plot": picture(loss_figure(losses, title, is_kto=stage == "preference"), title),
            "path": dg.MetadataValue.path(str(output / "model")),
        },
        data_version=dg.DataVersion(record["fingerprint"]),
    )
