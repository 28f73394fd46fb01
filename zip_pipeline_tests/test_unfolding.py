"""A data root whose batches an earlier release folded into one opens as it was."""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.files import read_metadata
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import (
    all_batches,
    is_current,
    state_metadata,
    stored_batches,
    write_state,
)
from zip_pipeline.pool.held_out import HeldOutSettings
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import Selection, select_candidates
from zip_pipeline_tests.end_to_end.kills import visible_files
from zip_pipeline_tests.folded_batches import fold

_HOLD_OUT = HeldOutSettings(share=0.2, min_source_samples=3)
_KINDS = ("pool", "quarantine", "duplicates", "state")


def _row(number: int) -> str:
    answer = " ".join(str(number * k % 97) for k in range(9))
    return json.dumps({"question": f"{number} times table", "answer": answer})


def _ingest(folder: StageFolder, batch: str, numbers: Sequence[int]) -> None:
    """Drop rows of these numbers (a negative one is rejected), ingest and measure them."""
    folder.raw.mkdir(parents=True, exist_ok=True)
    rows = ("{" if number < 0 else _row(number) for number in numbers)
    (folder.raw / batch).write_text("".join(f"{row}\n" for row in rows))
    ingest_drop(folder, batch)
    write_state(folder, batch)


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    """Return a pool with repeats inside and across batches, rejected rows and an empty batch."""
    root = DataRoot(tmp_path)
    _ingest(root["sft"], "a.jsonl", [7, 8, 3, 9, -1, -1])
    _ingest(root["sft"], "b.jsonl", [2, 4, 5, 6, 4, 4])
    _ingest(root["sft"], "c.jsonl", [9, 10, 11, 12, 10])
    _ingest(root["sft"], "d.jsonl", [1, 2, 3, 1, -1, 20])
    _ingest(root["sft"], "e.jsonl", [-1])
    return root


def _contents(root: DataRoot) -> dict[str, tuple[list[object], dict[str, str]]]:
    """Return rows and metadata of every stored table, by its path."""
    paths = [path for kind in _KINDS for path in visible_files(root.path / kind)]
    paths = [path for path in paths if path.suffix == ".parquet"]
    return {
        str(path.relative_to(root.path)): (
            pl.read_parquet(path, glob=False).to_dicts(),
            read_metadata(path),
        )
        for path in sorted(paths)
    }


def _select(root: DataRoot) -> Selection:
    with open_selection_pool(root["sft"], hold_out=_HOLD_OUT) as pool:
        return select_candidates(
            Candidates(pool.index, pool.texts, pool.state),
            "sft",
            SelectionConfig(strategy="zip", budget_samples=6, k1=8, k2=4, k3=2),
            duplicates=pool.duplicates,
            held_out=pool.held_out,
            inputs=pool.fingerprints,
            counts=pool.counts,
        )


def test_folded_batches_have_their_own_tables_again(root: DataRoot) -> None:
    """Samples, rejected rows, duplicates, states, counts and picks are those of before."""
    tables, selection = _contents(root), _select(root)
    assert len(tables) == 20
    folded = fold(root["sft"], ["a.jsonl", "b.jsonl", "d.jsonl", "e.jsonl"])
    assert set(_contents(root)) == {
        f"{kind}/sft/{name}.parquet" for kind in _KINDS for name in ("c.jsonl", folded)
    }
    assert root["sft"].batches() == ["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl", "e.jsonl"]
    assert _contents(root) == tables
    again = _select(root)
    assert len(again.picks) == 6
    assert again.picks == selection.picks
    assert again.ledger.equals(selection.ledger)
    assert again.manifest["inputs"] == selection.manifest["inputs"]


def test_batch_that_came_again_supersedes_the_folded_one(root: DataRoot) -> None:
    """So does one that was folded later: nothing comes back from an earlier form."""
    folder = root["sft"]
    fold(folder, ["b.jsonl", "c.jsonl", "d.jsonl"])
    _ingest(folder, "b.jsonl", [30, 31])
    _ingest(folder, "c.jsonl", [40])
    fold(folder, ["b.jsonl", "c.jsonl"], generation=2)
    _ingest(folder, "c.jsonl", [50, 51, 52])
    numbers = [data["num_samples"] for data in stored_batches(root["sft"]).values()]
    assert numbers == ["4", "2", "3", "4", "0"]
    assert len(_contents(root)) == 20


def test_folded_batch_without_a_state_is_to_be_measured(root: DataRoot) -> None:
    """The samples are there; the state is computed as of any other batch."""
    folder = root["sft"]
    folder.state(fold(folder, ["a.jsonl", "b.jsonl"])).unlink()
    assert state_metadata(root["sft"], "b.jsonl") is None
    write_state(root["sft"], "b.jsonl")
    assert is_current(root["sft"], "b.jsonl")


def test_state_that_a_killed_folding_left_is_removed(root: DataRoot) -> None:
    """It is not taken for a batch that is gone from the pool."""
    before = _contents(root)
    folder = root["sft"]
    left = json.dumps({"a.jsonl": {}})
    path = folder.state("compacted-0123456789ab")
    pl.DataFrame({"pi": [0.5]}).write_parquet(path, metadata={"members": left})
    assert len(all_batches(root["sft"])) == 5
    assert _contents(root) == before


@pytest.mark.parametrize("kind", ["pool", "quarantine", "duplicates", "state"])
def test_damaged_table_of_folded_batches_is_refused(root: DataRoot, kind: str) -> None:
    """Where rows are missing nothing is removed, and the message says what to do."""
    folder = root["sft"]
    folded = fold(folder, ["a.jsonl", "b.jsonl", "d.jsonl"])
    path = root.path / kind / "sft" / f"{folded}.parquet"
    metadata = read_metadata(path)
    rows = pl.read_parquet(path)
    rows.head(rows.height - 1).write_parquet(path, metadata=metadata)
    message = r"rows of '[abd]\.jsonl' are missing\); let this user write there, or remove"
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            root["sft"]
    assert folder.samples(folded).exists()


def test_drop_may_be_called_like_a_folded_batch(tmp_path: Path) -> None:
    """It is a batch as any other."""
    root = DataRoot(tmp_path)
    _ingest(root["sft"], "compacted-0123456789ab", [1, 2])
    assert root["sft"].batches() == ["compacted-0123456789ab"]
    assert is_current(root["sft"], "compacted-0123456789ab")
