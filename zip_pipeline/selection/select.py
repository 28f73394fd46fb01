"""Pool and configuration to picks, ledger and manifest: the same work for CLI and Dagster."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.deflate_set import DeflateSet
from zip_pipeline.compression.selected_set import Parallel, SelectedSet, worker_count
from zip_pipeline.compression.state import DEFLATE_LEVEL, ZSTD_LEVEL, alone_bytes, texts_of
from zip_pipeline.compression.tokens import count_tokens
from zip_pipeline.compression.zstd_set import ZstdSet
from zip_pipeline.samples import Stage
from zip_pipeline.selection.budget import Budget, Indices
from zip_pipeline.selection.checkpoint import Checkpoint
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.ledger import build_ledger
from zip_pipeline.selection.long_range import LongRangeEngine, marginal_ratios
from zip_pipeline.selection.manifest import build_manifest, measure_ratios
from zip_pipeline.selection.progress import Progress, Run
from zip_pipeline.selection.rounds import Engine, run_rounds
from zip_pipeline.selection.strategies.ordered import fill_in_order, random_order
from zip_pipeline.selection.zip import ZipEngine

ProgressHook = Callable[[Progress], None]
_STATE_COLUMNS = {("deflate", DEFLATE_LEVEL): "deflate_bytes", ("zstd", ZSTD_LEVEL): "zstd_bytes"}


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


@dataclass(frozen=True)
class Measured:
    """The pool as a strategy sees it: texts, cost of each sample, initial redundancy state."""

    texts: Sequence[bytes]
    num_bytes: Indices
    num_tokens: pl.Series | None
    pi: NDArray[np.float64]


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
    assert not config.reference_compat, "raw records go to select_reference"
    clock = [time.monotonic()]
    num_workers = worker_count(workers)
    pool = _measure_pool(samples, state, stage, config, tokenizer, num_workers)
    clock.append(time.monotonic())
    budget = Budget(config.budget, _costs(pool, config), samples["source"].to_list(), config.quotas)
    store = Checkpoint.of_texts(checkpoint, config, pool.texts)
    run = _run(pool, samples, config, budget, store, num_workers, progress)
    clock.append(time.monotonic())
    tokens = pool.num_tokens
    if tokens is None:
        tokens = picked_tokens(pool.texts, run.picks, tokenizer)
    ledger = build_ledger(
        samples, run, pool.pi, pl.Series(pool.num_bytes), tokens, duplicates, held_out
    )
    manifest = build_manifest(
        stage,
        config,
        ledger,
        tokenizer=tokenizer,
        inputs=inputs or {},
        counts=counts or {"num_rows_read": len(samples)},
        num_rounds=run.num_rounds,
        used=budget.used,
    )
    manifest |= measure_ratios([pool.texts[i] for i in run.picks], pool.texts)
    clock.append(time.monotonic())
    durations = np.diff(clock).round(3).tolist()
    manifest["seconds"] = dict(zip(("prepare", "select", "measure"), durations, strict=True))
    store.remove()
    return Selection(run.picks, ledger, manifest)


def _measure_pool(
    samples: pl.DataFrame,
    state: pl.DataFrame | None,
    stage: Stage,
    config: SelectionConfig,
    tokenizer: str,
    workers: int,
) -> Measured:
    texts = texts_of(samples, stage)
    num_bytes = np.array([len(text) for text in texts], dtype=np.int64)
    aligned = None if state is None else _aligned(state, samples)
    codec, level = config.resolved_codec, config.resolved_level
    column = _STATE_COLUMNS.get((codec, level))
    if aligned is not None and column is not None:
        sizes = aligned[column].to_numpy()
    else:
        sizes = alone_bytes(texts, codec, level, workers)
    tokens = None if aligned is None else aligned["num_tokens"]
    if tokens is None and config.unit == "tokens":
        tokens = pl.Series(count_tokens([t.decode() for t in texts], tokenizer), dtype=pl.Int64)
    overhead = config.overhead_bytes if config.strategy == "long_range" else 0
    return Measured(texts, num_bytes, tokens, marginal_ratios(num_bytes, sizes, overhead))


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


def _costs(pool: Measured, config: SelectionConfig) -> Indices:
    if config.unit == "samples":
        return np.ones(len(pool.texts), dtype=np.int64)
    if config.unit == "bytes":
        return pool.num_bytes
    assert pool.num_tokens is not None
    return pool.num_tokens.to_numpy()


def _run(
    pool: Measured,
    samples: pl.DataFrame,
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
        fill_in_order(run, budget, random_order(samples["sample_id"].to_list(), config.seed))
        return run
    parallel = Parallel(workers)
    engine = _engine(pool.texts, config, parallel)
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
    parallel.close()
    return run


def _engine(texts: Sequence[bytes], config: SelectionConfig, parallel: Parallel) -> Engine:
    def new_set() -> SelectedSet:
        if config.resolved_codec == "zstd":
            return ZstdSet(parallel.workers, config.resolved_level)
        return DeflateSet(parallel, config.resolved_level)

    if config.strategy == "long_range":
        return LongRangeEngine(texts, new_set, config.overhead_bytes)
    return ZipEngine(texts, new_set)


def picked_tokens(texts: Sequence[bytes], picks: Sequence[int], tokenizer: str) -> pl.Series:
    """Return the number of tokens of each pick, null for all other texts."""
    counts: list[int | None] = [None] * len(texts)
    numbers = count_tokens([texts[i].decode() for i in picks], tokenizer)
    for index, num in zip(picks, numbers, strict=True):
        counts[index] = num
    return pl.Series(counts, dtype=pl.Int64)
