"""``zip`` and ``zip_fit`` against compressing everything anew: same figures, less CPU."""

import gzip
import time
import zlib

import numpy as np

from zip_pipeline.compression.sets import DeflateSet
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.selection.candidates import Candidates, measure
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import run_selection
from zip_pipeline.selection.strategies.zip_fit import TargetSizes
from zip_pipeline_tests.benchmarks.machine import report, stopwatch
from zip_pipeline_tests.benchmarks.real_pool import real_pool
from zip_pipeline_tests.selection.oracles import zip_oracle

NUM_SAMPLES, NUM_SELECTED, NUM_CANDIDATES = 6000, 2000, 60
NUM_PAIRED, NUM_PAIRWISE, NUM_TARGETS = 5000, 100, 200
CONFIG = SelectionConfig(strategy="zip", budget_samples=600, k1=2000, k2=200, k3=100)


def naive_ratio(strings: list[str]) -> float:
    """Return R as the published code does: the whole set as one string, encoded, compressed."""
    content = "".join(strings).encode()
    return len(content) / len(zlib.compress(content, 9))


def naive_picks(strings: list[str]) -> list[int]:
    """Return the picks of ``CONFIG``, every ratio measured by :func:`naive_ratio`."""
    k = (CONFIG.k1, CONFIG.k2, CONFIG.k3)
    return zip_oracle(strings, k, CONFIG.budget, lambda _: 1, naive_ratio)


def whole_run(texts: list[bytes], index: object) -> dict[str, object]:
    """Return CPU seconds of both, and whether they pick the same."""
    with TemporaryTexts.write([texts]) as file, stopwatch() as ours:
        pool = measure(Candidates(index, file), CONFIG, "tiny", 0)
        picks = run_selection(pool, CONFIG, workers=1).picks
    with stopwatch() as naive:
        expected = naive_picks([text.decode() for text in texts])
    return {
        "same_picks": picks == expected,
        "num_picks": len(picks),
        "cpu_seconds": ours["cpu_seconds"],
        "naive_cpu_seconds": naive["cpu_seconds"],
        "times_less_cpu": round(naive["cpu_seconds"] / ours["cpu_seconds"], 1),
    }


def per_candidate(texts: list[bytes]) -> dict[str, object]:
    """Return milliseconds per candidate behind a large selected set."""
    selected, candidates = texts[:NUM_SELECTED], texts[NUM_SELECTED:]
    state = DeflateSet(9)
    state.add(selected)
    joined = b"".join(selected)
    started = time.process_time()
    sizes = state.sizes_with(candidates)
    ours = (time.process_time() - started) / len(candidates)
    started = time.process_time()
    expected = [len(zlib.compress(joined + text, 9)) for text in candidates[:NUM_CANDIDATES]]
    naive = (time.process_time() - started) / NUM_CANDIDATES
    return {
        "num_selected": NUM_SELECTED,
        "same_sizes": sizes[:NUM_CANDIDATES].tolist() == expected,
        "candidate_milliseconds": round(ours * 1e3, 3),
        "naive_candidate_milliseconds": round(naive * 1e3, 1),
        "times_less_cpu_per_candidate": round(naive / ours),
    }


def per_pair(texts: list[bytes], target: list[bytes]) -> dict[str, object]:
    """Return CPU microseconds per pair of a sample and a target, each size by itself or shared."""

    def size(content: bytes) -> int:
        return len(gzip.compress(content, 9))

    def anew(text: bytes) -> float:
        sizes = [(size(text), size(other), size(text + other)) for other in target]
        return float(np.mean([1 - (joint - min(a, b)) / max(a, b) for a, b, joint in sizes]))

    with stopwatch() as ours:
        sizes = TargetSizes(target, 9)
        found = [sizes.similarity(text) for text in texts]
    with stopwatch() as pairwise:
        expected = [anew(text) for text in texts[:NUM_PAIRWISE]]
    shared = ours["cpu_seconds"] / len(texts)
    each = pairwise["cpu_seconds"] / NUM_PAIRWISE
    return {
        "same_scores": found[:NUM_PAIRWISE] == expected,
        "num_samples": len(texts),
        "num_targets": len(target),
        "pair_microseconds": round(shared / len(target) * 1e6, 1),
        "pairwise_pair_microseconds": round(each / len(target) * 1e6, 1),
        "times_less_cpu": round(each / shared, 2),
    }


def main() -> None:
    """Take 6,000 samples of the real pool, seeded."""
    with real_pool() as pool:
        rows = np.sort(np.random.default_rng(0).permutation(len(pool.index))[:NUM_SAMPLES])
        texts, index = pool.texts.read(rows), pool.index[rows]
        shuffled = [texts[i] for i in np.random.default_rng(1).permutation(len(texts))]
        figures = per_candidate(shuffled) | whole_run(texts, index)
        is_target = pool.index["source"].str.contains("gsm8k").to_numpy()
        target = pool.texts.read(np.flatnonzero(is_target)[:NUM_TARGETS])
        figures_of_pairs = per_pair(shuffled[:NUM_PAIRED], target)
    report("zip_against_naive", figures)
    report("zip_fit_against_pairwise", figures_of_pairs)


if __name__ == "__main__":
    main()
