"""Differences between versions."""

from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.report.fates import diff_versions
from zip_pipeline_tests.report.data_roots import ledger_of, small_root, write_version


def test_diff_tells_samples_in_out_and_stayed(tmp_path: Path):
    """Every sample picked in either version is in, out or stayed, with both its fates."""
    difference = diff_versions(small_root(tmp_path)["sft"].versions, 1, 2)
    rows = difference.samples.select("change", "source", "fate_before", "fate_after").rows()
    assert rows == [
        ("in", "b", "not_in_pool", "picked"),
        ("out", "a", "picked", "shortlisted"),
        ("stayed", "a", "picked", "picked"),
    ]
    assert difference.samples["num_bytes"][0] == 100


def test_diff_tells_sources_and_batches(tmp_path: Path):
    """Sources are in, out or stayed with their counts; batches added, removed or changed."""
    store = small_root(tmp_path)["sft"].versions
    there, back = diff_versions(store, 1, 2), diff_versions(store, 2, 1)
    assert there.sources.rows() == [("a", "stayed", 2, 1, 0, 1, 1), ("b", "in", 0, 1, 1, 0, 0)]
    assert back.sources.rows() == [("a", "stayed", 1, 2, 1, 0, 1), ("b", "out", 1, 0, 0, 1, 0)]
    assert there.batches.rows() == [("b.jsonl", "added")]
    assert back.batches.rows() == [("b.jsonl", "removed")]


def test_diff_of_a_version_with_itself_is_empty(tmp_path: Path):
    """Nothing moves between a version and itself."""
    difference = diff_versions(small_root(tmp_path)["sft"].versions, 2, 2)
    assert set(difference.samples["change"]) == {"stayed"}
    assert difference.samples.height == 2
    assert difference.batches.is_empty()


def test_diff_counts_a_repeated_sample_once(tmp_path: Path):
    """In a ledger that holds a sample twice, its picked row counts."""
    root = small_root(tmp_path)
    twice = [{"sample_id": "x"}, {"sample_id": "x", "fate": "picked", "rank": 1}]
    number = write_version(root, ledger_of(twice), inputs={"a.jsonl": "changed"})
    difference = diff_versions(root["sft"].versions, 1, number)
    assert difference.samples.filter(pl.col("sample_id") == "x")["change"].to_list() == ["in"]
    assert difference.batches.rows() == [("a.jsonl", "changed")]


def test_diff_says_that_a_pick_is_held_out_now(tmp_path: Path):
    """A sample that was picked before it was kept for evaluation is out, and says why."""
    root = DataRoot(tmp_path)
    for fate, size in (("picked", 100), ("held_out", None)):
        write_version(root, ledger_of([{"sample_id": "aa", "fate": fate, "num_bytes": size}]))
    difference = diff_versions(root["sft"].versions, 1, 2)
    columns = ("change", "fate_before", "fate_after", "num_bytes")
    assert difference.samples.select(columns).rows() == [("out", "picked", "held_out", 100)]


def test_diff_of_an_unknown_version_names_the_known_ones(tmp_path: Path):
    """An unknown number is an error that lists what there is."""
    with pytest.raises(ValueError, match="no version 9; there are: 1, 2"):
        diff_versions(small_root(tmp_path)["sft"].versions, 1, 9)


def test_diff_counts_each_version_by_the_sources_that_it_had(tmp_path: Path):
    """A sample whose source has another name now left the one and came to the other."""
    root = DataRoot(tmp_path)
    for source in ("old", "new"):
        rows = [{"sample_id": "aa", "source": source, "fate": "picked", "rank": 1}]
        write_version(root, ledger_of(rows))
    difference = diff_versions(root["sft"].versions, 1, 2)
    assert difference.samples["change"].to_list().count("stayed") == 1
    assert sorted(difference.sources.rows()) == [
        ("new", "in", 0, 1, 1, 0, 0),
        ("old", "out", 1, 0, 0, 1, 0),
    ]


def test_diff_says_with_evidence_why_a_sample_went(tmp_path: Path) -> None:
    """What moved is told by the ledger of the version that did not pick it; settings differ."""
    root = DataRoot(tmp_path)
    ledgers = [
        ledger_of([{"sample_id": name, "fate": fate, "rank": 1} for name, fate in fates.items()])
        for fates in (
            {"aa": "picked", "bb": "picked", "cc": "candidate"},
            {"aa": "near_duplicate", "cc": "picked"},
        )
    ]
    evidence = pl.when(fate="near_duplicate").then(pl.lit("the same but for a word"))
    write_version(root, ledgers[0])
    config = {"strategy": "long_range", "budget_samples": 2, "k1": 50, "k2": 20, "k3": 10}
    write_version(root, ledgers[1].with_columns(evidence=evidence), config=config)
    difference = diff_versions(root["sft"].versions, 1, 2)
    assert dict(difference.samples.select("sample_id", "why").iter_rows()) == {
        "aa": "marked as a near-duplicate: the same but for a word",
        "bb": "no batch of that version's pool held it; it stood in a.jsonl",
        "cc": "left among the candidates (the 50 lowest known ratios), last in round 1: its ratio "
        "1.500, measured with what was selected, was too high for the shortlist of 20",
    }
    assert difference.reasons().select("change", "fate", "num_samples").rows() == [
        ("in", "candidate", 1),
        ("out", "near_duplicate", 1),
        ("out", "not_in_pool", 1),
    ]
    assert difference.settings == [
        ("strategy", "zip", "long_range"),
        ("seed", "7", "not set"),
    ]
