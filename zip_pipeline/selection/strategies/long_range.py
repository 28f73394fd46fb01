"""Strategy ``long_range``: lazy greedy on the marginal ratio, with the whole set in the window."""

import heapq
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.compression.sets import IndexedSet, Sizes
from zip_pipeline.selection.candidates import Indices, Measured, marginal_ratios
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import NewSet, Offer, RoundStrategy
from zip_pipeline.selection.run import Pilot, Run, num_picks

# The settled part of the selected set is prepared anew when the recent part is this much smaller.
SETTLED_PER_RECENT = 8
# Smaller blocks measure fewer candidates, larger ones keep several threads busy.
BLOCK_PER_SHORTLIST = 4
# What the formula of the estimate gives too much: 1.6 to 1.7 times the time of selections from
# 81,262, 338,653 and 1,368,217 samples.
_EXCESS = 1.6
_SETTLED, _RECENT, _PICKED = "settled", "recent", "picked"


class LongRangeEngine:
    """Measures rho(x | set), which only grows with the set, so a stale value is a lower bound.

    Args:
        num_bytes: the size of each sample of the pool, shape (samples,).
        new_set: returns an empty set of pool samples; one of the same name takes its place.
        overhead_bytes: constant cost of a compressed piece.
        weights: quality^a of each sample, by which its ratio is divided; None without qualities.

    Source: cost-benefit lazy greedy for submodular gains (Minoux 1978; Leskovec et al. 2007)
    over ZIP's three stages.
    Deviation: compressed size is only nearly submodular, so a state never falls (max rule), and
    a round that ZIP would fill up to k3 ends when a sample outside its shortlist is due.
    """

    def __init__(
        self,
        num_bytes: Sizes,
        new_set: Callable[[str], IndexedSet],
        overhead_bytes: int,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        self._num_bytes = num_bytes
        self._weights = weights
        self._new_set = new_set
        self._overhead_bytes = overhead_bytes
        self.start([])

    def start(self, picks_by_round: list[list[int]]) -> None:
        """Build the selected set from the picks of earlier rounds."""
        self._settled = self._new_set(_SETTLED)
        self._settled_bytes = 0
        self._recent = self._new_set(_RECENT)
        self._recent_picks: list[int] = []
        # Which form of the settled part each ratio has seen: it need not be measured twice.
        self._form = 0
        self._seen_form = np.zeros(len(self._num_bytes), dtype=np.int32)
        for picks in picks_by_round:
            self.add(picks)

    def coarse(self, candidates: Indices, k2: int, pi: NDArray[np.floating[Any]]) -> Indices:
        """Write max(last known ratio, rho(x | all picks)) to ``pi``, no more often than needed.

        Candidates are measured in blocks, lowest known ratio first. As no ratio falls, the
        shortlist is settled once the next one's known ratio is above the k2-th lowest.
        """
        size = BLOCK_PER_SHORTLIST * k2
        for start in range(0, len(candidates), size):
            if start and pi[candidates[start]] > _kth_lowest(pi[candidates[:start]], k2):
                return candidates[:start]
            self._refresh(candidates[start : start + size], pi)
        return candidates

    def _refresh(self, block: Indices, pi: NDArray[np.floating[Any]]) -> None:
        unseen = block[self._seen_form[block] != self._form]
        pi[unseen] = np.maximum(pi[unseen], self._rho(self._settled, unseen))
        self._seen_form[unseen] = self._form
        if self._recent_picks:
            pi[block] = np.maximum(pi[block], self._rho(self._recent, block))

    def fine(self, shortlist: Indices, k3: int, outside: float, offer: Offer, run: Run) -> None:
        """Offer the sample whose refreshed ratio is still the lowest of the shortlist.

        A refreshed ratio is max(rho(x | all picks), rho(x | picks of this round)); it is kept
        as the sample's redundancy state. The round ends early when even the lowest is above
        ``outside``, as among near-copies of what was just picked: someone else is due then.
        """
        picked = self._new_set(_PICKED)
        num_picked = 0
        # (ratio, index, number of picks of this round that the ratio has seen)
        heap = [(float(run.pi[i]), int(i), 0) for i in shortlist]
        heapq.heapify(heap)
        while heap and num_picked < k3:
            ratio, index, num_seen = heapq.heappop(heap)
            if num_seen < num_picked:
                ratio = max(ratio, float(self._rho(picked, np.array([index]))[0]))
                run.pi[index] = ratio
                heapq.heappush(heap, (ratio, index, num_picked))
            elif ratio > outside:
                return
            elif offer(index):
                num_picked += 1
                picked.extend(np.array([index]))

    def add(self, picks: list[int]) -> None:
        """Add the picks of a round to the recent part, and settle that when it has grown."""
        self._recent.extend(np.array(picks, dtype=np.int64))
        self._recent_picks += picks
        recent_bytes = int(self._num_bytes[self._recent_picks].sum())
        if recent_bytes * SETTLED_PER_RECENT <= self._settled_bytes:
            return
        self._settled.extend(np.array(self._recent_picks, dtype=np.int64))
        self._settled_bytes += recent_bytes
        self._form += 1
        self._recent = self._new_set(_RECENT)
        self._recent_picks = []

    def _rho(self, given: IndexedSet, indices: Indices) -> NDArray[np.float64]:
        sizes = given.marginal_bytes(indices)
        ratios = marginal_ratios(self._num_bytes[indices], sizes, self._overhead_bytes)
        return ratios if self._weights is None else ratios / self._weights[indices]


def _kth_lowest(values: NDArray[np.floating[Any]], k: int) -> float:
    return float(np.partition(values, k - 1)[k - 1])


class LongRange(RoundStrategy):
    """The rounds of ``zip`` with an engine that sees the whole selected set."""

    name = "long_range"
    description = "the rounds of zip over a window that holds the whole subset"
    parameters = (
        "k1",
        "k2",
        "k3",
        "codec",
        "level",
        "overhead_bytes",
        "num_shards",
        "quality",
        "quality_power",
    )
    codec = "zstd"

    def engine(self, pool: Measured, new_set: NewSet, config: SelectionConfig) -> LongRangeEngine:
        """Return what measures marginal ratios."""
        return LongRangeEngine(pool.num_bytes, new_set, config.overhead_bytes, pool.weights)

    def estimate_after(self, pilot: Pilot, pool: Measured, config: SelectionConfig) -> float:
        """Return roughly how many seconds all rounds take.

        Early rounds end early: at their rate it would take far too long, and if every round
        picked k3, too short. The truth is near the geometric mean. Expect half to twice the real
        time.
        """
        at_this_rate = pilot.seconds * pilot.left / pilot.used
        num_rounds = max(1.0, num_picks(pool, pilot.left) / config.k3)
        full_rounds = pilot.seconds / pilot.num_rounds * num_rounds
        return math.sqrt(at_this_rate * full_rounds) / _EXCESS


STRATEGY = LongRange()
