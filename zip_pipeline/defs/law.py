"""Versions to verdicts: probe loss, model, evaluation, and the entropy law over all of them."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.defs.keys import (
    ENTROPY_LAW,
    EVALUATION,
    RISK_CHECK,
    loss_probe_key,
    model_key,
    owners,
    report_key,
    weekly,
    zip_subset_key,
)
from zip_pipeline.defs.metadata import (
    collapsed,
    drawing,
    figures_table,
    listed,
    picture,
    rounded,
    shown_table,
    table_metadata,
)
from zip_pipeline.defs.pipes import mendable, run_modules
from zip_pipeline.defs.resources import DataRootResource, TrainingOptions
from zip_pipeline.entropy_law.fit import Relation, relations, relations_table
from zip_pipeline.entropy_law.table import (
    figures_folder,
    is_blocked,
    read_versions,
    version_row,
    versions_path,
)
from zip_pipeline.files import fingerprint, write_bytes
from zip_pipeline.report.figures import (
    Losses,
    loss_figure,
    relation_figure,
    trend,
    versions_figure,
)
from zip_pipeline.report.markdown import inert
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.settings import training_settings
from zip_pipeline.workflow.models import (
    EvaluationJob,
    evaluate_versions,
    train_version,
    trained_versions,
    training_losses,
)
from zip_pipeline.workflow.reports import WrittenReport, remove_old_pages, write_report
from zip_pipeline.workflow.sharing import shared
from zip_pipeline.workflow.verdicts import ProbedVersion, measured_loss, probe_version
from zip_pipeline.workflow.versions import (
    StoredVersion,
    latest_version,
)

ENTROPY_LAW_CODE_VERSION = "1"


def entropy_law_asset() -> dg.AssetsDefinition:
    """Return the asset ``entropy_law``."""

    @dg.asset(
        key=ENTROPY_LAW,
        deps=[*(loss_probe_key(stage) for stage in STAGES), EVALUATION],
        group_name="entropy_law",
        owners=owners(),
        kinds={"polars", "parquet"},
        code_version=ENTROPY_LAW_CODE_VERSION,
        freshness_policy=weekly(),
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
            path = figures_folder(root) / f"{name}.png"
            if png is None:
                path.unlink(missing_ok=True)
            else:
                write_bytes(path, png)
        return _result(root, table, found, figures)

    return entropy_law


def when_something_was_measured() -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Return the condition of figures and reports: a probe or an evaluation came in."""
    return (
        dg.AutomationCondition.any_deps_updated().since_last_handled()
        & ~dg.AutomationCondition.in_progress()
    ).with_label("something was measured")


def law_figures(
    table: pl.DataFrame, found: Mapping[Stage, list[Relation]]
) -> dict[str, bytes | None]:
    """Return the figures as PNG by name: per stage the versions, Z over R, Z over L, R over L."""
    figures: dict[str, bytes | None] = {}
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
    figures: Mapping[str, bytes | None],
) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={
            **{f"{stage}_verdict": _newest_verdict(table, stage) for stage in found},
            **{
                f"{stage}_relations": listed([f"{r.y} over {r.x}: {r.note}" for r in of_stage])
                for stage, of_stage in found.items()
            },
            **{f"{stage}_trend": drawing(trend(table, stage), stage) for stage in found},
            "versions": shown_table(_shown_versions(table).head(50)),
            "num_blocked": table.filter(is_blocked()).height,
            **{f"plot_{name}": picture(png, name) for name, png in figures.items()},
            "path": dg.MetadataValue.path(str(versions_path(root))),
            "fits": collapsed(
                {stage: relations_table(of_stage).to_dicts() for stage, of_stage in found.items()}
            ),
            **table_metadata(table),
        },
        data_version=dg.DataVersion(fingerprint([table.write_json()])),
    )


def _shown_versions(table: pl.DataFrame) -> pl.DataFrame:
    """Return the versions, latest first, in as few columns as a page is wide for."""
    through = pl.when(pl.col("override").fill_null("") != "").then(pl.lit(", let through"))
    return table.sort("version", descending=True, maintain_order=True).select(
        pl.concat_str("stage", pl.lit(" "), "version").alias("version"),
        "R",
        "L",
        "Z",
        (pl.col("verdict").str.replace_all("_", " ") + through.otherwise(pl.lit(""))).alias(
            "verdict"
        ),
    )


def _newest_verdict(table: pl.DataFrame, stage: Stage) -> str:
    newest = table.filter(pl.col("stage") == stage).row(-1, named=True)
    if newest["verdict"] is None:
        return f"Version {newest['version']} has no verdict yet"
    return f"{newest['verdict']}: {newest['reason']}"


REPORT_CODE_VERSION = "1"


def report_asset(stage: Stage) -> dg.AssetsDefinition:
    """Return the asset ``<stage>/report``."""

    @dg.asset(
        key=report_key(stage),
        deps=[loss_probe_key(stage), EVALUATION],
        group_name=stage,
        owners=owners(),
        kinds={"polars", "parquet"},
        code_version=REPORT_CODE_VERSION,
        automation_condition=when_something_was_measured(),
        description="A page on the latest version that opens in any browser: verdict, changes, "
        "fates and every sample; beside it a data card and a Croissant description.",
    )
    def report(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> dg.MaterializeResult[None]:
        root = data_root.root
        if root[stage].versions.latest() is None:
            return dg.MaterializeResult(metadata={"note": f"no version of {stage} yet"})
        written = write_report(root, stage, log=context.log.info)
        remove_old_pages(root[stage])
        return _report_result(written)

    return report


def _report_result(written: WrittenReport) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={
            "verdict": written.verdict,
            "version": written.version,
            "path": dg.MetadataValue.path(str(written.page)),
            "link": dg.MetadataValue.url(written.page.as_uri()),
            "card": dg.MetadataValue.path(str(written.card)),
            "croissant": dg.MetadataValue.path(str(written.croissant)),
        }
    )


EVALUATION_CODE_VERSION = "1"


def evaluation_asset() -> dg.AssetsDefinition:
    """Return the asset ``evaluation``."""

    @dg.asset(
        key=EVALUATION,
        deps=[model_key(stage) for stage in STAGES],
        group_name="entropy_law",
        owners=owners(),
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
        with mendable(), shared(data_root.root, context.log.info):
            jobs = evaluate_versions(data_root.root, partial(run_modules, context))
        return _evaluation_result(jobs)

    return evaluation


def _evaluation_result(jobs: Sequence[EvaluationJob]) -> dg.MaterializeResult[None]:
    rows = [job.row() for job in jobs]
    newest = {job.stage: job for job in jobs}
    found = {stage: job.found() for stage, job in newest.items()}
    losses = {stage: values for stage, values in found.items() if "sources" in values}
    return dg.MaterializeResult(
        metadata={
            "summary": " ".join(_words_of_z(job) for job in newest.values())
            or "No model is trained yet, or nothing is held out.",
            "evaluated": shown_table(pl.DataFrame(rows[::-1], infer_schema_length=None)),
            **{f"sources_{stage}": _sources_table(loss) for stage, loss in losses.items()},
            **rounded({f"Z_{stage}": job.row()["Z"] for stage, job in newest.items()}),
            **{f"version_{stage}": job.version for stage, job in newest.items()},
            **rounded(
                {
                    f"{name}_{stage}": loss[name]
                    for stage, loss in losses.items()
                    for name in ("bits_per_byte", "accuracy")
                    # Of conversations, and of what was evaluated earlier, there is no accuracy.
                    if loss.get(name) is not None
                }
            ),
        },
        data_version=dg.DataVersion(fingerprint([json.dumps(rows, sort_keys=True)])),
    )


def _words_of_z(job: EvaluationJob) -> str:
    row = job.row()
    spread = "" if row.get("Z_spread") is None else f" ± {row['Z_spread']:.2g}"
    return (
        f"{job.stage} version {job.version}: Z {row['Z']:.4g}{spread}, higher is better "
        f"({row['Z_name']})."
    )


_OF_SOURCE = ("loss", "bits_per_byte", "num_samples")


def _sources_table(loss: Mapping[str, Any]) -> dg.MetadataValue:
    rows = [
        {"source": name} | {figure: of_source.get(figure) for figure in _OF_SOURCE}
        for name, of_source in loss["sources"].items()
    ]
    return shown_table(pl.DataFrame(rows, infer_schema_length=None))


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
        owners=owners(),
        kinds={"pytorch", "huggingface"},
        code_version=LOSS_PROBE_CODE_VERSION,
        freshness_policy=weekly(),
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
        with mendable(), shared(root, context.log.info):
            training = training_settings(root.path, config.given())
            probed = probe_version(
                root,
                latest_version(root[stage]),
                training.job(),
                partial(run_modules, context),
                override=recorded_override(context, config.override),
            )
        if probed.verdict.kind == "not_comparable" or probed.reason != probed.verdict.reason:
            context.log.warning(probed.reason)
        return _probe_result(root, probed)

    return loss_probe


def recorded_override(context: dg.AssetExecutionContext, reason: str) -> str:
    """Return the reason to let a version through as the table keeps it; empty without one."""
    reason = reason.strip()
    return f"{reason} (run {context.run.run_id})" if reason else ""


def _probe_result(root: DataRoot, probed: ProbedVersion) -> dg.MaterializeResult[None]:
    version, loss, verdict, row = probed.version, probed.loss, probed.verdict, probed.row
    stage, words = version.stage, probed.reason
    title = f"{stage} version {version.number}: loss of the probe"
    return dg.MaterializeResult(
        metadata={
            "verdict": f"{verdict.kind}: {'may' if probed.may_train else 'must not'} be trained",
            "reason": words,
            "version": version.number,
            "figures": _law_figures_table(probed),
            "trend": drawing(trend(probed.table, stage), f"{stage}: R, L and Z"),
            "measured": f"{loss['num_steps']} of {loss['num_steps_wanted']} steps, "
            f"{loss['num_tokens']:,} tokens; {loss['rows_truncated']:,} rows cut off, "
            f"{loss['rows_dropped']:,} left out",
            **rounded({name: row[name] for name in ("R", "L", "Q") if row[name] is not None}),
            "versions": picture(
                versions_figure(probed.table, stage, f"{stage}: all versions"), "versions"
            ),
            "plot": picture(_probe_figure(root, probed, title), title),
            "settings": collapsed(
                {
                    "series": row["series"],
                    "budget": version.manifest["budget"],
                    "probe": loss["settings"],
                }
            ),
        },
        data_version=dg.DataVersion(fingerprint([loss["subset_hash"], row["series"]])),
        check_results=[
            dg.AssetCheckResult(
                check_name=RISK_CHECK,
                passed=probed.may_train,
                severity=dg.AssetCheckSeverity.ERROR,
                description=inert(words),
                metadata={
                    "verdict": verdict.kind,
                    "version": version.number,
                    "compared_with": dg.MetadataValue.json(verdict.compared),
                    **rounded(verdict.numbers),
                },
            )
        ],
    )


def _probe_figure(root: DataRoot, probed: ProbedVersion, title: str) -> bytes | None:
    """Return the losses of the probe, with those of the version before in the same series."""
    stage, number, series = probed.version.stage, probed.version.number, probed.row["series"]
    is_before = (pl.col("stage") == stage) & (pl.col("version") < number)
    numbers = probed.table.filter(is_before, pl.col("series") == series)["version"].to_list()
    before = measured_loss(root[stage], numbers[-1]) if numbers else None
    earlier = _probe_losses(numbers[-1], before) if before else None
    return loss_figure(_probe_losses(number, probed.loss), title, before=earlier)


def _probe_losses(number: int, loss: Mapping[str, Any]) -> Losses:
    steps = loss["steps"]
    means = [s / n for s, n in zip(steps["loss_sums"], steps["num_tokens"], strict=True)]
    return Losses(f"version {number}", means, loss["L"])


def _law_figures_table(probed: ProbedVersion) -> dg.MetadataValue:
    """Return what the verdict rests on: each measure, what was usual, and how far it may vary."""
    row, numbers = probed.row, probed.verdict.numbers
    units = {"R": "raw / compressed bytes", "L": "nats per token", "Q": row["Q_name"]}
    rows = [
        {
            "measure": name,
            "value": _with_error(row[name], row[f"{name}_spread"]),
            "usual": _with_error(numbers.get(f"{name}_reference"), numbers.get(f"{name}_bound")),
            "unit": unit,
        }
        for name, unit in units.items()
        if row[name] is not None
    ]
    return shown_table(pl.DataFrame(rows, infer_schema_length=None))


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"


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
        owners=owners(),
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
        with mendable(), shared(root, context.log.info):
            training = training_settings(root.path, config.given())
            version = latest_version(root[stage])
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


_CHARTED = ("train_loss", "final_loss", "num_steps", "seconds")


def _model_result(
    root: DataRoot, version: StoredVersion, record: Mapping[str, Any]
) -> dg.MaterializeResult[None]:
    stage, number = version.stage, version.number
    output = root[stage].models(number)
    title = f"{stage} version {number}: training loss"
    row = version_row(read_versions(root), stage, number)
    assert row is not None
    rows, steps, resumed = record["rows"], record["num_steps"], record["resumed_at_step"]
    unit = "" if stage == "preference" else "nats per token"
    return dg.MaterializeResult(
        metadata={
            "verdict": row["verdict"],
            **({"override": row["override"]} if row["override"] else {}),
            "summary": f"Version {number} trained from {record['model']['source']} in {steps:,} "
            f"steps and {record['seconds']:,.0f} s: loss {record['train_loss']:.4g} on average, "
            f"{record['final_loss']:.4g} at the end",
            "version": number,
            "figures": figures_table(
                ("mean loss", record["train_loss"], unit),
                ("final loss", record["final_loss"], unit),
                ("steps", steps, f"of {record['batch']['effective']} rows"),
                ("time", record["seconds"], "s"),
                *(
                    (name.removeprefix("num_").replace("_", " "), num, "")
                    for name, num in rows.items()
                ),
            ),
            **rounded({name: record[name] for name in _CHARTED}),
            **({"resumed_at_step": resumed} if resumed else {}),
            "plot": picture(_training_figure(root, version, title), title),
            "path": dg.MetadataValue.path(str(output / "model")),
            "settings": collapsed(
                {name: record[name] for name in ("preset", "model", "settings", "batch", "backend")}
            ),
        },
        data_version=dg.DataVersion(record["fingerprint"]),
    )


def _training_figure(root: DataRoot, version: StoredVersion, title: str) -> bytes | None:
    """Return the losses of a training, with those of the version trained before it."""
    folder, number = root[version.stage], version.number
    earlier = [other for other in trained_versions(folder) if other < number]
    before = _training_losses(folder, earlier[-1]) if earlier else None
    unit = "" if version.stage == "preference" else "nats per token"
    return loss_figure(_training_losses(folder, number), title, unit=unit, before=before)


def _training_losses(folder: StageFolder, number: int) -> Losses:
    steps, mean = training_losses(folder, number)
    return Losses(f"version {number}", steps, mean)
