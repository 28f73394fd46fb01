"""Records without sense and damaged files: what is not read is refused by name.

``python -m zip_pipeline_tests.ingest.fuzz`` makes records for ten minutes and damages 1,000 files.
"""

import argparse
import json
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.formats import FORMATS
from zip_pipeline.ingest.ingest import ingest_drop, ingest_rows
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.ingest.rows import RawRow, json_text
from zip_pipeline.pool.held_out import HeldOutSettings, freeze_held_out
from zip_pipeline.pool.pool import assemble_pool
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline_tests.ingest.test_preference_formats import CASES as PREFERENCE_CASES
from zip_pipeline_tests.ingest.test_sft_formats import CASES as SFT_CASES
from zip_pipeline_tests.pool.files import COMPRESSIONS, KINDS

RECORDS = [record for _, record, _ in (*SFT_CASES, *PREFERENCE_CASES)]
_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**70, 0.5, math.nan, math.inf, "", " ", "\n", "x", "é\u200b",
    "\ud800", "[", "[]", "{}", '[{"role": "user"}]', "[{'from': 'human', 'value': 'x'}]", "null",
    "Human: x\n\nAssistant:", "### Human:", "USER: x ASSISTANT: y", "<|im_start|>user\nx", [], [[]],
    [None], {}, {"role": "user"}, {"role": [], "content": {}}, [{"role": "assistant"}], b"\xff",
    [{"type": "image"}], {"text": None, "label": []}, "0", "nan", "true", "chosen", ["a"] * 3,
)  # fmt: skip


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return each container in a value, with each key in it."""
    if isinstance(value, dict):
        return [(value, key) for key in value] + [p for v in value.values() for p in _places(v)]
    if isinstance(value, list):
        return [(value, n) for n in range(len(value))] + [p for v in value for p in _places(v)]
    return []


def odd_record(rng: random.Random) -> dict[str, Any]:
    """Return a known record after some changes that make little sense."""
    record: dict[str, Any] = json.loads(json.dumps(rng.choice(RECORDS), default=str))
    for _ in range(rng.randint(1, 5)):
        other = rng.choice(RECORDS)
        places = _places(record)
        if rng.random() < 0.3 or not places:
            name = rng.choice(list(other) or ["x"])
            record[name] = deepcopy(rng.choice([*_ODD, other.get(name)]))
            continue
        inside, key = rng.choice(places)
        if rng.random() < 0.25:
            del inside[key]
        elif rng.random() < 0.2 and isinstance(inside, dict):
            inside[rng.choice(list(other) or ["x"])] = inside.pop(key)
        else:
            inside[key] = deepcopy(rng.choice([*_ODD, [inside[key]], {"text": inside[key]}]))
    return record


def read_odd_records(rng: random.Random, num: int) -> Counter[str]:
    """Read records of no sense as a file; return how many were taken, and why others were not."""
    stage: Stage = rng.choice(STAGES)
    named = rng.choice([name for name, found in FORMATS.items() if found.stage == stage])
    options = ReadOptions(
        format=rng.choice([None, named]),
        media=rng.choice(["quarantine", "keep"]),
        pairs=rng.choice(["best-worst", "all"]),
        roles=rng.choice([{}, {"agent": "assistant"}]),
    )
    records = [odd_record(rng) for _ in range(num)]
    rows = [RawRow("f", n, json_text(record), record) for n, record in enumerate(records, 1)]
    try:
        result = ingest_rows(rows, stage, batch="b", options=options)
    except Exception:
        print(f"{stage}, {options}:\n{records!r}")
        raise
    return Counter(taken=result.samples.height) + Counter(result.quarantine["reason"].to_list())


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return bytes of which some are cut off, lost, overwritten, doubled or exchanged."""
    made = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(made) + 1)
        stop = min(start + rng.choice([1, 2, 9, 100, 1000]), len(made))
        piece = made[start:stop]
        changes: list[Callable[[], bytes]] = [
            lambda: b"",
            lambda piece=piece: rng.randbytes(len(piece)),
            lambda piece=piece: piece * 2,
            lambda piece=piece: piece[::-1],
            lambda piece=piece: piece + rng.choice([b'"', b"\n", b"}", b"]", b"\0", b"\xff", b","]),
            lambda piece=piece: bytes(byte ^ 1 << rng.randrange(8) for byte in piece),
        ]
        made[start:stop] = rng.choice(changes)()
        if rng.random() < 0.1:
            del made[rng.randrange(len(made) + 1) :]
    return bytes(made)


def read_damaged_files(rng: random.Random, num: int) -> Counter[str]:
    """Drop damaged files, hold some of their samples out, and check the sums of the pool."""
    names = [f"{kind}{suffix}" for kind in KINDS for suffix in ("", *COMPRESSIONS)]
    with tempfile.TemporaryDirectory() as folder:
        root = DataRoot(Path(folder))["sft"]
        root.raw.mkdir(parents=True)
        for number in range(num):
            name = f"{number}_{rng.choice(names)}"
            kind, suffix = name.partition("_")[2], Path(name).suffix
            records = [
                {"prompt": f"Question {rng.randrange(60)}?", "completion": f'"{n}", é\n'}
                for n in range(30)
            ]
            seals = COMPRESSIONS.get(suffix, bytes)
            content = KINDS[kind.removesuffix(suffix) if suffix in COMPRESSIONS else kind](records)
            is_inside = rng.random() < 0.5
            made = seals(damaged(content, rng)) if is_inside else damaged(seals(content), rng)
            (root.raw / name).write_bytes(made)
            result = ingest_drop(root, name)
            lines = [line for line in made.split(b"\n") if line.strip()]
            assert not name.endswith(".jsonl") or result.num_rows_read >= len(lines), name
        pool = assemble_pool(root)
        before = pool.num_rows_read
        settings = HeldOutSettings(share=0.2, min_source_samples=0)
        freeze_held_out(root, pool.parts, settings)
        pool = assemble_pool(root)
        fates = Counter(
            samples=pool.samples.height,
            quarantined=pool.num_quarantined,
            duplicates=pool.num_duplicates,
            held_out=pool.num_held_out,
        )
    assert fates.total() == pool.num_rows_read == before, (fates, before)
    return fates + Counter(rows_read=before, files=num)


def main() -> None:
    """Run for as long, and over as many files, as was asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    totals: Counter[str] = Counter()
    for start in range(0, given.files, 50):
        totals += read_damaged_files(
            random.Random(given.seed + start), min(50, given.files - start)
        )
    print("damaged files:", dict(totals))
    totals, end, number = Counter(), time.monotonic() + given.seconds, given.seed
    while time.monotonic() < end:
        try:
            totals += read_odd_records(random.Random(number), 200)
        except UserError as error:
            totals[f"UserError {error}"] += 1
        number += 1
    print(f"{200 * (number - given.seed):,} records:", dict(totals.most_common()))


if __name__ == "__main__":
    main()
