"""Strategy ``instag``: many tags first, and every tag in turn."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.errors import UserError
from zip_pipeline.selection.candidates import Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ScoreStrategy


class InsTag(ScoreStrategy):
    """Most tags first; a pass takes each sample with a tag that the pass has not seen.

    When a pass is through, what it has seen is forgotten, and the next one begins with what is
    left. Samples without tags come last. Ties go by sample id.

    Source: InsTag (arXiv 2308.07074), section 4.2, algorithm 1; its repository has no code of it.
    Deviation: the tags are those of the records (signal ``tags``), neither merged nor filtered.
    """

    name = "instag"
    description = "many tags first, so that every tag comes in turn"
    parameters = ("signals",)
    mixture = "none"
    signals = ("tags",)
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: it has {score:.0f} tags, and its turn came with one "
        "that was new to the pass",
        "never_reached": "it has {score:.0f} tags, none of which was new to a pass before the "
        "budget was used",
    }

    def scores(self, pool: Measured, config: SelectionConfig, workers: int) -> NDArray[np.float64]:
        """Return the number of tags of each sample, shape (samples,).

        Raises:
            UserError: no sample has any.
        """
        return tags_of(pool, config).list.len().fill_null(0).cast(float).to_numpy()

    def ranked(
        self, scores: NDArray[np.float64], pool: Measured, config: SelectionConfig
    ) -> Indices:
        """Return all positions, shape (samples,), pass by pass."""
        order = super().ranked(scores, pool, config)
        tags = pool.signal("tags")["tags"][order].fill_null([]).to_list()
        return order[np.argsort(passes(tags), kind="stable")]


def tags_of(pool: Measured, config: SelectionConfig) -> pl.Series:
    """Return the tags of each sample, null where it has none.

    Raises:
        UserError: no sample has any.
    """
    tags = pool.signal("tags")["tags"]
    if len(tags) and not tags.list.len().sum():
        field = config.signals.get("tags", {}).get("field", "tags")
        raise UserError(
            f"signals: tags: field: none of {len(tags):,} samples has tags in {field!r}; name the "
            "field of the records that holds them"
        )
    return tags


def passes(tags: Sequence[Sequence[str]]) -> Indices:
    """Return the pass that takes each sample of an order, shape (samples,).

    Which one it is depends on the samples before it alone: the first pass in which they have not
    shown all of its tags, so that one run over the order is enough.
    """
    seen: dict[str, set[int]] = {}
    first_unseen: dict[str, int] = {}
    found = np.full(len(tags), np.iinfo(np.int64).max)
    for place, own in enumerate(tags):
        if not own:
            continue
        number = found[place] = min(first_unseen.get(tag, 0) for tag in own)
        for tag in own:
            shown_in = seen.setdefault(tag, set())
            shown_in.add(int(number))
            unseen = first_unseen.get(tag, 0)
            while unseen in shown_in:
                shown_in.remove(unseen)
                unseen += 1
            first_unseen[tag] = unseen
    return found


STRATEGY = InsTag()
