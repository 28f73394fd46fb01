"""One budget, enforced for every strategy, with optional quotas per source."""

from collections.abc import Iterable, Mapping
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Fit(IntEnum):
    """Whether a sample may still be picked, and if not, why."""

    YES = 0
    OVER_BUDGET = 1
    QUOTA = 2


class Budget:
    """What has been used of a budget and who may still use it.

    A sample fits when its cost is at most what is left, its source stays within its maximum,
    and what other sources still need for their minimum remains. A minimum reserves no more
    than its source can still supply.

    Args:
        value: the budget, in samples, tokens or bytes.
        costs: cost of each sample in that unit, shape (samples,).
        sources: the source of each sample, shape (samples,).
        quotas: least and largest share of the budget by source.
    """

    def __init__(
        self,
        value: int,
        costs: Indices,
        sources: Iterable[str],
        quotas: Mapping[str, tuple[float | None, float | None]],
    ) -> None:
        self.value = value
        self.costs = costs
        self.used = 0
        names = sorted(quotas)
        codes = {name: code for code, name in enumerate(names)}
        # The last code stands for all sources without a quota.
        other = len(names)
        self._codes = np.array([codes.get(source, other) for source in sources], dtype=np.int64)
        shares = [quotas[name] for name in names]
        self._minimum = np.array([int((low or 0) * value) for low, _ in shares] + [0])
        limits = [value if high is None else int(high * value) for _, high in shares]
        self._maximum = np.array([*limits, value])
        self._used = np.zeros(other + 1, dtype=np.int64)
        self._reserved = np.zeros(other + 1, dtype=np.int64)

    @property
    def unused(self) -> int:
        """What is left of the budget."""
        return self.value - self.used

    def open_round(self, unpicked: Mask) -> None:
        """Reserve what sources below their minimum can still supply."""
        supply = np.bincount(
            self._codes[unpicked], weights=self.costs[unpicked], minlength=len(self._minimum)
        ).astype(np.int64)
        self._reserved = np.clip(np.minimum(self._minimum - self._used, supply), 0, None)

    def fits(self, indices: Indices) -> NDArray[np.int8]:
        """Return the :class:`Fit` of each sample, shape (indices,)."""
        codes, costs = self._codes[indices], self.costs[indices]
        for_others = self._reserved.sum() - self._reserved[codes]
        verdict = np.full(len(indices), Fit.YES, dtype=np.int8)
        verdict[costs > self.unused - for_others] = Fit.QUOTA
        verdict[self._used[codes] + costs > self._maximum[codes]] = Fit.QUOTA
        verdict[costs > self.unused] = Fit.OVER_BUDGET
        return verdict

    def take(self, index: int) -> None:
        """Spend the cost of one sample."""
        code, cost = self._codes[index], int(self.costs[index])
        self.used += cost
        self._used[code] += cost
        self._reserved[code] = max(0, self._reserved[code] - cost)
