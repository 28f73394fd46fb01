"""How far the compression ratio of a subset would be off, had other samples been drawn."""

import random
import statistics
from collections.abc import Sequence

from zip_pipeline.compression.codecs import compression_ratio

NUM_DRAWS = 10


def compression_ratio_spread(texts: Sequence[str], codec: str, seed: int = 0) -> float | None:
    """Return the standard error of the compression ratio R of a subset, by seeded re-draws.

    R is computed of halves drawn without replacement, kept in order. Of a mean, the standard
    deviation over such halves is the standard error of the whole: drawing n / 2 of n leaves
    sigma * sqrt((1 - 1/2) / (n / 2)) = sigma / sqrt(n).

    Args:
        texts: the serialised samples, in the order of the subset.
        codec: the codec of R.
        seed: of the draws.

    Returns:
        The standard deviation over the halves, None where there are fewer than 4 samples.

    Source: half-sample replication (McCarthy 1969).
    """
    if len(texts) < 4:
        return None
    rng = random.Random(seed)
    places = range(len(texts))
    halves = (sorted(rng.sample(places, len(texts) // 2)) for _ in range(NUM_DRAWS))
    ratios = (
        compression_ratio("".join(texts[place] for place in half).encode(), codec)
        for half in halves
    )
    return statistics.stdev(ratios)
