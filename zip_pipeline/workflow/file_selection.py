"""The inputs of ``select`` as one pool: each file or folder is a batch."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint, scan_table
from zip_pipeline.ingest.drops import SIDECAR_SUFFIX, Sidecar, read_sidecar
from zip_pipeline.ingest.ingest import IngestResult, ingest, write_batch
from zip_pipeline.ingest.readers import plain_name, read_rows
from zip_pipeline.ingest.rows import RawRow
from zip_pipeline.pool.batches import DUPLICATES_SCHEMA
from zip_pipeline.pool.pool import SelectionPool, open_selection_pool
from zip_pipeline.process import return_freed_memory
from zip_pipeline.samples import Stage
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.reference import select_reference
from zip_pipeline.selection.run import Progress
from zip_pipeline.selection.select import HERE, Cluster, select_candidates
from zip_pipeline.workflow.output_files import OutputFiles, write_records


def name_inputs(inputs: Sequence[Path]) -> dict[str, Path]:
    """Return the inputs by batch name: the file name, the whole path where names collide.

    Raises:
        UserError: an input that does not exist or is given twice.
    """
    wanted = [path for path in inputs if not path.name.endswith(SIDECAR_SUFFIX)]
    missing = [str(path) for path in wanted if not path.exists()]
    if missing:
        raise UserError(f"{missing[0]}: no such file or folder")
    twice = [p for p, num in Counter(path.resolve() for path in wanted).items() if num > 1]
    if twice:
        raise UserError(f"{twice[0]}: given twice; give each input once")
    names = Counter(path.name for path in wanted)
    return {path.name if names[path.name] == 1 else str(path): path for path in wanted}


@dataclass(frozen=True)
class InputPool:
    """The samples of all inputs without exact duplicates, and what became of the other rows."""

    pool: SelectionPool
    duplicates: pl.DataFrame
    counts: Mapping[str, int]
    quarantine_reasons: Mapping[str, int]
    fingerprints: Mapping[str, str]


@contextmanager
def open_inputs(
    folder: Path,
    inputs: Mapping[str, Path],
    stage: Stage,
    format_name: str | None,
    tell: Callable[[str], None],
) -> Iterator[InputPool]:
    """Ingest the inputs as one pool; of exact duplicates the first one in their order is kept.

    Args:
        folder: holds what was ingested, in a folder that goes with the block.
        inputs: files and folders by batch name, in order.
        stage: ``sft`` or ``preference``.
        format_name: name of the rows' format, None to detect it.
        tell: called with the name of each input before it is read.

    Raises:
        UserError: an input that cannot be read, or no sample in all of them.
    """
    with tempfile.TemporaryDirectory(prefix="pool-", dir=folder) as place:
        root = DataRoot(Path(place))
        stored = [_stored_name(number) for number in range(len(inputs))]
        for name, (batch, path) in zip(stored, inputs.items(), strict=True):
            tell(batch)
            write_batch(root[stage], name, _ingest(batch, path, stage, format_name))
        with open_selection_pool(root[stage]) as pool:
            yield _input_pool(root[stage], dict(zip(inputs, stored, strict=True)), pool)


def _stored_name(number: int) -> str:
    """Return the file name of an input: batches are sorted by name, and may be called anything."""
    return f"{number:09d}"


def _ingest(batch: str, path: Path, stage: Stage, format_name: str | None) -> IngestResult:
    sidecar = _sidecar(path, stage)
    file_format = format_name or sidecar.format
    return ingest(path, stage, batch=batch, format=file_format, source=sidecar.source)


def _input_pool(folder: StageFolder, stored: Mapping[str, str], pool: SelectionPool) -> InputPool:
    rejected = [scan_table(folder.quarantine(name)).select("reason") for name in stored.values()]
    reasons = dict(pl.concat(rejected).collect()["reason"].value_counts(sort=True).iter_rows())
    if pool.index.is_empty():
        words = ", ".join(f"{num} {reason}" for reason, num in reasons.items()) or "none"
        raise UserError(
            f"no sample in {', '.join(stored)}: {pool.counts['num_rows_read']} rows read, "
            f"quarantined: {words}; check --stage and --format"
        )
    counts = {name: num for name, num in pool.counts.items() if name != "num_held_out"}
    inside = [_inside(folder, batch, name) for batch, name in stored.items()]
    duplicates = pl.concat([*inside, pool.duplicates])
    fingerprints = dict(zip(stored, pool.fingerprints.values(), strict=True))
    return InputPool(pool, duplicates, counts, reasons, fingerprints)


def _sidecar(path: Path, stage: Stage) -> Sidecar:
    """Return what the sidecar says of an input that lies in the drop folder of a data root."""
    path = path.resolve()
    root = DataRoot(path.parent.parent.parent)
    in_drop_folder = path.parent == root[stage].raw
    return read_sidecar(root[stage], path.name) if in_drop_folder else Sidecar()


def _inside(folder: StageFolder, batch: str, stored: str) -> pl.DataFrame:
    """Return the duplicates inside a batch with the columns of those across batches."""
    found = scan_table(folder.duplicates(stored))
    named = found.with_columns(batch=pl.lit(batch), first_batch=pl.lit(batch))
    return named.select(DUPLICATES_SCHEMA.names()).collect()


@dataclass(frozen=True)
class RawPool:
    """Every row of the inputs as it came: records beside their provenance and JSON text."""

    records: list[object]
    rows: pl.DataFrame
    fingerprints: Mapping[str, str]


def read_as_they_come(inputs: Mapping[str, Path]) -> RawPool:
    """Return every row of the inputs: nothing is quarantined, no duplicate dropped.

    ``sample_id`` is the hash of the record's JSON text, since a row need not be a sample.

    Raises:
        UserError: a row that is no record, or no row at all.
    """
    read = [(batch, row) for batch, path in inputs.items() for row in read_rows(path)]
    for _, row in read:
        if row.reason is not None:
            raise UserError(
                f"{row.source_file}, row {row.source_row}: {row.reason} ({row.detail}); "
                "--reference-compat takes every row as it comes: repair or remove the row, or "
                "leave --reference-compat off"
            )
    if not read:
        raise UserError(f"no row in {', '.join(inputs)}; give files that hold records")
    columns = ("sample_id", "batch", "source", "source_file", "raw")
    schema = pl.Schema(dict.fromkeys(columns, pl.String) | {"source_row": pl.Int64})
    rows = pl.DataFrame([_raw_columns(batch, row) for batch, row in read], schema=schema)
    fingerprints = {batch: fingerprint(group["raw"]) for (batch,), group in rows.group_by("batch")}
    return RawPool([row.record for _, row in read], rows, fingerprints)


def _raw_columns(batch: str, row: RawRow) -> dict[str, object]:
    fields = row.record or {}
    named = [fields[name] for name in ("source", "dataset") if isinstance(fields.get(name), str)]
    return {
        "sample_id": fingerprint([row.raw]),
        "batch": batch,
        "source": named[0] if named else plain_name(Path(row.source_file).name),
        "source_file": row.source_file,
        "source_row": row.source_row,
        "raw": row.raw,
    }


class Watcher(Protocol):
    """Who wants to know how far a selection from files has come."""

    def stage(self, words: str) -> None:
        """Take in what is done from now on."""

    def show_round(self, progress: Progress) -> None:
        """Take in how far the selection has come."""


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


def run_job(job: SelectJob, progress: Watcher) -> tuple[dict[str, object], pl.DataFrame]:
    """Select, write the three files, and return manifest and ledger.

    Raises:
        UserError: inputs or options that cannot be used.
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


def _select_curated(job: SelectJob, inputs: dict[str, Path], progress: Watcher) -> _Outcome:
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


def _select_as_they_come(job: SelectJob, inputs: dict[str, Path], progress: Watcher) -> _Outcome:
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
