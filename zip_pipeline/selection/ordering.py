"""Which samples have the lowest ratio, and who wins a tie."""

import importlib.util
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.selection.budget import Indices


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
