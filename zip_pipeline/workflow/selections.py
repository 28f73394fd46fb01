"""Source to subset: one composition for the command line and for Python."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError, on_disk
from zip_pipeline.files import (
    empty_own_folder,
    fingerprint,
    own_folder,
    read_json,
    remove_own_folder,
    scan_table,
    sync,
    write_atomically,
    write_json,
    write_table,
)
from zip_pipeline.ingest.options import AS_FOUND, ReadOptions
from zip_pipeline.ingest.rows import printable
from zip_pipeline.pool.batches import split_duplicates
from zip_pipeline.pool.parts import Parts
from zip_pipeline.process import return_freed_memory
from zip_pipeline.report.fates import explain_fate, fate_label, num_by_fate, top_sources
from zip_pipeline.report.trace import checked_prefix, fate_of, ids_with, only_one
from zip_pipeline.samples import Stage
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.ledger import FATES, tokens_of
from zip_pipeline.selection.reference import select_reference
from zip_pipeline.selection.run import Progress
from zip_pipeline.selection.select import HERE, Cluster, select_candidates
from zip_pipeline.selection.shards import SHARDS_SUFFIX
from zip_pipeline.training.presets import load_preset
from zip_pipeline.training.tokens import PresetTokens
from zip_pipeline.workflow.exports import Export, export_subset
from zip_pipeline.workflow.qualities import qualities
from zip_pipeline.workflow.signals import pool_marks, pool_signals
from zip_pipeline.workflow.sources import (
    Part,
    Pool,
    Source,
    check_stage,
    html_table,
    open_inputs,
    origins_of,
    parts_of,
    read_as_they_come,
    read_options,
    target_texts,
    trusted_texts,
)

OUTPUT_SUFFIXES = (".jsonl", ".json", ".parquet")
_LEFT_OUT = (
    "sample_id", "batch", "source", "source_file", "source_row", "fate", "pi",
    "duplicate_of_batch", "duplicate_of_file", "duplicate_of_row",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Selection:
    """What was picked, and what became of everything else.

    ``len`` is the number of picks; a notebook shows what was picked and what was left.

    Args:
        subset: the picks in pick order: the pool's columns, ``rank``, ``round`` and ``pi`` (the
            compression ratio when picked, higher = more redundant).
        ledger: the fate of every sample of the pool, one row each.
        manifest: what was selected from what and how, with counts, ratios and versions.
        quarantine: the rows that are no sample: batch, file, row, reason, detail, raw text.
        duplicates: the rows that repeat a sample, and the place of that sample.
    """

    subset: pl.DataFrame
    ledger: pl.DataFrame
    manifest: dict[str, Any]
    quarantine: pl.DataFrame = field(default_factory=pl.DataFrame)
    duplicates: pl.DataFrame = field(default_factory=pl.DataFrame)

    def records(self) -> list[dict[str, Any]]:
        """Return the picked records as they came, in pick order."""
        return [json.loads(raw) for raw in self.subset["raw"]]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the files that ``zip-pipeline select`` writes.

        Args:
            path: the subset: ``.jsonl`` or ``.json`` (records as they came) or ``.parquet`` (a
                table). ``STEM.ledger.parquet`` and ``STEM.manifest.json`` appear beside it, and
                ``STEM.quarantine.parquet`` and ``STEM.duplicates.parquet`` if there are any. An
                older selection of that name is replaced.

        Raises:
            UserError: another name, or what stands beside it was not written by a selection.
        """
        files = OutputFiles(Path(path))
        with files.open(resume=False, options=self.manifest["config"]):
            _publish(self, files)

    def export(self, format: str, folder: str | os.PathLike[str], *, force: bool = False) -> Export:
        """Write the picks as the rows that a trainer takes; see :func:`.export_version`.

        Raises:
            UserError: no such format, it has no place for any sample, or something lies in the
                folder.

        Example:
            >>> import tempfile
            >>> from zip_pipeline import select
            >>> records = [{"prompt": f"{n}?", "completion": f"{n}."} for n in range(9)]
            >>> selection = select(records, budget_samples=3, strategy="random")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     exported = selection.export("messages", folder)
            >>> exported.num_rows, exported.files
            ({'train': 3}, ('train.jsonl', 'README.md', 'export.json'))
        """
        stage = self.manifest["stage"]
        title = f"{stage} selection"
        return export_subset(
            self.subset, stage, format, Path(folder), title, self.manifest, force=force
        )

    def why(self, sample_id: str) -> str:
        """Return why a sample is in or out, in the words of ``zip-pipeline trace``.

        Args:
            sample_id: 32 hexadecimal digits, or the first 6 and more.

        Raises:
            UserError: no sample, or several, of that id.
        """
        names = ids_with([self.ledger.lazy()], checked_prefix(sample_id))
        rows = self.ledger.filter(sample_id=only_one(names, sample_id, ""))
        return fate_of("this selection", rows, self.manifest).why

    def left_out(self, fate: str | None = None, source: str | None = None) -> pl.DataFrame:
        """Return the samples that were not picked, with the reason in words.

        Args:
            fate: only those of one fate, such as ``duplicate`` or ``over_budget``.
            source: only those of one source.

        Returns:
            Id, place, source, fate, last known ratio, the place of the sample that took part
            instead of a duplicate, and ``why``.

        Raises:
            UserError: there is no such fate.
        """
        rows = self.ledger.filter(pl.col("fate") != "picked")
        if fate is not None:
            if fate not in FATES or fate == "picked":
                known = ", ".join(name for name in FATES if name != "picked")
                raise UserError(f"fate: got {fate!r}; allowed are {known}")
            rows = rows.filter(fate=fate)
        if source is not None:
            rows = rows.filter(source=source)
        words = [explain_fate(row, self.manifest) for row in rows.iter_rows(named=True)]
        return rows.select(_LEFT_OUT).with_columns(why=pl.Series(words, dtype=pl.String))

    def __len__(self) -> int:
        return self.subset.height

    def __repr__(self) -> str:
        words = ", ".join(f"{name} {fact}" for name, fact in self._facts())
        return f"<Selection: {words}>"

    def _repr_html_(self) -> str:
        sources = [
            (f"source {row['source']}", f"{row['num_picked']:,} of {row['num_pool']:,}")
            for row in top_sources(self.ledger).iter_rows(named=True)
        ]
        return html_table("Selection", [*self._facts(), *sources])

    def _facts(self) -> Iterator[tuple[str, str]]:
        manifest = self.manifest
        budget = manifest["budget"]
        unit = budget["unit"].replace("_", " ")
        ratios = manifest["pool_compression_ratio"], manifest["compression_ratio"]
        yield "picked", f"{manifest['num_picked']:,} of {manifest['num_samples']:,} samples"
        yield "budget", f"{budget['value']:,} {unit}"
        yield "unused", f"{manifest['unused_budget']:,} {unit}"
        yield "holding", words_of_tokens(manifest)
        yield "strategy", manifest["strategy"]
        for codec, of_pool in ratios[0].items():
            yield f"R by {codec}", f"{ratios[1][codec]:.3f} (pool {of_pool:.3f})"
        for fate, num in num_by_fate(self.ledger).items():
            if fate != "picked":
                yield fate_label(fate), f"{num:,}"


def words_of_tokens(manifest: Mapping[str, Any]) -> str:
    """Return what was picked, as in ``9 tokens of the chat template (tiny, …), 4 are targets``."""
    words = f"{manifest['picked_tokens']:,} tokens of the {tokens_of(manifest)}"
    targets = manifest.get("picked_target_tokens")
    targeted = "" if targets is None else f", {targets:,} are targets"
    return f"{words} ({manifest['tokenizer']}){targeted}"


class Watcher(Protocol):
    """Who wants to know how far a selection has come."""

    def stage(self, words: str) -> None:
        """Take in what is done from now on."""

    def show_round(self, progress: Progress) -> None:
        """Take in how far the selection has come."""


class _Nobody:
    def stage(self, words: str) -> None:
        """Do nothing."""

    def show_round(self, progress: Progress) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class SelectJob:
    """What a person asked to be selected; without ``files`` nothing is written."""

    source: Source
    stage: Stage
    config: SelectionConfig
    files: "OutputFiles | None" = None
    reading: ReadOptions = AS_FOUND
    tokenizer: str = "tiny"
    preset: str = ""
    workers: int = 0
    resume: bool = False
    cluster: Cluster = HERE


def select(
    source: Source,
    config: SelectionConfig | None = None,
    *,
    stage: Stage = "sft",
    format: str | None = None,
    reading: ReadOptions | None = None,
    tokenizer: str = "tiny",
    preset: str = "",
    workers: int = 0,
    **options: Any,  # noqa: ANN401
) -> Selection:
    """Select a subset within one budget, as ``zip-pipeline select`` does.

    Args:
        source: as for :func:`.read`, or what that returned.
        config: strategy, budget and parameters.
        stage: what the records are, ``sft`` or ``preference``; a pool knows its own.
        format: the format of the records; None to detect it.
        reading: more of how to read them, as for :func:`.read`.
        tokenizer: counts the tokens of plain texts: ``tiny`` (ships with the package), the path of
            a ``tokenizer.json``, or a hub id.
        preset: counts tokens as the model of this preset reads them instead, by its tokenizer and
            chat template: ``tiny``, ``mistral-7b``, ``llama-3-8b``, or a TOML file.
        workers: threads and processes, 0 for all cores; the picks do not depend on it.
        options: fields of :class:`.SelectionConfig` instead of ``config``, such as
            ``budget_tokens=200_000, strategy="long_range"``.

    Returns:
        The picks with the fate of every other sample.

    Raises:
        UserError: a source or options that cannot be used, or no sample in the source.

    Example:
        >>> from zip_pipeline import select
        >>> records = [
        ...     {"instruction": f"What is {n} plus {n}?", "output": f"It is {n + n}."}
        ...     for n in range(50)
        ... ]
        >>> selection = select(records, budget_samples=3, strategy="random")
        >>> len(selection)
        3
        >>> selection.why(selection.subset["sample_id"][0])
        'drawn as number 1 with seed 0'
        >>> selection.left_out()["why"][0]
        'not drawn with seed 0 before the budget was used; chance alone decides which come first'
    """
    if isinstance(source, Pool):
        stage = source.stage
    check_stage(stage)
    job = SelectJob(
        source=source,
        stage=stage,
        config=_config(config, options),
        reading=read_options(format, reading),
        tokenizer=tokenizer,
        preset=preset,
        workers=workers,
    )
    return run_job(job)


def select_texts(
    texts: Iterable[str],
    config: SelectionConfig | None = None,
    *,
    tokenizer: str = "tiny",
    workers: int = 0,
    **options: Any,  # noqa: ANN401
) -> Selection:
    """Select from any texts, such as documents for pre-training.

    Args:
        texts: the texts.
        config: strategy, budget and parameters; not ``reference_compat``.
        tokenizer: as for :func:`select`.
        workers: threads and processes, 0 for all cores; the picks do not depend on it.
        options: fields of :class:`.SelectionConfig` instead of ``config``.

    Returns:
        The picks, whose column ``text`` is the text and ``source_row`` its place, from 1.

    Raises:
        UserError: no text, or options that cannot be used.

    Example:
        >>> from zip_pipeline import select_texts
        >>> texts = ["a b c d e f g", "a b c d e f g", "1 5 2 9 7 3 8"]
        >>> select_texts(texts, budget_samples=2, codec="zstd").subset["source_row"].to_list()
        [1, 3]
    """
    settings = _config(config, options)
    if settings.reference_compat:
        raise UserError("reference_compat: takes records, not texts; leave it off, or call select")
    given = pl.DataFrame({"text": _checked_texts(texts)}, schema={"text": pl.String})
    if given.is_empty():
        raise UserError("texts: got none; give at least one")
    rows = given.select(
        sample_id=pl.Series([fingerprint([text]) for text in given["text"]]),
        batch=pl.lit(TEXTS),
        source=pl.lit(TEXTS),
        source_file=pl.lit(TEXTS),
        source_row=pl.int_range(1, pl.len() + 1),
        text="text",
        raw=pl.Series([json.dumps({"text": text}, ensure_ascii=False) for text in given["text"]]),
    )
    samples, duplicates = split_duplicates(Parts.of(rows))
    firsts = samples.frame()
    with TemporaryTexts.write([[text.encode() for text in firsts["text"]]]) as written:
        selection = select_candidates(
            Candidates(firsts, written, trusted=trusted_texts(settings, "sft")),
            "sft",
            settings,
            tokenizer=tokenizer,
            workers=workers,
            duplicates=duplicates,
            counts={"num_rows_read": rows.height, "num_duplicates": duplicates.height},
        )
    return Selection(selection.subset(firsts), selection.ledger, selection.manifest)


def _checked_texts(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise UserError(f"texts: got a {type(texts).__name__}; give a list of texts")
    found = list(texts)
    for number, text in enumerate(found, start=1):
        if not isinstance(text, str):
            raise UserError(f"texts: number {number} is a {type(text).__name__}; give texts alone")
        if printable(text) != text:
            raise UserError(f"texts: number {number} holds half a surrogate pair; mend or drop it")
    return found


TEXTS = "texts"
"""The batch of texts that a program holds in memory."""


def _config(config: SelectionConfig | None, options: Mapping[str, Any]) -> SelectionConfig:
    if config is not None and options:
        raise UserError(f"got config and {', '.join(options)}; give one or the other")
    return config or SelectionConfig(**options)


def run_job(job: SelectJob, progress: Watcher | None = None) -> Selection:
    """Select, and write the three files where the job names them.

    Raises:
        UserError: a source or options that cannot be used.
    """
    return_freed_memory()
    with on_disk():
        return _run_job(job, progress or _Nobody())


def _run_job(job: SelectJob, watcher: Watcher) -> Selection:
    _check_counting(job)
    parts = parts_of(job.source, lambda address: watcher.stage(f"Fetching {address}"))
    if job.files is None:
        with tempfile.TemporaryDirectory(prefix="zip-pipeline-") as folder:
            return _select(job, parts, Path(folder), watcher)
    job.files.refuse_inputs([part for part in parts.values() if isinstance(part, Path)])
    with job.files.open(resume=job.resume, options=job.config.as_dict()):
        selection = _select(job, parts, job.files.work, watcher)
        watcher.stage(f"Writing {job.files.out}")
        return replace(selection, manifest=_publish(selection, job.files))


def _check_counting(job: SelectJob) -> None:
    """Raise UserError where tokens cannot be counted as the job wants it, before it reads."""
    if job.preset and job.tokenizer != "tiny":
        raise UserError(
            "preset: got one and a tokenizer; a preset brings its own, give one of them"
        )
    if job.preset and job.config.reference_compat:
        raise UserError("reference_compat: takes rows that need not be samples; give no preset")
    if job.preset:
        PresetTokens(load_preset(job.preset)).check()
    elif job.config.unit == "target_tokens":
        raise UserError(
            "budget_target_tokens: in plain texts nobody knows which tokens the loss falls on; "
            "name the model that you train by a preset, such as tiny"
        )


def _select(job: SelectJob, parts: Mapping[str, Part], work: Path, watcher: Watcher) -> Selection:
    if job.config.reference_compat:
        selection = _select_as_they_come(job, parts, work, watcher)
    else:
        selection = _select_curated(job, parts, work, watcher)
    return replace(selection, manifest=selection.manifest | origins_of(parts))


def _select_curated(
    job: SelectJob, parts: Mapping[str, Part], work: Path, watcher: Watcher
) -> Selection:
    started = time.monotonic()
    target = target_texts(job.config, job.stage)

    def tell(name: str) -> None:
        watcher.stage(f"Reading {name}")

    with open_inputs(work, parts, job.stage, job.reading, tell) as given:
        # Without a stored state the strategy measures only what it needs.
        state, tokenizer = None, job.tokenizer
        if job.preset:
            watcher.stage("Counting tokens")
            counter = PresetTokens(load_preset(job.preset))
            state, tokenizer = given.pool.count_tokens(counter), counter.name
        folder = DataRoot(work)[job.stage]
        signals = pool_signals(given.pool, job.config, folder, watcher.stage, Path())
        quality = qualities(given.pool, job.config, signals=signals)
        marks = pool_marks(given.pool, job.config, folder, watcher.stage, quality)
        candidates = Candidates(
            given.pool.stored_index,
            given.pool.texts,
            state,
            target,
            quality=quality,
            trusted=trusted_texts(job.config, job.stage),
            signals=signals,
            marks=marks,
        )
        ingest_seconds = time.monotonic() - started
        watcher.stage(f"Measuring {len(candidates.texts):,} samples")
        selection = select_candidates(
            candidates,
            job.stage,
            job.config,
            tokenizer=tokenizer,
            workers=job.workers,
            progress=watcher.show_round,
            checkpoint=work / CHECKPOINT,
            duplicates=given.duplicates,
            inputs=given.fingerprints,
            counts=given.counts,
            cluster=job.cluster,
        )
        subset = given.pool.picked_rows(selection.places, selection.told_of_picks).frame()
        if marks is not None:
            subset = marks.masked(selection.places, subset)
        ledger, not_read = selection.ledger, given.pool.not_read
    reasons = dict(given.quarantine["reason"].value_counts(sort=True).iter_rows())
    manifest = _with_ingestion(selection.manifest, ingest_seconds, reasons, not_read)
    return Selection(subset, ledger, manifest, given.quarantine, given.duplicates)


def _select_as_they_come(
    job: SelectJob, parts: Mapping[str, Part], work: Path, watcher: Watcher
) -> Selection:
    started = time.monotonic()
    watcher.stage("Reading")
    pool = read_as_they_come(parts)
    ingest_seconds = time.monotonic() - started
    watcher.stage(f"Measuring {pool.rows.height:,} rows")
    selection = select_reference(
        pool.records,
        job.config,
        provenance=pool.rows,
        stage=job.stage,
        tokenizer=job.tokenizer,
        workers=job.workers,
        progress=watcher.show_round,
        checkpoint=work / CHECKPOINT,
        inputs=pool.fingerprints,
    )
    manifest = _with_ingestion(selection.manifest, ingest_seconds, {}, {})
    return Selection(selection.subset(pool.rows), selection.ledger, manifest)


def _with_ingestion(
    manifest: dict[str, Any],
    ingest_seconds: float,
    reasons: Mapping[str, int],
    not_read: Mapping[str, object],
) -> dict[str, Any]:
    inside = dict(manifest["seconds"])
    seconds = {"ingest": round(ingest_seconds, 3), "state": inside.pop("prepare", 0.0), **inside}
    return {
        **manifest,
        "quarantine_reasons": dict(reasons),
        **not_read,
        "seconds": seconds,
    }


def _publish(selection: Selection, files: "OutputFiles") -> dict[str, Any]:
    """Write the files; return the manifest, with the seconds that this took."""
    started = time.monotonic()

    def manifest() -> dict[str, object]:
        seconds = selection.manifest["seconds"] | {"write": round(time.monotonic() - started, 3)}
        return {**selection.manifest, "output": files.out.name, "seconds": seconds}

    rejected = {files.quarantine: selection.quarantine, files.duplicates: selection.duplicates}
    tables = {path: table for path, table in rejected.items() if table.height}
    return files.publish(
        lambda path: _write_out(path, selection.subset),
        {files.ledger: selection.ledger, **tables},
        manifest,
    )


def _write_out(path: Path, subset: pl.DataFrame) -> None:
    if path.suffix == ".parquet":
        subset.write_parquet(path, compression="zstd")
    else:
        write_records(path, subset["raw"])


CHECKPOINT = "selection"


@dataclass(frozen=True)
class OutputFiles:
    """OUT, and what stands beside it under the same stem."""

    out: Path

    def __post_init__(self) -> None:
        if self.out.suffix not in OUTPUT_SUFFIXES or self.out.is_dir():
            raise UserError(
                f"{self.out}: no name for a subset; allowed are *{', *'.join(OUTPUT_SUFFIXES)}"
            )

    def _beside(self, name: str) -> Path:
        return self.out.with_name(f"{self.out.stem}.{name}")

    @property
    def ledger(self) -> Path:
        """The fate of every sample."""
        return self._beside("ledger.parquet")

    @property
    def manifest(self) -> Path:
        """What was selected from what, and how."""
        return self._beside("manifest.json")

    @property
    def quarantine(self) -> Path:
        """The rows that are no sample, with the reason; absent where there are none."""
        return self._beside("quarantine.parquet")

    @property
    def duplicates(self) -> Path:
        """The rows that repeat a sample; absent where there are none."""
        return self._beside("duplicates.parquet")

    @property
    def _all(self) -> tuple[Path, ...]:
        return (self.out, self.ledger, self.manifest, self.quarantine, self.duplicates)

    def written(self) -> list[Path]:
        """Return the files that are there."""
        return [path for path in self._all if path.exists()]

    @property
    def work(self) -> Path:
        """The hidden folder of an unfinished selection."""
        return self.out.with_name(f".{self.out.stem}.checkpoint")

    @property
    def _options(self) -> Path:
        return self.work / "options.json"

    @property
    def checkpoint(self) -> Path:
        """The state of an unfinished selection."""
        return self.work / CHECKPOINT

    def can_resume(self) -> bool:
        """Return whether a selection of OUT was stopped after it had stored how far it was."""
        return self.checkpoint.exists() or any(self.work.glob(f"*{SHARDS_SUFFIX}"))

    def refuse_inputs(self, inputs: Sequence[Path]) -> None:
        """Raise UserError where writing would replace or join one of the inputs."""
        written = [path.resolve() for path in self._all]
        for given in inputs:
            clash = [p for p in written if p == given.resolve() or given.resolve() in p.parents]
            if clash:
                raise UserError(
                    f"{clash[0]}: is or lies in the input {given}; write outside of what is read"
                )

    @contextmanager
    def open(self, *, resume: bool, options: Mapping[str, object] = {}) -> Iterator[None]:
        """Hold the work folder, empty but for the checkpoints to resume from.

        Args:
            resume: whether to go on where a selection of the same options was stopped.
            options: those of this one.

        Raises:
            UserError: another selection writes OUT now, what stands beside it is another OUT's or
                was not written by a selection, or the one to resume has other options.
        """
        with own_folder(self.work, f"a selection with the output {self.out}"):
            self._refuse_foreign_neighbours()
            shards = self.work.glob(f"*{SHARDS_SUFFIX}")
            if resume and self.can_resume():
                self._refuse_other_options(options)
            empty_own_folder(self.work, {self.checkpoint, *shards} if resume else ())
            if options:
                write_json(self._options, options)
            try:
                yield
            finally:
                # Without a checkpoint there is nothing that they are the options of.
                if not self.can_resume():
                    self._options.unlink(missing_ok=True)

    def _refuse_other_options(self, options: Mapping[str, object]) -> None:
        # Releases before did not store them, and went on only where all was the same.
        if not self._options.exists():
            return
        stored = read_json(self._options, "leave --resume out to start anew")
        given = json.loads(json.dumps(options))
        differ = [name for name in {**stored, **given} if stored.get(name) != given.get(name)]
        if differ:
            was, now = (
                " ".join(f"{name} {found[name]}" for name in differ if found.get(name) is not None)
                for found in (stored, given)
            )
            raise UserError(
                f"--resume: the run of {self.out} that was stopped has {was or 'no such option'}, "
                f"got {now or 'none'}; give the same options, or leave --resume out to start anew"
            )

    def _refuse_foreign_neighbours(self) -> None:
        if self.manifest.exists():
            owner = _output_of(self.manifest)
            if owner is None:
                raise self._taken(self.manifest, "was not written by a selection")
            if owner != self.out.name and self.out.with_name(owner).exists():
                raise self._taken(self.manifest, f"belongs to {owner}")
            return
        # A selection that was killed while it published has left its ledger, which comes first.
        for path in (self.ledger, self.quarantine, self.duplicates):
            if path.exists() and not _is_ledger(self.ledger):
                raise self._taken(path, "was not written by a selection")

    def _taken(self, path: Path, whose: str) -> UserError:
        return UserError(
            f"{path}: {whose}, and {self.out.name} would replace it; give {self.out.name} a name "
            "with another stem"
        )

    def publish(
        self,
        write_out: Callable[[Path], object],
        tables: Mapping[Path, pl.DataFrame],
        manifest: Callable[[], dict[str, object]],
    ) -> dict[str, object]:
        """Write the files, OUT last, and remove the work folder; return the manifest.

        All are complete in the work folder before an older OUT goes away, and OUT appears
        last: whenever OUT is there, it agrees with its ledger and manifest, after a power cut too.
        """
        folder = self.out.parent
        write_atomically(self.work / self.out.name, write_out)
        for path, table in tables.items():
            write_table(self.work / path.name, table, {})
        content = manifest()
        write_json(self.work / self.manifest.name, content)
        self.out.unlink(missing_ok=True)
        for path in {self.quarantine, self.duplicates} - tables.keys():
            path.unlink(missing_ok=True)
        sync(folder)
        for path in (*tables, self.manifest):
            (self.work / path.name).replace(path)
        sync(folder)
        (self.work / self.out.name).replace(self.out)
        sync(folder)
        remove_own_folder(self.work)
        return content


def _output_of(manifest: Path) -> str | None:
    """Return the OUT that a manifest names, None where it is no manifest of a selection."""
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    output = content.get("output") if isinstance(content, dict) else None
    return output if isinstance(output, str) else None


def _is_ledger(path: Path) -> bool:
    try:
        return {"sample_id", "fate"} <= set(scan_table(path).collect_schema())
    except (OSError, pl.exceptions.PolarsError):
        return False


def write_records(path: Path, records: Iterable[str]) -> None:
    """Write records, each a JSON text, as ``.json`` (a list) or ``.jsonl`` (one per line)."""
    lines = (_one_line(record) for record in records)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        if path.suffix == ".jsonl":
            file.writelines(f"{line}\n" for line in lines)
            return
        file.write("[")
        for position, line in enumerate(lines):
            file.write(f"{',' if position else ''}\n{line}")
        file.write("\n]\n")


def _one_line(record: str) -> str:
    """Return JSON text without line breaks; those between its values mean nothing."""
    if "\n" not in record and "\r" not in record:
        return record
    return json.dumps(json.loads(record), ensure_ascii=False)
