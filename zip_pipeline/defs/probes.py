"""L of the latest version of a stage, and the law's verdict on it before it is trained."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from zip_pipeline.compression.ratio_spread import compression_ratio_spread
from zip_pipeline.defs.ingestion import OWNERS
from zip_pipeline.defs.keys import RISK_CHECK, loss_probe_key
from zip_pipeline.defs.metadata import picture
from zip_pipeline.defs.partitions import zip_subset_key
from zip_pipeline.defs.qualities import version_quality
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.defs.subprocesses import run_module
from zip_pipeline.defs.subsets import StoredVersion, latest_version
from zip_pipeline.defs.training_configuration import training_defaults, training_tunables
from zip_pipeline.defs.training_jobs import training_job
from zip_pipeline.entropy_law.figures import versions_figure
from zip_pipeline.entropy_law.verdict import Verdict, judge
from zip_pipeline.entropy_law.versions_table import read_versions, upsert_version, version_row
from zip_pipeline.report.training_figures import loss_figure
from zip_pipeline.samples import Stage, serialised_text
from zip_pipeline.storage import DataRoot, fingerprint

LOSS_PROBE_CODE_VERSION = "1"
R_CODEC = "deflate"
_MODULE = "zip_pipeline.training.loss_probe"


def loss_probe_asset(stage: Stage, data_root_path: Path) -> dg.AssetsDefinition:
    """Return the asset ``<stage>/loss_probe`` with its blocking check of the entropy law."""
    tunables_of_root = training_tunables(data_root_path)
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
        config: tunables_of_root,  # type: ignore[valid-type]
        data_root: DataRootResource,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare beside checks
        root = data_root.root
        training_defaults(root.path)
        version = latest_version(root, stage)
        loss = measured_loss(context, root, stage, version, config.job())  # type: ignore[attr-defined]
        row = _law_row(root, stage, version, loss)
        verdict = judge(row, read_versions(root))
        reason = verdict.reason + _short_probe_words(loss)
        if verdict.kind == "not_comparable" or reason != verdict.reason:
            context.log.warning(reason)
        row |= {"verdict": verdict.kind, "reason": reason}
        row |= recorded_override(context, config.override)  # type: ignore[attr-defined]
        table = upsert_version(root, row)
        return _result(stage, version, loss, verdict, table)

    return loss_probe


def measured_loss(
    context: dg.AssetExecutionContext,
    root: DataRoot,
    stage: Stage,
    version: StoredVersion,
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the probe of a version found, measuring it unless the same job was done."""
    output = root.models(stage, version.number)
    job_file, loss_file = output / "probe" / "job.json", output / "probe" / "loss.json"
    job = training_job(root, stage, version, training)
    is_done = loss_file.exists() and job_file.exists() and json.loads(job_file.read_text()) == job
    if is_done:
        context.log.info(f"{stage} version {version.number} was probed like this before")
    else:
        loss_file.unlink(missing_ok=True)
        run_module(context, _MODULE, job, job_file)
    loss: dict[str, Any] = json.loads(loss_file.read_text(encoding="utf-8"))
    return loss


def recorded_override(context: dg.AssetExecutionContext, reason: str) -> dict[str, str]:
    """Return the reason to let a version through as the table keeps it; nothing without one."""
    reason = reason.strip()
    return {"override": f"{reason} (run {context.run.run_id})"} if reason else {}


def _law_row(
    root: DataRoot, stage: Stage, version: StoredVersion, loss: Mapping[str, Any]
) -> dict[str, Any]:
    manifest = version.manifest
    texts = version.subset.select(serialised_text(stage).alias("text"))["text"].to_list()
    quality = asdict(version_quality(root, stage, version))
    return {
        "stage": stage,
        "version": version.number,
        "strategy": manifest["strategy"],
        "num_tokens": manifest["picked_tokens"],
        "R": manifest["compression_ratio"][R_CODEC],
        "R_spread": compression_ratio_spread(texts, R_CODEC),
        "L": loss["L"],
        "L_spread": loss["L_spread"],
        "series": law_series(loss, manifest),
        **{name: quality[name] for name in ("Q", "Q_spread", "Q_name")},
    }


def law_series(loss: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """Return the fingerprint of all that versions share which the law compares.

    The probe's settings, and the budget: a larger subset of one pool is more redundant.
    """
    budget = manifest["budget"]
    return fingerprint([loss["series"], budget["unit"], str(budget["value"])])


def _short_probe_words(loss: Mapping[str, Any]) -> str:
    num_steps, wanted = loss["num_steps"], loss["num_steps_wanted"]
    if num_steps >= wanted:
        return ""
    return (
        f" The version is small for its probe, which had {num_steps} of {wanted} steps: raise the "
        "budget, or lower probe.steps or batch_size of the preset."
    )


def _result(
    stage: Stage,
    version: StoredVersion,
    loss: Mapping[str, Any],
    verdict: Verdict,
    table: pl.DataFrame,
) -> dg.MaterializeResult[None]:
    row = version_row(table, stage, version.number)
    assert row is not None
    allowed = not verdict.blocks or bool(row["override"])
    words = row["reason"]
    if verdict.blocks and allowed:
        words += f" Trained nevertheless: {row['override']}."
    measures = {name: row[name] for name in ("R", "R_spread", "L", "L_spread", "Q")}
    steps = loss["steps"]
    losses = [s / n for s, n in zip(steps["loss_sums"], steps["num_tokens"], strict=True)]
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
                versions_figure(table, stage, f"{stage}: all versions"), "versions"
            ),
        },
        data_version=dg.DataVersion(fingerprint([loss["subset_hash"], row["series"]])),
        check_results=[
            dg.AssetCheckResult(
                check_name=RISK_CHECK,
                passed=allowed,
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
