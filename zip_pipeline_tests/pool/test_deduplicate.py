"""Rules of exact duplicates."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.pool import batches, parts
from zip_pipeline.pool.batches import DUPLICATES_SCHEMA, split_duplicates

PLACES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=12)


def slow_split(rows: list[tuple]) -> tuple[list[tuple], list[tuple]]:
    """Return first rows and repeats by looking back at every row."""
    firsts: list[tuple] = []
    repeats: list[tuple] = []
    for row in rows:
        first = next((f for f in firsts if f[0] == row[0]), None)
        (firsts.append(row) if first is None else repeats.append((*row, *first[1:])))
    return firsts, repeats


@settings(deadline=None)
@given(PLACES, st.integers(1, 4))
def test_split_duplicates_keeps_the_first_and_names_it(places, num_hashes):
    """Of equal samples the first stays; each other is recorded with the place of the first.

    So it is where different ids have the same hash, and where the samples lie in files.
    """
    rows = [(key, batch, "f", n) for n, (key, batch) in enumerate(places)]
    columns = ["sample_id", "batch", "source_file", "source_row"]
    schema = {c: DUPLICATES_SCHEMA[c] for c in columns}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_PART_BYTES", 60)
        patch.setattr(batches, "_hashes", lambda ids: ids.hash().to_numpy() % num_hashes)
        samples = parts.Parts(table.clear())
        for row in table.iter_slices(1):
            samples.append(row)
        firsts, repeats = split_duplicates(samples)
        assert (firsts.frame().rows(), repeats.rows()) == slow_split(rows)
    assert repeats.schema == DUPLICATES_SCHEMA
