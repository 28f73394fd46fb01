"""Input files for command line tests, written without randomness."""

import json
from collections.abc import Sequence
from pathlib import Path

_TOPICS = ("rivers", "numbers", "birds", "cities", "metals")


def sft_records(num: int, first: int = 0) -> list[dict[str, object]]:
    """Return distinct Alpaca records, some alike and some not, of two sources."""
    return [
        {
            "instruction": f"Tell me fact {n} about {_TOPICS[n % 5]}.",
            "input": "" if n % 3 else f"Café № {n * n}",
            "output": f"Fact {n}: " + " ".join(f"{_TOPICS[n % 5]} {n * k % 97}" for k in range(9)),
            "source": "even" if n % 2 == 0 else "odd",
            "extra": {"n": n, "share": n / 7, "none": None},
        }
        for n in range(first, first + num)
    ]


def preference_records(num: int) -> list[dict[str, object]]:
    """Return distinct preference pairs."""
    return [
        {
            "prompt": f"Compare {n} and {n + 1}.",
            "chosen": f"{n + 1} is larger than {n}, by one.",
            "rejected": f"I think {n * 3 % 7} is a number.",
            "id": n,
        }
        for n in range(num)
    ]


def write_jsonl(path: Path, records: Sequence[object]) -> Path:
    """Write records one per line; a string is written as it is."""
    lines = (r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[object]:
    """Return the records of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
