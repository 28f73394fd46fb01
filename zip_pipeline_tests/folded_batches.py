"""Batches as an earlier release folded them: many in one of each table."""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from zip_pipeline.data_root import StageFolder
from zip_pipeline.files import fingerprint, write_table
from zip_pipeline.pool.batches import batch_metadata, state_metadata


def fold(folder: StageFolder, batches: Sequence[str], generation: int = 1) -> str:
    """Move ingested batches into one; return its name.

    Args:
        folder: of the stage, taken before anything was folded.
        batches: their names, sorted.
        generation: higher than that of each earlier one.
    """
    members = {batch: batch_metadata(folder, batch) for batch in batches}
    states = {batch: state_metadata(folder, batch) or {} for batch in batches}
    content = fingerprint(
        part for batch, data in members.items() for part in (batch, data["fingerprint"])
    )
    counted = [key for key in members[batches[0]] if key.startswith("num_")]
    totals = {key: str(sum(int(data[key]) for data in members.values())) for key in counted}
    common = {"fingerprint": content, **totals}
    described = {
        "quarantine": common,
        "duplicates": common,
        "state": {
            "pool_fingerprint": content,
            "fingerprint": fingerprint(state["fingerprint"] for state in states.values()),
            "members": json.dumps(states),
        },
        "pool": common | {"generation": str(generation), "members": json.dumps(members)},
    }
    name = f"compacted-{content[:12]}"
    for kind, metadata in described.items():
        paths = [_table(folder, kind, batch) for batch in batches]
        tables = [pl.read_parquet(path, glob=False) for path in paths]
        write_table(_table(folder, kind, name), pl.concat(tables), metadata)
    for kind in reversed(described):
        for batch in batches:
            _table(folder, kind, batch).unlink()
    return name


def _table(folder: StageFolder, kind: str, batch: str) -> Path:
    return folder.root.path / kind / folder.stage / f"{batch}.parquet"
