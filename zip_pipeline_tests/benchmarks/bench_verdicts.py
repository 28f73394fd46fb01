"""The law's verdicts on the five states of the sample pool, for other seeds than the default.

Each seed goes through `zip-pipeline demo --until probe`; then L of the last trained and of the
blocked version is measured once more, to compare the difference with the gap between the two.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import read_versions
from zip_pipeline_tests.benchmarks.machine import report

SEEDS = (11, 12, 13, 14, 15)
PROJECT = Path(__file__).parents[2]


def walk(folder: Path, seed: int) -> DataRoot:
    """Take a sample pool through its five states up to the verdicts."""
    folder.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", folder)
    command = [sys.executable, "-m", "zip_pipeline.cli", "demo", "--data-root", "data"]
    command += ["--seed", str(seed), "--until", "probe"]
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return DataRoot(folder / "data")


def measured_again(folder: Path, version: int) -> float:
    """Return L of a version of sft, measured by a process of its own in another folder."""
    job_file = folder / "data" / "models" / "sft" / f"v{version:06d}" / "probe" / "job.json"
    again = folder / f"again-{version}"
    job = json.loads(job_file.read_text()) | {"output": str(again)}
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "zip_pipeline.training.trainers.probe", "--config", "job.json"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return float(json.loads((again / "probe" / "loss.json").read_text())["L"])


def measure(folder: Path, seed: int) -> dict[str, Any]:
    """Return R, L and verdict of each state, and how far a second measurement of L is off."""
    table = read_versions(walk(folder, seed)).to_dicts()
    rows = [row for row in table if row["stage"] == "sft"]
    last, blocked = rows[-2:]
    gap = blocked["L"] - last["L"]
    differences = [abs(measured_again(folder, r["version"]) - r["L"]) for r in (last, blocked)]
    return {
        "seed": seed,
        "R": [round(row["R"], 3) for row in rows],
        "L": [round(row["L"], 4) for row in rows],
        "L_spread": [round(row["L_spread"], 4) for row in rows],
        "verdicts": [row["verdict"] for row in rows],
        "preference_verdicts": [r["verdict"] for r in table if r["stage"] == "preference"],
        "repeat_difference": max(differences),
        "repeat_difference_of_gap": round(max(differences) / abs(gap), 6),
    }


def main() -> None:
    """Print one line per seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in given.seeds:
            report("verdicts", measure(folder / str(seed), seed))


if __name__ == "__main__":
    main()
