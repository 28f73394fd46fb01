"""Tables and matrices in temporary files, against what would be in memory."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.tables import (
    Buckets,
    PartOfTable,
    TemporaryMatrix,
    TemporaryTable,
    id_numbers,
    positions_by_id,
    rows_in_parts,
    rows_of,
)
from zip_pipeline_tests.selection.pools import numbered_pool


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_a_matrix_is_read_as_it_was_written(dtype: type[np.generic], tmp_path: Path) -> None:
    """Whole rows and parts of them, in any order; what was not written is zero."""
    numbers = np.arange(60).reshape(12, 5).astype(dtype)
    matrix = TemporaryMatrix((12, 5), dtype, tmp_path)
    matrix.write(np.array([7, 2, 3, 11]), numbers[[7, 2, 3, 11]])
    matrix.write(np.array([0, 5]), numbers[[0, 5], 3:], 3)
    expected = np.zeros_like(numbers)
    expected[[7, 2, 3, 11]] = numbers[[7, 2, 3, 11]]
    expected[[0, 5], 3:] = numbers[[0, 5], 3:]
    assert len(matrix) == 12
    for rows in (slice(None), slice(2, 4), slice(0, 0), slice(9, 40), np.array([11, 2, 3, 0, 2])):
        assert matrix[rows].tolist() == expected[rows].tolist()


def test_a_matrix_has_no_name(tmp_path: Path) -> None:
    """So that a killed process leaves nothing; its folder is made where it is not there."""
    folder = tmp_path / "cache"
    matrix = TemporaryMatrix((3, 0), np.float32, folder)
    assert matrix[:].shape == (3, 0)
    assert list(folder.iterdir()) == []


@given(st.lists(st.lists(st.integers(0, 99), max_size=30), max_size=5), st.integers(0, 40))
def test_buckets_hold_all_rows_by_their_keys(parts: Sequence[Sequence[int]], least: int) -> None:
    """In the order of the buckets, and within one in that of their coming."""
    rows = np.dtype([("key", np.uint64), ("number", np.int16)])
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("zip_pipeline.tables._LEAST_KEYS", 30)
        buckets, given = Buckets(rows, 100, Path(folder)), []
        for keys in parts:
            own = [(key, number) for number, key in enumerate(keys, start=len(given))]
            given += own
            buckets.add(np.array(keys, np.uint64), np.array(own, rows))
        found = [part.tolist() for part in buckets.each()]
        assert found == [[own for own in given if own[0] // 30 == n] for n in range(4)]
        joined = [part.tolist() for part in buckets.each(least)]
        assert list(chain(*joined)) == list(chain(*found))
        assert all(len(part) >= least for part in joined[:-1])


def test_buckets_of_nothing_are_none(tmp_path: Path) -> None:
    """Where there is no key; where there are keys and no rows they are empty."""
    assert list(Buckets(np.dtype(np.uint64), 0, tmp_path).each()) == []
    (only,) = Buckets(np.dtype(np.uint64), 3, tmp_path).each()
    assert len(only) == 0


def test_parts_of_a_table_are_those_of_a_frame(tmp_path: Path) -> None:
    """Whether it lies in a file, is a part, or a part of a part."""
    frame = numbered_pool(50).select("sample_id", "source")
    stored = TemporaryTable([frame[:20].lazy(), [frame[20:30], frame[30:]]], tmp_path)
    assert rows_of(stored).equals(frame)
    some = PartOfTable.of(stored, np.array([40, 3, 3, 28]))
    assert rows_of(some, "source").equals(frame[[40, 3, 3, 28]].select("source"))
    assert rows_of(PartOfTable.of(some, np.array([2, 0]))).equals(frame[[3, 40]])
    parts = list(rows_in_parts(stored, "source", num_rows=9))
    assert pl.concat(parts).equals(frame.select("source"))
    assert max(part.height for part in parts) <= 9
    stored.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ids", [None, ["b", "a", "c"]])
def test_ids_are_in_order_by_their_numbers(ids: list[str] | None) -> None:
    """Where they are hashes; other ids have numbers, too, and stand in their own order."""
    names = numbered_pool(50)["sample_id"].to_list() if ids is None else ids
    frame = pl.DataFrame({"sample_id": names})
    order = positions_by_id(frame)
    assert [names[place] for place in order] == sorted(names)
    numbers = id_numbers(frame)
    assert len(set(numbers.tolist())) == len(names)
    if ids is None:
        assert numbers[order].tolist() == sorted(numbers.tolist())
