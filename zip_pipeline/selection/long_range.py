"""Strategy ``long_range``: lazy greedy on the marginal ratio, with the whole set in the window."""

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.compression.indexed_set import IndexedSet
from zip_pipeline.compression.selected_set import Sizes
from zip_pipeline.selection.budget import Indices
from zip_pipeline.selection.progress import Run
from zip_pipeline.selection.rounds import Offer

_SELECTED, _PICKED = "selected", "picked"


def marginal_ratios(
    raw_bytes: Sequence[int] | Sizes, marginal_bytes: Sizes, overhead_bytes: int
) -> NDArray[np.float64]:
    """Return rho = raw bytes / (marginal bytes - overhead); higher = more redundant.

    The overhead is what any piece costs whatever it says (frame, entropy tables); counting it
    makes tiny samples look new. At least one byte is left in the denominator.
    """
    return np.asarray(raw_bytes, np.float64) / np.maximum(marginal_bytes - overhead_bytes, 1)


class LongRangeEngine:
    """Measures rho(x | set), which only grows with the set, so a stale value is a lower bound.

    Args:
        num_bytes: the size of each sample of the pool, shape (samples,).
        new_set: returns an empty set of pool samples; one of the same name takes its place.
        overhead_bytes: constant cost of a compressed piece.

    Source: cost-benefit lazy greedy for submodular gains (Minoux 1978; Leskovec et al. 2007)
    over ZIP's three stages.
    Deviation: compressed size is only nearly submodular, so a state never falls (max rule), and
    a round that ZIP would fill up to k3 ends when a sample outside its shortlist is due.
    """

    def __init__(
        self, num_bytes: Sizes, new_set: Callable[[str], IndexedSet], overhead_bytes: int
    ) -> None:
        self._num_bytes = num_bytes
        self._new_set = new_set
        self._overhead_bytes = overhead_bytes
        self._selected = new_set(_SELECTED)

    def start(self, picks_by_round: list[list[int]]) -> None:
        """Build the selected set from the picks of earlier rounds."""
        self._selected = self._new_set(_SELECTED)
        self.add([index for picks in picks_by_round for index in picks])

    def coarse(
        self, candidates: Indices, pi: NDArray[np.floating[Any]]
    ) -> NDArray[np.floating[Any]]:
        """Return max(last known ratio, rho(x | all picks)) for each candidate."""
        known = self._rho(self._selected, candidates)
        refreshed: NDArray[np.floating[Any]] = np.maximum(pi, known)
        return refreshed

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
        """Add the picks of a round to the selected set."""
        self._selected.extend(np.array(picks, dtype=np.int64))

    def _rho(self, given: IndexedSet, indices: Indices) -> NDArray[np.float64]:
        sizes = given.marginal_bytes(indices)
        return marginal_ratios(self._num_bytes[indices], sizes, self._overhead_bytes)
