"""Generated pools for selection tests."""

from collections.abc import Sequence

import polars as pl
from hypothesis import assume
from hypothesis import strategies as st

from zip_pipeline.samples import Sample, Turn, frame_of, sample_columns, sample_id

_WORDS = ("alpha", "beta", "gamma", "delta", "mañana", "the", "of", "plus", "12", "345", "東京")


@st.composite
def conversations(draw: st.DrawFn, max_size: int = 14) -> list[Sample]:
    """Draw a small pool with short, long, similar and repeated samples."""
    text = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=25).map(" ".join)
    return draw(
        st.lists(st.builds(_sample, text, text), min_size=1, max_size=max_size, unique_by=sample_id)
    )


def _sample(question: str, answer: str) -> Sample:
    return Sample((Turn("user", question), Turn("assistant", answer)))


def pool_table(samples: Sequence[Sample], sources: Sequence[str] = ("a", "b", "c")) -> pl.DataFrame:
    """Return the samples as a pool table; sources take turns."""
    return frame_of(
        "sft",
        [
            {
                "sample_id": sample_id(sample),
                "batch": "batch",
                "source": sources[row % len(sources)],
                "source_file": "file.jsonl",
                "source_row": row + 1,
                "format": "alpaca",
                "raw": "{}",
                **sample_columns(sample),
            }
            for row, sample in enumerate(samples)
        ],
    )


def budget_within(costs: Sequence[int], number: int) -> int:
    """Return a budget for which one chooses: less is refused, and more is picked as it is."""
    least, total = min(costs, default=0), sum(costs)
    assume(total > max(least, 1))
    return max(least, 1) + number % (total - max(least, 1))


def numbered_pool(num_samples: int) -> pl.DataFrame:
    """Return a pool of distinct, partly similar samples without randomness."""
    return pool_table(
        [
            _sample(
                f"What is {row} times {row * 7 % 13}? " + _WORDS[row % 11] * (row % 5),
                f"{row} times {row * 7 % 13} is {row * (row * 7 % 13)}. " + "so " * (row % 9),
            )
            for row in range(num_samples)
        ]
    )
