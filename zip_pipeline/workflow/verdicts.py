"""A version to its probe loss L and the entropy law's verdict on it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.compression.codecs import compression_ratio_spread
from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.entropy_law.table import read_versions, upsert_version, version_row
from zip_pipeline.entropy_law.verdict import Verdict, judge
from zip_pipeline.evaluation.quality import Quality, quality_audit_settings_of, quality_of
from zip_pipeline.files import fingerprint, record_of
from zip_pipeline.pool.batches import batch_metadata
from zip_pipeline.samples import serialised_texts
from zip_pipeline.selection.config import TOKEN_UNITS
from zip_pipeline.training.presets import load_preset
from zip_pipeline.workflow.models import RunJobs, training_job
from zip_pipeline.workflow.versions import StoredVersion

R_CODEC = "deflate"
_PROBE = "zip_pipeline.training.trainers.probe"


@dataclass(frozen=True)
class ProbedVersion:
    """A version with its probe loss and what the law says of it.

    Args:
        version: the version.
        loss: what the probe found, as its process wrote it.
        verdict: of the law.
        table: all versions with their measures, this one among them.
    """

    version: StoredVersion
    loss: Mapping[str, Any]
    verdict: Verdict
    table: pl.DataFrame

    @property
    def row(self) -> dict[str, Any]:
        """The version's row of the table."""
        row = version_row(self.table, self.version.stage, self.version.number)
        assert row is not None
        return row

    @property
    def may_train(self) -> bool:
        """Whether the law lets the version through, or a person did."""
        return not self.verdict.blocks or bool(self.row["override"])

    @property
    def reason(self) -> str:
        """The verdict in words, and who let the version through."""
        words = str(self.row["reason"])
        if self.verdict.blocks and self.may_train:
            words += f" Trained nevertheless: {self.row['override']}."
        return words


def probe_version(
    root: DataRoot,
    version: StoredVersion,
    training: Mapping[str, Any],
    run_jobs: RunJobs,
    *,
    override: str = "",
) -> ProbedVersion:
    """Measure L of a version, and record it with R, Q and the law's verdict.

    A version that was probed before with the same settings is not probed again.

    Args:
        root: the data root.
        version: the version.
        training: preset, overrides and number of devices.
        run_jobs: runs the probe's process.
        override: why the version may be trained whatever the law says; empty for no such reason.

    Raises:
        UserError: the settings are wrong, or the judge's key is not set.
        EndpointError: the judge failed; a later call goes on from what is stored.
    """
    loss = _measured_loss(root, version, training, run_jobs)
    row = _law_row(root, version, loss)
    verdict = judge(row, read_versions(root))
    words = verdict.reason + _short_probe_words(loss) + _unfamiliar_words(loss, training)
    row |= {"verdict": verdict.kind, "reason": words}
    row |= {"override": override} if override else {}
    return ProbedVersion(version, loss, verdict, upsert_version(root, row))


def _measured_loss(
    root: DataRoot, version: StoredVersion, training: Mapping[str, Any], run_jobs: RunJobs
) -> dict[str, Any]:
    """Return what the probe of a version found, measuring it unless the same job was done."""
    loss_file = _loss_file(root[version.stage], version.number)
    job_file = loss_file.with_name("job.json")
    job = training_job(root, version, training)
    folder = root[version.stage]
    is_done = (
        loss_file.exists() and job_file.exists() and _what(folder.read_json(job_file)) == _what(job)
    )
    if not is_done:
        for path in (record_of(loss_file), loss_file):
            path.unlink(missing_ok=True)
        run_jobs(_PROBE, {job_file: job})
    loss = measured_loss(root[version.stage], version.number)
    assert loss is not None
    return loss


def _what(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job does, which does not depend on where the data root lies."""
    return {name: value for name, value in job.items() if name not in ("subset", "output")}


def _loss_file(folder: StageFolder, number: int) -> Path:
    return folder.models(number) / "probe" / "loss.json"


def measured_loss(folder: StageFolder, number: int) -> dict[str, Any] | None:
    """Return what the probe of a version found, None where it was not probed."""
    path = _loss_file(folder, number)
    return folder.read_json(path) if path.exists() else None


def _law_row(root: DataRoot, version: StoredVersion, loss: Mapping[str, Any]) -> dict[str, Any]:
    stage, manifest = version.stage, version.manifest
    texts = serialised_texts(version.subset, stage).to_list()
    quality = asdict(version_quality(root, version))
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


def version_quality(root: DataRoot, version: StoredVersion) -> Quality:
    """Return the audited quality of a version, or the filters' pass rate where no judge is set.

    Samples that signals marked have not passed.

    Raises:
        UserError: ``zip_pipeline.toml`` is wrong, or the judge's key is not set.
        EndpointError: the judge failed; a later call goes on from what is stored.
    """
    stage = version.stage
    marked: dict[str, int] = {}
    if "marked" in version.manifest:
        of_signals = version.ledger.filter(
            pl.col("evidence").is_not_null(), pl.col("fate") != "held_out"
        )
        marked = dict(of_signals.group_by("batch").len().iter_rows())
    batches = {b: batch_metadata(root[stage], b) for b in version.manifest["inputs"]}
    counts: list[dict[str, str | int]] = [
        {**found, "num_quarantined": int(found["num_quarantined"]) + marked.get(batch, 0)}
        for batch, found in batches.items()
    ]
    settings = quality_audit_settings_of(root.path)
    return quality_of(version.subset, stage, settings, root.path / "quality_audit" / stage, counts)


def law_series(loss: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """Return the fingerprint of all that versions share which the law compares.

    The probe's settings, and the budget: a larger subset of one pool is more redundant. What a
    token is counts, too.
    """
    budget = manifest["budget"]
    # Versions of older releases do not tell.
    of_tokens = budget["unit"] in TOKEN_UNITS and "tokenizer_identity" in manifest
    tokenizer = [manifest["tokenizer_identity"]] if of_tokens else []
    # A share of the pool is one budget, however the pool grows.
    asked = str(budget.get("share", budget["value"]))
    return fingerprint([loss["series"], budget["unit"], asked, *tokenizer])


# On text of the sample generator, which it was made from, the L of tiny is 1 to 1.3.
_TINY_KNOWS_BELOW = 2.0


def _unfamiliar_words(loss: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    preset = load_preset(training["preset"], training["overrides"])
    if preset.model != "tiny" or loss["L"] < _TINY_KNOWS_BELOW:
        return ""
    return (
        f" Mind that an L of {loss['L']:.1f} says little here: the model tiny knows the text of the"
        " sample generator alone. Take the preset smollm2-135m in [training], or the model that "
        "you train."
    )


def _short_probe_words(loss: Mapping[str, Any]) -> str:
    num_steps, wanted = loss["num_steps"], loss["num_steps_wanted"]
    if num_steps >= wanted:
        return ""
    return (
        f" The version is small for its probe, which had {num_steps} of {wanted} steps: raise the "
        "budget, or lower probe.steps or batch_size of the preset. It compares only with versions "
        "that had as many."
    )
