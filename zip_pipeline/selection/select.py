"""Pool and configuration to picks, ledger and manifest: the same work for CLI and Dagster."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from zip_pipeline.compression.deflate_processes import DeflateMeasurer
from zip_pipeline.compression.indexed_set import IndexedSet, LocalSet
from zip_pipeline.compression.selected_set import worker_count
from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.text_file import TemporaryTexts, TextFile
from zip_pipeline.compression.zstd_set import ZstdSet
from zip_pipeline.samples import Stage
from zip_pipeline.selection.budget import Budget
from zip_pipeline.selection.candidates import Candidates, Measured, measure, picked_tokens
from zip_pipeline.selection.checkpoint import Checkpoint
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.ledger import build_ledger
from zip_pipeline.selection.long_range import LongRangeEngine
from zip_pipeline.selection.manifest import build_manifest, measure_ratios
from zip_pipeline.selection.progress import Progress, Run
from zip_pipeline.selection.rounds import Engine, run_rounds
from zip_pipeline.selection.strategies.ordered import fill_in_order, random_order
from zip_pipeline.selection.zip import ZipEngine

ProgressHook = Callable[[Progress], None]


@dataclass(frozen=True)
class Selection:
    """The outcome: row indices of the pool table in pick order, and what is known of them."""

    picks: list[int]
    ledger: pl.DataFrame
    manifest: dict[str, object]

    def subset(self, samples: pl.DataFrame) -> pl.DataFrame:
        """Return the picked rows of the pool table in pick order, with rank, round and pi."""
        fates = self.ledger[self.picks].select("rank", "round", "pi")
        return samples[self.picks].hstack(fates)


def select(
    samples: pl.DataFrame,
    state: pl.DataFrame | None,
    stage: Stage,
    config: SelectionConfig,
    *,
    tokenizer: str = "tiny",
    workers: int = 0,
    progress: ProgressHook | None = None,
    checkpoint: Path | None = None,
    duplicates: pl.DataFrame | None = None,
    held_out: pl.DataFrame | None = None,
    inputs: Mapping[str, str] | None = None,
    counts: Mapping[str, int] | None = None,
) -> Selection:
    """Select a subset of the pool within one budget.

    Picks, ledger and manifest (but for its times) depend on the pool and the configuration
    alone, not on the number of workers or on being interrupted.

    Args:
        samples: pool table of ``stage`` without exact duplicates.
        state: its compression state in any order; None to compute what is needed.
        stage: ``sft`` or ``preference``.
        config: strategy, budget and parameters; ``reference_compat`` is not for pool tables.
        tokenizer: counts tokens where ``state`` does not.
        workers: number of threads, 0 for all cores.
        progress: called after each round.
        checkpoint: file to store progress in and to resume from; removed at the end.
        duplicates: exact duplicates across batches, recorded in the ledger.
        held_out: samples kept for evaluation, recorded in the ledger.
        inputs: fingerprint of each input, for the manifest.
        counts: rows read, quarantined, duplicate and held out, for the manifest.

    Raises:
        ValueError: ``state`` does not cover every sample.
    """
    parts = [texts_of(samples, stage)]
    aligned = None if state is None else _aligned(state, samples)
    with TemporaryTexts.write(parts) as texts:
        return select_candidates(
            Candidates(samples, texts, aligned),
            stage,
            config,
            tokenizer=tokenizer,
            workers=workers,
            progress=progress,
            checkpoint=checkpoint,
            duplicates=duplicates,
            held_out=held_out,
            inputs=inputs,
            counts=counts,
        )


def select_candidates(
    candidates: Candidates,
    stage: Stage,
    config: SelectionConfig,
    *,
    tokenizer: str = "tiny",
    workers: int = 0,
    progress: ProgressHook | None = None,
    checkpoint: Path | None = None,
    duplicates: pl.DataFrame | None = None,
    held_out: pl.DataFrame | None = None,
    inputs: Mapping[str, str] | None = None,
    counts: Mapping[str, int] | None = None,
) -> Selection:
    """Select as :func:`select` does, from a pool that need not fit into memory."""
    assert not config.reference_compat, "raw records go to select_reference"
    clock = [time.monotonic()]
    num_workers = worker_count(workers)
    pool = measure(candidates, config, tokenizer, num_workers)
    clock.append(time.monotonic())
    budget = Budget(config.budget, pool.costs, candidates.index["source"], config.quotas)
    store = Checkpoint.of_texts(checkpoint, config, candidates.texts)
    run = _run(pool, config, budget, store, num_workers, progress)
    clock.append(time.monotonic())
    tokens = pool.num_tokens
    if tokens is None:
        tokens = picked_tokens(candidates.texts, run.picks, tokenizer)
    ledger = build_ledger(
        candidates.index, run, pool.pi, pl.Series(pool.num_bytes), tokens, duplicates, held_out
    )
    manifest = build_manifest(
        stage,
        config,
        ledger,
        tokenizer=tokenizer,
        inputs=inputs or {},
        counts=counts or {"num_rows_read": len(candidates.index)},
        num_rounds=run.num_rounds,
        used=budget.used,
    )
    manifest |= measure_ratios(candidates.texts.read(run.picks), candidates.texts)
    clock.append(time.monotonic())
    durations = np.diff(clock).round(3).tolist()
    manifest["seconds"] = dict(zip(("prepare", "select", "measure"), durations, strict=True))
    store.remove()
    return Selection(run.picks, ledger, manifest)


def _aligned(state: pl.DataFrame, samples: pl.DataFrame) -> pl.DataFrame:
    """Return the state's rows in the order of the samples."""
    unique = state.unique("sample_id", keep="first")
    ids = samples.select("sample_id")
    aligned = ids.join(unique, on="sample_id", how="left", maintain_order="left")
    num_missing = aligned["num_bytes"].null_count()
    if num_missing:
        raise ValueError(
            f"compression state: {num_missing} of {len(samples)} samples have none; "
            "materialise compression_state for all batches of the pool"
        )
    return aligned


def _run(
    pool: Measured,
    config: SelectionConfig,
    budget: Budget,
    store: Checkpoint,
    workers: int,
    progress: ProgressHook | None,
) -> Run:
    started = time.monotonic()
    run = store.load() or Run.start(pool.pi)
    for index in run.picks:
        budget.take(index)
    if config.strategy == "random":
        ids = pool.candidates.index["sample_id"]
        fill_in_order(run, budget, random_order(ids, config.seed))
        return run
    with engine_for(pool.candidates.texts, config, workers) as engine:
        for after in run_rounds(run, budget, engine, (config.k1, config.k2, config.k3)):
            store.save(after)
            if progress:
                seconds = time.monotonic() - started
                num_picked = len(run.picks)
                progress(
                    Progress(
                        run.num_rounds, num_picked, budget.used, config.budget, config.unit, seconds
                    )
                )
    return run


@contextmanager
def engine_for(texts: TextFile, config: SelectionConfig, workers: int) -> Iterator[Engine]:
    """Yield what measures the redundancy of samples as ``config`` says.

    Args:
        texts: the serialised samples.
        config: strategy zip or long_range, codec and level.
        workers: threads (zstd) or processes (DEFLATE); no result depends on their number.
    """
    level = config.resolved_level
    if config.resolved_codec == "zstd":
        yield _engine(config, texts, lambda _: LocalSet(texts, ZstdSet(workers, level)))
        return
    with DeflateMeasurer(texts, workers, level) as measurer:
        yield _engine(config, texts, measurer.new_set)


def _engine(
    config: SelectionConfig, texts: TextFile, new_set: Callable[[str], IndexedSet]
) -> Engine:
    if config.strategy == "long_range":
        return LongRangeEngine(texts.num_bytes, new_set, config.overhead_bytes)
    return ZipEngine(new_set)
