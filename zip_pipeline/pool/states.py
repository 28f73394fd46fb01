"""The stored compression state of each batch, tied to the samples that it describes."""

import contextlib
import json
from collections.abc import Mapping
from functools import lru_cache

import polars as pl

from zip_pipeline.compression.state import compression_state, state_settings
from zip_pipeline.pool.batches import (
    batch_metadata,
    check_columns,
    find_member,
    stored_in,
    stored_metadata,
)
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot, fingerprint, read_metadata, write_table
from zip_pipeline.stored_batches import (
    MEMBERS,
    Member,
    batches_stay,
    is_compacted,
    members_of,
    scan_rows,
)

DEFAULT_TOKENIZER = "tiny"
SIZES_SCHEMA = pl.Schema(
    {"num_tokens": pl.Int64, "deflate_bytes": pl.Int64, "zstd_bytes": pl.Int64}
)


def write_state(
    root: DataRoot,
    stage: Stage,
    batch: str,
    *,
    tokenizer: str = DEFAULT_TOKENIZER,
    workers: int = 0,
) -> pl.DataFrame:
    """Compute and store the compression state of an ingested batch; return it.

    That of a batch within a compacted one is stored with the states of all that it holds, which
    are computed anew, too.

    Raises:
        ValueError: the batch is not ingested, or only half of it is.
    """
    with batches_stay(root, stage):
        stored = find_member(root, stage, batch).stored_in
        check_columns(root, stage, stored)
        pool = stored_metadata(root, stage, stored)
        states: dict[str, pl.DataFrame] = {}
        described: dict[str, dict[str, str]] = {}
        for member in members_of(stored, pool):
            samples = scan_rows(root.samples(stage, stored), member).collect()
            state = compression_state(samples, stage, tokenizer=tokenizer, workers=workers)
            states[member.batch] = state
            described[member.batch] = _describe(state, member.fingerprint, tokenizer)
        is_one = not is_compacted(stored)
        metadata = described[stored] if is_one else state_of_members(pool, described)
        write_table(root.state(stage, stored), pl.concat(states.values()), metadata)
        return read_state(root, stage, batch)


def _describe(state: pl.DataFrame, pool_fingerprint: str, tokenizer: str) -> dict[str, str]:
    settings = state_settings(tokenizer)
    return {
        "pool_fingerprint": pool_fingerprint,
        "fingerprint": fingerprint([state.write_csv(), *settings.values()]),
        **settings,
    }


def state_of_members(
    pool: Mapping[str, str], states: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Return the metadata of the state of a compacted batch.

    Args:
        pool: metadata of its pool table.
        states: metadata of the state of each batch that it holds, in row order.
    """
    return {
        "pool_fingerprint": pool["fingerprint"],
        "fingerprint": fingerprint(state["fingerprint"] for state in states.values()),
        MEMBERS: json.dumps(states),
    }


def state_metadata(root: DataRoot, stage: Stage, batch: str) -> dict[str, str] | None:
    """Return the metadata of a batch's stored state, None where there is none."""
    with batches_stay(root, stage):
        stored = stored_in(root, stage, batch)
        path = root.state(stage, stored)
        metadata = read_metadata(path) if path.exists() else None
    if metadata is None or stored == batch:
        return metadata
    return states_of_members(metadata).get(batch)


def states_of_members(metadata: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the metadata of the state of each batch, given that of a compacted batch's state."""
    return dict(_parsed(metadata[MEMBERS]))


# Whoever asks for one batch after the other would parse the same text for each.
@lru_cache(maxsize=8)
def _parsed(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(text)
    return found


def measured_batches(root: DataRoot, stage: Stage) -> set[str]:
    """Return the batches that have a stored state, whichever form of them it describes."""
    found: set[str] = set()
    for path in root.state(stage, "any").parent.glob("[!.]*.parquet"):
        stored = path.name.removesuffix(".parquet")
        with contextlib.suppress(FileNotFoundError):
            is_one = not is_compacted(stored)
            found |= {stored} if is_one else states_of_members(read_metadata(path)).keys()
    return found


def is_current(root: DataRoot, stage: Stage, batch: str) -> bool:
    """Return whether a batch's state describes the samples that are stored now."""
    with batches_stay(root, stage):
        state, samples = state_metadata(root, stage, batch), batch_metadata(root, stage, batch)
    return state is not None and state.get("pool_fingerprint") == samples["fingerprint"]


def read_state(root: DataRoot, stage: Stage, batch: str) -> pl.DataFrame:
    """Return the compression state of a batch, one row per sample in the same order.

    Raises:
        ValueError: there is none, or it describes an earlier form of the batch.
    """
    with batches_stay(root, stage):
        return _scan_state(root, stage, batch).collect()


def read_sizes(root: DataRoot, stage: Stage, member: Member, sample_ids: pl.Series) -> pl.DataFrame:
    """Return tokens and compressed bytes alone of some samples of a batch.

    Args:
        root: the data root.
        stage: ``sft`` or ``preference``.
        member: the batch.
        sample_ids: the ids of the samples, in the order of the batch.

    Returns:
        ``num_tokens``, ``deflate_bytes`` and ``zstd_bytes`` of each of them (``SIZES_SCHEMA``).

    Raises:
        ValueError: there is no state, or it describes an earlier form of the batch.
    """
    # By its name: what was stored on its own a moment ago may be in a compacted batch now.
    with batches_stay(root, stage):
        rows = _scan_state(root, stage, member.batch)
        state = rows.select("sample_id", *SIZES_SCHEMA).collect()
    wanted = state.filter(state["sample_id"].is_in(sample_ids.implode()))
    if not wanted["sample_id"].equals(sample_ids):
        raise _no_state(root, stage, member.batch)
    return wanted.select(SIZES_SCHEMA.names())


def _scan_state(root: DataRoot, stage: Stage, batch: str) -> pl.LazyFrame:
    if not is_current(root, stage, batch):
        raise _no_state(root, stage, batch)
    member = find_member(root, stage, batch)
    return scan_rows(root.state(stage, member.stored_in), member)


def _no_state(root: DataRoot, stage: Stage, batch: str) -> ValueError:
    stored = stored_in(root, stage, batch)
    return ValueError(
        f"{root.state(stage, stored)}: no compression state for the samples that batch "
        f"{batch!r} holds now; materialise {stage}/compression_state for the partition {stored!r}"
    )
