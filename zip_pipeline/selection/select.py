"""Pool and configuration to picks, ledger and manifest: the same work for CLI and Dagster."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from zip_pipeline.compression.sets import worker_count
from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.errors import UserError
from zip_pipeline.samples import Stage
from zip_pipeline.selection.candidates import Candidates, measure, picked_tokens
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.ledger import build_ledger, build_manifest, measure_ratios
from zip_pipeline.selection.ray import ray_runner
from zip_pipeline.selection.rounds import ProgressHook, run_selection, used_budget
from zip_pipeline.selection.run import Checkpoint
from zip_pipeline.selection.shards import run_here, run_sharded


@dataclass(frozen=True)
class Cluster:
    """Where shards are done.

    Args:
        address: of a Ray cluster, ``local`` to start one; None for this process.
        folder: where a folder for the shards of each selection is made, under the same path on
            every node; None: beside the checkpoint, or else a temporary one.
    """

    address: str | None = None
    folder: Path | None = None


HERE = Cluster()


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
        UserError: ``state`` does not cover every sample.
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
    cluster: Cluster = HERE,
) -> Selection:
    """Select as :func:`select` does, from a pool that need not fit into memory.

    Args as there, but for the pool and
        cluster: where the shards of ``config.num_shards`` above 1 are done; picks and ledger do
            not depend on it.
    """
    assert not config.reference_compat, "raw records go to select_reference"
    clock = [time.monotonic()]
    num_workers = worker_count(workers)
    pool = measure(candidates, config, tokenizer, num_workers)
    clock.append(time.monotonic())
    store = Checkpoint.of_texts(checkpoint, config, candidates.texts)
    shards = None
    if config.is_sharded:
        run, shards = run_sharded(
            pool,
            config,
            store,
            stage=stage,
            workers=num_workers,
            run_tasks=ray_runner(cluster.address, num_workers) if cluster.address else run_here,
            folder=cluster.folder or (checkpoint and checkpoint.parent),
            progress=progress,
        )
    else:
        run = run_selection(pool, config, store, workers=num_workers, progress=progress)
    clock.append(time.monotonic())
    tokens = pool.num_tokens
    if tokens is None:
        tokens = picked_tokens(candidates.texts, run.picks, tokenizer)
    ledger = build_ledger(
        candidates.index,
        run,
        pool.pi,
        pl.Series(pool.num_bytes),
        tokens,
        duplicates,
        held_out,
        shards=shards,
    )
    manifest = build_manifest(
        stage,
        config,
        ledger,
        tokenizer=tokenizer,
        inputs=inputs or {},
        counts=counts or {"num_rows_read": len(candidates.index)},
        num_rounds=run.num_rounds,
        used=used_budget(pool, run),
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
        raise UserError(
            f"compression state: {num_missing} of {len(samples)} samples have none; "
            "materialise compression_state for all batches of the pool"
        )
    return aligned
