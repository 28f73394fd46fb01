"""Small data roots with hand-written pools, ledgers and versions."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from zip_pipeline.data_root import DataRoot
from zip_pipeline.files import write_table
from zip_pipeline.samples import Sample, Turn, frame_of, sample_columns, sample_id

LEDGER_SCHEMA = {
    **dict.fromkeys(("sample_id", "batch", "source", "source_file"), pl.String),
    **dict.fromkeys(("source_row", "num_bytes", "num_tokens"), pl.Int64),
    "fate": pl.String,
    "round": pl.Int64,
    "rank": pl.Int64,
    "pi": pl.Float64,
    **dict.fromkeys(("duplicate_of_batch", "duplicate_of_file"), pl.String),
    "duplicate_of_row": pl.Int64,
}


def ledger_of(rows: Sequence[dict[str, object]]) -> pl.DataFrame:
    """Return a ledger; what a row leaves out has a plain default."""
    plain: dict[str, object] = dict.fromkeys(LEDGER_SCHEMA)
    plain |= {"batch": "a.jsonl", "source": "a", "source_file": "a.jsonl", "source_row": 1}
    plain |= {"num_bytes": 100, "fate": "candidate", "round": 1, "pi": 1.5}
    return pl.DataFrame([plain | row for row in rows], schema=LEDGER_SCHEMA)


def manifest_of(**changes: object) -> dict[str, object]:
    """Return what reports read of a manifest."""
    config = {"strategy": "zip", "budget_samples": 2, "k1": 50, "k2": 20, "k3": 10, "seed": 7}
    manifest: dict[str, object] = {
        "stage": "sft",
        "config": config,
        "num_samples": 4,
        "compression_ratio": {"deflate": 2.5, "xz": 3.5},
        "inputs": {"a.jsonl": "f1"},
        "created_at": "2026-01-02T03:04:05+00:00",
    }
    return manifest | changes


def write_version(root: DataRoot, ledger: pl.DataFrame, **changes: object) -> int:
    """Write a version of the sft subset with an empty subset table."""
    return root["sft"].versions.write(pl.DataFrame(), ledger, manifest_of(**changes))


def sample_of(text: str) -> Sample:
    """Return a conversation that asks for ``text``."""
    return Sample((Turn("user", text), Turn("assistant", f"answer to {text}")))


def write_batch_tables(
    root: DataRoot, batch: str, texts: Sequence[str], copies: Sequence[tuple[str, int, int]] = ()
) -> None:
    """Write the pool table of a batch, and its duplicates as (text, row, row of the first)."""
    rows = [
        {"sample_id": sample_id(sample_of(text)), "batch": batch, "source": batch.split(".")[0]}
        | {"source_file": batch, "source_row": row, "format": "alpaca", "raw": "{}"}
        | sample_columns(sample_of(text))
        for row, text in enumerate(texts, start=1)
    ]
    counts = {"num_samples": str(len(texts)), "num_duplicates": str(len(copies))}
    metadata = counts | {"fingerprint": batch, "num_quarantined": "0"}
    write_table(root["sft"].samples(batch), frame_of("sft", rows), metadata)
    duplicates = pl.DataFrame(
        [(sample_id(sample_of(text)), batch, row, batch, first) for text, row, first in copies],
        schema={
            "sample_id": pl.String,
            "source_file": pl.String,
            "source_row": pl.Int64,
            "first_source_file": pl.String,
            "first_source_row": pl.Int64,
        },
        orient="row",
    )
    write_table(root["sft"].duplicates(batch), duplicates, metadata)


def small_root(folder: Path) -> DataRoot:
    """Return two batches that share the sample "two", and two versions over them."""
    root = DataRoot(folder)
    write_batch_tables(root, "a.jsonl", ["one", "two", "three"], copies=[("one", 4, 1)])
    write_batch_tables(root, "b.jsonl", ["two", "four"])
    one, two, three, four = (sample_id(sample_of(t)) for t in ("one", "two", "three", "four"))
    picked = {"fate": "picked", "rank": 1}
    write_version(
        root,
        ledger_of(
            [
                {"sample_id": one, **picked},
                {"sample_id": two, "source_row": 2, "fate": "picked", "rank": 2, "pi": 1.25},
                {"sample_id": three, "source_row": 3, "fate": "never_reached", "round": None},
            ]
        ),
        num_samples=3,
    )
    in_b = {"batch": "b.jsonl", "source": "b", "source_file": "b.jsonl"}
    copy = {"fate": "duplicate", "round": None, "pi": None, "num_bytes": None, "source": None}
    first = {
        "duplicate_of_batch": "a.jsonl",
        "duplicate_of_file": "a.jsonl",
        "duplicate_of_row": 2,
    }
    write_version(
        root,
        ledger_of(
            [
                {"sample_id": one, "fate": "shortlisted", "round": 3},
                {"sample_id": two, "source_row": 2, **picked},
                {"sample_id": three, "source_row": 3},
                {"sample_id": four, **in_b, "source_row": 2, "fate": "picked", "rank": 2},
                {"sample_id": two, **in_b, **copy, "source_row": 1, **first},
            ]
        ),
        inputs={"a.jsonl": "f1", "b.jsonl": "f2"},
        compression_ratio={"deflate": 2.25, "xz": 3.5},
    )
    return root
