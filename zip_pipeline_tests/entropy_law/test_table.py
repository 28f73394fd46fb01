"""The stored table of versions."""

import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import (
    SCHEMA,
    is_blocked,
    read_versions,
    training_refusal,
    upsert_version,
    versions_path,
)
from zip_pipeline.files import hashing
from zip_pipeline_tests.entropy_law.tables import version_row, versions


def test_versions_table_is_empty_before_the_first_version(tmp_path: Path):
    """Where nothing was recorded the table has its columns and no row."""
    table = read_versions(DataRoot(tmp_path))
    assert table.schema == SCHEMA
    assert table.is_empty()


def test_upsert_adds_what_is_known_later_and_keeps_the_rest(tmp_path: Path):
    """A second upsert sets the columns it names, also to None, and no others."""
    root = DataRoot(tmp_path)
    upsert_version(root, {"stage": "sft", "version": 2, "R": 3.5, "L": 1.25, "reason": "x"})
    upsert_version(root, {"stage": "preference", "version": 2, "R": 4.5})
    upsert_version(root, {"stage": "sft", "version": 1, "num_tokens": 10})
    returned = upsert_version(root, {"stage": "sft", "version": 2, "Z": 6.5, "reason": None})
    table = read_versions(root)
    assert table.equals(returned)
    assert table.select("stage", "version", "R", "L", "Z", "reason", "num_tokens").rows() == [
        ("preference", 2, 4.5, None, None, None, None),
        ("sft", 1, None, None, None, None, 10),
        ("sft", 2, 3.5, 1.25, 6.5, None, None),
    ]


def test_upsert_dates_a_version_once(tmp_path: Path):
    """``created_at`` is the first upsert's time unless given, and stays; text is understood."""
    root = DataRoot(tmp_path)
    before = datetime.now(UTC)
    first = upsert_version(root, {"stage": "sft", "version": 1})["created_at"][0]
    assert before - timedelta(seconds=1) <= first <= datetime.now(UTC)
    assert upsert_version(root, {"stage": "sft", "version": 1, "R": 2.0})["created_at"][0] == first
    row = {"stage": "sft", "version": 2, "created_at": "2025-02-03T04:05:06+01:00"}
    assert upsert_version(root, row)["created_at"][1] == datetime(2025, 2, 3, 3, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"version": 1}, "stage: None is not allowed; must be one of"),
        ({"stage": "dpo", "version": 1}, "stage: 'dpo' is not allowed"),
        ({"stage": "sft"}, "version: missing"),
        ({"stage": "sft", "version": -1}, "version: -1 is negative"),
        ({"stage": "sft", "version": True}, "version: True is not allowed; must be int"),
        ({"stage": "sft", "version": 1, "ratio": 2}, r"unknown columns \['ratio'\]"),
        ({"stage": "sft", "version": 1, "R": 0.0}, "R: 0.0 is not allowed; must be more than 0"),
        ({"stage": "sft", "version": 1, "L": float("nan")}, "L: nan is not allowed.*diverged"),
        ({"stage": "sft", "version": 1, "L": "1"}, "L: '1' is not allowed; must be a number"),
        ({"stage": "sft", "version": 1, "L_spread": -1}, "L_spread: -1 .* must be 0 or more"),
        ({"stage": "sft", "version": 1, "override": True}, "override: True .* must be str"),
        ({"stage": "sft", "version": 1, "created_at": datetime(2025, 1, 1)}, "with its zone"),
        ({"stage": "sft", "version": 1, "created_at": 5}, "created_at: 5 is not allowed"),
    ],
)
def test_upsert_refuses_what_the_table_cannot_hold(
    tmp_path: Path, row: dict[str, object], message: str
):
    """A wrong column or value is named with what is allowed, and nothing is written."""
    with pytest.raises(ValueError, match=message):
        upsert_version(DataRoot(tmp_path), row)
    assert not versions_path(DataRoot(tmp_path)).exists()


def test_versions_table_of_other_columns_is_refused(tmp_path: Path):
    """A file of another schema is named with all that is wrong, and is not overwritten."""
    root = DataRoot(tmp_path)
    path = versions_path(root)
    path.parent.mkdir()
    pl.DataFrame({"stage": ["sft"], "R": ["3"], "score": [1.0]}).write_parquet(path)
    content = path.read_bytes()
    for action in (read_versions, lambda r: upsert_version(r, {"stage": "sft", "version": 1})):
        with pytest.raises(ValueError) as caught:
            action(root)
        assert str(path) in str(caught.value)
        assert (
            "no column 'version'; column 'R' is String, must be Float64; unknown column 'score'"
            in str(caught.value)
        )
    assert path.read_bytes() == content


def test_versions_table_of_fewer_columns_is_read(tmp_path: Path):
    """A column that an older table does not have is null."""
    root = DataRoot(tmp_path)
    upsert_version(root, {"stage": "sft", "version": 1, "R": 2.0, "Z": 1.0})
    path = versions_path(root)
    with hashing(path):
        pl.read_parquet(path).drop("Z", "Z_name").write_parquet(path)
    table = read_versions(root)
    assert table.schema == SCHEMA
    assert table.select("R", "Z").rows() == [(2.0, None)]


def test_upserts_of_processes_at_once_lose_no_row(tmp_path: Path):
    """Four processes that write ten versions each leave forty."""
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from zip_pipeline.entropy_law.table import upsert_version
        from zip_pipeline.data_root import DataRoot

        for version in range(int(sys.argv[2]), 40, 4):
            upsert_version(DataRoot(Path(sys.argv[1])), {"stage": "sft", "version": version})
    """)
    command = [sys.executable, "-c", code, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(first)]) for first in range(4)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0, 0]
    assert read_versions(DataRoot(tmp_path))["version"].to_list() == list(range(40))
    assert sorted(p.name for p in (tmp_path / "entropy_law").iterdir()) == [
        ".versions.lock",
        "versions.hashes.json",
        "versions.parquet",
    ]


def test_a_risk_is_blocked_until_it_is_overridden():
    """Only the verdict ``risk`` blocks, and only without a reason to override it."""
    table = versions(
        version_row(1),
        version_row(2, verdict="redundancy_warning"),
        version_row(3, verdict="risk"),
        version_row(4, verdict="risk", override=" "),
        version_row(5, verdict="risk", override="Ada: known change"),
    )
    assert table.select(is_blocked()).to_series().to_list() == [False, False, True, True, False]


def test_training_is_refused_where_no_verdict_lets_it_through():
    """A blocked version is refused with its reason, an unjudged one with what to do."""
    table = versions(
        version_row(1, verdict="first"),
        version_row(2, verdict="risk", reason="Version 2: worse."),
        version_row(3, verdict="risk", override="Ada"),
        version_row(4),
        version_row(5, verdict="risk"),
    )
    assert training_refusal(table, "sft", 1) is None
    assert training_refusal(table, "sft", 2) == (
        "sft version 2 is blocked: Version 2: worse. To train it nevertheless, give a reason "
        "under `override` in the launchpad"
    )
    assert training_refusal(table, "sft", 3) is None
    for version in (4, 6):
        assert "has no verdict yet" in str(training_refusal(table, "sft", version))
    assert "no reason was recorded" in str(training_refusal(table, "sft", 5))
    assert "has no verdict yet" in str(training_refusal(table, "preference", 1))
