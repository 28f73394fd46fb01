"""The comparison of strategies on the real SFT pool, as ``zip-pipeline compare`` does it.

Trains a small model per strategy and seed, at 300,000 tokens some 100 seconds each on one free
core. Give ``--folder`` to keep what is done and to go on after a stop. With ``--target SOURCE``
400 samples of that source are the target file: strategies are told of one half, and all are
evaluated on the other.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.chat_models import prepare_environment
from zip_pipeline.cli.compare import run_modules
from zip_pipeline.data_root import DataRoot
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.settings import SETTINGS_FILE
from zip_pipeline.workflow.comparison import compare_model, compare_result
from zip_pipeline_tests.benchmarks.bench_ingestion import build
from zip_pipeline_tests.benchmarks.machine import report

# As the comparison's default, but rows of up to 512 tokens, of which a step has as many as before.
SETTINGS = """\
[training]
preset = "tiny"
overrides = {max_length = 512, batch_size = 4, checkpoint_steps = 100000}
"""
MAX_TOKENS = 512
NUM_TARGET = 400


def prepare(root: DataRoot) -> None:
    """Ingest the pool, unless that is done."""
    settings = root.path / SETTINGS_FILE
    if not settings.exists():
        build(root["sft"])
        settings.write_text(SETTINGS)


def write_target(root: DataRoot, source: str) -> Path:
    """Return a file of the records of lowest id of a source, a random draw since ids are hashes."""
    path = root.path / f"target-{source}.jsonl"
    with open_selection_pool(root["sft"]) as pool:
        fits = (pl.col("source") == source) & (pl.col("num_tokens") <= MAX_TOKENS)
        index = pool.index.with_row_index().hstack(pool.state.select("num_tokens")).filter(fits)
        drawn = index.sort("sample_id")["index"][:NUM_TARGET]
        path.write_text("\n".join(pool.rows(drawn)["raw"]) + "\n", encoding="utf-8")
    return path


def compare(root: DataRoot, changes: dict[str, Any]) -> dict[str, object]:
    """Run what is missing; return the table and the sentence."""
    for seed in range(changes["seeds"]):
        for name in ("random+natural", *changes["strategies"]):
            compare_model(root, name, seed, run_modules, changes)
    result = compare_result(root, changes)
    return {
        "conclusion": result.conclusion,
        "table": result.table.to_dicts(),
        "law": result.shown[-1],
        "notes": result.notes,
    }


def main() -> None:
    """Run the comparison in a temporary folder, or in one that is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the data root here")
    parser.add_argument("--budget-tokens", type=int, default=300_000)
    parser.add_argument("--strategies", default="coverage", help="separated by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--target", metavar="SOURCE", default="")
    options = parser.parse_args()
    prepare_environment(offline=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = DataRoot((options.folder or Path(temporary)).resolve())
        root.path.mkdir(parents=True, exist_ok=True)
        prepare(root)
        changes = {
            "strategies": tuple(options.strategies.split(",")),
            "seeds": options.seeds,
            "budget_tokens": options.budget_tokens,
        }
        if options.target:
            changes["target"] = str(write_target(root, options.target))
        report("training_comparison", changes | compare(root, changes))


if __name__ == "__main__":
    main()
