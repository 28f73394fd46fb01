"""Rules of memory and time: a row of any size costs no more than the limit, and is read once."""

import gzip
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest import rows as rows_module
from zip_pipeline.ingest.ingest import ingest, ingest_drop, ingest_rows
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.ingest.rows import RawRow
from zip_pipeline.samples import Stage

MEASURE = """
import sys
from pathlib import Path
from zip_pipeline.ingest.ingest import ingest
from zip_pipeline_tests.processes import peak_bytes
before = peak_bytes()
result = ingest(Path(sys.argv[1]), "sft", batch="b")
print(peak_bytes() - before, result.samples.height, *result.quarantine["reason"])
"""
MAX_GROWTH_BYTES = 120 << 20
LONG_BYTES = 100_000_000


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "b.json.gz", "a.csv.gz"])
def test_row_of_100_mb_is_skipped_in_bounded_memory(tmp_path, name):
    """A row of 100 MB goes to quarantine, the rows around it survive, memory stays bounded."""
    good = json.dumps({"prompt": "p", "completion": "1"}).encode()
    last = good.replace(b"1", b"2")
    long = b"x" * LONG_BYTES
    contents = {
        "a.jsonl.gz": b"%b\n%b\n%b\n" % (good, long, last),
        "a.json.gz": b'[%b,\n{"a": "%b"},\n%b]\n' % (good, long, last),
        "b.json.gz": b'{"v": [1],\n"data": [%b,\n{"a": "%b"},\n%b]}\n' % (good, long, last),
        "a.csv.gz": b"prompt,completion\np,1\np,%b\np,2\n" % long,
    }
    path = tmp_path / name
    path.write_bytes(gzip.compress(contents[name], 1))
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    growth_bytes, num_samples, *reasons = done.stdout.split()
    assert (num_samples, reasons) == ("2", ["row_too_long"])
    assert int(growth_bytes) < MAX_GROWTH_BYTES


MEASURE_DROP = """
import sys
from pathlib import Path
from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline_tests.processes import peak_bytes
# Of a library more or less is mapped, whatever it is used for.
import pyarrow.parquet
before = peak_bytes()
folder = DataRoot(Path(sys.argv[1]))["sft"]
result = ingest_drop(folder, "a.json")
print(peak_bytes() - before, result.num_rows_read, result.tables.samples.height)
"""


def measured_drop(code, data_root):
    """Return what code prints of a drop: growth in bytes, rows and samples."""
    command = [sys.executable, "-c", code, str(data_root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return map(int, done.stdout.split())


@pytest.mark.slow
def test_few_long_rows_are_held_at_a_time(tmp_path):
    """Twenty rows of 8 MB need 400 MiB at most: no part of the work holds all of them."""
    path = tmp_path / "raw" / "sft" / "a.json"
    path.parent.mkdir(parents=True)
    text = random.Random(0).randbytes(4_000_000).hex()
    with path.open("w") as file:
        for n in range(20):
            file.write(json.dumps({"prompt": f"{n}", "completion": f"{n} {text}"}) + "\n")
    growth_bytes, num_rows, num_samples = measured_drop(MEASURE_DROP, tmp_path)
    assert (num_rows, num_samples) == (20, 20)
    assert growth_bytes < 400 << 20


MEASURE_STATE = """
import sys
from pathlib import Path
from zip_pipeline.data_root import DataRoot
from zip_pipeline.pool.batches import write_state
from zip_pipeline.training.tokens import configured_tokens
from zip_pipeline_tests.processes import peak_bytes
# Of a library more or less is mapped, whatever it is used for.
import pyarrow.parquet
before = peak_bytes()
root = DataRoot(Path(sys.argv[1]))
write_state(root["sft"], "a.jsonl", tokens=configured_tokens(root.path))
print(peak_bytes() - before)
"""


@pytest.mark.slow
def test_states_of_long_rows_hold_their_tokens_in_few_bytes_and_return_them(tmp_path):
    """Rows of 3 MB need 350 MiB, half of it libraries; Python's numbers in kept blocks 400."""
    folder = DataRoot(tmp_path)["sft"]
    folder.raw.mkdir(parents=True)
    text = random.Random(0).randbytes(1_500_000).hex()
    rows = [{"prompt": f"{n}", "completion": f"{n} {text}"} for n in range(3)]
    (folder.raw / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ingest_drop(folder, "a.jsonl")
    (growth_bytes,) = measured_drop(MEASURE_STATE, tmp_path)
    assert growth_bytes < 350 << 20


@pytest.mark.slow
def test_a_drop_of_any_size_is_ingested_in_bounded_memory(tmp_path):
    """A list of 120 MB, some of it refused and some repeated, needs 270 MiB at most, not 380."""
    texts = [f"{n} " + random.Random(n).randbytes(1_500).hex() for n in range(300)]
    path = tmp_path / "raw" / "sft" / "a.json"
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        file.write("[")
        for n in range(40_000):
            record = {"prompt": f"{n - n % 4}", "completion": texts[n % 300 - n % 4]}
            file.write(json.dumps({"x": texts[n % 300]} if n % 20 == 1 else record))
            file.write("," if n < 39_999 else "]")
    growth_bytes, num_rows, num_samples = measured_drop(MEASURE_DROP, tmp_path)
    assert (num_rows, num_samples) == (40_000, 10_000)
    assert growth_bytes < 270 << 20


@pytest.mark.slow
def test_rows_that_make_samples_together_are_not_all_in_memory(tmp_path):
    """Answers to a prompt in rows of their own, 100 MB of them, need 300 MiB at most, not 380."""
    path = tmp_path / "raw" / "preference" / "a.jsonl"
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        for n in range(99_000):
            text = random.Random(n).randbytes(450).hex()
            record = {"prompt": f"{n // 3}", "response": text, "helpfulness": n % 3}
            file.write(f"{json.dumps(record)}\n")
    measure = MEASURE_DROP.replace('"sft"', '"preference"').replace("a.json", "a.jsonl")
    growth_bytes, num_rows, num_samples = measured_drop(measure, tmp_path)
    assert (num_rows, num_samples) == (33_000, 33_000)
    assert growth_bytes < 300 << 20


def test_a_compressed_file_of_rows_that_are_all_refused_is_not_read_to_its_end(
    tmp_path, monkeypatch
):
    """One row stands for the rest, with the reason; a file that has samples is read on."""
    monkeypatch.setattr(rows_module, "_MAX_REFUSED_ROWS", 2_000)
    refused, good = b'{"question": 1}\n', b'{"question": "q", "answer": "a"}\n'
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(refused * 9_000))
    reasons = ingest(path, "sft", batch="b").quarantine["reason"].value_counts(sort=True)
    (reason, num), last = reasons.rows()
    assert reason == "unknown_format"
    assert 2_000 <= num < 4_000
    assert last == ("decompression_bomb", 1)
    mixed, plain = (refused * 40 + good) * 200, refused * 9_000
    for name, content in (("m.jsonl.gz", gzip.compress(mixed)), ("p.jsonl", plain)):
        (tmp_path / name).write_bytes(content)
    assert ingest(tmp_path / "m.jsonl.gz", "sft", batch="b").num_rows_read == 41 * 200
    assert ingest(tmp_path / "p.jsonl", "sft", batch="b").num_rows_read == 9_000


def said(num: int, role: str = "role", content: str = "content") -> list[object]:
    """Return turns of a user and the assistant."""
    names = ("user", "assistant") if role == "role" else ("human", "gpt")
    return [{role: names[n % 2], content: "Hi there"} for n in range(num)]


def asked(num: int, answer: str = "") -> list[object]:
    """Return turns of the user, all alike, and an answer."""
    answers = [{"role": "assistant", "content": answer}] if answer else []
    return [{"role": "user", "content": "u"}] * num + answers


def with_tools(num: int) -> list[object]:
    """Return turns in which tools are called and answer."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    turns = [{"role": "user", "content": "u"}, called, {"role": "tool", "content": "x"}]
    return [*turns * (num // 3), {"role": "assistant", "content": "a"}]


LAYOUTS: dict[str, Callable[[int], dict[str, object]]] = {
    "messages": lambda num: {"messages": said(num)},
    "tool calls": lambda num: {"messages": with_tools(num)},
    "sharegpt": lambda num: {"conversations": said(num, "from", "value")},
    "exchanges": lambda num: {"conversation": [{"input": "u", "output": "a"}] * 5 * num},
    "texts": lambda num: {"conversations": ["u", "a"] * num},
    "dialogue": lambda num: {"text": "\n\nHuman: u\n\nAssistant: a" * num},
    "dialogue with a long gap": lambda num: {"text": f"USER: u{chr(10) * num}a\nASSISTANT: a\n"},
    "angled": lambda num: {"text": f"<human>: u{chr(10) * num}a\n<bot>: a\n"},
    "marked": lambda num: {"text": "### Human: u\n### Assistant: a\n" * num},
    "marked with a long gap": lambda num: {"text": f"### Human: u{' ' * num}a\n### Assistant: a\n"},
    "chat template": lambda num: {"text": "[INST] u [/INST] a </s>" * num},
    "ChatML": lambda num: {
        "text": "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n" * num
    },
    "ends of turns": lambda num: {
        "prompt": f"<|im_start|>user\n{'</s>' * num}u<|im_end|>\n",
        "completion": f"{'</s>' * num}a",
    },
    "printed": lambda num: {"messages": str(said(num))},
    "half printed": lambda num: {
        "prompt": "[{'role': 'user', 'content': 'u'}, " * num, "completion": "a"
    },
    "printed with a long gap": lambda num: {
        "messages": f"[{{'role': 'user'}}{chr(10) * num}]x, 'from'}}]"
    },
    "marks": lambda num: {"prompt": "u" + "\u0301\u0323" * num, "completion": "a"},
    "pair": lambda num: {
        "chosen": [*said(num), *asked(1, "a")], "rejected": [*said(num), *asked(1, "b")]
    },
    "pair with a prompt": lambda num: {
        "prompt": [*asked(num // 2), {"role": "user", "content": "v"}],
        "chosen": asked(num, "a"),
        "rejected": asked(num, "b"),
    },
    "pair of dialogues": lambda num: {
        "chosen": "\n\nHuman: u\n\nAssistant: a" * num + "b",
        "rejected": "\n\nHuman: u\n\nAssistant: a" * num,
    },
    "equal scores": lambda num: {
        "prompt": "u", "completions": [{"response": f"a{n}", "score": 1} for n in range(num)]
    },
}  # fmt: skip
# Between 8, which is linear, and 64, which is quadratic, with room for a busy machine.
TIMES, MAX_RATIO = 8, 24


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_time_is_linear_in_turns(layout):
    """Eight times as many turns take about eight times as long, in every layout."""
    stage: Stage = "preference" if layout.startswith(("pair", "equal")) else "sft"

    def seconds(num: int) -> float:
        text = json.dumps(LAYOUTS[layout](num))
        row = RawRow("a.jsonl", 1, text, json.loads(text))
        before = time.process_time()
        result = ingest_rows([row], stage, batch="b", options=ReadOptions(pairs="all"))
        assert result.num_rows_read == 1
        return time.process_time() - before

    seconds(10)
    num = 1_000
    while seconds(num) < 0.03 and num < 50_000:
        num *= 2
    few, many = (min(seconds(n) for _ in range(3)) for n in (num, TIMES * num))
    assert many < MAX_RATIO * few, f"{num} turns take {few:.2f} s, {TIMES} times {many:.2f} s"


@pytest.mark.slow
def test_time_is_linear_in_rows_that_are_alike_but_for_a_field_of_their_own():
    """Duplicates are compared in the fields that they have, not in those of all rows."""

    def seconds(num: int) -> float:
        records = [{"prompt": "u", "completion": "a", f"field {n}": n} for n in range(num)]
        rows = [RawRow("a.jsonl", n, json.dumps(r), r) for n, r in enumerate(records)]
        before = time.process_time()
        assert ingest_rows(rows, "sft", batch="b").duplicates.height == num - 1
        return time.process_time() - before

    seconds(10)
    few, many = (min(seconds(n) for _ in range(3)) for n in (500, TIMES * 500))
    assert many < MAX_RATIO * few, f"500 rows take {few:.2f} s, {TIMES} times {many:.2f} s"
