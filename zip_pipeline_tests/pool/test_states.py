"""Stored compression states and the samples that they belong to."""

from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.compression.state import TextTokens, compression_state
from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.ingest.ingest import ingest_drop, read_batch
from zip_pipeline.pool import batches
from zip_pipeline.pool.batches import (
    counted_otherwise,
    is_current,
    read_sizes,
    read_state,
    recount_tokens,
    state_metadata,
    write_state,
)
from zip_pipeline.samples import Sample, Stage, Turn, serialised_texts
from zip_pipeline_tests.selection.pools import pool_table

ROW = '{"prompt": "What is %d squared?", "completion": "It is %d."}\n'


def _drop(root: DataRoot, batch: str, numbers: range) -> None:
    root["sft"].raw.mkdir(parents=True, exist_ok=True)
    text = "".join(ROW % (n, n * n) for n in numbers)
    (root["sft"].raw / batch).write_text(text, encoding="utf-8")
    ingest_drop(root["sft"], batch)


@pytest.mark.parametrize("batch", ["plain.jsonl", "a[1] *?.jsonl", "name=value.jsonl"])
def test_stored_state_is_the_state_of_the_samples(tmp_path: Path, batch: str) -> None:
    """It comes back as computed, whatever the batch is called."""
    root = DataRoot(tmp_path)
    _drop(root, batch, range(5))
    write_state(root["sft"], batch)
    expected = compression_state(read_batch(root["sft"], batch), "sft")
    assert len(expected) == 5
    assert read_state(root["sft"], batch).equals(expected)


def test_state_is_computed_some_megabytes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the whole batch; no part has more rows than fit, and so is a new count."""
    root, part_rows = DataRoot(tmp_path), []
    _drop(root, "b.jsonl", range(70))
    expected = compression_state(read_batch(root["sft"], "b.jsonl"), "sft")

    class Noted(TextTokens):
        def count(self, samples: pl.DataFrame, stage: Stage) -> pl.DataFrame:
            part_rows.append(samples.height)
            return super().count(samples, stage)

    monkeypatch.setattr(batches, "_PART_BYTES", 1_000)
    write_state(root["sft"], "b.jsonl", tokens=Noted())
    assert read_state(root["sft"], "b.jsonl").equals(expected)
    recount_tokens(root["sft"], "b.jsonl", Noted())
    assert read_state(root["sft"], "b.jsonl").equals(expected)
    assert sum(part_rows) == 2 * 70
    assert max(part_rows) < 15


def test_long_rows_after_short_ones_come_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows fit is told by what each says, not by what rows say on average."""
    sizes = [10] * 500 + [900] * 20 + [5_000, 10, 10]
    texts = [str(n).ljust(size, ".") for n, size in enumerate(sizes)]
    table = pool_table([Sample((Turn("user", "?"), Turn("assistant", text))) for text in texts])
    monkeypatch.setattr(batches, "_PART_BYTES", 2_000)
    parts = list(batches.in_small_parts(table.select("sample_id", "turns")))
    assert pl.concat(parts).equals(table.select("sample_id", "turns"))
    said = [sum(len(turns[-1]["content"]) for turns in part["turns"]) for part in parts]
    assert all(
        num_bytes <= 2_000 or part.height == 1 for num_bytes, part in zip(said, parts, strict=True)
    )
    assert len(parts) < 50


def test_state_of_an_earlier_form_of_a_batch_is_refused(tmp_path: Path) -> None:
    """After a batch came again, its old state is an error with a remedy until it is renewed."""
    root = DataRoot(tmp_path)
    _drop(root, "b.jsonl", range(5))
    with pytest.raises(ValueError, match=r"b\.jsonl.*materialise sft/compression_state"):
        read_state(root["sft"], "b.jsonl")
    write_state(root["sft"], "b.jsonl")
    assert is_current(root["sft"], "b.jsonl")
    _drop(root, "b.jsonl", range(6))
    assert not is_current(root["sft"], "b.jsonl")
    with pytest.raises(ValueError, match="no compression state for the samples that batch"):
        read_state(root["sft"], "b.jsonl")
    write_state(root["sft"], "b.jsonl")
    assert len(read_state(root["sft"], "b.jsonl")) == 6


def test_unchanged_samples_keep_the_fingerprint_of_their_state(tmp_path: Path) -> None:
    """The data version follows the content and the tokenizer, not the time."""
    root = DataRoot(tmp_path)
    assert state_metadata(root["sft"], "b.jsonl") is None
    fingerprints = []
    for numbers in (range(5), range(5), range(6)):
        _drop(root, "b.jsonl", numbers)
        write_state(root["sft"], "b.jsonl")
        stored = state_metadata(root["sft"], "b.jsonl")
        assert stored is not None
        assert stored["tokenizer"] == "tiny"
        fingerprints.append(stored["fingerprint"])
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


class _Letters:
    """Counts letters, and every other one as a target."""

    name, identity = "letters", "letters 1"

    def count(self, samples: pl.DataFrame, stage: Stage) -> pl.DataFrame:
        letters = serialised_texts(samples, stage).str.len_chars().cast(pl.Int64)
        return pl.DataFrame({"num_tokens": letters, "num_target_tokens": letters // 2})


def _make_old(folder: StageFolder, batch: str) -> None:
    """Let a stored state be one of a release that knew no target tokens."""
    settings = state_metadata(folder, batch) or {}
    del settings["tokenizer_identity"]
    folder.write(folder.state(batch), read_state(folder, batch).drop("num_target_tokens"), settings)


def test_tokens_of_another_tokenizer_are_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are those of an old state; what comes out is the state as it would be written now."""
    folder = DataRoot(tmp_path)["sft"]
    for batch in ("a.jsonl", "b.jsonl", "c.jsonl"):
        _drop(folder.root, batch, range(5))
        write_state(folder, batch)
    _make_old(folder, "b.jsonl")
    write_state(folder, "c.jsonl", tokens=_Letters())
    wanted = read_state(folder, "c.jsonl")
    samples = wanted.select("sample_id").with_row_index("row")
    assert (
        read_sizes(folder, "b.jsonl", samples.lazy())["num_target_tokens"].to_list() == [None] * 5
    )
    assert counted_otherwise(folder, _Letters()) == {"a.jsonl": "tiny", "b.jsonl": "tiny"}
    # Compressed sizes are not computed anew.
    monkeypatch.setattr("zip_pipeline.pool.batches.compression_state", None)
    for batch in ("a.jsonl", "b.jsonl"):
        recount_tokens(folder, batch, _Letters())
        assert read_state(folder, batch).equals(wanted)
        assert is_current(folder, batch)
    assert counted_otherwise(folder, _Letters()) == {}
    described = [state_metadata(folder, batch) or {} for batch in ("a.jsonl", "c.jsonl")]
    assert described[0]["tokenizer"] == "letters"
    assert described[0].keys() == described[1].keys()
    _drop(folder.root, "a.jsonl", range(6))
    with pytest.raises(ValueError, match="no compression state for the samples that batch"):
        recount_tokens(folder, "a.jsonl", TextTokens())


def test_a_batch_without_samples_has_an_empty_state(tmp_path: Path) -> None:
    """A drop whose rows were all rejected does not stop the pool."""
    root = DataRoot(tmp_path)
    _drop(root, "b.jsonl", range(0))
    write_state(root["sft"], "b.jsonl")
    assert read_state(root["sft"], "b.jsonl").select(pl.len()).item() == 0
