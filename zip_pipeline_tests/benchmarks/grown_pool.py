"""The real pool many times over, each time with other words: larger, and as redundant."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
import polars as pl

from zip_pipeline.data_root import DataRoot
from zip_pipeline.pool.batches import (
    BatchTables,
    IngestResult,
    Parts,
    batch_fingerprint,
    read_batch,
    write_batch,
    write_state,
)
from zip_pipeline.samples import pool_schema

_WORD = re.compile(r"([A-Za-z]{4,})")
_NUM_COMMON = 1000
_BAND = 200


def grow(root: DataRoot, num_variations: int) -> None:
    """Add variations of every SFT batch of ``root``, each as one more batch with its state.

    In a variation every word but the 1,000 most frequent is replaced by one of about its
    frequency, the same one wherever it stands. So texts that share words in the real pool share
    others in the variation, which is as redundant as the real pool, and no copy of it.
    """
    batches = root["sft"].batches()
    ranked = _ranked_words(root)
    for number in range(1, num_variations + 1):
        words = _permutation(ranked, number)
        for batch in batches:
            name = f"variation-{number:02d}-{batch}"
            write_batch(root["sft"], name, _vary(read_batch(root["sft"], batch), name, words))
            write_state(root["sft"], name)


def varied_records(root: DataRoot) -> list[dict[str, object]]:
    """Return every SFT sample of ``root`` with other words, as records of a drop."""
    words = _permutation(_ranked_words(root), 1)
    samples = [read_batch(root["sft"], batch) for batch in root["sft"].batches()]
    turns = [_varied_turns(group, words) for part in samples for group in part["turns"].to_list()]
    return [{"messages": [{k: t[k] for k in ("role", "content")} for t in g]} for g in turns]


def _ranked_words(root: DataRoot) -> list[str]:
    counts: Counter[str] = Counter()
    for batch in root["sft"].batches():
        for text in _contents(read_batch(root["sft"], batch)):
            counts.update(_WORD.findall(text))
    return [word for word, _ in counts.most_common()]


def _varied_turns(group: list[dict[str, str]], words: Mapping[str, str]) -> list[dict[str, str]]:
    return [turn | {"content": _varied(turn["content"], words)} for turn in group]


def _varied(text: str, words: Mapping[str, str]) -> str:
    parts = _WORD.split(text)
    parts[1::2] = [words[word] for word in parts[1::2]]
    return "".join(parts)


def _contents(samples: pl.DataFrame) -> list[str]:
    turns = samples["turns"].explode().struct
    return turns.field("content").to_list()


def _permutation(ranked: list[str], seed: int) -> dict[str, str]:
    rng = np.random.default_rng(seed)
    order = np.arange(len(ranked))
    for start in range(_NUM_COMMON, len(ranked), _BAND):
        rng.shuffle(order[start : start + _BAND])
    return {word: ranked[place] for word, place in zip(ranked, order, strict=True)}


def _vary(samples: pl.DataFrame, name: str, words: Mapping[str, str]) -> IngestResult:
    rows = samples.select("sample_id", "turns").rows()
    turns = [_varied_turns(group, words) for _, group in rows]
    ids = [hashlib.blake2b(f"{name}{i}".encode(), digest_size=16).hexdigest() for i, _ in rows]
    raw = [json.dumps({"messages": group}) for group in turns]
    table = samples.with_columns(
        batch=pl.lit(name),
        sample_id=pl.Series(ids),
        turns=pl.Series(turns, dtype=pool_schema("sft")["turns"]),
        raw=pl.Series(raw, dtype=pl.String),
    ).match_to_schema(pool_schema("sft"))
    tables = BatchTables(Parts.of(table), Parts.of(pl.DataFrame()), Parts.of(pl.DataFrame()))
    return IngestResult(tables, num_rows_read=len(table), fingerprint=batch_fingerprint(tables))
