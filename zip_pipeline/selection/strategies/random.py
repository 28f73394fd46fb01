"""Strategies that rank the whole pool once and fill the budget in that order."""

import hashlib
from collections.abc import Iterable

import numpy as np

from zip_pipeline.selection.budget import Budget, Fit, Indices
from zip_pipeline.selection.run import Run


def random_order(sample_ids: Iterable[str], seed: int) -> Indices:
    """Return all positions in a uniform order that depends on the ids and the seed alone.

    Each id is hashed with the seed and the hashes are sorted (ties: by id), so the order of
    the samples in the pool does not matter, and a new sample changes no other's place.
    """
    salt = seed.to_bytes(8, "little")
    keys = [
        (hashlib.blake2b(sample_id.encode(), digest_size=8, salt=salt).digest(), sample_id)
        for sample_id in sample_ids
    ]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def fill_in_order(run: Run, budget: Budget, order: Indices) -> None:
    """Pick in order whatever fits, until nothing fits any more; one round.

    A sample that does not fit is passed over while a later one may still fit; what comes
    after the last pick was never reached.
    """
    run.num_rounds += 1
    budget.open_round(run.unpicked)
    cheapest_from = np.minimum.accumulate(budget.costs[order][::-1])[::-1]
    misfits: list[tuple[int, Fit]] = []
    for position, index in enumerate(order.tolist()):
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
