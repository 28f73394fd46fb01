"""Every strategy on the whole real SFT pool: time, and how redundant its subset is."""

import lzma
import zlib
from collections.abc import Iterable

from zip_pipeline.compression.sets import worker_count
from zip_pipeline.pool.pool import SelectionPool
from zip_pipeline.samples import contents_text
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import run_selection
from zip_pipeline_tests.benchmarks.machine import report, stopwatch
from zip_pipeline_tests.benchmarks.real_pool import measured, real_pool

BUDGET_BYTES = 7_080_000
RUNS = {
    "random": SelectionConfig(strategy="random", budget_bytes=BUDGET_BYTES),
    "random_balanced": SelectionConfig(strategy="random_balanced", budget_bytes=BUDGET_BYTES),
    "coverage": SelectionConfig(strategy="coverage", budget_bytes=BUDGET_BYTES),
    "long_range": SelectionConfig(strategy="long_range", budget_bytes=BUDGET_BYTES),
    "zip": SelectionConfig(strategy="zip", budget_samples=5000),
    "zip_same_bytes": SelectionConfig(strategy="zip", budget_bytes=BUDGET_BYTES),
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


def select(pool: SelectionPool, config: SelectionConfig) -> dict[str, object]:
    """Return times and the redundancy of the subset's turn contents, without role labels."""
    table = measured(pool, config)
    with stopwatch() as times:
        run = run_selection(table, config, workers=worker_count(0))
    rows = pool.rows(run.picks.tolist())
    texts = rows.select(contents_text("sft").alias("text"))["text"].to_list()
    joined = "\n".join(texts).encode()
    return {
        "num_picked": len(run.picks),
        "picked_bytes": int(table.num_bytes[run.picks].sum()),
        **times,
        "ratio_deflate": round(len(joined) / len(zlib.compress(joined, 9)), 3),
        "ratio_xz": round(len(joined) / len(lzma.compress(joined, preset=9)), 3),
        "distinct_trigrams": round(distinct_trigram_share(texts), 3),
    }


def main() -> None:
    """Run every strategy over the pool; of zip's CPU time long_range needs how much?"""
    with real_pool() as pool:
        with stopwatch() as counting:
            num_bytes = int(pool.ngrams.offsets[-1])
        report("count_ngrams", {"num_bytes": num_bytes, **counting})
        figures = {name: select(pool, config) for name, config in RUNS.items()}
    share = figures["long_range"]["cpu_seconds"] / figures["zip_same_bytes"]["cpu_seconds"]
    figures["long_range"]["share_of_zip_cpu"] = round(share, 4)
    for name, measured_figures in figures.items():
        report(f"select_{name}", measured_figures)


if __name__ == "__main__":
    main()
