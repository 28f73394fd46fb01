"""The pool as a selection reads it is the assembled pool, in little memory."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import polars as pl
import pytest

from zip_pipeline.compression.state import texts_of
from zip_pipeline.data_root import DataRoot, remove_leftovers
from zip_pipeline.files import read_metadata, row_group_heights
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.ingest.rows import QUARANTINE_SCHEMA
from zip_pipeline.pool import batches as batches_module
from zip_pipeline.pool import parts
from zip_pipeline.pool import pool as pool_module
from zip_pipeline.pool.batches import (
    BATCH_DUPLICATES_SCHEMA,
    SIZES_SCHEMA,
    BatchTables,
    IngestResult,
    Parts,
    read_state,
    write_batch,
    write_state,
)
from zip_pipeline.pool.held_out import HeldOutSettings, freeze_held_out, read_held_out
from zip_pipeline.pool.pool import SelectionPool, assemble_pool, open_selection_pool
from zip_pipeline.samples import STAGES, Sample, Stage, Turn, frame_of, pool_schema, sample_columns
from zip_pipeline_tests.pool.pools import BATCHES, store, store_pool

PROVENANCE = ["sample_id", "batch", "source", "source_file", "source_row"]
HOLD_OUT = HeldOutSettings(share=0.2, min_source_samples=3)


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> Stage:
    """Return each of the stages."""
    found: Stage = request.param
    return found


def assert_equals_assembled(pool: SelectionPool, root: DataRoot, stage: Stage) -> None:
    """Compare all that a pool tells with the pool that is whole in memory."""
    slow = assemble_pool(root[stage])
    states = pl.concat([read_state(root[stage], batch) for batch in slow.fingerprints])
    states = states.unique("sample_id", keep="first")
    sizes = slow.samples.join(states, on="sample_id", how="left", maintain_order="left")
    assert pool.index.select(PROVENANCE).equals(slow.samples.select(PROVENANCE))
    assert pool.duplicates.equals(slow.duplicates)
    assert pool.held_out.select(PROVENANCE).equals(slow.held_out.select(PROVENANCE))
    assert pool.fingerprints == slow.fingerprints
    assert list(pool.fingerprints) == sorted(BATCHES)
    assert pool.counts == slow.counts
    assert pool.state.equals(sizes.select(SIZES_SCHEMA.names()))
    assert list(pool.texts) == texts_of(slow.samples, stage)
    positions = list(range(slow.samples.height)) * 2
    Random(0).shuffle(positions)
    for some in (positions, positions[:3], []):
        assert pool.rows(some).equals(slow.samples[some])


@pytest.mark.parametrize("rows_per_group", [1, 2, 10_000])
@pytest.mark.parametrize("hold_out", [None, HOLD_OUT])
def test_selection_pool_is_the_assembled_pool(
    tmp_path: Path,
    stage: Stage,
    hold_out: HeldOutSettings | None,
    rows_per_group: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Order, duplicates, held-out samples, texts, states and rows are those of the slow way."""
    monkeypatch.setattr(parts, "ROWS_PER_GROUP", rows_per_group)
    root = DataRoot(tmp_path)
    store_pool(root[stage])
    with open_selection_pool(root[stage], hold_out=hold_out) as pool:
        assert pool.counts == {
            "num_rows_read": 32,
            "num_quarantined": 4,
            "num_duplicates": 8,
            "num_held_out": 0 if hold_out is None else 3,
        }
        assert_equals_assembled(pool, root, stage)


def test_opening_freezes_what_the_whole_rows_would_freeze(tmp_path: Path, stage: Stage) -> None:
    """The held-out set that is drawn from narrow columns is the one drawn from whole samples."""
    narrow, whole = DataRoot(tmp_path / "narrow"), DataRoot(tmp_path / "whole")
    for root in (narrow, whole):
        store_pool(root[stage])
    for num_held_out in (3, 4):
        with open_selection_pool(narrow[stage], hold_out=HOLD_OUT) as pool:
            freeze_held_out(whole[stage], assemble_pool(whole[stage]).parts, HOLD_OUT)
            found, expected = (read_held_out(root[stage]) for root in (narrow, whole))
            assert found is not None
            assert expected is not None
            assert pool.frozen is not None
            assert pool.frozen.samples.equals(expected.samples)
            assert found.samples.equals(expected.samples)
            metadata = [read_metadata(root[stage].held_out) for root in (narrow, whole)]
            assert metadata[0] == metadata[1]
        assert len(found.samples) == num_held_out
        for root in (narrow, whole):
            store(root[stage], "e.jsonl", [52, 55, 58, 61, 64])
    with open_selection_pool(narrow[stage]) as pool:
        assert pool.frozen is not None
        assert pool.frozen.hash == expected.hash


@pytest.mark.parametrize("can_link", [True, False])
def test_open_pool_reads_batches_as_they_were(
    tmp_path: Path, can_link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that comes again meanwhile is read as it was, on every file system; so is the rest
    when another one comes.
    """

    def fail(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    if not can_link:
        monkeypatch.setattr("os.link", fail)
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    before = assemble_pool(root["sft"]).samples
    with open_selection_pool(root["sft"]) as pool:
        store(root["sft"], "c.jsonl", [70, 71])
        store(root["sft"], "late.jsonl", [80, 81])
        assert list(pool.texts) == texts_of(before, "sft")
        assert pool.rows(range(len(before))).equals(before)
    assert not assemble_pool(root["sft"]).samples.equals(before)


def test_batch_replaced_while_the_pool_is_opened_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fingerprints, index and rows are of one form of the batch, the later one."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    check = pool_module.check_table

    def replace_once(*arguments: object) -> None:
        monkeypatch.setattr(pool_module, "check_table", check)
        store(root["sft"], "c.jsonl", [70, 71])

    monkeypatch.setattr(pool_module, "check_table", replace_once)
    with open_selection_pool(root["sft"]) as pool:
        slow = assemble_pool(root["sft"])
        assert pool.fingerprints == slow.fingerprints
        assert pool.rows(range(len(slow.samples))).equals(slow.samples)


GONE = r"pool/sft: batch 'd\.jsonl' is gone from the pool of sft; ingest what is missing again"


def test_batch_that_is_gone_by_the_end_is_an_error(tmp_path: Path) -> None:
    """All of it is read, but what is selected from it is not of the pool that is there."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    before = assemble_pool(root["sft"]).samples
    opened = open_selection_pool(root["sft"])
    pool = opened.__enter__()
    root["sft"].samples("d.jsonl").unlink()
    assert list(pool.texts) == texts_of(before, "sft")
    assert pool.rows(range(len(before))).equals(before)
    with pytest.raises(ValueError, match=GONE):
        opened.__exit__(None, None, None)
    assert list(root.cache.iterdir()) == []


@pytest.mark.parametrize("moment", ["check_table", "_link"])
def test_batch_that_goes_while_the_pool_is_opened_is_an_error(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its file was linked already or not, the others are not taken for the pool."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    do = getattr(pool_module, moment)
    removed: list[Path] = []

    def do_and_remove(*arguments: object) -> None:
        do(*arguments)
        path = root["sft"].samples("d.jsonl")
        if path.exists() and (moment == "check_table" or arguments[0] == path):
            removed.append(path)
            path.unlink()

    monkeypatch.setattr(pool_module, moment, do_and_remove)
    with pytest.raises(ValueError, match=GONE), open_selection_pool(root["sft"]):
        pytest.fail("opened without one of its batches")
    assert len(removed) == 1


def test_measured_batch_without_samples_is_an_error(tmp_path: Path) -> None:
    """A pool that lost batches earlier is not whole until they, or their states, are in place."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    shutil.rmtree(root.path / "pool" / "sft")
    store(root["sft"], "c.jsonl", BATCHES["c.jsonl"])
    message = (
        r"pool/sft: batch 'a=b\.jsonl' and 3 more are gone from the pool of sft; .*state/sft as"
    )
    with pytest.raises(ValueError, match=message), open_selection_pool(root["sft"]):
        pytest.fail("opened the batch that is left")
    for batch in BATCHES.keys() - {"c.jsonl"}:
        root["sft"].state(batch).unlink()
    with open_selection_pool(root["sft"]) as pool:
        assert list(pool.fingerprints) == ["c.jsonl"]


def test_batch_that_is_just_being_replaced_is_there(tmp_path: Path) -> None:
    """Its tables differ for a moment; what was opened before is whole nevertheless."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    with open_selection_pool(root["sft"]) as pool:
        path = root["sft"].quarantine("d.jsonl")
        root["sft"].write(path, pl.read_parquet(path), {"fingerprint": "new"})
        assert pool.index.height == 20
    with pytest.raises(ValueError, match="differ in fingerprint"):
        assemble_pool(root["sft"])


def test_pool_leaves_nothing_behind(tmp_path: Path) -> None:
    """The block's end removes all temporary files, after an error too."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])

    def interrupt() -> None:
        with open_selection_pool(root["sft"]) as pool:
            assert len(pool.texts) == len(pool.index) == 20
            assert list(root.cache.iterdir()) != []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert list(root.cache.iterdir()) == []


def test_long_rows_side_by_side_are_stored_and_read_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short rows beside them, and text that makes a small file, do not hide how much they say."""
    monkeypatch.setattr(parts, "_PART_BYTES", 20_000)
    monkeypatch.setattr(parts, "_BUFFERED_CHARACTERS", 1)
    folder = DataRoot(tmp_path)["sft"]
    folder.raw.mkdir(parents=True)
    sizes = [10] * 50 + [30_000] * 5 + [10] * 50
    rows = [{"prompt": f"{n}", "completion": "x" * size} for n, size in enumerate(sizes)]
    (folder.raw / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ingest_drop(folder, "a.jsonl")
    assert row_group_heights(folder.samples("a.jsonl")) == [51, 1, 1, 1, 1, 50]
    read = []

    def noted(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        read.append(rows.height)
        yield rows

    monkeypatch.setattr(pool_module, "in_small_parts", noted)
    monkeypatch.setattr(batches_module, "in_small_parts", noted)
    with open_selection_pool(folder) as pool:
        assert pool.rows([104, 3, 1, 52])["turns"].list[0].struct[1].to_list() == [
            *("104", "3", "1", "52")
        ]
        assert read == [2, 1, 1]
        assert len(pool.texts) == 105
    write_state(folder, "a.jsonl")
    assert read[3:] == [51, 1, 1, 1, 1, 50] * 2


def test_texts_are_written_only_when_asked_for(tmp_path: Path) -> None:
    """Who needs rows alone writes no text."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    with open_selection_pool(root["sft"]) as pool:
        num_entries = len(list(root.cache.iterdir()))
        assert pool.rows([3])["sample_id"].to_list() == [pool.index["sample_id"][3]]
        assert len(list(root.cache.iterdir())) == num_entries
        assert pool.texts[3] == texts_of(pool.rows([3]), "sft")[0]
        assert len(list(root.cache.iterdir())) == num_entries + 1


def test_leftovers_of_a_killed_selection_are_cleared(tmp_path: Path) -> None:
    """All that an open pool writes is known as left over once its process is gone."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    with open_selection_pool(root["sft"]) as pool:
        assert len(pool.texts) == 20
        remove_leftovers(root, older_than_seconds=-60)
        assert list(root.cache.iterdir()) == []
        root.cache.rmdir()


def test_state_of_other_samples_is_refused(tmp_path: Path) -> None:
    """A state that is missing, or describes another form of a batch or other rows, is an error."""
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    path = root["sft"].state("c.jsonl")
    state, metadata = pl.read_parquet(path), read_metadata(path)
    message = r"no compression state for the samples that batch 'c\.jsonl' holds now; materialise"
    for rows, fingerprint in ((state.tail(3), None), (state.reverse(), None), (state, "other")):
        changed = {} if fingerprint is None else {"pool_fingerprint": fingerprint}
        root["sft"].write(path, rows, metadata | changed)
        with open_selection_pool(root["sft"]) as pool, pytest.raises(ValueError, match=message):
            _ = pool.state
    path.unlink()
    with open_selection_pool(root["sft"]) as pool, pytest.raises(ValueError, match=message):
        _ = pool.state


def test_empty_pool_has_no_samples(tmp_path: Path, stage: Stage) -> None:
    """Without batches there is no row, with the usual columns."""
    with open_selection_pool(DataRoot(tmp_path)[stage], hold_out=HOLD_OUT) as pool:
        assert (pool.index.height, pool.duplicates.height, len(pool.texts)) == (0, 0, 0)
        assert pool.rows([]).schema == pool_schema(stage)
        assert pool.state.height == 0


@pytest.mark.parametrize("part_bytes", [1 << 23, 1])
def test_picked_rows_tell_rank_round_and_pi(
    tmp_path: Path, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come in pick order, also from files; each carries what is told of it."""
    monkeypatch.setattr(parts, "_PART_BYTES", part_bytes)
    root = DataRoot(tmp_path)
    store_pool(root["sft"])
    picks = [5, 2, 11]
    with open_selection_pool(root["sft"]) as pool:
        fates = pl.DataFrame({"rank": [1, 2, 3], "round": [10, 4, 22], "pi": [1.25, 0.5, 2.75]})
        picked = pool.picked_rows(picks, fates).frame()
        assert picked.drop("rank", "round", "pi").equals(pool.rows(picks))
        told = picked.select("rank", "round", "pi").rows()
        assert told == [(1, 10, 1.25), (2, 4, 0.5), (3, 22, 2.75)]


MEASURE = """
import sys
from pathlib import Path
import polars as pl
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.data_root import DataRoot
from zip_pipeline_tests.processes import peak_bytes
before = peak_bytes()
with open_selection_pool(DataRoot(Path(sys.argv[1]))["sft"]) as pool:
    num_bytes = int(pool.texts.num_bytes.sum())
    rows = pool.rows(range(0, len(pool.index), 50))
    picks = pl.int_range(len(pool.index), eager=True).sample(fraction=1, shuffle=True, seed=0)
    rank = pl.int_range(len(picks), eager=True)
    picked = pool.picked_rows(picks, pl.DataFrame({"rank": rank, "round": rank, "pi": rank}))
    print(peak_bytes() - before, num_bytes, len(rows), picked.height)
"""


def _store_long(root: DataRoot, batch: str, num_samples: int, num_bytes: int, seed: int) -> None:
    random = Random(seed)
    rows: list[dict[str, object]] = []
    for number in range(num_samples):
        text = random.randbytes(num_bytes // 2).hex()
        place = {"source_file": batch, "source_row": number, "format": "alpaca", "raw": text}
        named = {"sample_id": text[:32], "batch": batch, "source": "s"}
        rows.append(named | place | sample_columns(Sample((Turn("user", text),))))
    rest = QUARANTINE_SCHEMA.to_frame(), BATCH_DUPLICATES_SCHEMA.to_frame()
    tables = BatchTables(*map(Parts.of, (frame_of("sft", rows), *rest)))
    result = IngestResult(tables, num_samples, f"seed {seed}")
    write_batch(root["sft"], batch, result)


@pytest.mark.slow
def test_pool_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """To write all texts of 180 MB, fetch every 50th row and pick all needs no 300 MB.

    The rows take twice the texts: whoever holds them all needs 470 MB.
    """
    root = DataRoot(tmp_path)
    for number in range(24):
        _store_long(root, f"{number}.jsonl", num_samples=250, num_bytes=30_000, seed=number)
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    growth_bytes, num_bytes, num_rows, num_picked = map(int, done.stdout.split())
    assert (num_bytes, num_rows, num_picked) == (24 * 250 * 30_007, 120, 6_000)
    assert growth_bytes < 300_000_000
