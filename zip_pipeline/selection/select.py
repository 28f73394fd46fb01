"""Pool and configuration to picks, ledger and manifest, with shards here or on a Ray cluster."""

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from zip_pipeline.compression.sets import worker_count
from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.errors import UserError
from zip_pipeline.samples import Stage
from zip_pipeline.selection.candidates import (
    Candidates,
    Indices,
    Measured,
    measure,
    part_of,
    picked_tokens,
    refuse_to_pick_nothing,
)
from zip_pipeline.selection.clusters import clusters_for
from zip_pipeline.selection.config import TOKEN_UNITS, SelectionConfig
from zip_pipeline.selection.ledger import (
    build_ledger,
    build_manifest,
    known_before,
    marks_report,
    measure_ratios,
    noise_report,
    picked_ids,
    target_facts,
)
from zip_pipeline.selection.noise import find_noise
from zip_pipeline.selection.rounds import ProgressHook, budget_of, run_selection
from zip_pipeline.selection.run import Checkpoint, Run
from zip_pipeline.selection.shards import (
    Runner,
    ShardOutcome,
    ShardTask,
    Tick,
    run_here,
    run_sharded,
    select_shard,
    shard_of,
)
from zip_pipeline.selection.strategies import strategies
from zip_pipeline.tables import TemporaryTable, lazy_rows, whole_of

LOCAL = "local"
# How often a shard is started again when its process or its node is lost.
MAX_RETRIES = 3
_SECONDS_BETWEEN_TICKS = 0.5
_CONNECT_SECONDS = 10.0
_MAY_HAVE_OTHER_NODES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# Ray's least: shards travel as files, only outcomes as objects.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024


def ray_runner(address: str, workers: int) -> Runner:
    """Return what runs shard tasks on a Ray cluster, one core each.

    Args:
        address: ``local`` starts a cluster on this machine, on loopback, that ends with the
            tasks; else the address of one that runs, as ``ray.init`` takes it. Its nodes need
            this package and its codecs in the same versions, and the folder of the shards.
        workers: cores of a cluster that is started here, 0 for all.

    Raises:
        UserError: Ray is not installed, or nobody listens at the address.
    """
    ray = _import_ray(address)
    # Before anything is written for the cluster.
    try:
        _check_reachable(address)
    except OSError as error:
        raise _unusable(address, error) from error

    def run(tasks: Sequence[ShardTask], tick: Tick) -> list[ShardOutcome]:
        with _connected(ray, address, worker_count(workers)):
            return _run(ray, tasks, tick)

    return run


def _run(
    ray: Any,  # noqa: ANN401
    tasks: Sequence[ShardTask],
    tick: Tick,
) -> list[ShardOutcome]:
    remote = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(select_shard)
    references = [remote.remote(replace(task, workers=1)) for task in tasks]
    pending = list(references)
    while pending:
        _, pending = ray.wait(pending, num_returns=len(pending), timeout=_SECONDS_BETWEEN_TICKS)
        tick()
    return [_outcome(ray, task, ref) for task, ref in zip(tasks, references, strict=True)]


def _outcome(ray: Any, task: ShardTask, reference: Any) -> ShardOutcome:  # noqa: ANN401
    try:
        outcome = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # What select_shard raised there, as it would have been raised here.
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise RuntimeError(
            f"shard {task.number}: lost on the Ray cluster {1 + MAX_RETRIES} times "
            f"({type(error).__name__}), perhaps for want of memory; give more shards"
        ) from error
    assert isinstance(outcome, ShardOutcome)
    return outcome


@contextmanager
def _connected(ray: Any, address: str, num_cores: int) -> Iterator[None]:  # noqa: ANN401
    """Connect to a cluster, and let go of it; a connection that is there already stays."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {
            "num_cpus": num_cores,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unusable(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _unusable(address: str, error: Exception) -> UserError:
    return UserError(
        f"Ray cluster: got address {address!r}, which cannot be used ({error}); give "
        f"{LOCAL!r} to start one here, or the address of one that runs, as HOST:6379"
    )


def _check_reachable(address: str) -> None:
    """Raise OSError at once where nobody listens: Ray would try for ten minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


def _import_ray(address: str) -> Any:  # noqa: ANN401
    if address == LOCAL:
        # Read at import. Without it Ray takes 127.0.0.1 for the machine's address to others, and
        # listens on every interface.
        os.environ.setdefault(_MAY_HAVE_OTHER_NODES, "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "Ray cluster: Ray is not installed; install it with pip install 'zip-pipeline[ray]', "
            "or select without it: the shards are then done one after another"
        ) from error
    return ray


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
    """The outcome: what was picked, and what is known of it and of all other samples.

    Args:
        places: rows of the pool table in pick order, shape (picks,).
        stored_ledger: the fate of every sample, see :func:`.build_ledger`, in a file.
        manifest: what was selected from what and how.
    """

    places: Indices
    stored_ledger: TemporaryTable
    manifest: dict[str, object]

    @property
    def picks(self) -> list[int]:
        """The ``places`` as a list."""
        picks: list[int] = self.places.tolist()
        return picks

    @property
    def lazy_ledger(self) -> pl.LazyFrame:
        """The ledger, yet to be read; this selection must be held meanwhile."""
        return self.stored_ledger.lazy()

    @cached_property
    def ledger(self) -> pl.DataFrame:
        """The ledger, whole in memory."""
        return self.lazy_ledger.collect()

    def subset(self, samples: pl.DataFrame) -> pl.DataFrame:
        """Return the picked rows of the pool table in pick order, with rank, round and pi."""
        return samples[self.places].hstack(self.told_of_picks)

    @property
    def told_of_picks(self) -> pl.DataFrame:
        """``rank``, ``round`` and ``pi`` of each pick, in pick order."""
        told = self.lazy_ledger.filter(pl.col("rank").is_not_null()).select("rank", "round", "pi")
        return told.collect(engine="streaming").sort("rank")


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
        tokenizer: counts tokens where ``state`` does not; else whose tokens those of ``state`` are.
        workers: number of threads, 0 for all cores.
        progress: called after each round.
        checkpoint: file to store progress in and to resume from; removed at the end.
        duplicates: exact duplicates across batches, recorded in the ledger.
        held_out: samples kept for evaluation, recorded in the ledger.
        inputs: fingerprint of each input, for the manifest.
        counts: rows read, quarantined, duplicate and held out, for the manifest.

    Raises:
        UserError: ``state`` does not cover every sample, or the budget is in target tokens and
            ``state`` has none.
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
    candidates = pool.candidates
    marks, asked, texts = candidates.marks, config, candidates.texts
    # What is known of each sample lies in files while noise is looked for and a strategy picks.
    known = TemporaryTable(
        [
            known_before(
                whole_of(candidates.index),
                pool.pi,
                pool.num_bytes,
                pool.tokens,
                marks=None if marks is None else marks.table,
                quality=None if pool.weights is None else candidates.quality,
                weights=pool.weights,
            )
        ],
        texts.path.parent,
    )
    has_tokens, pool = pool.tokens is not None, replace(pool, tokens=None)
    takes_part, noise, told_noise = _without_noise(candidates, config, num_workers)
    with part_of(pool, takes_part) as part:
        del pool
        refuse_to_pick_nothing(asked, part.costs)
        config = asked.of_pool(int(part.costs.sum()))
        is_covered = covers(part, config)
        # Where all are picked nothing is shared out, and clusters take time.
        clusters = None if is_covered else clusters_for(part.candidates, config)
        if clusters is not None:
            part = replace(part, candidates=replace(part.candidates, clusters=clusters.names))
        clock.append(time.monotonic())
        run, shards = _select_from(part, config, stage, num_workers, progress, checkpoint, cluster)
        budget = budget_of(part, config, run.picks)
        used, mixture = budget.used, budget.by_source()
        del part, budget

    clock.append(time.monotonic())
    run = run.spread(takes_part, len(texts))
    rows = build_ledger(
        pl.concat([known.lazy(), noise.lazy()], how="horizontal"),
        run,
        None if has_tokens else picked_tokens(texts, run.picks, tokenizer),
        duplicates,
        held_out,
        shards=None if shards is None else _spread(pl.Series(shards), takes_part, len(texts)),
        clusters=None if clusters is None else _spread(clusters.names, takes_part, len(texts)),
    )
    picks, num_rounds = np.array(run.picks, np.int64), run.num_rounds
    del run, shards, takes_part
    stored = TemporaryTable(rows, texts.path.parent)
    known.close()
    noise.close()
    del rows
    ledger = stored.lazy()
    manifest = build_manifest(
        stage,
        asked,
        ledger,
        picked_ids(ledger, len(picks)),
        tokenizer=tokenizer,
        inputs=inputs or {},
        counts=counts or {"num_rows_read": len(texts)},
        num_rounds=num_rounds,
        used=used,
        budget=config.budget,
    )
    if is_covered:
        manifest["covers_pool"] = True
    if mixture:
        manifest["mixture"] = mixture
    if clusters is not None:
        words = clusters.words
        told = {
            name: {**figures, "words": words.get(name, [])} for name, figures in mixture.items()
        }
        manifest |= {"mixture_of": config.shares_by or "clusters", "mixture": told}
    manifest |= _facts(candidates, ledger, told_noise)
    manifest |= measure_ratios(picks, texts)
    clock.append(time.monotonic())
    durations = np.diff(clock).round(3).tolist()
    manifest["seconds"] = dict(zip(("prepare", "select", "measure"), durations, strict=True))
    Checkpoint(checkpoint, "").remove()
    return Selection(picks, stored, manifest)


def _facts(
    candidates: Candidates, ledger: pl.LazyFrame, noise: dict[str, object] | None
) -> dict[str, object]:
    """Return what the manifest tells of files, signals and noise, where there are any."""
    facts: dict[str, object] = {}
    if candidates.target:
        facts["target"] = target_facts(candidates.target)
    if noise is not None:
        facts["noise"] = noise
    if candidates.marks is not None:
        facts["marked"] = marks_report(ledger, candidates.marks)
    if candidates.signals is not None:
        facts["signals"] = dict(candidates.signals.identities)
    if candidates.trusted:
        facts["trusted"] = target_facts(candidates.trusted)
    return facts


def _without_noise(
    candidates: Candidates, config: SelectionConfig, workers: int
) -> tuple[Indices, TemporaryTable, dict[str, object] | None]:
    """Return who takes part, why each sample is noise, and what the manifest tells of that.

    Why is the column ``noise``; there is none, and nothing to tell, where nobody looks.
    """
    folder = candidates.texts.path.parent
    if not config.guards_noise:
        return _takes_part(candidates, None), TemporaryTable([pl.LazyFrame()], folder), None
    noise = find_noise(candidates, workers)
    stored = TemporaryTable([pl.LazyFrame([noise.alias("noise")])], folder)
    return _takes_part(candidates, noise), stored, noise_report(noise)


def _takes_part(candidates: Candidates, noise: pl.Series | None) -> Indices:
    """Return the positions of the samples that are not marked, by id.

    So what a strategy sees, and how it breaks ties, does not depend on the order of the pool.
    """
    takes_part, marks = np.ones(len(candidates.texts), np.bool_), candidates.marks
    if noise is not None:
        takes_part &= noise.is_null().to_numpy()
    if marks is not None:
        is_marked = lazy_rows(marks.table, "fate").select(pl.col("fate").is_not_null())
        takes_part &= ~is_marked.collect(engine="streaming").to_series().to_numpy()
    by_id = candidates.by_id()
    positions: Indices = by_id[takes_part[by_id]]
    return positions


def covers(pool: Measured, config: SelectionConfig) -> bool:
    """Return whether a strategy that picks one by one would pick all of a pool in the end."""
    picks_all = strategies[config.strategy].picks_what_fits and not config.quotas
    return picks_all and int(pool.costs.sum()) <= config.budget


def _all_of(pool: Measured, config: SelectionConfig) -> tuple[Run, Indices | None]:
    """Return a run that picks all of a pool, the least redundant alone first, and the shards."""
    run = Run.start(pool.pi)
    run.num_rounds = 1
    for index in np.argsort(pool.pi, kind="stable").tolist():
        run.pick(index)
    if not config.is_sharded:
        return run, None
    return run, shard_of(pool.candidates.sample_ids, config.num_shards)


def _spread(values: pl.Series, positions: Indices, num_samples: int) -> pl.Series:
    """Return the value of each sample of a pool, null for those that are not at ``positions``."""
    places = np.full(num_samples, -1)
    places[positions] = np.arange(len(positions))
    return values.gather(pl.Series(places).replace(-1, None))


def _select_from(
    pool: Measured,
    config: SelectionConfig,
    stage: Stage,
    workers: int,
    progress: ProgressHook | None,
    checkpoint: Path | None,
    cluster: Cluster,
) -> tuple[Run, Indices | None]:
    """Return the finished run, and the shard of each sample where there are shards."""
    if covers(pool, config):
        return _all_of(pool, config)
    costs = pool.costs if config.unit in TOKEN_UNITS else None
    signals, clusters = pool.candidates.signals, pool.candidates.clusters
    store = Checkpoint.of_texts(
        checkpoint,
        config,
        pool.candidates.texts,
        costs,
        pool.weights,
        None if clusters is None else clusters.cast(pl.String).rank("dense").to_numpy(),
        facts=None if signals is None else signals.identities,
    )
    if not config.is_sharded:
        return run_selection(pool, config, store, workers=workers, progress=progress), None
    return run_sharded(
        pool,
        config,
        store,
        stage=stage,
        workers=workers,
        run_tasks=ray_runner(cluster.address, workers) if cluster.address else run_here,
        folder=cluster.folder or (checkpoint and checkpoint.parent),
        progress=progress,
    )


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
