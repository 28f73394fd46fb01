"""The entropy law over all versions: the table, what hangs together, and the figures."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from zip_pipeline.data_root import DataRoot
from zip_pipeline.defs.keys import ENTROPY_LAW, EVALUATION, loss_probe_key, model_key
from zip_pipeline.defs.metadata import markdown_table, picture, table_metadata
from zip_pipeline.defs.pipes import mendable, run_modules
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.defs.stage import OWNERS, when_its_inputs_changed
from zip_pipeline.entropy_law.figures import relation_figure, versions_figure
from zip_pipeline.entropy_law.fit import Relation, relations, relations_table
from zip_pipeline.entropy_law.table import (
    figures_folder,
    is_blocked,
    read_versions,
    versions_path,
)
from zip_pipeline.files import fingerprint, write_bytes
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.workflow.evaluations import (
    EvaluationJob,
    evaluate_versions,
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
            **{f"bits_per_byte_{stage}": loss["bits_per_byte"] for stage, loss in losses.items()},
            **{f"sources_{stage}": _sources_table(loss) for stage, loss in losses.items()},
            "evaluated": markdown_table(pl.DataFrame(rows, infer_schema_length=None)),
            "note": said,
        },
        data_version=dg.DataVersion(fingerprint([json.dumps(rows, sort_keys=True)])),
    )


def _sources_table(loss: Mapping[str, Any]) -> dg.MetadataValue:
    rows = [{"source": name, **of_source} for name, of_source in loss["sources"].items()]
    return markdown_table(pl.DataFrame(rows, infer_schema_length=None))
