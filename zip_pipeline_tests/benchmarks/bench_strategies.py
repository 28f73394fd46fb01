"""Every strategy on the whole real SFT pool: time, and how redundant its subset is."""

import lzma
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from zip_pipeline.pool.assemble import assemble_pool
from zip_pipeline.pool.states import read_state
from zip_pipeline.samples import contents_text
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import select
from zip_pipeline.storage import DataRoot
from zip_pipeline_tests.benchmarks.bench_ingestion import build
from zip_pipeline_tests.benchmarks.machine import report

BUDGET_BYTES = 7_080_000
RUNS = {
    "random": SelectionConfig(strategy="random", budget_bytes=BUDGET_BYTES),
    "long_range": SelectionConfig(strategy="long_range", budget_bytes=BUDGET_BYTES),
    "zip": SelectionConfig(strategy="zip", budget_samples=5000),
}


def distinct_trigram_share(texts: Iterable[str]) -> float:
    """Return distinct word trigrams / all word trigrams; higher = less repetition."""
    seen: set[tuple[str, str, str]] = set()
    total = 0
    for text in texts:
        words = text.split()
        trigrams = list(zip(words, words[1:], words[2:], strict=False))
        seen.update(trigrams)
        total += len(trigrams)
    return len(seen) / total


def measure(samples: pl.DataFrame, state: pl.DataFrame, config: SelectionConfig) -> dict:
    """Return seconds and the redundancy of the subset's turn contents, without role labels."""
    selection = select(samples, state, "sft", config)
    texts = selection.subset(samples).select(contents_text("sft").alias("text"))["text"].to_list()
    joined = "\n".join(texts).encode()
    seconds = selection.manifest["seconds"]
    return {
        "num_picked": len(selection.picks),
        "picked_bytes": selection.manifest["picked_bytes"],
        "seconds": round(seconds["prepare"] + seconds["select"], 2),
        "ratio_deflate": round(len(joined) / len(zlib.compress(joined, 9)), 3),
        "ratio_xz": round(len(joined) / len(lzma.compress(joined, preset=9)), 3),
        "distinct_trigrams": round(distinct_trigram_share(texts), 3),
    }


def main() -> None:
    """Build the pool once and run every strategy over it."""
    with tempfile.TemporaryDirectory() as folder:
        root = DataRoot(Path(folder))
        build(root, "sft")
        pool = assemble_pool(root, "sft")
        state = pl.concat(read_state(root, "sft", batch) for batch in root.batches("sft"))
        for name, config in RUNS.items():
            report(f"select_{name}", measure(pool.samples, state, config))


if __name__ == "__main__":
    main()
