"""From input files to the three files of a selection."""

import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from zip_pipeline.cli.input_pool import name_inputs, open_inputs, read_as_they_come
from zip_pipeline.cli.output_files import OutputFiles, write_records
from zip_pipeline.cli.progress import StageProgress
from zip_pipeline.freed_memory import return_freed_memory
from zip_pipeline.samples import Stage
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.reference import select_reference
from zip_pipeline.selection.select import HERE, Cluster, select_candidates


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
    cluster: Cluster = HERE


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
    return_freed_memory()
    job.files.refuse_inputs(job.inputs)
    inputs = name_inputs(job.inputs)
    with job.files.open(resume=job.resume):
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

    def tell(name: str) -> None:
        progress.stage(f"Reading {name}")

    with open_inputs(job.files.work, inputs, job.stage, job.format_name, tell) as given:
        # Without a stored state the strategy measures only what it needs.
        candidates = Candidates(given.pool.index, given.pool.texts)
        ingest_seconds = time.monotonic() - started
        progress.stage(f"Measuring {len(candidates.index):,} samples")
        selection = select_candidates(
            candidates,
            job.stage,
            job.config,
            tokenizer=job.tokenizer,
            workers=job.workers,
            progress=progress.show_round,
            checkpoint=job.files.checkpoint,
            duplicates=given.duplicates,
            inputs=given.fingerprints,
            counts=given.counts,
            cluster=job.cluster,
        )
        subset = given.pool.picked_rows(selection.picks, selection.ledger)
    manifest = selection.manifest | {"quarantine_reasons": dict(given.quarantine_reasons)}
    return _Outcome(manifest, subset, selection.ledger, ingest_seconds)


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
