"""A data root of generated conversations with versions whose ledgers tell of every fate."""

from pathlib import Path

import numpy as np
import polars as pl

from zip_pipeline.data_root import DataRoot
from zip_pipeline.files import write_table
from zip_pipeline.ingest.rows import QUARANTINE_SCHEMA
from zip_pipeline.samples import Sample, Turn, frame_of, sample_columns, sample_id
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.ledger import build_manifest
from zip_pipeline_tests.report.data_roots import sample_of

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
BATCH = "drop.jsonl"
BUDGET = 300


def conversations(num: int, num_words: int = 60) -> list[Sample]:
    """Return distinct conversations; the first asks for hostile text, the second nearly repeats it.

    The last repeats most of the third.
    """
    draws = np.random.default_rng(0).integers(0, 3000, (num, num_words))
    samples = []
    for number, row in enumerate(draws):
        words = " ".join(f"word{n}" for n in row)
        samples.append(Sample((Turn("user", f"Tell me {number}."), Turn("assistant", words))))
    samples[0] = sample_of(f"{HOSTILE} café")
    samples[1] = sample_of(f"{HOSTILE} café, please")
    repeated = samples[2].turns[1].content
    samples[-1] = Sample((Turn("user", "Again."), Turn("assistant", f"{repeated} and more")))
    return samples


def reported_root(folder: Path, num: int, num_versions: int = 2, num_words: int = 60) -> DataRoot:
    """Return a root with so many samples and versions; each version picks ``BUDGET`` or a fifth."""
    root = DataRoot(folder)
    samples = conversations(num, num_words)
    rows = [
        {"sample_id": sample_id(sample), "batch": BATCH, "source": f"source {n % 7}"}
        | {"source_file": BATCH, "source_row": n + 1, "format": "alpaca", "raw": "{}"}
        | sample_columns(sample)
        for n, sample in enumerate(samples)
    ]
    rows[0]["source"] = HOSTILE
    table = frame_of("sft", rows)
    write_table(root["sft"].samples(BATCH), table, {"fingerprint": "f", "num_samples": str(num)})
    write_table(root["sft"].quarantine(BATCH), QUARANTINE_SCHEMA.to_frame(), {"fingerprint": "f"})
    for version in range(num_versions):
        _write_version(root, table, version)
    return root


def _write_version(root: DataRoot, table: pl.DataFrame, version: int) -> None:
    num = table.height
    num_picked = min(BUDGET, num // 5)
    config = SelectionConfig(strategy="zip", budget_samples=num_picked)
    ledger = ledger_of_all_fates(table, num_picked, version)
    picks = ledger.filter(fate="picked").sort("rank").select("sample_id", "rank", "round", "pi")
    subset = picks.join(table, on="sample_id", maintain_order="left")
    manifest = build_manifest(
        "sft",
        config,
        ledger.lazy(),
        picks["sample_id"],
        tokenizer="tiny, template tiny",
        inputs={BATCH: "f"},
        counts={"num_rows_read": num},
        num_rounds=3,
        used=num_picked,
        budget=num_picked,
    )
    told = {"compression_ratio": {"deflate": 2.5 + version / 10, "zstd": 2.75}}
    told |= {"pool_compression_ratio": {"deflate": 3.5, "zstd": 4.25}}
    told |= {
        "seconds": {"select": 1.5},
        "created_at": f"2026-01-{version % 28 + 1:02}T03:04:05+00:00",
    }
    told |= {"cut": {"max_length": 70, "num_samples": num_picked, "num_tokens": 5}}
    root["sft"].versions.write(subset, ledger, manifest | told)


def ledger_of_all_fates(table: pl.DataFrame, num_picked: int, version: int) -> pl.DataFrame:
    """Return a ledger: the picks move on by one with each version, the last sample is left out."""
    num = table.height
    fates = np.array(["never_reached", "candidate", "shortlisted", "quota"])[np.arange(num) % 4]
    fates = fates.astype(object)
    fates[2 + version : 2 + version + num_picked] = "picked"
    fates[:2] = ["picked", "near_duplicate"] if not version else ["candidate", "near_duplicate"]
    fates[2], fates[-1] = "picked", "candidate"
    fates[-2] = "personal_data"
    is_picked = fates == "picked"
    first = table["sample_id"][0]
    ledger = table.select("sample_id", "batch", "source", "source_file", "source_row").with_columns(
        num_bytes=pl.Series(np.arange(num) % 900 + 100),
        num_tokens=pl.Series(np.arange(num) % 80 + 10),
        num_target_tokens=pl.Series(np.arange(num) % 70 + 5),
        fate=pl.Series(fates.tolist(), dtype=pl.String),
        round=pl.lit(1, pl.Int64),
        rank=pl.Series(np.where(is_picked, np.cumsum(is_picked), 0)).replace(0, None),
        pi=pl.Series(1 + (np.arange(num) % 97) / 50),
        initial_pi=pl.Series(1 + (np.arange(num) % 31) / 20),
        **dict.fromkeys(("duplicate_of_batch", "duplicate_of_file"), pl.lit(None, pl.String)),
        duplicate_of_row=pl.lit(None, pl.Int64),
    )
    return ledger.with_columns(
        evidence=pl.when(pl.col("fate").is_in(["near_duplicate", "personal_data"])).then(
            pl.lit("the same but for a few words")
        ),
        other=pl.when(pl.col("fate") == "near_duplicate").then(pl.lit(first)),
        # The highest ratio left out, so that it is among the examples.
        pi=pl.when(pl.col("source_row") == num).then(9.0).otherwise("pi"),
    )
