"""Old batches in one stored batch: the same samples, wherever they lie."""

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import (
    batch_metadata,
    is_current,
    members,
    read_batch,
    read_quarantine,
    read_state,
    state_metadata,
    whole_members,
    write_state,
)
from zip_pipeline.pool.compaction import compact
from zip_pipeline.pool.held_out import HeldOutSettings
from zip_pipeline.pool.pool import (
    SelectionPool,
    assemble_pool,
    open_selection_pool,
    pool_fingerprint,
)
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import Selection, select_candidates
from zip_pipeline.stored_batches import batches_stay, is_compacted, scan_duplicates
from zip_pipeline_tests.end_to_end.kills import visible_files

_HOLD_OUT = HeldOutSettings(share=0.2, min_source_samples=3)


def _row(number: int) -> str:
    answer = " ".join(str(number * k % 97) for k in range(9))
    return json.dumps({"question": f"{number} times table", "answer": answer})


def _ingest(root: DataRoot, batch: str, numbers: Sequence[int], seconds: int = 0) -> None:
    """Drop rows of these numbers (a negative one is rejected) and ingest them at that time."""
    root["sft"].raw.mkdir(parents=True, exist_ok=True)
    rows = ("{" if number < 0 else _row(number) for number in numbers)
    (root["sft"].raw / batch).write_text("".join(f"{row}\n" for row in rows))
    ingest_drop(root["sft"], batch)
    os.utime(root["sft"].samples(batch), (seconds, seconds))


def _measured(root: DataRoot, batch: str, numbers: Sequence[int], seconds: int = 0) -> None:
    _ingest(root, batch, numbers, seconds)
    write_state(root["sft"], batch)


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    """Return a pool with repeats inside and across batches, rejected rows and an empty batch.

    They were ingested in the order d, b, e, a, c.
    """
    root = DataRoot(tmp_path)
    _measured(root, "d.jsonl", [1, 2, 3, 1, -1, 20], seconds=1)
    _measured(root, "b.jsonl", [2, 4, 5, 6, 4, 4], seconds=2)
    _measured(root, "e.jsonl", [-1], seconds=3)
    _measured(root, "a.jsonl", [7, 8, 3, 9, -1, -1], seconds=4)
    _measured(root, "c.jsonl", [9, 10, 11, 12, 10], seconds=5)
    return root


def _numbers(root: DataRoot, batch: str) -> list[str]:
    return [json.loads(raw)["question"].split()[0] for raw in read_batch(root["sft"], batch)["raw"]]


def _contents(root: DataRoot) -> dict[str, list[object]]:
    """Return all that is stored of each batch."""
    found: dict[str, list[object]] = {}
    for member in members(root["sft"]):
        state = state_metadata(root["sft"], member.batch) or {}
        found[member.batch] = [
            dict(member.metadata),
            {name: value for name, value in state.items() if name != "ARROW:schema"},
            read_batch(root["sft"], member.batch).to_dicts(),
            read_quarantine(root["sft"], member.batch).to_dicts(),
            scan_duplicates(root["sft"], member).collect().to_dicts(),
            read_state(root["sft"], member.batch).to_dicts(),
        ]
    return found


def _select(pool: SelectionPool) -> Selection:
    return select_candidates(
        Candidates(pool.index, pool.texts, pool.state),
        "sft",
        SelectionConfig(budget_samples=6, k1=8, k2=4, k3=2),
        duplicates=pool.duplicates,
        held_out=pool.held_out,
        inputs=pool.fingerprints,
        counts=pool.counts,
    )


def test_compaction_keeps_every_row_of_every_batch(root: DataRoot) -> None:
    """Samples, rejected rows, duplicates, states and counts of a batch are the same by its name."""
    before = _contents(root)
    assert list(before) == ["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl", "e.jsonl"]
    pool, content = assemble_pool(root["sft"]), pool_fingerprint(root["sft"])
    result = compact(root["sft"], keep_latest=1)
    assert result is not None
    assert (result.num_batches, result.num_samples) == (4, 12)
    assert result.folded == ("a.jsonl", "b.jsonl", "d.jsonl", "e.jsonl")
    assert root["sft"].batches() == ["c.jsonl", result.stored]
    assert is_compacted(result.stored)
    assert _contents(root) == before
    assert [member.stored_in == result.stored for member in members(root["sft"])] == [
        True, True, False, True, True,
    ]  # fmt: skip
    assert assemble_pool(root["sft"]).samples.equals(pool.samples)
    assert assemble_pool(root["sft"]).duplicates.equals(pool.duplicates)
    assert pool_fingerprint(root["sft"]) == content


def test_compacted_batch_tells_what_it_holds(root: DataRoot) -> None:
    """Under its own name its tables are read whole, and its counts are those of its members."""
    result = compact(root["sft"], keep_latest=1)
    assert result is not None
    counts = batch_metadata(root["sft"], result.stored)
    assert counts.pop("fingerprint")[:12] == result.stored.removeprefix("compacted-")
    assert counts == {
        "num_rows_read": "19",
        "num_samples": "12",
        "num_quarantined": "4",
        "num_duplicates": "3",
    }
    batches = read_batch(root["sft"], result.stored)["batch"].to_list()
    assert batches == ["a.jsonl"] * 4 + ["b.jsonl"] * 4 + ["d.jsonl"] * 4
    assert read_quarantine(root["sft"], result.stored).height == 4
    assert read_state(root["sft"], result.stored).height == 12
    assert is_current(root["sft"], result.stored)


def test_selections_before_and_after_compaction_are_the_same(root: DataRoot) -> None:
    """Picks, ledger, inputs and held-out samples do not depend on where batches are stored."""
    with open_selection_pool(root["sft"], hold_out=_HOLD_OUT) as pool:
        before, rows = _select(pool), pool.rows(range(pool.index.height))
    for keep_latest in (3, 0):
        assert compact(root["sft"], keep_latest=keep_latest) is not None
        with open_selection_pool(root["sft"], hold_out=_HOLD_OUT) as pool:
            after = _select(pool)
            assert pool.rows(range(pool.index.height)).equals(rows)
        assert after.picks == before.picks
        assert after.ledger.equals(before.ledger)
        for name in ("inputs", "pool_fingerprint", "subset_fingerprint", "fates", "num_samples"):
            assert after.manifest[name] == before.manifest[name]
    fates = dict(before.ledger["fate"].value_counts().iter_rows())
    assert (fates["picked"], fates["duplicate"], fates["held_out"]) == (6, 3, 3)
    assert list(before.manifest["inputs"]) == [
        "a.jsonl",
        "b.jsonl",
        "c.jsonl",
        "d.jsonl",
        "e.jsonl",
    ]


def test_a_selection_reads_on_while_batches_are_folded(root: DataRoot) -> None:
    """A pool that was opened before a compaction gives the same texts, sizes and rows after it."""
    with open_selection_pool(root["sft"]) as pool:
        rows, state = pool.rows([0, 5, 3]), pool.state
    with open_selection_pool(root["sft"]) as pool:
        assert compact(root["sft"], keep_latest=0) is not None
        assert pool.rows([0, 5, 3]).equals(rows)
        assert pool.state.equals(state)
        assert len(_select(pool).picks) == 6


def test_a_drop_that_comes_again_replaces_the_folded_batch(root: DataRoot) -> None:
    """A batch ingested under the name of a folded one supersedes it; the others stay."""
    compact(root["sft"], keep_latest=1)
    before = _contents(root)
    _ingest(root, "b.jsonl", [30, 31])
    assert _numbers(root, "b.jsonl") == ["30", "31"]
    assert not is_current(root["sft"], "b.jsonl")
    with pytest.raises(ValueError, match=r"materialise .* for the partition 'b\.jsonl'"):
        read_state(root["sft"], "b.jsonl")
    write_state(root["sft"], "b.jsonl")
    after = _contents(root)
    changed = {batch for batch in before if after[batch] != before[batch]}
    assert (list(after), changed) == (list(before), {"b.jsonl"})
    assert assemble_pool(root["sft"]).num_rows_read == 6 + 2 + 5 + 6 + 1


def test_folding_again_takes_in_what_was_folded(root: DataRoot) -> None:
    """The compacted batch and new ones become one, without what a later drop superseded."""
    first = compact(root["sft"], keep_latest=3)
    assert first is not None
    assert first.folded == ("b.jsonl", "d.jsonl")
    _measured(root, "b.jsonl", [30, 31], seconds=6)
    before = _contents(root)
    second = compact(root["sft"], keep_latest=0)
    assert second is not None
    assert second.folded == ("a.jsonl", "b.jsonl", "c.jsonl", first.stored, "e.jsonl")
    assert root["sft"].batches() == [second.stored]
    assert _contents(root) == before
    assert read_batch(root["sft"], second.stored).height == 4 + 2 + 4 + 4
    tables = [path.name for path in visible_files(root.path) if "raw" not in path.parts]
    assert tables == [f"{second.stored}.parquet"] * 4


def test_the_latest_ingested_stay_on_their_own(root: DataRoot) -> None:
    """The time of ingestion decides, then the name; what was folded before is never kept."""
    assert compact(root["sft"], keep_latest=4) is None
    os.utime(root["sft"].samples("d.jsonl"), (9, 9))
    result = compact(root["sft"], keep_latest=3)
    assert result is not None
    assert result.folded == ("b.jsonl", "e.jsonl")
    for batch in ("a.jsonl", "c.jsonl", "d.jsonl"):
        os.utime(root["sft"].samples(batch), (9, 9))
    again = compact(root["sft"], keep_latest=2)
    assert again is not None
    assert again.folded == ("a.jsonl", result.stored)
    assert compact(root["sft"], keep_latest=2) is None


def test_batches_without_a_current_state_are_left_alone(root: DataRoot) -> None:
    """What is half ingested or not measured stays as it is, and the result says why."""
    _ingest(root, "a.jsonl", [50, 51], seconds=4)
    root["sft"].quarantine("d.jsonl").unlink()
    result = compact(root["sft"], keep_latest=0)
    assert result is not None
    assert result.folded == ("b.jsonl", "c.jsonl", "e.jsonl")
    assert root["sft"].batches() == ["a.jsonl", result.stored, "d.jsonl"]
    assert list(result.left_alone) == ["d.jsonl", "a.jsonl"]
    assert (
        "the file is missing; ingest the batch 'd.jsonl' of sft again"
        in result.left_alone["d.jsonl"]
    )
    assert result.left_alone["a.jsonl"] == (
        "it has no compression state for the samples that it holds now; materialise "
        "sft/compression_state for the partition 'a.jsonl'"
    )
    assert [member.batch for member in whole_members(root["sft"])] == [
        "a.jsonl", "b.jsonl", "c.jsonl", "e.jsonl",
    ]  # fmt: skip


def test_a_table_with_other_rows_than_it_tells_is_left_alone(root: DataRoot) -> None:
    """A batch whose table lacks rows is not folded: the originals would be gone."""
    path = root["sft"].samples("d.jsonl")
    metadata = {k: v for k, v in pl.read_parquet_metadata(path).items() if k != "ARROW:schema"}
    pl.read_parquet(path).head(3).write_parquet(path, metadata=metadata)
    result = compact(root["sft"], keep_latest=0)
    assert result is not None
    assert result.left_alone == {"d.jsonl": f"{path}: has 3 rows, must have 4; ingest it again"}


def test_of_two_compacted_batches_the_later_one_counts(root: DataRoot) -> None:
    """Where an earlier one could not be folded again, a later one supersedes its members."""
    first = compact(root["sft"], keep_latest=3)
    assert first is not None
    root["sft"].state(first.stored).unlink()
    _measured(root, "b.jsonl", [30, 31], seconds=6)
    second = compact(root["sft"], keep_latest=0)
    assert second is not None
    assert list(second.left_alone) == [first.stored]
    assert root["sft"].batches() == sorted([first.stored, second.stored])
    assert _numbers(root, "b.jsonl") == ["30", "31"]
    assert _numbers(root, "d.jsonl") == ["1", "2", "3", "20"]
    write_state(root["sft"], "d.jsonl")
    before = _contents(root)
    third = compact(root["sft"], keep_latest=0)
    assert third is not None
    assert root["sft"].batches() == [third.stored]
    assert _contents(root) == before


def test_states_of_a_compacted_batch_can_be_computed_again(root: DataRoot) -> None:
    """They come out as they were, each told as its own."""
    before = _contents(root)
    result = compact(root["sft"], keep_latest=1)
    assert result is not None
    whole = state_metadata(root["sft"], result.stored) or {}
    root["sft"].state(result.stored).unlink()
    assert state_metadata(root["sft"], "d.jsonl") is None
    with pytest.raises(ValueError, match=f"for the partition '{result.stored}'"):
        read_state(root["sft"], "d.jsonl")
    assert write_state(root["sft"], result.stored).height == 12
    assert _contents(root) == before
    again = state_metadata(root["sft"], result.stored) or {}
    assert again["fingerprint"] == whole["fingerprint"]


def test_a_damaged_compacted_batch_is_refused(root: DataRoot) -> None:
    """Without one of its tables neither the pool nor a compaction goes on as if nothing were."""
    result = compact(root["sft"], keep_latest=1)
    assert result is not None
    root["sft"].duplicates(result.stored).unlink()
    for read in (members, lambda folder: compact(folder, keep_latest=0)):
        with pytest.raises(ValueError, match="the file is missing; remove what is left of"):
            read(root["sft"])
    assert [member.batch for member in whole_members(root["sft"])] == ["c.jsonl"]


def test_there_must_be_two_batches_to_fold(tmp_path: Path) -> None:
    """With nothing to fold nothing is done; a negative number to keep is an error."""
    root = DataRoot(tmp_path)
    assert compact(root["sft"], keep_latest=0) is None
    _measured(root, "a.jsonl", [1, 2])
    assert compact(root["sft"], keep_latest=0) is None
    assert root["sft"].batches() == ["a.jsonl"]
    with pytest.raises(ValueError, match="keep_latest: got -1; allowed are whole numbers from 0"):
        compact(root["sft"], keep_latest=-1)


def test_no_drop_may_be_called_like_a_compacted_batch(tmp_path: Path) -> None:
    """Its batch could not be told from one."""
    with pytest.raises(ValueError, match="such a name is that of a compacted batch"):
        _ingest(DataRoot(tmp_path), "compacted-0123456789ab", [1])


def test_compaction_waits_for_those_who_read_and_write(root: DataRoot) -> None:
    """While somebody relies on where batches lie, none is moved."""
    done = threading.Event()

    def fold() -> None:
        compact(root["sft"], keep_latest=0)
        done.set()

    with batches_stay(root["sft"]), batches_stay(root["sft"]):
        thread = threading.Thread(target=fold)
        thread.start()
        assert not done.wait(0.3)
        assert len(root["sft"].batches()) == 5
    thread.join(timeout=60)
    assert done.is_set()
    assert len(root["sft"].batches()) == 1
