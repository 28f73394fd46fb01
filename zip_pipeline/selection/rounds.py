"""The rounds that zip and long-range ZIP share: global, coarse local, fine local."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.selection.budget import Budget, Fit, Indices
from zip_pipeline.selection.run import Fate, Run


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
    engine.start(run.picks_by_round())
    while len(eligible := _open_round(run, budget, k[0])):
        run.num_rounds += 1
        # One more than k1: the lowest ratio outside, where somebody is outside.
        nearest = eligible[lowest_index_first(run.pi[eligible], k[0] + 1)]
        candidates = nearest[: k[0]]
        run.reach(engine.coarse(candidates, k[1], run.pi), Fate.CANDIDATE)
        # In pool order, so that the lowest position is the lowest index in a tie.
        shortlist, others = _split(np.sort(candidates), run.pi, k[1])
        run.reach(shortlist, Fate.SHORTLISTED)
        num_before = len(run.picks)
        outside = float(run.pi[np.concatenate([others, nearest[k[0] :]])].min(initial=np.inf))
        engine.fine(shortlist, k[2], outside, _offer_to(run, budget), run)
        engine.add(run.picks[num_before:])
        yield run


def _open_round(run: Run, budget: Budget, k1: int) -> Indices:
    """Return who fits; mark those of the k1 lowest that do not and were never looked at."""
    unpicked_mask = run.unpicked
    (unpicked,) = np.nonzero(unpicked_mask)
    if not len(unpicked) or not budget.unused:
        return unpicked[:0]
    budget.open_round(unpicked_mask)
    fit = budget.fits(unpicked)
    eligible: Indices = unpicked[fit == Fit.YES]
    if len(eligible) < len(unpicked):
        in_reach = lowest_index_first(run.pi[unpicked], k1)
        for position in in_reach[fit[in_reach] != Fit.YES]:
            if run.fate[unpicked[position]] == Fate.NEVER_REACHED:
                run.pass_over(int(unpicked[position]), Fit(fit[position]))
    return eligible


def _split(candidates: Indices, pi: NDArray[np.floating[Any]], k2: int) -> tuple[Indices, Indices]:
    """Return the shortlist, in pool order, and the other candidates."""
    is_shortlisted = np.zeros(len(candidates), dtype=np.bool_)
    is_shortlisted[lowest_index_first(pi[candidates], k2)] = True
    return candidates[is_shortlisted], candidates[~is_shortlisted]


def _offer_to(run: Run, budget: Budget) -> Offer:
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
