"""Strategy ``target_coverage``: greedy on how much of a target's word n-grams a subset covers."""

from collections.abc import Mapping
from typing import ClassVar

from zip_pipeline.compression.ngrams import ngram_counts, numbers_of
from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.strategies.coverage import Counts, CoverageStrategy, Mass, mass_of


class TargetCoverage(CoverageStrategy):
    """``coverage`` with n-grams weighed by the target instead of the pool: others add nothing.

    With beta 1, the default, the subset comes near the target's own proportions of n-grams: of all
    that have as many, sum q_u log m_u is highest where m_u is in proportion to q_u.

    Source: feature-based submodular functions for translation (Kirchhoff and Bilmes 2014).
    """

    name = "target_coverage"
    description = "what adds most to the word n-grams of a target file, per token"
    parameters = (*CoverageStrategy.parameters, "target")
    mixture = "none"
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: it added most, for its size, to the word n-grams of "
        "the target that the subset covers (gain {score:.4g})",
        "never_reached": "others added more, for their size, to the word n-grams of the target "
        "that the subset covers before the budget was used (its last known gain {score:.4g})",
    }

    def mass(self, pool: Measured, counts: Counts) -> Mass:
        """Return the sum of the counts of each bucket over the target, shape (buckets,)."""
        return mass_of(map(numbers_of, ngram_counts(pool.candidates.target)))


STRATEGY = TargetCoverage()
