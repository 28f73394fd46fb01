"""One selection from its first round, or its checkpoint, to its last."""

import time
from collections.abc import Callable

import numpy as np

from zip_pipeline.selection.budget import Budget
from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.checkpoint import NOWHERE, Checkpoint
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.engines import engine_for
from zip_pipeline.selection.estimate import RemainingTime, estimate_seconds
from zip_pipeline.selection.progress import Progress, Run
from zip_pipeline.selection.rounds import run_rounds
from zip_pipeline.selection.strategies.ordered import fill_in_order, random_order

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
        estimate: whether ``progress`` is called with the estimated time before the first round.
    """
    budget = Budget(config.budget, pool.costs, pool.candidates.index["source"], config.quotas)
    run = run or store.load() or Run.start(pool.pi)
    for index in run.picks:
        budget.take(index)
    if config.strategy == "random":
        ids = pool.candidates.index["sample_id"]
        fill_in_order(run, budget, random_order(ids, config.seed))
        return run
    report = _Report(progress, phase, budget, config)
    with engine_for(pool, config, workers) as engine:
        if progress and estimate:
            report(run, estimate_seconds(pool, config, workers) * report.share_left)
        for after in run_rounds(run, budget, engine, (config.k1, config.k2, config.k3)):
            store.save(after)
            report(after)
    return run


class _Report:
    """Tells how far a run has come, how fast, and how long it will take."""

    def __init__(
        self, progress: ProgressHook | None, phase: str, budget: Budget, config: SelectionConfig
    ) -> None:
        self._progress = progress
        self._phase = phase
        self._budget = budget
        self._config = config
        self._started = time.monotonic()
        self._remaining = RemainingTime(config.budget, budget.used)

    @property
    def share_left(self) -> float:
        """What is left of the budget, 0 to 1."""
        return self._budget.unused / max(self._budget.value, 1)

    def __call__(self, run: Run, estimate: float | None = None) -> None:
        if self._progress is None:
            return
        seconds = time.monotonic() - self._started
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
