"""The compression state of samples: sizes alone, before anything is selected."""

import polars as pl

from zip_pipeline.compression.codecs import codec_versions, codecs, pool_levels
from zip_pipeline.compression.sets import worker_count
from zip_pipeline.compression.tokens import count_tokens
from zip_pipeline.samples import Stage, serialised_texts


def texts_of(samples: pl.DataFrame, stage: Stage) -> list[bytes]:
    """Return the serialised text of each sample of a pool table, as UTF-8."""
    return serialised_texts(samples, stage).cast(pl.Binary).to_list()


def compression_state(
    samples: pl.DataFrame, stage: Stage, *, tokenizer: str = "tiny", workers: int = 0
) -> pl.DataFrame:
    """Return bytes, tokens and compressed bytes alone of each sample, in the order of the table.

    Args:
        samples: a pool table of ``stage``.
        stage: ``sft`` or ``preference``.
        tokenizer: its name, file or hub id (see :func:`count_tokens`).
        workers: number of threads, 0 for all cores; the result does not depend on it.

    Returns:
        ``sample_id``, ``num_bytes``, ``num_tokens``, ``deflate_bytes`` (level 9),
        ``zstd_bytes`` (level 3), and ``pi`` = num_bytes / deflate_bytes, the initial
        redundancy state: higher = more redundant.

    Source: ZIP, algorithm 1, initialisation of the information redundancy state.
    """
    workers = worker_count(workers)
    texts = texts_of(samples, stage)
    decoded = [text.decode() for text in texts]
    columns = {
        "sample_id": samples.get_column("sample_id"),
        "num_bytes": pl.Series([len(text) for text in texts], dtype=pl.Int64),
        "num_tokens": pl.Series(count_tokens(decoded, tokenizer), dtype=pl.Int64),
        **{
            f"{name}_bytes": pl.Series(codecs[name].alone_sizes(texts, level, workers))
            for name, level in pool_levels().items()
        },
    }
    return pl.DataFrame(columns).with_columns(
        (pl.col("num_bytes") / pl.col("deflate_bytes")).alias("pi")
    )


def state_settings(tokenizer: str) -> dict[str, str]:
    """Return what a state depends on besides its samples: tokenizer, levels, library versions."""
    levels = {f"{name}_level": str(level) for name, level in pool_levels().items()}
    return {"tokenizer": tokenizer, **levels, **codec_versions()}
