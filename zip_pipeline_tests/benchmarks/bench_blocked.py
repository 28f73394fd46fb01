"""What blocking x5 of the sample pool saves: it is trained once, under an override.

Each seed goes through `zip-pipeline demo --until probe`, which blocks x5. Then all five versions
are trained, and evaluated on one held-out set.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from zip_pipeline.cli.compare import run_modules
from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import is_blocked, read_versions
from zip_pipeline.settings import training_settings
from zip_pipeline.workflow.models import EvaluationJob, evaluate_versions, train_version
from zip_pipeline.workflow.versions import read_version
from zip_pipeline_tests.benchmarks.bench_verdicts import walk
from zip_pipeline_tests.benchmarks.machine import report

SEEDS = (0, 11, 12)


def train_all(root: DataRoot) -> list[int]:
    """Train the versions of sft, blocked ones under an override; return which those are."""
    training = training_settings(root.path).job()
    table = read_versions(root)
    blocked = table.filter(is_blocked() & (table["stage"] == "sft"))["version"].to_list()
    for number in root["sft"].versions.numbers():
        reason = "to see what blocking saves" if number in blocked else ""
        version = read_version(root["sft"], number)
        train_version(root, version, training, run_modules, override=reason)
    return blocked


def mean_z(job: EvaluationJob, sources: list[str]) -> float:
    """Return minus the mean loss over some of the held-out sources, nats per token."""
    return round(-fmean(job.found()["sources"][source]["loss"] for source in sources), 3)


def measure(root: DataRoot) -> dict[str, Any]:
    """Return R, L and Z of each state, Z by when its sources came, and what blocking saves."""
    blocked = train_all(root)
    jobs = [job for job in evaluate_versions(root, run_modules) if job.stage == "sft"]
    rows = [row for row in read_versions(root).to_dicts() if row["stage"] == "sft"]
    assert len({row["Z_name"] for row in rows}) == 1
    first = list(read_version(root["sft"], 1).manifest["held_out"]["sources"])
    later = sorted(set(jobs[-1].found()["sources"]) - set(first))
    probe = json.loads((jobs[-1].trained.output / "probe" / "loss.json").read_text())
    return {
        **{name: [round(row[name], 3) for row in rows] for name in ("R", "L", "Z", "Z_spread")},
        "verdicts": [row["verdict"] for row in rows],
        "Z_on_sources_of_x1": [mean_z(job, first) for job in jobs],
        "Z_on_later_sources": [mean_z(job, later) for job in jobs],
        "num_sources": [len(first), len(later)],
        "blocked": blocked,
        "Z_lost": round(rows[-2]["Z"] - rows[-1]["Z"], 3),
        "training_seconds": [job.trained.record["seconds"] for job in jobs],
        "probe_seconds": probe["seconds"],
    }


def main() -> None:
    """Print one line per seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for seed in given.seeds:
            root = walk(Path(name) / str(seed), seed)
            report("blocked", {"seed": seed, **measure(root)})


if __name__ == "__main__":
    main()
