"""Data roots in which versions seem to be probed, trained and evaluated, without a model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline_tests.defs.graph import alpaca_rows

HELD_OUT = "[held_out]\nshare = 0.1\nmin_source_samples = 10\n"


def ingested(root: DataRoot, name: str, num_rows: int, first: int = 0) -> None:
    """Drop rows of sft and ingest them."""
    ingest_rows(root, name, alpaca_rows(num_rows, first=first))


def ingest_rows(root: DataRoot, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Drop records of sft and ingest them."""
    root["sft"].raw.mkdir(parents=True, exist_ok=True)
    (root["sft"].raw / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest_drop(root["sft"], name)
    write_state(root["sft"], name)


def trained(folder: StageFolder, number: int, fingerprint: str = "first") -> None:
    """Leave behind what a finished training run does."""
    output = folder.models(number)
    (output / "model").mkdir(parents=True, exist_ok=True)
    (output / "model" / "config.json").write_text("{}")
    record = {
        "fingerprint": fingerprint,
        "settings": {"max_length": 256},
        "model": {"identity": "base0123"},
    }
    (output / "training.json").write_text(json.dumps(record))


class FakeEvaluation:
    """Stands for the processes of evaluation: every job's loss is its version's number."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, dict[str, Any]]] = []
        self.accuracy: float | None = None

    def __call__(self, _: object, module: str, jobs: dict[Path, dict[str, Any]]) -> None:
        """Do what the process would do."""
        for job_file, job in jobs.items():
            self.jobs.append((module.rpartition(".")[2], job))
            job_file.parent.mkdir(parents=True, exist_ok=True)
            job_file.write_text(json.dumps(job))
            if module.endswith("held_out"):
                number = int(Path(job["model"]).parent.name[1:])
                found = {"loss": number, "loss_spread": 0.1, "held_out": "0123456789"}
                sources = {"web": {"loss": number, "bits_per_byte": 0.5, "num_samples": 4}}
                found |= {"bits_per_byte": 0.5, "sources": sources, "accuracy": self.accuracy}
                Path(job["output"]).write_text(json.dumps(found))
            else:
                found = {"Z": 6.5, "Z_spread": 0.2, "Z_name": "MT-bench, judge j"}
                (Path(job["output"]) / "result.json").write_text(json.dumps(found))


class FakeProbe:
    """Stands for the probe's process: writes what it would find, and counts how often."""

    def __init__(self) -> None:
        self.L = 1.0
        self.num_steps = 3
        self.jobs: list[dict[str, Any]] = []

    def __call__(self, _: object, module: str, jobs: dict[Path, dict[str, Any]]) -> None:
        """Do what the process would do."""
        assert module == "zip_pipeline.training.trainers.probe"
        ((job_file, job),) = jobs.items()
        self.jobs.append(job)
        job_file.parent.mkdir(parents=True, exist_ok=True)
        job_file.write_text(json.dumps(job))
        loss = {
            "L": self.L,
            "L_spread": 0.01,
            "num_tokens": 300,
            "num_steps": self.num_steps,
            "num_steps_wanted": 3,
            "series": f"series of {job['preset']}",
            "settings": {"preset": job["preset"]},
            "subset_hash": "hash",
            "rows_truncated": 2,
            "rows_dropped": 1,
            "steps": {"loss_sums": [3.0, 2.0, 1.0], "num_tokens": [1, 1, 1]},
        }
        job_file.with_name("loss.json").write_text(json.dumps(loss))
