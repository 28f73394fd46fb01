"""A short run of the fuzzer; the long one is a command."""

import random

import pytest

from zip_pipeline_tests.ingest.fuzz import read_damaged_files, read_odd_records


@pytest.mark.parametrize("seed", range(4))
def test_records_without_sense_are_taken_or_refused_by_name(seed: int) -> None:
    """No parser breaks on what it did not expect, and none takes everything."""
    fates = read_odd_records(random.Random(seed), 400)
    assert 0 < fates["taken"] < 400
    assert fates["unexpected_content"] == 0


def test_sums_hold_over_damaged_files() -> None:
    """Rows read are samples, quarantined, duplicates and held out, whatever was damaged."""
    fates = read_damaged_files(random.Random(1), 12)
    assert all(fates[name] for name in ("samples", "quarantined", "held_out"))
