"""A finished selection in words."""

from zip_pipeline.report.fates import words_of_rows


def test_rows_read_are_told_as_a_sum_of_all_that_became_of_them():
    """What is held out is part of the sum where anything is; older manifests do not have it."""
    counts = {"num_rows_read": 1234, "num_samples": 1200, "num_quarantined": 3}
    counts["num_duplicates"] = 31
    words = "1,234 = 1,200 samples + 3 quarantined + 31 duplicates"
    assert words_of_rows(counts) == words
    assert words_of_rows(counts | {"num_held_out": 0}) == words
    counts |= {"num_rows_read": 1239, "num_held_out": 5}
    assert words_of_rows(counts) == (
        "1,239 = 1,200 samples + 3 quarantined + 31 duplicates + 5 held out"
    )
