"""The stored compression state of each batch, tied to the samples that it describes."""

import polars as pl

from zip_pipeline.compression.state import compression_state, state_settings
from zip_pipeline.pool.ingest import batch_metadata, read_batch
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot, fingerprint, read_metadata, write_table

DEFAULT_TOKENIZER = "tiny"


def write_state(
    root: DataRoot,
    stage: Stage,
    batch: str,
    *,
    tokenizer: str = DEFAULT_TOKENIZER,
    workers: int = 0,
) -> pl.DataFrame:
    """Compute and store the compression state of an ingested batch; return it.

    Raises:
        ValueError: the batch is not ingested, or only half of it is.
    """
    pool_fingerprint = batch_metadata(root, stage, batch)["fingerprint"]
    samples = read_batch(root, stage, batch)
    state = compression_state(samples, stage, tokenizer=tokenizer, workers=workers)
    settings = state_settings(tokenizer)
    metadata = {
        "pool_fingerprint": pool_fingerprint,
        "fingerprint": fingerprint([state.write_csv(), *settings.values()]),
        **settings,
    }
    write_table(root.state(stage, batch), state, metadata)
    return state


def state_metadata(root: DataRoot, stage: Stage, batch: str) -> dict[str, str] | None:
    """Return the metadata of a batch's stored state, None where there is none."""
    path = root.state(stage, batch)
    return read_metadata(path) if path.exists() else None


def is_current(root: DataRoot, stage: Stage, batch: str) -> bool:
    """Return whether a batch's state describes the samples that are stored now."""
    state, samples = state_metadata(root, stage, batch), batch_metadata(root, stage, batch)
    return state is not None and state.get("pool_fingerprint") == samples["fingerprint"]


def read_state(root: DataRoot, stage: Stage, batch: str) -> pl.DataFrame:
    """Return the compression state of a batch, one row per sample in the same order.

    Raises:
        ValueError: there is none, or it describes an earlier form of the batch.
    """
    if not is_current(root, stage, batch):
        raise ValueError(
            f"{root.state(stage, batch)}: no compression state for the samples that batch "
            f"{batch!r} holds now; materialise {stage}/compression_state for that partition"
        )
    return pl.read_parquet(root.state(stage, batch), glob=False, hive_partitioning=False)
