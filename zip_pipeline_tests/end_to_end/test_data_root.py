"""What people and nights do to a data root, in any order: it stays whole, and picks repeat."""

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from zip_pipeline.data_root import VERSION_FILES, DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline.pool.pool import assemble_pool
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import select
from zip_pipeline.workflow.versions import current_version, read_version, select_version
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl
from zip_pipeline_tests.end_to_end.crash_points import OPERATIONS, writes
from zip_pipeline_tests.end_to_end.kills import check_data_root
from zip_pipeline_tests.folded_batches import fold

NAMES = ("a.jsonl", "b.jsonl", "c.jsonl")
CONFIGS = [
    SelectionConfig(strategy=strategy, budget_samples=4, num_shards=num_shards, **zip_options)
    for strategy, num_shards, zip_options in (
        ("zip", 1, {"k1": 8, "k2": 4, "k3": 2}),
        ("zip", 2, {"k1": 8, "k2": 4, "k3": 2}),
        ("long_range", 1, {}),
        ("coverage", 1, {}),
        ("random", 1, {}),
    )
]


class StoppedError(BaseException):
    """Stands for a process that ends before an operation; nothing catches it."""


class _Stopper:
    """Stops what is done below a folder before one of its operations; hooks stay for ever."""

    def __init__(self) -> None:
        self.folder, self.left = "", 0
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.left or event not in OPERATIONS or (event == "open" and not writes(*arguments)):
            return
        if any(self.folder in str(argument) for argument in arguments[:2]):
            self.left -= 1
            if not self.left:
                raise StoppedError


class Years(RuleBasedStateMachine):
    """A data root, and what must be true of it."""

    stopper: _Stopper

    @initialize()
    def begin(self) -> None:
        """Start with nothing."""
        self.base = Path(tempfile.mkdtemp())
        self.root = DataRoot(self.base / "data")
        self.root["sft"].raw.mkdir(parents=True)
        (self.root.path / "zip_pipeline.toml").write_text("[held_out]\nshare = 0.0\n")
        self.rows: dict[str, int] = {}
        self.versions: dict[str, str] = {}
        self.backed_up: tuple[dict[str, int], dict[str, str]] | None = None

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.stopper.left = 0
        if hasattr(self, "base"):
            shutil.rmtree(self.base)

    def _ingest(self, name: str) -> None:
        ingest_drop(self.root["sft"], name)
        write_state(self.root["sft"], name)

    @rule(name=st.sampled_from(NAMES), first=st.integers(0, 6), num=st.integers(1, 9))
    def drop(self, name: str, first: int, num: int) -> None:
        """Drop a file, a first time or in place of another, with repeats and a bad line."""
        records = [*sft_records(num, first=first), *sft_records(1, first=first), "{"]
        write_jsonl(self.root["sft"].raw / name, records)
        self._ingest(name)
        self.rows[name] = num + 2

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), operation=st.integers(1, 20))
    def ingestion_is_stopped(self, data: st.DataObject, operation: int) -> None:
        """End an ingestion anywhere; the next one does all."""
        name = data.draw(st.sampled_from(sorted(self.rows)))
        self._stopped(lambda: self._ingest(name), operation)
        self._ingest(name)

    @precondition(lambda self: len(self.rows) > 1)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Take a batch out as the documentation says: drop, samples, state."""
        name = data.draw(st.sampled_from(sorted(self.rows)))
        folder = self.root["sft"]
        for path in (folder.raw / name, folder.samples(name), folder.state(name)):
            path.unlink()
        del self.rows[name]

    @precondition(lambda self: len(self.rows) > 1)
    @rule()
    def swap(self) -> None:
        """Let two drops change places."""
        one, other = sorted(self.rows)[:2]
        raw = self.root["sft"].raw
        (raw / one).rename(raw / "kept")
        (raw / other).rename(raw / one)
        (raw / "kept").rename(raw / other)
        self.rows[one], self.rows[other] = self.rows[other], self.rows[one]
        self._ingest(one)
        self._ingest(other)

    @precondition(lambda self: len(self.rows) > 1)
    @rule()
    def come_from_an_earlier_release(self) -> None:
        """Find batches as an earlier release folded them; the next one to look unfolds them."""
        fold(self.root["sft"], sorted(self.rows)[:2])
        self.root = DataRoot(self.root.path)

    @precondition(lambda self: self.rows)
    @rule(config=st.sampled_from(CONFIGS), operation=st.integers(0, 60))
    def night(self, config: SelectionConfig, operation: int) -> None:
        """Select where something changed, stopped somewhere before; picks are those of the pool."""
        folder = self.root["sft"]
        self._stopped(lambda: self._select(config), operation)
        number = self._select(config)
        ledger = read_version(folder, number).ledger
        pool = assemble_pool(folder)
        wanted = select(pool.samples, None, "sft", config).picks
        picked = ledger.filter(fate="picked").sort("rank")["sample_id"]
        assert picked.to_list() == pool.samples["sample_id"][wanted].to_list()
        assert ledger.height == len(pool.samples) + pool.duplicates.height

    def _select(self, config: SelectionConfig) -> int:
        folder = self.root["sft"]
        number = current_version(folder, config)
        return select_version(folder, config, lambda _: None) if number is None else number

    def _stopped(self, action: Any, operation: int) -> None:
        self.stopper.folder, self.stopper.left = str(self.root.path), operation
        try:
            action()
        except StoppedError:
            pass
        finally:
            self.stopper.left = 0

    @rule()
    def lose_checkpoints(self) -> None:
        """Remove what selections would go on from."""
        shutil.rmtree(self.root["sft"].checkpoints, ignore_errors=True)

    @rule()
    def back_up(self) -> None:
        """Copy the data root, which replaces an older copy."""
        shutil.rmtree(self.base / "backup", ignore_errors=True)
        shutil.copytree(self.root.path, self.base / "backup")
        self.backed_up = dict(self.rows), self._hashes()

    @precondition(lambda self: self.backed_up is not None)
    @rule()
    def restore(self) -> None:
        """Put the copy back."""
        assert self.backed_up is not None
        shutil.rmtree(self.root.path)
        shutil.copytree(self.base / "backup", self.root.path)
        self.rows, self.versions = dict(self.backed_up[0]), dict(self.backed_up[1])

    def _hashes(self) -> dict[str, str]:
        folder = self.root["sft"].versions.folder
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.glob("v*/*"))
        }

    @invariant()
    def nothing_is_half_written(self) -> None:
        """All that is to be seen is whole, and what belongs together agrees."""
        if hasattr(self, "root"):
            check_data_root(self.root)

    @invariant()
    def versions_stay_as_they_are_and_none_is_missing(self) -> None:
        """Numbers have no gap, and no file of an earlier version changes."""
        if not hasattr(self, "root"):
            return
        hashes = self._hashes()
        assert self.versions.items() <= hashes.items()
        self.versions = hashes
        numbers = self.root["sft"].versions.numbers()
        assert numbers == list(range(1, len(numbers) + 1))
        for number in numbers:
            folder = self.root["sft"].versions.path(number)
            assert {path.name for path in folder.iterdir()} >= set(VERSION_FILES)
            ledger = pl.read_parquet(folder / "ledger.parquet")
            manifest = json.loads((folder / "manifest.json").read_text())
            assert ledger.filter(fate="picked").height == manifest["num_picked"]

    @invariant()
    def every_row_has_one_fate(self) -> None:
        """Rows add up to what was dropped."""
        if not hasattr(self, "root") or not self.rows:
            return
        try:
            pool = assemble_pool(self.root["sft"])
        except UserError as error:
            raise AssertionError(error) from error
        assert sorted(pool.fingerprints) == sorted(self.rows)
        assert pool.num_rows_read == sum(self.rows.values())
        num_kept = len(pool.samples) + pool.num_duplicates + pool.num_quarantined
        assert num_kept == pool.num_rows_read


@pytest.mark.slow
def test_a_data_root_stays_whole_whatever_is_done_to_it() -> None:
    """Drops that come, change and go, nights, stops, backups, an older layout."""
    Years.stopper = _Stopper()
    run_state_machine_as_test(
        Years,
        settings=settings(
            max_examples=20,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
