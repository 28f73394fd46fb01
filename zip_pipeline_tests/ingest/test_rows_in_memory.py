"""Records that a program holds are read as the rows of a file are."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl
import pytest

from zip_pipeline.ingest.ingest import ingest, ingest_rows
from zip_pipeline.ingest.readers import read_rows, rows_in_memory
from zip_pipeline.ingest.rows import ReadLimits


def test_a_table_gives_the_rows_that_its_parquet_file_gives(tmp_path: Path):
    """Dates, bytes, lists and nulls come alike, whether Polars holds the table or a file."""
    table = pl.DataFrame(
        {
            "question": ["Wie spät?", "b", None],
            "answer": ["acht", "c", "d"],
            "day": [date(2024, 2, 29), None, date(1, 1, 1)],
            "at": [datetime(2024, 1, 1, 12, tzinfo=UTC)] * 3,
            "image": [b"\x00", b"", None],
            "tags": [["x"], [], None],
        }
    )
    table.write_parquet(tmp_path / "t.parquet")
    assert list(rows_in_memory(table, "t.parquet")) == list(read_rows(tmp_path / "t.parquet"))


def test_records_of_python_are_kept_as_json():
    """Tuples and arrays are lists; dates, times and decimal numbers are text."""
    record = {
        "turns": ({"role": "user"},),
        "scores": np.array([1, 2]),
        "score": np.float64(0.5),
        "day": date(2024, 2, 29),
        "took": timedelta(seconds=1),
        "price": Decimal("1.10"),
    }
    (row,) = rows_in_memory([MappingProxyType(record)], "records")
    assert row.raw == (
        '{"turns": [{"role": "user"}], "scores": [1, 2], "score": 0.5, "day": "2024-02-29", '
        '"took": "0:00:01", "price": "1.10"}'
    )
    assert (row.source_file, row.source_row, row.reason) == ("records", 1, None)


def _circle() -> dict[str, object]:
    record: dict[str, object] = {}
    record["self"] = record
    return record


def _deep(num_levels: int) -> list[object]:
    inner: list[object] = []
    for _ in range(num_levels):
        inner = [inner]
    return inner


class _Mute:
    def __repr__(self) -> str:
        raise RuntimeError("says nothing")


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        ("a text", "not_an_object", "the record is a str"),
        (None, "not_an_object", "the record is a NoneType"),
        ({1: "a"}, "wrong_type", "names of fields are texts, got 1"),
        ({"a": {"b": object()}}, "wrong_type", "a object cannot be kept as JSON"),
        (_circle(), "nested_too_deep", "allowed are 3 levels"),
        ({"a": [[[1]]]}, "nested_too_deep", "allowed are 3 levels"),
        ({"a": "x" * 100}, "row_too_long", "109 bytes, allowed are 100; "),
        ({"a": 10**5000}, "unexpected_content", "ValueError: Exceeds the limit"),
        ([10**5000], "not_an_object", "the record is a list"),
        ({"a": _deep(3000)}, "nested_too_deep", "allowed are 3 levels"),
        (_Mute(), "not_an_object", "the record is a _Mute"),
    ],
)
def test_what_cannot_be_kept_is_a_rejected_row(record: object, reason: str, detail: str):
    """Each record has a row, whatever it is, and those after it are read."""
    limits = ReadLimits(max_depth=3, max_row_bytes=100)
    first, second = rows_in_memory([record, {"q": 1}], "records", limits)
    assert (first.source_row, first.record, first.reason) == (1, None, reason)
    assert first.detail.startswith(detail)
    assert (second.source_row, second.record) == (2, {"q": 1})


def test_bytes_and_half_characters_are_no_content():
    """What is no text is refused as content by the format, as in files."""
    records = [{"question": "a", "answer": answer} for answer in ("b", b"b", "\ud800")]
    result = ingest_rows(rows_in_memory(records, "records"), "sft", batch="records")
    assert result.samples["source"].to_list() == ["records"]
    assert result.quarantine["reason"].to_list() == ["wrong_type", "bad_encoding"]


def test_records_and_their_file_are_one_batch(tmp_path: Path):
    """Ids, texts and fingerprint do not depend on where the records were."""
    records = [{"instruction": f"é {n}", "output": f"{n}"} for n in range(3)]
    pl.DataFrame(records).write_parquet(tmp_path / "in.parquet")
    rows = rows_in_memory(records, "in.parquet")
    found = ingest_rows(rows, "sft", batch="b")
    assert found.fingerprint == ingest(tmp_path / "in.parquet", "sft", batch="b").fingerprint
