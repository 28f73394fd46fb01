"""Versions to verdicts: probe loss, model, evaluation, and the entropy law over all of them."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from zip_pipeline.data_root import DataRoot
from zip_pipeline.defs.keys import (
    ENTROPY_LAW,
    EVALUATION,
    RISK_CHECK,
    loss_probe_key,
    model_key,
    zip_subset_key,
)
from zip_pipeline.defs.metadata import markdown_table, picture, table_metadata
from zip_pipeline.defs.pipes import mendable, run_modules
from zip_pipeline.defs.resources import DataRootResource, TrainingOptions
from zip_pipeline.defs.stage import OWNERS
from zip_pipeline.entropy_law.fit import Relation, relations, relations_table
from zip_pipeline.entropy_law.table import (
    figures_folder,
    is_blocked,
    read_versions,
    version_row,
    versions_path,
)
from zip_pipeline.files import fingerprint, write_bytes
from zip_pipeline.report.figures import loss_figure, relation_figure, versions_figure
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.settings import training_settings
from zip_pipeline.workflow.models import (
    EvaluationJob,
    evaluate_versions,
    train_version,
)
from zip_pipeline.workflow.verdicts import ProbedVersion, probe_version
from zip_pipeline.workflow.versions import (
    StoredVersion,
    latest_version,
)

ENTROPY_LAW_CODE_VERSION = "1"
_SHOWN = ("stage", "version", "strategy", "R", "L", "Z", "Q", "verdict", "override")


def entropy_law_asset() -> dg.AssetsDefinition:
    """Return the asset ``entropy_law``."""

    @dg.asset(
        key=ENTROPY_LAW,
        deps=[*(loss_probe_key(stage) for stage in STAGES), EVALUATION],
        group_name="entropy_law",
        owners=OWNERS,
        kinds={"polars", "parquet"},
        code_version=ENTROPY_LAW_CODE_VERSION,
        automation_condition=when_something_was_measured(),
        description="All versions with R (redundancy), L (probe loss), Z (quality of the model) "
        "and Q (quality of the samples), their correlations and fit with uncertainty, and the "
        "figures. Blocked versions are in it.",
    )
    def entropy_law(data_root: DataRootResource) -> dg.MaterializeResult[None]:
        root = data_root.root
        table = read_versions(root)
        if table.is_empty():
            raise dg.Failure(
                "no version was probed yet; materialise sft/loss_probe or preference/loss_probe",
                allow_retries=False,
            )
        found = {
            stage: relations(table, stage)
            for stage in STAGES
            if not table.filter(pl.col("stage") == stage).is_empty()
        }
        figures = law_figures(table, found)
        for name, png in figures.items():
            write_bytes(figures_folder(root) / f"{name}.png", png)
        return _result(root, table, found, figures)

    return entropy_law


def when_something_was_measured() -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Return the condition of drawing the figures anew: a probe or an evaluation came in."""
    return (
        dg.AutomationCondition.any_deps_updated().since_last_handled()
        & ~dg.AutomationCondition.in_progress()
    ).with_label("something was measured")


def law_figures(table: pl.DataFrame, found: Mapping[Stage, list[Relation]]) -> dict[str, bytes]:
    """Return the figures as PNG by name: per stage the versions, Z over R, Z over L, R over L."""
    figures: dict[str, bytes] = {}
    for stage, of_stage in found.items():
        figures[f"{stage}_versions"] = versions_figure(table, stage, f"{stage}: all versions")
        for relation in of_stage:
            title = f"{stage}: {relation.y} over {relation.x}"
            figures[f"{stage}_{relation.y}_over_{relation.x}"] = relation_figure(relation, title)
    return figures


def _result(
    root: DataRoot,
    table: pl.DataFrame,
    found: Mapping[Stage, list[Relation]],
    figures: dict[str, bytes],
) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={
            "num_blocked": table.filter(is_blocked()).height,
            "versions": markdown_table(table.select(_SHOWN).tail(50)),
            **{
                f"{stage}_relations": markdown_table(relations_table(of_stage))
                for stage, of_stage in found.items()
            },
            **{f"plot_{name}": picture(png, name) for name, png in figures.items()},
            "path": dg.MetadataValue.path(str(versions_path(root))),
            **table_metadata(table),
        },
        data_version=dg.DataVersion(fingerprint([table.write_json()])),
    )


EVALUATION_CODE_VERSION = "1"


def evaluation_asset() -> dg.AssetsDefinition:
    """Return the asset ``evaluation``."""

    @dg.asset(
        key=EVALUATION,
        deps=[model_key(stage) for stage in STAGES],
        group_name="entropy_law",
        owners=OWNERS,
        kinds={"pytorch", "huggingface"},
        code_version=EVALUATION_CODE_VERSION,
        pool="gpu",
        automation_condition=when_its_inputs_changed(),
        description="Z of the trained versions: the loss on held-out samples that no pool has, "
        "averaged over sources, or MT-bench where zip_pipeline.toml configures it. What was "
        "evaluated before stays.",
    )
    def evaluation(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> dg.MaterializeResult[None]:
        with mendable():
            jobs = evaluate_versions(data_root.root, partial(run_modules, context))
        return _evaluation_result(jobs)

    return evaluation


def _evaluation_result(jobs: Sequence[EvaluationJob]) -> dg.MaterializeResult[None]:
    rows = [job.row() for job in jobs]
    newest = {job.stage: job for job in jobs}
    said = "Z: higher is better." if rows else "No model is trained yet, or nothing is held out."
    found = {stage: job.found() for stage, job in newest.items()}
    losses = {stage: values for stage, values in found.items() if "sources" in values}
    return dg.MaterializeResult(
        metadata={
            **{f"Z_{stage}": job.row()["Z"] for stage, job in newest.items()},
            **{f"version_{stage}": job.version for stage, job in newest.items()},
            **{
                f"{name}_{stage}": loss[name]
                for stage, loss in losses.items()
                for name in ("bits_per_byte", "accuracy")
                # Of conversations, and of what was evaluated earlier, there is no accuracy.
                if loss.get(name) is not None
            },
            **{f"sources_{stage}": _sources_table(loss) for stage, loss in losses.items()},
            "evaluated": markdown_table(pl.DataFrame(rows, infer_schema_length=None)),
            "note": said,
        },
        data_version=dg.DataVersion(fingerprint([json.dumps(rows, sort_keys=True)])),
    )


def _sources_table(loss: Mapping[str, Any]) -> dg.MetadataValue:
    rows = [{"source": name, **of_source} for name, of_source in loss["sources"].items()]
    return markdown_table(pl.DataFrame(rows, infer_schema_length=None))


LOSS_PROBE_CODE_VERSION = "1"


def loss_probe_asset(stage: Stage) -> dg.AssetsDefinition:
    """Return the asset ``<stage>/loss_probe`` with its blocking check of the entropy law."""
    risk = dg.AssetCheckSpec(
        name=RISK_CHECK,
        asset=loss_probe_key(stage),
        blocking=True,
        description="Fails where redundancy R and probe loss L both rose beyond what the earlier "
        "versions let one expect: the law then predicts a worse model, and it is not trained. "
        "A reason under `override` in the launchpad lets the version through.",
    )

    @dg.asset(
        key=loss_probe_key(stage),
        deps=[zip_subset_key(stage)],
        group_name=stage,
        owners=OWNERS,
        kinds={"pytorch", "huggingface"},
        code_version=LOSS_PROBE_CODE_VERSION,
        pool="gpu",
        check_specs=[risk],
        description="L: the mean training loss of the base model over the first steps on the "
        "latest version, comparable between versions of the same series, and what the entropy "
        "law says about training on it.",
    )
    def loss_probe(
        context: dg.AssetExecutionContext,
        config: TrainingOptions,
        data_root: DataRootResource,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare beside checks
        root = data_root.root
        training = training_settings(root.path, config.given())
        with mendable():
            probed = probe_version(
                root,
                latest_version(root[stage]),
                training.job(),
                partial(run_modules, context),
                override=recorded_override(context, config.override),
            )
        if probed.verdict.kind == "not_comparable" or probed.reason != probed.verdict.reason:
            context.log.warning(probed.reason)
        return _probe_result(probed)

    return loss_probe


def recorded_override(context: dg.AssetExecutionContext, reason: str) -> str:
    """Return the reason to let a version through as the table keeps it; empty without one."""
    reason = reason.strip()
    return f"{reason} (run {context.run.run_id})" if reason else ""


def _probe_result(probed: ProbedVersion) -> dg.MaterializeResult[None]:
    version, loss, verdict, row = probed.version, probed.loss, probed.verdict, probed.row
    measures = {name: row[name] for name in ("R", "R_spread", "L", "L_spread", "Q")}
    steps = loss["steps"]
    losses = [s / n for s, n in zip(steps["loss_sums"], steps["num_tokens"], strict=True)]
    stage, words = version.stage, probed.reason
    title = f"{stage} version {version.number}: loss of the probe"
    return dg.MaterializeResult(
        metadata={
            "version": version.number,
            **{name: value for name, value in measures.items() if value is not None},
            "Q_name": row["Q_name"],
            "verdict": verdict.kind,
            "reason": words,
            "series": row["series"],
            "series_settings": dg.MetadataValue.json(
                {"budget": version.manifest["budget"], **loss["settings"]}
            ),
            "num_steps": loss["num_steps"],
            "num_steps_wanted": loss["num_steps_wanted"],
            "num_tokens": loss["num_tokens"],
            "rows_truncated": loss["rows_truncated"],
            "rows_dropped": loss["rows_dropped"],
            "plot": picture(loss_figure(losses, title), title),
            "versions": picture(
                versions_figure(probed.table, stage, f"{stage}: all versions"), "versions"
            ),
        },
        data_version=dg.DataVersion(fingerprint([loss["subset_hash"], row["series"]])),
        check_results=[
            dg.AssetCheckResult(
                check_name=RISK_CHECK,
                passed=probed.may_train,
                severity=dg.AssetCheckSeverity.ERROR,
                description=words,
                metadata={
                    "version": version.number,
                    "verdict": verdict.kind,
                    "compared_with": dg.MetadataValue.json(verdict.compared),
                    **verdict.numbers,
                },
            )
        ],
    )


MODEL_CODE_VERSION = "1"


_WORDS: dict[Stage, str] = {
    "sft": "The base model after supervised fine-tuning on the latest version.",
    "preference": "The newest SFT model after KTO on the latest version of pairs.",
}


def model_asset(stage: Stage) -> dg.AssetsDefinition:
    """Return the asset ``<stage>/model``."""

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
        config: TrainingOptions,
        data_root: DataRootResource,
    ) -> dg.MaterializeResult[None]:
        root = data_root.root
        training = training_settings(root.path, config.given())
        version = latest_version(root[stage])
        with mendable():
            record = train_version(
                root,
                version,
                training.job(),
                partial(run_modules, context),
                override=recorded_override(context, config.override),
                sft_model=training.sft_model,
            )
        return _model_result(root, version, record)

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


def _model_result(
    root: DataRoot, version: StoredVersion, record: Mapping[str, Any]
) -> dg.MaterializeResult[None]:
    stage, number = version.stage, version.number
    output = root[stage].models(number)
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
