"""The compression state of samples: sizes alone, before anything is selected."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from zip_pipeline.compression.codecs import codec_versions, codecs, pool_levels
from zip_pipeline.compression.sets import worker_count
from zip_pipeline.compression.tokens import count_tokens, tokenizer_identity
from zip_pipeline.samples import Stage, serialised_texts

TOKENS_SCHEMA = pl.Schema({"num_tokens": pl.Int64, "num_target_tokens": pl.Int64})


class TokenCounter(Protocol):
    """Counts the tokens of samples."""

    @property
    def name(self) -> str:
        """Whose tokens they are, in words."""

    @property
    def identity(self) -> str:
        """What differs between two counters that may count differently."""

    def count(self, samples: pl.DataFrame, stage: Stage) -> pl.DataFrame:
        """Return the counts of each row of a pool table (``TOKENS_SCHEMA``).

        ``num_target_tokens`` are those that the loss falls on, null where nothing tells.
        """


@dataclass(frozen=True)
class TextTokens:
    """Counts the content tokens of serialised texts, of which none is known to be a target.

    Args:
        name: of the tokenizer, as for :func:`.count_tokens`.
    """

    name: str = "tiny"

    @property
    def identity(self) -> str:
        """A hash of the tokenizer's file, or its name on the hub."""
        return f"text: {tokenizer_identity(self.name)}"

    def count(self, samples: pl.DataFrame, stage: Stage) -> pl.DataFrame:
        """Return ``num_tokens`` of each row, and nulls."""
        counts = count_tokens(serialised_texts(samples, stage).to_list(), self.name)
        return pl.DataFrame({"num_tokens": counts}).match_to_schema(
            TOKENS_SCHEMA, missing_columns="insert"
        )


def texts_of(samples: pl.DataFrame, stage: Stage) -> list[bytes]:
    """Return the serialised text of each sample of a pool table, as UTF-8."""
    return serialised_texts(samples, stage).cast(pl.Binary).to_list()


def compression_state(
    samples: pl.DataFrame, stage: Stage, *, tokens: TokenCounter | None = None, workers: int = 0
) -> pl.DataFrame:
    """Return bytes, compressed bytes alone and tokens of each sample, in the order of the table.

    Args:
        samples: a pool table of ``stage``.
        stage: ``sft`` or ``preference``.
        tokens: counts the tokens; None: those of the serialised text by the shipped tokenizer.
        workers: number of threads, 0 for all cores; the result does not depend on it.

    Returns:
        ``sample_id``, ``num_bytes``, ``deflate_bytes`` (level 9), ``zstd_bytes`` (level 3),
        ``pi`` = num_bytes / deflate_bytes, the initial redundancy state: higher = more
        redundant; ``num_tokens`` and ``num_target_tokens``.

    Source: ZIP, algorithm 1, initialisation of the information redundancy state.
    """
    workers = worker_count(workers)
    texts = texts_of(samples, stage)
    # Meanwhile, as a part of the counting is on one core.
    with ThreadPoolExecutor(1) as executor:
        counting = executor.submit((tokens or TextTokens()).count, samples, stage)
        sizes = {
            f"{name}_bytes": pl.Series(codecs[name].alone_sizes(texts, level, workers))
            for name, level in pool_levels().items()
        }
        counts = counting.result()
    num_bytes = pl.Series([len(text) for text in texts], dtype=pl.Int64)
    state = pl.DataFrame({"sample_id": samples["sample_id"], "num_bytes": num_bytes, **sizes})
    return state.with_columns((pl.col("num_bytes") / pl.col("deflate_bytes")).alias("pi"), *counts)


def state_settings(tokens: TokenCounter) -> dict[str, str]:
    """Return what a state depends on besides its samples: tokens, levels, library versions."""
    levels = {f"{name}_level": str(level) for name, level in pool_levels().items()}
    return {**token_settings(tokens), **levels, **codec_versions()}


def token_settings(tokens: TokenCounter) -> dict[str, str]:
    """Return whose tokens were counted, as a state's file tells."""
    return {"tokenizer": tokens.name, "tokenizer_identity": tokens.identity}
