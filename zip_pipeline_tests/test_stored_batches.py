"""Where batches lie, told from metadata alone."""

import json
from pathlib import Path

from zip_pipeline.data_root import DataRoot
from zip_pipeline.stored_batches import (
    Member,
    batches_stay,
    compacted_name,
    is_compacted,
    live_members,
)

_EARLY, _LATE = "compacted-ffffffffffff", "compacted-000000000000"


def _counts(num_samples: int, num_quarantined: int = 0, num_duplicates: int = 0) -> dict[str, str]:
    return {
        "fingerprint": "f",
        "num_rows_read": str(num_samples + num_quarantined + num_duplicates),
        "num_samples": str(num_samples),
        "num_quarantined": str(num_quarantined),
        "num_duplicates": str(num_duplicates),
    }


def _compacted(generation: int, **members: dict[str, str]) -> dict[str, str]:
    return {"generation": str(generation), "members": json.dumps(members)}


def test_members_of_a_compacted_batch_follow_one_another() -> None:
    """Each begins in every table where the one before it ends."""
    stored = {_EARLY: _compacted(1, a=_counts(3, 2, 1), b=_counts(0, 1, 0), c=_counts(4, 0, 5))}
    assert live_members(stored) == [
        Member("a", _EARLY, 0, _counts(3, 2, 1), 0, 0),
        Member("b", _EARLY, 3, _counts(0, 1, 0), 2, 1),
        Member("c", _EARLY, 3, _counts(4, 0, 5), 3, 1),
    ]


def test_a_batch_on_its_own_supersedes_the_later_of_two_compacted_ones() -> None:
    """Names decide the order of the pool, generations who counts, whatever they are called."""
    stored = {
        "b": _counts(9) | {"ARROW:schema": "x"},
        _LATE: _compacted(12, b=_counts(2), c=_counts(2)),
        _EARLY: _compacted(3, a=_counts(1), b=_counts(1), c=_counts(1)),
    }
    assert live_members(stored) == [
        Member("a", _EARLY, 0, _counts(1)),
        Member("b", "b", 0, _counts(9)),
        Member("c", _LATE, 2, _counts(2)),
    ]


def test_names_of_compacted_batches_are_told_from_others() -> None:
    """Twelve hexadecimal digits, no more, no less, and no extension."""
    assert compacted_name("0123456789abcdef0123456789abcdef") == "compacted-0123456789ab"
    names = ("compacted-0123456789ab", "compacted-0123456789abc", "compacted-0123456789ab.jsonl")
    assert [is_compacted(name) for name in (*names, "compacted-x")] == [True, False, False, False]


def test_who_only_looks_leaves_nothing_behind(tmp_path: Path) -> None:
    """Without a pool there is nothing to lock, and nothing is created."""
    root = DataRoot(tmp_path / "none")
    with batches_stay(root["sft"]):
        assert root["sft"].batches() == []
    assert not root.path.exists()
