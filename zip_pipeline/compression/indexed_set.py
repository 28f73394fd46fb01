"""A growing set of texts of a file, where texts are named by their position in it."""

from typing import Protocol

from zip_pipeline.compression.selected_set import Indices, Ratios, SelectedSet, Sizes
from zip_pipeline.compression.text_file import TextFile


class IndexedSet(Protocol):
    """What :class:`.SelectedSet` answers, asked by position: texts need not move about."""

    def add(self, indices: Indices) -> None:
        """Append texts to the set, in order, and size the set."""

    def extend(self, indices: Indices) -> None:
        """Append texts to the set, in order, for askers of ``marginal_bytes`` alone."""

    def ratios_with(self, indices: Indices) -> Ratios:
        """Return R of (set + text), raw / compressed bytes, for each text on its own."""

    def marginal_bytes(self, indices: Indices) -> Sizes:
        """Return by how many bytes each text, on its own, would grow the compressed set."""


class LocalSet:
    """A set in this process that reads the texts from their file when they are asked for."""

    def __init__(self, texts: TextFile, inner: SelectedSet) -> None:
        self._texts = texts
        self._inner = inner

    def add(self, indices: Indices) -> None:
        """Append texts to the set, in order, and size the set."""
        self._inner.add(self._texts.read(indices))

    def extend(self, indices: Indices) -> None:
        """Append texts to the set, in order, for askers of ``marginal_bytes`` alone."""
        self._inner.extend(self._texts.read(indices))

    def ratios_with(self, indices: Indices) -> Ratios:
        """Return R of (set + text), raw / compressed bytes, for each text on its own."""
        return self._inner.ratios_with(self._texts.read(indices))

    def marginal_bytes(self, indices: Indices) -> Sizes:
        """Return by how many bytes each text, on its own, would grow the compressed set."""
        return self._inner.marginal_bytes(self._texts.read(indices))
