"""Versions by the tokens of the model that the data root trains, and by the vectors of tags."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import state_metadata, write_state
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.training import tokens
from zip_pipeline.training.base_model import tiny_tokenizer
from zip_pipeline.training.rows import answer_rows, conversation_rows
from zip_pipeline.training.tokens import configured_tokens
from zip_pipeline.workflow.verdicts import law_series
from zip_pipeline.workflow.versions import current_version, read_version, select_version
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl
from zip_pipeline_tests.pool.pools import BATCHES, store_pool
from zip_pipeline_tests.training.small_tokenizers import sentencepiece_like
from zip_pipeline_tests.workflow.comparisons import BATCH, add, pool, records

_ROUNDS: dict[str, Any] = {"strategy": "zip", "k1": 20, "k2": 6, "k3": 3}


def _config(**budget: int | str) -> SelectionConfig:
    return SelectionConfig(**budget, **_ROUNDS)


@pytest.fixture
def log() -> list[str]:
    """Return what is said."""
    return []


def _select(folder: StageFolder, config: SelectionConfig, log: list[str]) -> dict[str, Any]:
    return read_version(folder, select_version(folder, config, log.append)).manifest


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("unit", ["tokens", "target_tokens"])
def test_a_trainer_reads_no_more_than_the_budget(
    tmp_path: Path, stage: Stage, unit: str, log: list[str]
) -> None:
    """What it reads of a version is what the manifest says, and within the budget."""
    folder = DataRoot(tmp_path)[stage]
    store_pool(folder)
    number = select_version(folder, _config(**{f"budget_{unit}": 200}), log.append)
    version = read_version(folder, number)
    rows = (
        conversation_rows(version.subset, stage, tiny_tokenizer(), 1 << 30).counts
        if stage == "sft"
        else answer_rows(version.subset, tiny_tokenizer(), 1 << 30).counts
    )
    read = {"tokens": rows.num_tokens, "target_tokens": rows.num_target_tokens}
    manifest = version.manifest
    assert {unit: manifest[f"picked_{unit}"] for unit in read} == read
    assert 0 < read[unit] == 200 - manifest["unused_budget"]
    assert manifest["tokenizer"] == "tiny, template tiny"


def test_states_of_another_tokenizer_are_counted_anew_once(tmp_path: Path, log: list[str]) -> None:
    """The log tells; the next selection has nothing to count."""
    folder = DataRoot(tmp_path)["sft"]
    store_pool(folder)
    before = "the tokens of 5 batches anew: they were counted by tiny, now it is tiny, template"
    _select(folder, _config(budget_samples=3), log)
    assert before in log[0]
    said = len(log)
    _select(folder, _config(budget_samples=4), log)
    assert not any("anew" in words for words in log[said:])
    assert {(state_metadata(folder, batch) or {})["tokenizer"] for batch in BATCHES} == {
        "tiny, template tiny"
    }
    with open_selection_pool(folder) as pool:
        counted = pool.count_tokens(configured_tokens(tmp_path))
        assert pool.state.select(counted.columns).equals(counted)


def test_another_template_makes_another_version_where_the_budget_counts_tokens(
    tmp_path: Path, log: list[str]
) -> None:
    """A budget of samples does not ask."""
    folder = DataRoot(tmp_path)["sft"]
    store_pool(folder)
    manifest = _select(folder, of_tokens := _config(budget_tokens=200), log)
    assert current_version(folder, of_tokens) == 1
    sentencepiece_like().save_pretrained(tmp_path / "other")
    overrides = f'{{template = "vicuna", model = "{tmp_path / "other"}"}}'
    (tmp_path / "zip_pipeline.toml").write_text(f"[training]\noverrides = {overrides}\n")
    assert current_version(folder, of_tokens) is None
    other = _select(folder, of_tokens, log)
    assert other["tokenizer_identity"] != manifest["tokenizer_identity"]
    assert other["tokenizer"] == f"{tmp_path / 'other'}, template vicuna"
    assert current_version(folder, of_tokens) == 2
    _select(folder, of_samples := _config(budget_samples=3), log)
    (tmp_path / "zip_pipeline.toml").unlink()
    assert current_version(folder, of_samples) == 3


def test_without_transformers_a_selection_says_what_it_counts(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens are those of the plain text; no budget can be in target tokens."""
    monkeypatch.setattr(tokens, "find_spec", lambda _: None)
    folder = DataRoot(tmp_path)["sft"]
    store_pool(folder)
    manifest = _select(folder, _config(budget_tokens=200), log)
    assert "Tokens are those of the plain text by tiny" in log[0]
    assert (manifest["tokenizer"], manifest["picked_target_tokens"]) == ("tiny", None)
    with pytest.raises(ValueError, match="budget_target_tokens: in plain texts, counted by tiny"):
        _select(folder, _config(budget_target_tokens=200), log)


def test_a_share_of_the_pool_grows_with_it_and_stays_one_budget(
    tmp_path: Path, log: list[str]
) -> None:
    """A grown pool makes another version, of more; the law compares both as of one budget."""
    folder = DataRoot(tmp_path)["sft"]
    store_pool(folder)
    config = _config(budget_tokens="40%")
    first = _select(folder, config, log)
    assert current_version(folder, config) == 1
    assert current_version(folder, _config(budget_tokens="41%")) is None
    assert current_version(folder, _config(budget_tokens=first["budget"]["value"])) is None
    folder.raw.mkdir(parents=True, exist_ok=True)
    add(folder.root, "more.jsonl", sft_records(40))
    assert current_version(folder, config) is None
    second = _select(folder, config, log)
    assert second["budget"]["value"] > first["budget"]["value"]
    assert {m["budget"]["share"] for m in (first, second)} == {"40%"}
    assert {m["config"]["budget_tokens"] for m in (first, second)} == {"40%"}
    assert len({law_series({"series": "s"}, manifest) for manifest in (first, second)}) == 1


def test_a_target_that_changed_makes_another_version(tmp_path: Path, log: list[str]) -> None:
    """The same name with other samples is another question; the path starts at the data root."""
    folder = DataRoot(tmp_path)["sft"]
    store_pool(folder)
    config = _config(budget_samples=3).model_copy(
        update={"strategy": "random_lengths", "target": "target.jsonl"}
    )
    path = write_jsonl(tmp_path / "target.jsonl", sft_records(2))
    manifest = _select(folder, config, log)
    assert manifest["target"]["num_samples"] == 2
    assert manifest["config"]["target"] == "target.jsonl"
    assert current_version(folder, config) == 1
    write_jsonl(path, sft_records(2, first=5))
    assert current_version(folder, config) is None


def test_a_trusted_file_that_changed_makes_another_version(tmp_path: Path, log: list[str]) -> None:
    """As with a target: what it holds counts, not its name."""
    folder = DataRoot(tmp_path)["sft"]
    store_pool(folder)
    config = _config(budget_samples=3, noise_guard=True, trusted="trusted.jsonl")
    words = " ".join(f"word{number}" for number in range(40))
    answers = [{"instruction": f"Say {n}.", "output": f"{n} {words}"} for n in range(102)]
    path = write_jsonl(tmp_path / "trusted.jsonl", answers[:101])
    manifest = _select(folder, config, log)
    assert manifest["trusted"]["num_samples"] == 101
    assert current_version(folder, config) == 1
    write_jsonl(path, answers)
    assert current_version(folder, config) is None


@pytest.mark.skipif(find_spec("wordllama") is None, reason="needs wordllama")
def test_tags_are_embedded_without_the_samples(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another model of their vectors makes another version; no sample is measured by it."""
    root = pool(tmp_path / "data", 1)
    rows = [row | {"tags": f"sums, s{n % 5}", "n": n} for n, row in enumerate(records(60))]
    add(root, BATCH, rows)
    config = SelectionConfig(strategy="mig", quality="n", budget_samples=9)
    manifest = _select(root["sft"], config, log)
    assert manifest["signals"].keys() == {"tags", "embedding"}
    assert not [line for line in log if "Signal embedding" in line]
    assert not root["sft"].signal("embedding", BATCH).exists()
    assert current_version(root["sft"], config) == 1
    monkeypatch.setattr("zip_pipeline.signals.embedding.version", lambda name: "9.9")
    assert current_version(root["sft"], config) is None


MEASURE = """
import sys
from pathlib import Path
from zip_pipeline.data_root import DataRoot
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.processes import peak_bytes
config = SelectionConfig(strategy=sys.argv[2], budget_samples=5)
select_version(DataRoot(Path(sys.argv[1]))["sft"], config, lambda _: None)
print(peak_bytes())
"""


def _store_tiny(root: DataRoot, num: int) -> None:
    """Store a batch of one short sample under so many ids."""
    folder, batch = root["sft"], "tiny.jsonl"
    folder.raw.mkdir(parents=True)
    write_jsonl(folder.raw / batch, [{"prompt": "p", "completion": "c", "source": "of them all"}])
    ingest_drop(folder, batch)
    write_state(folder, batch, tokens=configured_tokens(root.path))
    ids = pl.DataFrame({"sample_id": pl.int_range(num, eager=True).cast(pl.String)})
    ids = ids.select(pl.col("sample_id").str.pad_start(16, "0").str.pad_end(32, "0"))
    for path in (folder.samples(batch), folder.state(batch)):
        row, told = pl.read_parquet(path), folder.metadata(path)
        told |= {name: f"{num}" for name in ("num_rows_read", "num_samples") if name in told}
        rows = ids.join(row.drop("sample_id"), how="cross").select(row.columns)
        folder.write(path, rows, told)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["random", "zip"])
def test_a_sample_takes_little_memory_in_a_selection(tmp_path: Path, strategy: str) -> None:
    """From the pool to the version 100 bytes; it was 541 with names and ledger in memory."""
    peaks = []
    for num in (200_000, 600_000):
        _store_tiny(DataRoot(tmp_path / f"{num}"), num)
        command = [sys.executable, "-c", MEASURE, str(tmp_path / f"{num}"), strategy]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 400_000 * 200, [peak >> 20 for peak in peaks]
