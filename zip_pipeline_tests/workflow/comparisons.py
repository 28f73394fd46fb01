"""Pools to compare strategies on, and what stands for the processes that train."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from zip_pipeline.data_root import DataRoot
from zip_pipeline.files import write_json
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline.samples import Stage
from zip_pipeline.training import in_turn
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


def pairs(num: int, first: int = 0) -> list[dict[str, Any]]:
    """Return distinct pairs of the same sources, of which the later ones are rated higher."""
    return [
        {
            "prompt": row["instruction"],
            "chosen": row["output"],
            "rejected": f"I do not know what {n} plus {n * n} is.",
            "chosen_score": n,
            "rejected_score": -1,
            "source": row["source"],
        }
        for n, row in enumerate(records(num, first), start=first)
    ]


def pool(path: Path, num: int = 240) -> DataRoot:
    """Return a data root with so many conversations, ingested and counted."""
    root = DataRoot(path)
    root["sft"].raw.mkdir(parents=True)
    (path / "zip_pipeline.toml").write_text(NO_DRAW)
    add(root, BATCH, records(num))
    return root


def pair_pool(path: Path) -> DataRoot:
    """Return a data root with 240 pairs, ingested and counted, and an SFT model beside it."""
    root = DataRoot(path)
    root["preference"].raw.mkdir(parents=True)
    settings = f"{NO_DRAW}[training]\nsft_model = '{sft_model(path.parent / 'sft')}'\n"
    (path / "zip_pipeline.toml").write_text(settings)
    add(root, BATCH, pairs(240), "preference")
    return root


def sft_model(path: Path, config: str = "{}") -> Path:
    """Return a folder that passes for a model; models of other configurations differ."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(config)
    return path


def add(
    root: DataRoot, batch: str, rows: Sequence[Mapping[str, Any]], stage: Stage = "sft"
) -> None:
    """Ingest and count one more batch."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root[stage].raw / batch).write_text(text)
    ingest_drop(root[stage], batch)
    write_state(root[stage], batch, tokens=configured_tokens(root.path))


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

    def __call__(
        self, module: str, jobs: Mapping[Path, Mapping[str, Any]], num_threads: int | None = None
    ) -> None:
        """Do what the process would do, step by step."""
        assert module == in_turn.MODULE
        for step in chain.from_iterable(job["steps"] for job in jobs.values()):
            for job_file in step["jobs"]:
                if len(self.done) + 1 == self.stop_before:
                    raise KeyboardInterrupt
                job = json.loads(Path(job_file).read_text(encoding="utf-8"))
                self._do(step["module"].rpartition(".")[2], job)
                self.done.append((step["module"].rpartition(".")[2], job))

    def _do(self, name: str, job: dict[str, Any]) -> None:
        output = Path(job["output"])
        if name in ("sft", "kto"):
            (output / "model").mkdir(exist_ok=True)
            write_json(output / "model" / "config.json", {})
            write_json(output / "training.json", {"fingerprint": "f"})
        elif name == "probe":
            write_json(output / "probe" / "loss.json", {"L": 3.0})
        else:
            strategy, _, seed = output.parent.parent.name.rpartition("-")
            loss = self.losses.get(strategy, 2.0) + int(seed)
            of_pairs = {"accuracy": 0.5} if job["stage"] == "preference" else {}
            write_json(output, {"loss": loss, "bits_per_byte": loss / 2, **of_pairs})
