"""Ingested pools of both stages, with every way in which a row may not be eligible."""

from collections.abc import Sequence

from zip_pipeline.data_root import StageFolder
from zip_pipeline.ingest.ingest import ingest, write_batch
from zip_pipeline.pool.batches import write_state
from zip_pipeline.samples import Stage
from zip_pipeline_tests.pool.files import json_lines, write

# Numbers of samples by batch, -1 for a broken row: repeats within and across batches.
BATCHES: dict[str, Sequence[int]] = {
    "b[1] *?.jsonl": [1, 2, 3, 1, -1, 20, 21, 22],
    "a=b.jsonl": [2, 4, 5, 6, 4, 4, 30],
    "only broken.jsonl": [-1, -1],
    "c.jsonl": [7, 8, 3, 9, -1, 40, 41, 42, 43, 22],
    "d.jsonl": [9, 10, 11, 12, 10],
}


def row(stage: Stage, number: int) -> object:
    """Return a record of that number; a negative one is broken, from 50 on the source is new."""
    if number < 0:
        return b"{"
    answer = " ".join(str(number * k % 97) for k in range(9))
    source = "late" if number >= 50 else f"s{number % 3}"
    record: dict[str, object] = {"prompt": f"{number} times é", "source": source}
    if stage == "sft":
        return record | {"completion": answer}
    return record | {"chosen": answer, "rejected": str(number), "score_chosen": number / 7}


def store(folder: StageFolder, batch: str, numbers: Sequence[int]) -> None:
    """Ingest a batch of rows of these numbers."""
    path = write(folder.raw / batch, json_lines([row(folder.stage, number) for number in numbers]))
    write_batch(folder, batch, ingest(path, folder.stage, batch=batch))


def store_pool(folder: StageFolder) -> None:
    """Ingest and measure all of :data:`BATCHES`."""
    for batch, numbers in BATCHES.items():
        store(folder, batch, numbers)
        write_state(folder, batch)
