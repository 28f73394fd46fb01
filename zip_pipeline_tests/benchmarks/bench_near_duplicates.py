"""Near-duplicates in the real SFT pool: time, what sources lose, and how planted ones are told."""

import json
import random
import tempfile
from pathlib import Path
from typing import TypeAlias

import polars as pl

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.files import scan_table
from zip_pipeline.ingest.ingest import ingest, write_batch
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.signals.near_duplicates import KINDS, sides_of, source_losses, words_of
from zip_pipeline.tables import rows_of
from zip_pipeline.workflow.signals import pool_marks
from zip_pipeline_tests.benchmarks.machine import pools_folder, report, stopwatch
from zip_pipeline_tests.signals.near_copies import edited, with_other_numbers

NUM_PLANTED, MIN_WORDS = 400, 20
SHARES = (0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3)
Said: TypeAlias = tuple[str, str]


def marks(folder: StageFolder, **policies: str) -> pl.DataFrame:
    """Return the index of the pool with the fate of each sample."""
    settings = {"near_duplicates": {"max_loss": 1.0, **policies}}
    config = SelectionConfig(strategy="random", budget_samples=1, signals=settings)
    with open_selection_pool(folder) as pool:
        found = pool_marks(pool, config, folder, lambda _: None, None)
        assert found is not None
        return pool.index.hstack(rows_of(found.table))


def plants(texts: list[Said], rng: random.Random) -> dict[str, tuple[str, list[Said]]]:
    """Return, by what is done to the texts, the kind that it gives and what comes of it."""
    words = [word for prompt, _ in texts for word in prompt.split()]
    found = {
        f"edits of {share:.0%}": (
            "same",
            [
                (edited(prompt, share, rng, words), edited_answer(answer, share, rng, words))
                for prompt, answer in texts
            ],
        )
        for share in SHARES
    }
    swapped = [(texts[n][0], texts[n - 1][1]) for n in range(len(texts))]
    found["other numbers"] = ("template", [tuple(map(with_other_numbers, s)) for s in texts])
    found["answer of another"] = ("same_prompt", swapped)
    found["half of the answer"] = ("same_prompt", [(p, a[: len(a) // 2]) for p, a in texts])
    more = "Then tell me in three sentences which of these you would change first and why."
    found["a question more"] = ("same_answer", [(f"{p} {more}", a) for p, a in texts])
    return found


def edited_answer(answer: str, share: float, rng: random.Random, words: list[str]) -> str:
    """Return an answer with edits, a short one as it is: one word of three is another answer."""
    return edited(answer, share, rng, words) if len(words_of(answer)) >= 8 else answer


def planted(root: DataRoot, texts: list[Said], kind: str, copies: list[Said]) -> dict[str, float]:
    """Return recall and precision of the planted copies, in a pool with the originals."""
    drop = root.path / "zz.jsonl"
    rows = [{"prompt": prompt, "completion": answer, "source": "zz"} for prompt, answer in copies]
    drop.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_batch(root["sft"], drop.name, ingest(drop, "sft", batch=drop.name))
    index = marks(root["sft"], **dict.fromkeys(KINDS, "first"))
    table = index.filter(batch=drop.name)
    by_row = dict(zip(table["source_row"], table.select("evidence", "other").rows(), strict=True))
    originals = {(p, a): i for i, p, a in _said_by_id(root["sft"], set(index["sample_id"]))}
    changed = [n for n, said in enumerate(texts) if copies[n] != said and n + 1 in by_row]
    right = marked = 0
    for n in changed:
        evidence, other = by_row[n + 1]
        marked += evidence is not None and evidence.startswith(KINDS[kind] + ":")
        right += other == originals[texts[n]] and evidence.startswith(KINDS[kind] + ":")
    return {
        "num": len(changed),
        "recall": round(right / max(len(changed), 1), 3),
        "precision": round(right / max(marked, 1), 3),
    }


def _said_by_id(folder: StageFolder, ids: set[str]) -> list[tuple[str, str, str]]:
    found = []
    for batch in folder.batches():
        rows = scan_table(folder.samples(batch)).collect().filter(pl.col("sample_id").is_in(ids))
        found += list(zip(rows["sample_id"], *sides_of(rows, folder.stage), strict=True))
    return found


def main() -> None:
    """Time the whole pool and one percent more; plant copies of rows that have no near-copies."""
    with tempfile.TemporaryDirectory() as folder:
        root = DataRoot(Path(folder))
        for file in sorted((pools_folder() / "sft").iterdir()):
            write_batch(root["sft"], file.name, ingest(file, "sft", batch=file.name))
        with stopwatch() as whole:
            index = marks(root["sft"])
        alone = set(index["sample_id"].filter(index["fate"].is_null()))
        alone -= set(index["other"].drop_nulls())
        said = {(p, a) for _, p, a in _said_by_id(root["sft"], alone) if p and a}
        rng = random.Random(0)
        long = sorted(s for s in said if sum(len(words_of(side)) for side in s) >= MIN_WORDS)
        texts = rng.sample(long, NUM_PLANTED)
        more = rng.sample(long, len(index) // 100)
        copies = [(edited(p, 0.05, rng, ["word"]), a) for p, a in more]
        drop = root.path / "z1.jsonl"
        rows = [{"prompt": prompt, "completion": answer} for prompt, answer in copies]
        drop.write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_batch(root["sft"], drop.name, ingest(drop, "sft", batch=drop.name))
        with stopwatch() as increment:
            marks(root["sft"])
        losses = source_losses(index, index["fate"].is_not_null().to_numpy())
        told = {
            name: planted(root, texts, kind, copies)
            for name, (kind, copies) in plants(texts, rng).items()
        }
    report(
        "near_duplicates",
        {
            "num_samples": len(index),
            "num_marked": int(losses["num_marked"].sum()),
            "whole": whole,
            "one_percent_more": increment,
            "lost_shares": {s: round(x, 3) for s, x in losses.select("source", "share").rows()},
            "planted": told,
        },
    )


if __name__ == "__main__":
    main()
