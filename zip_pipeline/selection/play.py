"""One selection from its first round, or its checkpoint, to its last."""

import time
from collections.abc import Callable

import numpy as np

from zip_pipeline.selection.budget import Budget
from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.estimate import (
    PILOT_SECONDS,
    RemainingTime,
    estimate_long_range,
    estimate_zip,
)
from zip_pipeline.selection.rounds import run_rounds
from zip_pipeline.selection.run import NOWHERE, Checkpoint, Progress, Run
from zip_pipeline.selection.strategies.random import fill_in_order, random_order
from zip_pipeline.selection.strategies.registry import engine_for

ProgressHook = Callable[[Progress], None]


def play(
    pool: Measured,
    config: SelectionConfig,
    store: Checkpoint = NOWHERE,
    *,
    workers: int,
    run: Run | None = None,
    progress: ProgressHook | None = None,
    phase: str = "Selecting",
    estimate: bool = True,
) -> Run:
    """Return the finished run of a strategy over the whole of ``pool``.

    Args:
        pool: the candidates, measured.
        config: strategy, budget and parameters.
        store: where the run is kept between rounds, and goes on from.
        workers: threads or processes.
        run: what to go on from, if not from ``store``.
        progress: called after each round.
        phase: what the progress is called.
        estimate: whether ``progress`` is told the estimated time: of ``zip`` before the first
            round, of ``long_range`` after a second of rounds.
    """
    budget = Budget(config.budget, pool.costs, pool.candidates.index["source"], config.quotas)
    run = run or store.load() or Run.start(pool.pi)
    for index in run.picks:
        budget.take(index)
    if config.strategy == "random":
        ids = pool.candidates.index["sample_id"]
        fill_in_order(run, budget, random_order(ids, config.seed))
        return run
    report = _Report(progress, phase, budget, config, run.num_rounds)
    with engine_for(pool, config, workers) as engine:
        if progress and estimate and config.strategy == "zip":
            report(run, estimate_zip(pool, config, workers) * report.left / max(config.budget, 1))
        is_due = estimate and config.strategy == "long_range"
        for after in run_rounds(run, budget, engine, (config.k1, config.k2, config.k3)):
            store.save(after)
            if is_due and report.left > budget.unused and report.seconds >= PILOT_SECONDS:
                report(after, report.extrapolated(pool, after.num_rounds))
                is_due = False
            report(after)
    return run


class _Report:
    """Tells how far a run has come, how fast, and how long it will take."""

    def __init__(
        self,
        progress: ProgressHook | None,
        phase: str,
        budget: Budget,
        config: SelectionConfig,
        num_rounds: int,
    ) -> None:
        self._progress = progress
        self._phase = phase
        self._budget = budget
        self._config = config
        self._started = time.monotonic()
        self.left = budget.unused
        self._num_rounds = num_rounds
        self._remaining = RemainingTime(config.budget, budget.used)

    @property
    def seconds(self) -> float:
        """How long it has been."""
        return time.monotonic() - self._started

    def extrapolated(self, pool: Measured, num_rounds: int) -> float:
        """Return how long long_range will take in all, after its first rounds."""
        return estimate_long_range(
            pool,
            self._config,
            left=self.left,
            used=self.left - self._budget.unused,
            num_rounds=num_rounds - self._num_rounds,
            seconds=self.seconds,
        )

    def __call__(self, run: Run, estimate: float | None = None) -> None:
        if self._progress is None:
            return
        seconds = self.seconds
        rate, remaining = self._remaining.after(self._budget.used, seconds)
        self._progress(
            Progress(
                run.num_rounds,
                len(run.picks),
                self._budget.used,
                self._config.budget,
                self._config.unit,
                seconds,
                phase=self._phase,
                rate=rate,
                remaining_seconds=remaining if estimate is None else estimate,
                is_estimate=estimate is not None,
            )
        )


def used_budget(pool: Measured, run: Run) -> int:
    """Return what the picks cost, in the unit of the budget."""
    return int(pool.costs[np.array(run.picks, dtype=np.int64)].sum())
