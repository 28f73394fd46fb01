"""One selection from its first round, or its checkpoint, to its last."""

import importlib.util
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.compression.codecs import codecs
from zip_pipeline.compression.sets import IndexedSet
from zip_pipeline.selection.candidates import Budget, Fit, Indices, Mask, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.run import (
    NOWHERE,
    PILOT_SECONDS,
    Checkpoint,
    Fate,
    Pilot,
    Progress,
    RemainingTime,
    Run,
)
from zip_pipeline.selection.strategies import Strategy, strategies

ProgressHook: TypeAlias = Callable[[Progress], None]
NewSet: TypeAlias = Callable[[str], IndexedSet]
"""Makes an empty set of pool samples; one of the same name takes its place."""


class Ordering(Protocol):
    """Chooses the lowest values; the rule for ties is the implementation's own."""

    def __call__(self, values: NDArray[np.floating[Any]], k: int) -> Indices:
        """Return the positions of the ``k`` lowest values, lowest first."""


def lowest_index_first(values: NDArray[np.floating[Any]], k: int) -> Indices:
    """Return the positions of the ``k`` lowest values, lowest first; ties: lowest position."""
    if k < len(values):
        # Only what is at most the k-th lowest value can be among the k: sort no more than that.
        limit = np.partition(values, k - 1)[k - 1]
        (positions,) = np.nonzero(values <= limit)
        return positions[np.argsort(values[positions], kind="stable")][:k]
    return np.argsort(values, kind="stable")


def _torch_topk(values: NDArray[np.floating[Any]], k: int) -> Indices:
    import torch

    _, positions = torch.topk(torch.from_numpy(values), k=min(k, len(values)), largest=False)
    result: Indices = positions.numpy()
    return result


def reference_ordering() -> Ordering:
    """Return the published implementation's order: ``torch.topk``, lowest index without torch.

    Deviation: without torch, ties go to the lowest index, which torch does not promise.
    """
    return _torch_topk if importlib.util.find_spec("torch") else lowest_index_first


Offer = Callable[[int], bool]


class Engine(Protocol):
    """How a strategy measures redundancy."""

    def start(self, picks_by_round: list[list[int]]) -> None:
        """Build the selected set from the picks of earlier rounds."""

    def coarse(self, candidates: Indices, k2: int, pi: NDArray[np.floating[Any]]) -> Indices:
        """Measure candidates until the ``k2`` lowest are known; return who was measured.

        ``candidates`` come lowest known ratio first; ``pi``, the redundancy state of the whole
        pool, is brought up to date in place for those that are measured.
        """

    def fine(self, shortlist: Indices, k3: int, outside: float, offer: Offer, run: Run) -> None:
        """Offer samples of the shortlist, best first, until ``k3`` are accepted or none is left.

        ``outside`` is the lowest known ratio of those that may be picked but are not on the
        shortlist, infinite where there is none.
        """

    def add(self, picks: list[int]) -> None:
        """Add the picks of a round to the selected set."""


def run_rounds(
    run: Run,
    budget: Budget,
    engine: Engine,
    k: tuple[int, int, int],
) -> Iterator[Run]:
    """Run rounds until no unpicked sample fits the budget; yield after each round.

    In a round the ``k1`` samples of lowest known ratio that fit are candidates; they are
    measured against the selected set, the ``k2`` lowest of them are the shortlist, and ``k3`` of
    the shortlist are picked one by one. Ties go to the lowest index.

    Args:
        run: the state to start from, fresh or from a checkpoint; changed in place.
        budget: with the cost of ``run.picks`` already taken.
        engine: measures redundancy; started here with ``run.picks``.
        k: (k1, k2, k3).

    Source: ZIP, algorithm 1.
    Deviation: samples that do not fit what is left are passed over, so the budget is never
    exceeded; unpicked samples of the shortlist stay in the pool, as the paper's text says.
    """
    run.pi = run.pi.copy()
    engine.start(run.picks_by_round())
    while (eligible := open_round(run, budget, k[0], run.pi, Order.LOWEST_FIRST)).any():
        run.num_rounds += 1
        # One more than k1: the lowest ratio outside, where somebody is outside.
        nearest = first_of(run.pi, eligible, k[0] + 1, Order.LOWEST_FIRST)
        candidates = nearest[: k[0]]
        run.reach(engine.coarse(candidates, k[1], run.pi), Fate.CANDIDATE)
        # In pool order, so that the lowest position is the lowest index in a tie.
        shortlist, others = _split(np.sort(candidates), run.pi, k[1])
        run.reach(shortlist, Fate.SHORTLISTED)
        num_before = len(run.picks)
        outside = float(run.pi[np.concatenate([others, nearest[k[0] :]])].min(initial=np.inf))
        engine.fine(shortlist, k[2], outside, offer_to(run, budget), run)
        engine.add(run.picks[num_before:].tolist())
        yield run


_LOOKED_AT_AT_A_TIME = 1 << 18


class Order(IntEnum):
    """Which keys are looked at first; what they are multiplied by for it."""

    LOWEST_FIRST = 1
    HIGHEST_FIRST = -1


def open_round(
    run: Run, budget: Budget, k1: int, keys: NDArray[np.floating[Any]], order: Order
) -> Mask:
    """Return which unpicked samples fit, shape (samples,).

    Marks those of the k1 first keys that do not fit and were never looked at.
    """
    unpicked = run.unpicked
    if not unpicked.any() or not budget.unused:
        return np.zeros_like(unpicked)
    budget.open_round(unpicked)
    fit = budget.all_fits()
    if not (unpicked & (fit == Fit.YES)).any() and budget.release():
        fit = budget.all_fits()
    eligible: Mask = unpicked & (fit == Fit.YES)
    if not np.array_equal(eligible, unpicked):
        in_reach = first_of(keys, unpicked, k1, order)
        for index in in_reach[~eligible[in_reach]].tolist():
            if run.fate[index] == Fate.NEVER_REACHED:
                run.pass_over(index, Fit(fit[index]))
    return eligible


def first_of(keys: NDArray[np.floating[Any]], among: Mask, k: int, order: Order) -> Indices:
    """Return the ``k`` samples with the first keys among some, first key first; ties: lowest index.

    Args:
        keys: of each sample, shape (samples,).
        among: which samples may be returned, shape (samples,).
        k: how many at most.
        order: which keys are first.
    """
    found, size = np.zeros(0, np.int64), max(k, _LOOKED_AT_AT_A_TIME)
    # In parts, as to order a sample takes some thirty bytes.
    for start in range(0, len(keys), size):
        (inside,) = np.nonzero(among[start : start + size])
        found = np.concatenate([np.sort(found), start + inside])
        found = found[lowest_index_first(order * keys[found], k)]
    return found


def _split(candidates: Indices, pi: NDArray[np.floating[Any]], k2: int) -> tuple[Indices, Indices]:
    """Return the shortlist, in pool order, and the other candidates."""
    is_shortlisted = np.zeros(len(candidates), dtype=np.bool_)
    is_shortlisted[lowest_index_first(pi[candidates], k2)] = True
    return candidates[is_shortlisted], candidates[~is_shortlisted]


def offer_to(run: Run, budget: Budget) -> Offer:
    """Return what picks a sample that fits, and records why another one does not."""

    def offer(index: int) -> bool:
        if not budget.unused:
            return False
        fit = Fit(budget.fits(np.array([index]))[0])
        if fit != Fit.YES:
            run.pass_over(index, fit)
            return False
        budget.take(index)
        run.pick(index)
        return True

    return offer


class RoundStrategy(Strategy):
    """Picks in the rounds of :func:`run_rounds`; an engine measures redundancy."""

    measure = "ratio"

    @abstractmethod
    def engine(self, pool: Measured, new_set: NewSet, config: SelectionConfig) -> Engine:
        """Return what measures redundancy.

        Args:
            pool: the candidates, measured.
            new_set: makes empty sets of the configured codec.
            config: the strategy's parameters.
        """

    def rounds(
        self, run: Run, budget: Budget, pool: Measured, config: SelectionConfig, workers: int
    ) -> Iterator[Run]:
        """Yield the run after each round; see :meth:`.Strategy.rounds`."""
        codec = codecs[config.resolved_codec]
        with codec.sets(pool.candidates.texts, config.resolved_level, workers) as new_set:
            engine = self.engine(pool, new_set, config)
            yield from run_rounds(run, budget, engine, (config.k1, config.k2, config.k3))


def fill_in_order(run: Run, budget: Budget, order: Indices) -> None:
    """Pick in order whatever fits, until nothing fits any more; one round.

    A sample that does not fit is passed over while a later one may still fit; what comes
    after the last pick was never reached. What the allotments of a mixture leave is for those
    that were passed over, in order again. What is not in the order is not picked.
    """
    run.num_rounds += 1
    in_order = np.zeros(len(run.fate), dtype=np.bool_)
    in_order[order] = True
    budget.open_round(run.unpicked & in_order)
    _fill(run, budget, order)
    if budget.unused and budget.release():
        _fill(run, budget, order[run.unpicked[order]])


def _fill(run: Run, budget: Budget, order: Indices) -> None:
    cheapest_from = np.minimum.accumulate(budget.costs[order][::-1])[::-1]
    misfits: list[tuple[int, Fit]] = []
    # One by one: as a list the whole order takes some forty bytes a sample.
    for position, index in enumerate(map(int, order)):
        if not budget.unused or cheapest_from[position] > budget.unused:
            return
        fit = Fit(budget.fits(np.array([index]))[0])
        if fit != Fit.YES:
            misfits.append((index, fit))
            continue
        budget.take(index)
        for passed, reason in misfits:
            run.pass_over(passed, reason)
        misfits.clear()
        run.pick(index)


class OrderStrategy(Strategy):
    """Ranks the whole pool once and fills the budget in that order, in one round.

    The samples of the pool come by their ids, so that ties which stay in place hang on no order.
    """

    picks_what_fits = False

    @abstractmethod
    def order(self, pool: Measured, config: SelectionConfig) -> Indices:
        """Return all positions of the pool, shape (samples,), best first."""

    def rounds(
        self, run: Run, budget: Budget, pool: Measured, config: SelectionConfig, workers: int
    ) -> Iterator[Run]:
        """Yield the run at its end; see :meth:`.Strategy.rounds`."""
        fill_in_order(run, budget, self.order(pool, config))
        yield run


class ScoreStrategy(Strategy):
    """Scores each sample of the pool by itself, and fills the budget, highest score first."""

    picks_what_fits = False
    measure = "score"

    @abstractmethod
    def scores(self, pool: Measured, config: SelectionConfig, workers: int) -> NDArray[np.float64]:
        """Return the score of each sample, shape (samples,), higher = better."""

    def rounds(
        self, run: Run, budget: Budget, pool: Measured, config: SelectionConfig, workers: int
    ) -> Iterator[Run]:
        """Yield the run at its end; see :meth:`.Strategy.rounds`."""
        run.scores = self.scores(pool, config, workers)
        order = self.ranked(run.scores, pool, config)
        fill_in_order(run, budget, order)
        yield run

    def ranked(
        self, scores: NDArray[np.float64], pool: Measured, config: SelectionConfig
    ) -> Indices:
        """Return all positions of the pool, shape (samples,), highest score first, ties by id."""
        by_id = pool.candidates.by_id()
        order: Indices = by_id[np.argsort(-scores[by_id], kind="stable")]
        return order


def budget_of(pool: Measured, config: SelectionConfig, picks: Iterable[int]) -> Budget:
    """Return the budget of a selection with the cost of its picks so far taken."""
    groups = pool.candidates.competes_in
    budget = Budget(config.budget, pool.costs, groups, config.quotas, config.weight_of_source)
    for index in picks:
        budget.take(index)
    return budget


def run_selection(
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
        estimate: whether ``progress`` is told the estimated time, before the first round or
            after a second of rounds, as the strategy can.
    """
    stored = None if run else store.load()
    run = run or stored or Run.start(pool.pi)
    budget = budget_of(pool, config, run.picks)
    strategy = strategies[config.strategy]
    report = _Report(progress, phase, budget, config, run.num_rounds)
    if stored is not None:
        report(run, is_resumption=True)
    wants_estimate = progress is not None and estimate
    ahead = strategy.estimate(pool, config, workers) if wants_estimate else None
    if ahead is not None:
        report(run, ahead * report.left / max(config.budget, 1))
    is_due = wants_estimate and ahead is None
    for after in strategy.rounds(run, budget, pool, config, workers):
        store.save(after)
        if is_due and report.left > budget.unused and report.seconds >= PILOT_SECONDS:
            is_due = False
            seconds = strategy.estimate_after(report.pilot(after), pool, config)
            if seconds is not None:
                report(after, seconds)
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

    def pilot(self, run: Run) -> Pilot:
        """Return how it has gone so far."""
        used = self.left - self._budget.unused
        return Pilot(self.left, used, run.num_rounds - self._num_rounds, self.seconds)

    def __call__(
        self, run: Run, estimate: float | None = None, *, is_resumption: bool = False
    ) -> None:
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
                is_resumption=is_resumption,
            )
        )
