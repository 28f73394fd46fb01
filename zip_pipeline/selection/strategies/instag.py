"""Strategy ``instag``: many tags first, and every tag in turn."""

from array import array
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.errors import UserError
from zip_pipeline.selection.candidates import Indices, Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ScoreStrategy
from zip_pipeline.tables import PartOfTable, rows_in_parts, whole_of


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
        return tags_of(pool, config).counts.astype(np.float64)

    def ranked(
        self, scores: NDArray[np.float64], pool: Measured, config: SelectionConfig
    ) -> Indices:
        """Return all positions, shape (samples,), pass by pass."""
        order = super().ranked(scores, pool, config)
        tags = tags_of(pool, config)
        return order[np.argsort(passes(map(tags.of, order.tolist())), kind="stable")]


MOST_TAGS = 1 << 20
"""that the samples of a pool have"""


@dataclass(frozen=True)
class Tags:
    """The tags of the samples of a pool, as numbers.

    Args:
        names: of the tags, by their numbers.
        numbers: of the tags of each sample, one sample after another.
        ends: where the numbers of each sample end, shape (samples,).
    """

    names: Sequence[str]
    numbers: NDArray[np.int32]
    ends: Indices

    @property
    def counts(self) -> Indices:
        """How many tags each sample has, shape (samples,)."""
        return np.diff(self.ends, prepend=0)

    def part(self, positions: Indices) -> "Tags":
        """Return those of some samples, in their order."""
        counts = self.counts[positions]
        ends = np.cumsum(counts)
        places = np.arange(counts.sum()) + np.repeat(self.ends[positions] - ends, counts)
        return Tags(self.names, self.numbers[places], ends)

    def of(self, sample: int) -> list[int]:
        """Return the numbers of the tags of a sample."""
        start = self.ends[sample - 1] if sample else 0
        found: list[int] = self.numbers[start : self.ends[sample]].tolist()
        return found


def tags_of(
    pool: Measured, config: SelectionConfig, form: Callable[[pl.Series], pl.Series] = lambda t: t
) -> Tags:
    """Return the tags of each sample.

    Args:
        pool: the candidates, measured.
        config: names the field of the tags.
        form: in which tags that are one are the same.

    Raises:
        UserError: no sample has any, or there are too many different ones.
    """
    table = pool.candidates.signal_table("tags")
    field = config.signals.get("tags", {}).get("field", "tags")
    number_of: dict[str, int] = {}
    counts, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for part in rows_in_parts(whole_of(table), "tags"):
        rows = part.with_row_index("row").explode("tags").drop_nulls("tags")
        # A sample has a tag once, also where it has it in two forms.
        rows = rows.with_columns(form(rows["tags"])).unique(maintain_order=True)
        known = (number_of.setdefault(tag, len(number_of)) for tag in rows["tags"])
        numbers.append(np.fromiter(known, np.int32, rows.height))
        counts.append(np.bincount(rows["row"].to_numpy(), minlength=part.height))
        if len(number_of) > MOST_TAGS:
            raise UserError(
                f"signals: tags: field: the samples have more than {MOST_TAGS:,} different tags in "
                f"{field!r}; name a field of tags that samples share"
            )
    tags = Tags(list(number_of), np.concatenate(numbers), np.cumsum(np.concatenate(counts)))
    tags = tags.part(table.positions) if isinstance(table, PartOfTable) else tags
    if len(tags.ends) and not len(tags.numbers):
        raise UserError(
            f"signals: tags: field: none of {len(tags.ends):,} samples has tags in {field!r}; name "
            "the field of the records that holds them"
        )
    return tags


def passes(tags: Iterable[Sequence[Hashable]]) -> Indices:
    """Return the pass that takes each sample of an order, shape (samples,).

    Which one it is depends on the samples before it alone: the first pass in which they have not
    shown all of its tags, so that one run over the order is enough.
    """
    seen: dict[Hashable, set[int]] = {}
    first_unseen: dict[Hashable, int] = {}
    found = array("q")
    for own in tags:
        number = min((first_unseen.get(tag, 0) for tag in own), default=np.iinfo(np.int64).max)
        found.append(number)
        for tag in own:
            shown_in = seen.setdefault(tag, set())
            shown_in.add(number)
            unseen = first_unseen.get(tag, 0)
            while unseen in shown_in:
                shown_in.remove(unseen)
                unseen += 1
            first_unseen[tag] = unseen
    return np.array(found, np.int64)


STRATEGY = InsTag()
