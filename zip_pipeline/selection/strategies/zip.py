"""Strategy ``zip``: the paper's multi-stage greedy selection."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.compression.sets import IndexedSet
from zip_pipeline.selection.budget import Indices
from zip_pipeline.selection.rounds import Offer, lowest_index_first
from zip_pipeline.selection.run import Run

_SELECTED, _PICKED = "selected", "picked"


class ZipEngine:
    """Measures R of (set + sample), against all picks (coarse) and this round's picks (fine).

    Args:
        new_set: returns an empty set of pool samples; one of the same name takes its place.
        alone: R of each sample alone, shape (samples,): what an empty set would answer.

    Source: ZIP, algorithm 1.
    Deviation: float64 instead of float32; ties go to the lowest index.
    """

    def __init__(
        self, new_set: Callable[[str], IndexedSet], alone: NDArray[np.floating[Any]]
    ) -> None:
        self._new_set = new_set
        self._alone = alone
        self.start([])

    def start(self, picks_by_round: list[list[int]]) -> None:
        """Build the selected set from the picks of earlier rounds."""
        self._selected = self._new_set(_SELECTED)
        self._has_selected = False
        for picks in picks_by_round:
            self.add(picks)

    def coarse(self, candidates: Indices, k2: int, pi: NDArray[np.floating[Any]]) -> Indices:
        """Write R of (all picks + candidate) of each candidate to ``pi``; all are measured."""
        ratios = self._selected.ratios_with if self._has_selected else self._alone.__getitem__
        pi[candidates] = ratios(candidates)
        return candidates

    def fine(self, shortlist: Indices, k3: int, outside: float, offer: Offer, run: Run) -> None:
        """Offer, again and again, the sample with the lowest R of (picks of this round + it)."""
        picked = self._new_set(_PICKED)
        left = shortlist
        num_picked = 0
        while num_picked < k3 and len(left):
            ratios = picked.ratios_with(left) if num_picked else self._alone[left]
            order = lowest_index_first(ratios, len(left))
            taken = next(
                (n for n, position in enumerate(order) if offer(int(left[position]))), None
            )
            if taken is None:
                return
            picked.add(left[order[taken : taken + 1]])
            num_picked += 1
            # Whoever came before the accepted one did not fit, and never will in this round.
            left = np.delete(left, order[: taken + 1])

    def add(self, picks: list[int]) -> None:
        """Add the picks of a round to the selected set."""
        self._selected.add(np.array(picks, dtype=np.int64))
        self._has_selected |= bool(picks)
