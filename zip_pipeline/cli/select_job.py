"""From input files to the three files of a selection."""

import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from zip_pipeline.cli.input_pool import name_inputs, read_as_they_come, read_pool
from zip_pipeline.cli.output_files import OutputFiles, write_records
from zip_pipeline.cli.progress import StageProgress
from zip_pipeline.samples import Stage
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.reference import select_reference
from zip_pipeline.selection.select import select as select_samples


@dataclass(frozen=True, kw_only=True)
class SelectJob:
    """What a person asked ``select`` to do."""

    inputs: tuple[Path, ...]
    files: OutputFiles
    stage: Stage
    config: SelectionConfig
    format_name: str | None = None
    tokenizer: str = "tiny"
    workers: int = 0
    resume: bool = False


@dataclass(frozen=True)
class _Outcome:
    """A finished selection with the rows to write, in pick order."""

    manifest: dict[str, object]
    subset: pl.DataFrame
    ledger: pl.DataFrame
    ingest_seconds: float


def run_job(job: SelectJob, progress: StageProgress) -> tuple[dict[str, object], pl.DataFrame]:
    """Select, write the three files, and return manifest and ledger.

    Raises:
        ValueError: inputs or options that cannot be used.
    """
    job.files.refuse_inputs(job.inputs)
    inputs = name_inputs(job.inputs)
    job.files.prepare(resume=job.resume)
    started = time.monotonic()
    if job.config.reference_compat:
        outcome = _select_as_they_come(job, inputs, progress)
    else:
        outcome = _select_curated(job, inputs, progress)
    progress.stage(f"Writing {job.files.out}")
    manifest = job.files.publish(
        lambda path: _write_out(path, outcome.subset),
        outcome.ledger,
        lambda: _manifest(job, outcome, time.monotonic() - started),
    )
    return manifest, outcome.ledger


def _select_curated(job: SelectJob, inputs: dict[str, Path], progress: StageProgress) -> _Outcome:
    started = time.monotonic()
    pool = read_pool(
        inputs, job.stage, job.format_name, lambda name: progress.stage(f"Reading {name}")
    )
    ingest_seconds = time.monotonic() - started
    progress.stage(f"Measuring {pool.samples.height:,} samples")
    selection = select_samples(
        pool.samples,
        # Without a stored state the strategy measures only what it needs.
        None,
        job.stage,
        job.config,
        tokenizer=job.tokenizer,
        workers=job.workers,
        progress=progress.show_round,
        checkpoint=job.files.checkpoint,
        duplicates=pool.duplicates,
        inputs=pool.fingerprints,
        counts=pool.counts,
    )
    selection.manifest["quarantine_reasons"] = dict(pool.quarantine_reasons)
    subset = selection.subset(pool.samples)
    return _Outcome(selection.manifest, subset, selection.ledger, ingest_seconds)


def _select_as_they_come(
    job: SelectJob, inputs: dict[str, Path], progress: StageProgress
) -> _Outcome:
    started = time.monotonic()
    progress.stage("Reading")
    pool = read_as_they_come(inputs)
    ingest_seconds = time.monotonic() - started
    progress.stage(f"Measuring {pool.rows.height:,} rows")
    selection = select_reference(
        pool.records,
        job.config,
        provenance=pool.rows,
        stage=job.stage,
        tokenizer=job.tokenizer,
        workers=job.workers,
        progress=progress.show_round,
        checkpoint=job.files.checkpoint,
        inputs=pool.fingerprints,
    )
    manifest = selection.manifest | {"quarantine_reasons": {}}
    return _Outcome(manifest, selection.subset(pool.rows), selection.ledger, ingest_seconds)


def _write_out(path: Path, subset: pl.DataFrame) -> None:
    if path.suffix == ".parquet":
        subset.write_parquet(path, compression="zstd")
    else:
        write_records(path, subset["raw"])


def _manifest(job: SelectJob, outcome: _Outcome, seconds: float) -> dict[str, object]:
    """Return the manifest with the seconds of every stage; what is left went into writing."""
    inside = outcome.manifest.get("seconds", {})
    assert isinstance(inside, dict), inside
    stages = {"ingest": round(outcome.ingest_seconds, 3), "state": inside.pop("prepare", 0.0)}
    stages |= inside
    stages["write"] = round(seconds - sum(stages.values()), 3)
    return {**outcome.manifest, "output": job.files.out.name, "seconds": stages}
