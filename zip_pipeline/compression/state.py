"""The compression state of samples: sizes alone, before anything is selected."""

import zlib
from collections.abc import Sequence

import polars as pl

from zip_pipeline.compression.codecs import codec_versions
from zip_pipeline.compression.sets import Parallel, Sizes, ZstdSet, worker_count
from zip_pipeline.compression.tokens import count_tokens
from zip_pipeline.samples import Stage, serialised_text

DEFLATE_LEVEL = 9
ZSTD_LEVEL = 3


def texts_of(samples: pl.DataFrame, stage: Stage) -> list[bytes]:
    """Return the serialised text of each sample of a pool table, as UTF-8."""
    column = samples.select(serialised_text(stage).alias("text")).get_column("text")
    return column.cast(pl.Binary).to_list()


def alone_bytes(texts: Sequence[bytes], codec: str, level: int, workers: int = 0) -> Sizes:
    """Return the compressed bytes of each text on its own.

    ``deflate`` counts the zlib header and checksum, as ``len(zlib.compress(text, level))``;
    ``zstd`` counts a magicless frame without size and checksum.
    """
    if codec == "zstd":
        return ZstdSet(workers, level).marginal_bytes(texts)
    assert codec == "deflate", codec
    parallel = Parallel(workers)
    try:
        return parallel.sizes(lambda part: [len(zlib.compress(t, level)) for t in part], texts)
    finally:
        parallel.close()


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
        "deflate_bytes": pl.Series(alone_bytes(texts, "deflate", DEFLATE_LEVEL, workers)),
        "zstd_bytes": pl.Series(alone_bytes(texts, "zstd", ZSTD_LEVEL, workers)),
    }
    return pl.DataFrame(columns).with_columns(
        (pl.col("num_bytes") / pl.col("deflate_bytes")).alias("pi")
    )


def state_settings(tokenizer: str) -> dict[str, str]:
    """Return what a state depends on besides its samples: tokenizer, levels, library versions."""
    levels = {"deflate_level": str(DEFLATE_LEVEL), "zstd_level": str(ZSTD_LEVEL)}
    return {"tokenizer": tokenizer, **levels, **codec_versions()}
