"""SFT on equal tokens of random, zip and long_range: the loss on sources that none has seen.

Equal are the tokens that the model reads; of how many it learns to write is reported beside.
Trains nine small models, some 2 minutes each on one free core. Give ``--folder`` to keep what is
done and to go on after a stop; ``--budget-tokens`` for another budget.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from zip_pipeline.chat_models import encode, prepare_environment
from zip_pipeline.compression.tokens import TINY_MODEL
from zip_pipeline.data_root import DataRoot
from zip_pipeline.evaluation.held_out import held_out_loss
from zip_pipeline.files import write_json, write_table
from zip_pipeline.pool.batches import read_state
from zip_pipeline.pool.held_out import HeldOutSettings, is_held_out
from zip_pipeline.pool.pool import assemble_pool
from zip_pipeline.samples import Turn
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import select
from zip_pipeline.training.base_model import tiny_tokenizer
from zip_pipeline.training.job import job_from
from zip_pipeline.training.trainers.probe import probe_loss
from zip_pipeline.training.trainers.sft import train_sft
from zip_pipeline_tests.benchmarks.bench_ingestion import build
from zip_pipeline_tests.benchmarks.machine import report

BUDGET_TOKENS = 1_000_000
SEEDS = (0, 1, 2)
STRATEGIES = ("random", "zip", "long_range")
SEED_MEANS = {
    "random": "draws another subset and row order",
    "zip": "another row order of one subset",
    "long_range": "another row order of one subset",
}
# The tasks of the T0 mixture that ask for a text of one's own: summaries, and sentences from facts.
UNSEEN_SOURCES = (
    *("t0_cnn_dailymail", "t0_gigaword", "t0_multi_news", "t0_samsum", "t0_xsum"),
    *("t0_common_gen", "t0_wiki_bio"),
)
# Sources differ in how many of their samples are short enough, so the limit comes after.
HELD_OUT = HeldOutSettings(
    share=0.04, min_source_samples=0, max_source_samples=10_000, whole_sources=UNSEEN_SOURCES
)
MAX_PER_SOURCE = {"unseen": 150, "seen": 40}
LEAST_PER_SOURCE = 15
# Longer samples are left out for all strategies: rows that are cut would make tokens unequal.
MAX_LENGTH = 512
# As many tokens in a step as the preset has, of whose rows these are twice as long.
SETTINGS = {"max_length": MAX_LENGTH, "batch_size": 4, "checkpoint_steps": 100_000}
LARGEST_TOKEN_GAP = 0.02
METRICS = ("unseen_loss", "unseen_bits_per_byte", "seen_loss", "seen_bits_per_byte")
FIGURES = (*METRICS, "probe_loss", "ratio_deflate", "num_tokens", "num_target_tokens", "num_rows")


@dataclass(frozen=True)
class Setup:
    """What every run of the comparison shares."""

    candidates: pl.DataFrame
    """samples to select from"""
    state: pl.DataFrame
    """their compression state; tokens are counted as training sees them"""
    held_out: Mapping[str, pl.DataFrame]
    base: Path
    folder: Path
    budget_tokens: int


def trained_tokens(samples: pl.DataFrame, chunk: int = 2000) -> pl.DataFrame:
    """Return the number of tokens of each sample in the chat template."""
    tokenizer = tiny_tokenizer()
    counts: list[int] = []
    for start in range(0, len(samples), chunk):
        rows = samples["turns"][start : start + chunk].to_list()
        conversations = [[Turn(**turn) for turn in turns] for turns in rows]
        counts += [len(row.input_ids) for row in encode(tokenizer, conversations)]
    return samples.select("sample_id", pl.Series("num_tokens", counts, dtype=pl.Int64))


def evaluated(held: pl.DataFrame, limit: int) -> pl.DataFrame:
    """Return the samples of lowest id of each source, a random draw since ids are hashes."""
    counted = held.filter(pl.len().over("source") >= LEAST_PER_SOURCE)
    return counted.sort("sample_id").group_by("source", maintain_order=True).head(limit)


def prepare(folder: Path, budget_tokens: int) -> Setup:
    """Ingest the pool and hold out what is evaluated."""
    root = DataRoot(folder / "root")
    build(root["sft"])
    samples = assemble_pool(root["sft"]).samples
    tokens = trained_tokens(samples).filter(pl.col("num_tokens") <= MAX_LENGTH)
    is_held = is_held_out(samples, HELD_OUT)
    candidates, held = samples.filter(~is_held), samples.filter(is_held)
    held = held.join(tokens, on="sample_id", how="semi")
    is_unseen = pl.col("source").is_in(UNSEEN_SOURCES)
    state = pl.concat(read_state(root["sft"], batch) for batch in root["sft"].batches())
    return Setup(
        candidates=candidates.join(tokens, on="sample_id", how="semi", maintain_order="left"),
        state=state.drop("num_tokens").join(tokens, on="sample_id"),
        held_out={
            "unseen": evaluated(held.filter(is_unseen), MAX_PER_SOURCE["unseen"]),
            "seen": evaluated(held.filter(~is_unseen), MAX_PER_SOURCE["seen"]),
        },
        base=TINY_MODEL,
        folder=folder / f"{budget_tokens}-tokens",
        budget_tokens=budget_tokens,
    )


def subset_file(setup: Setup, strategy: str, seed: int) -> Path:
    """Return the subset of a strategy, selected unless it is there; only random has several."""
    name = f"{strategy}-{seed}" if strategy == "random" else strategy
    path = setup.folder / "subsets" / f"{name}.parquet"
    if not path.exists():
        config = SelectionConfig(strategy=strategy, budget_tokens=setup.budget_tokens, seed=seed)
        selection = select(setup.candidates, setup.state, "sft", config)
        write_json(path.with_suffix(".json"), selection.manifest)
        write_table(path, selection.subset(setup.candidates), {})
    return path


def train(setup: Setup, strategy: str, seed: int) -> dict:
    """Select, probe, train and evaluate; return the figures of the run."""
    subset = subset_file(setup, strategy, seed)
    output = setup.folder / "models" / f"{strategy}-{seed}"
    settings = {"model": str(setup.base), "seed": seed, **SETTINGS}
    values = {"stage": "sft", "preset": "tiny", "subset": str(subset), "output": str(output)}
    job = job_from({**values, "overrides": settings})
    with redirect_stdout(sys.stderr):
        record = train_sft(job)
        probed = probe_loss(job)
    manifest = json.loads(subset.with_suffix(".json").read_text(encoding="utf-8"))
    rows = record["rows"]
    figures = {
        "strategy": strategy,
        "seed": seed,
        **losses_on(setup, output / "model"),
        "probe_loss": probed["L"],
        "ratio_deflate": manifest["compression_ratio"]["deflate"],
        **{name: rows[name] for name in ("num_tokens", "num_target_tokens", "num_rows")},
        "num_steps": record["num_steps"],
        "seconds": record["seconds"],
        "rows_cut": rows["rows_truncated"] + rows["rows_dropped"],
    }
    write_json(output / "figures.json", figures)
    return figures


def losses_on(setup: Setup, model: Path) -> dict[str, object]:
    """Return a model's macro losses on unseen and seen sources, and by source."""
    figures: dict[str, object] = {}
    by_source: dict[str, dict[str, float]] = {}
    for name, samples in setup.held_out.items():
        loss = held_out_loss(model, samples, "sft", MAX_LENGTH)
        figures |= {f"{name}_loss": loss.loss, f"{name}_bits_per_byte": loss.bits_per_byte}
        by_source[name] = {source: value.loss for source, value in loss.sources.items()}
    return {**figures, "by_source": by_source}


def mean_and_spread(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and the standard deviation over seeds."""
    return {"mean": round(statistics.mean(values), 4), "spread": round(statistics.stdev(values), 4)}


def summary(runs: Sequence[Mapping]) -> dict[str, object]:
    """Return mean and spread of every figure over the seeds of one strategy."""
    figures = {name: mean_and_spread([run[name] for run in runs]) for name in FIGURES}
    by_source = {
        source: mean_and_spread([run["by_source"]["unseen"][source] for run in runs])
        for source in runs[0]["by_source"]["unseen"]
    }
    seed_means = SEED_MEANS[str(runs[0]["strategy"])]
    return {"seed_means": seed_means, **figures, "unseen_sources": by_source}


def difference(runs: Sequence[Mapping], others: Sequence[Mapping]) -> dict[str, object]:
    """Return the difference of means of two strategies, negative where the first is better.

    The standard error knows only what the seeds vary: it is too small where they do not
    draw the subset again.
    """
    figures: dict[str, object] = {}
    for name in METRICS:
        pair = [[run[name] for run in group] for group in (runs, others)]
        first, second = (statistics.mean(values) for values in pair)
        error = math.sqrt(sum(statistics.variance(values) / len(values) for values in pair))
        figures[name] = {"mean": round(first - second, 4), "standard_error": round(error, 4)}
    return figures


def require_equal_tokens(runs: Sequence[Mapping]) -> None:
    """Refuse to compare runs that were trained on different amounts.

    Raises:
        SystemExit: the tokens differ by more than the gap allowed, or rows were cut.
    """
    tokens = [run["num_tokens"] for run in runs]
    if max(tokens) > min(tokens) * (1 + LARGEST_TOKEN_GAP) or any(r["rows_cut"] for r in runs):
        raise SystemExit(f"not comparable: trained on {tokens} tokens, or rows were cut")


def compare(setup: Setup) -> dict[str, object]:
    """Train all runs, one strategy after the other within a seed; return the summaries."""
    runs = []
    for seed in SEEDS:
        for strategy in STRATEGIES:
            runs.append(train(setup, strategy, seed))
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    require_equal_tokens(runs)
    of = {name: [run for run in runs if run["strategy"] == name] for name in STRATEGIES}
    before = losses_on(setup, setup.base)
    return {
        "budget_tokens": setup.budget_tokens,
        "num_seeds": len(SEEDS),
        "num_candidates": len(setup.candidates),
        "num_unseen_samples": len(setup.held_out["unseen"]),
        "num_seen_samples": len(setup.held_out["seen"]),
        "untrained": {name: round(float(str(before[name])), 4) for name in METRICS},
        **{name: summary(group) for name, group in of.items()},
        "long_range_minus_random": difference(of["long_range"], of["random"]),
    }


def main() -> None:
    """Run the comparison in a temporary folder, or in one that is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep subsets, models and figures here")
    parser.add_argument("--budget-tokens", type=int, default=BUDGET_TOKENS)
    options = parser.parse_args()
    prepare_environment(offline=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        setup = prepare(folder, options.budget_tokens)
        report("training_comparison", compare(setup))


if __name__ == "__main__":
    main()
