"""Pools to compare strategies on, and what stands for the processes that train."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zip_pipeline.data_root import DataRoot
from zip_pipeline.files import write_json
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline.training.tokens import configured_tokens

BATCH = "a.jsonl"
NUM_SOURCES = 6
NO_DRAW = "[held_out]\nshare = 0.0\n"


def records(num: int, first: int = 0) -> list[dict[str, str]]:
    """Return distinct conversations of six sources in turn."""
    return [
        {
            "instruction": f"What is {n} plus {n * n}?",
            "output": f"{n} plus {n * n} is {n + n * n}, " + "and so on " * (n % 4),
            "source": f"s{n % NUM_SOURCES}",
        }
        for n in range(first, first + num)
    ]


def pool(path: Path, num: int = 240) -> DataRoot:
    """Return a data root with so many conversations, ingested and counted."""
    root = DataRoot(path)
    root["sft"].raw.mkdir(parents=True)
    (path / "zip_pipeline.toml").write_text(NO_DRAW)
    add(root, BATCH, records(num))
    return root


def add(root: DataRoot, batch: str, rows: list[dict[str, str]]) -> None:
    """Ingest and count one more batch."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root["sft"].raw / batch).write_text(text)
    ingest_drop(root["sft"], batch)
    write_state(root["sft"], batch, tokens=configured_tokens(root.path))


class Processes:
    """Stands for the processes of training, probe and evaluation; notes which jobs it did.

    Args:
        losses: by strategy, the loss of every model that is trained on its subset.
        stop_before: the number of the job before which it is interrupted.
    """

    def __init__(self, losses: Mapping[str, float] | None = None, stop_before: int = 0) -> None:
        self.losses = losses or {}
        self.stop_before = stop_before
        self.done: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, module: str, jobs: Mapping[Path, Mapping[str, Any]]) -> None:
        """Do what the process would do."""
        for job_file, job in jobs.items():
            if len(self.done) + 1 == self.stop_before:
                raise KeyboardInterrupt
            write_json(job_file, job)
            self._do(module.rpartition(".")[2], dict(job))
            self.done.append((module.rpartition(".")[2], dict(job)))

    def _do(self, name: str, job: dict[str, Any]) -> None:
        output = Path(job["output"])
        if name == "sft":
            (output / "model").mkdir(exist_ok=True)
            write_json(output / "model" / "config.json", {})
            write_json(output / "training.json", {"fingerprint": "f"})
        elif name == "probe":
            write_json(output / "probe" / "loss.json", {"L": 3.0})
        else:
            strategy, _, seed = output.parent.parent.name.rpartition("-")
            loss = self.losses.get(strategy, 2.0) + int(seed)
            write_json(output, {"loss": loss, "bits_per_byte": loss / 2})
