"""Dates, times and durations of tables as text."""

from datetime import date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.ingest.tables import iter_records

ZONES = (None, "UTC", "Asia/Tokyo", "America/New_York", "Africa/Monrovia", "Etc/GMT-9")
UNITS = {"ms": 10**3, "us": 10**6, "ns": 10**9}


def texts(values: list[int | None], dtype: pl.DataType) -> list[object]:
    """Return the texts of values that a table stores as integers."""
    integers = pl.Int32() if dtype == pl.Date else pl.Int64()
    table = pl.DataFrame({"a": pl.Series(values, dtype=integers).cast(dtype)})
    return [record["a"] for record in iter_records(table)]


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (20_000_000, pl.Date(), "+56728-02-22"),
        (-719_163, pl.Date(), "0000-12-31"),
        (-719_529, pl.Date(), "-0001-12-31"),
        (2_932_896, pl.Date(), "9999-12-31"),
        (2_932_897, pl.Date(), "+10000-01-01"),
        (2**62, pl.Datetime("ms"), "+146140482-04-24 15:36:27.904000"),
        (-(2**62), pl.Datetime("us"), "-144169-06-28 09:59:32.612096"),
        (253_402_300_799_000_000, pl.Datetime("us", "UTC"), "9999-12-31 23:59:59+00:00"),
        (253_402_300_799_000_000, pl.Datetime("us", "Asia/Tokyo"), "+10000-01-01 08:59:59+09:00"),
        (-62_135_596_800_000, pl.Datetime("ms", "Etc/GMT+9"), "0000-12-31 15:00:00-09:00"),
        (2**62, pl.Duration("ms"), "53375995583 days, 15:36:27.904000"),
        (-(2**62), pl.Duration("ms"), "-53375995584 days, 8:23:32.096000"),
    ],
)
def test_what_python_cannot_hold_is_text_all_the_same(value, dtype, text):
    """Years before 1 and after 9999 and very long durations are written like all others."""
    assert texts([value, None], dtype) == [text, None]


@settings(deadline=None)
@given(data=st.data(), unit=st.sampled_from([*UNITS]), zone=st.sampled_from(ZONES))
def test_moments_are_the_texts_of_what_polars_gives(data, unit, zone):
    """Where Python can hold a moment, the text is that of its own type, zone and all."""
    end = 9_000_000_000 if unit == "ns" else 62_000_000_000
    values = data.draw(st.lists(st.integers(-end * UNITS[unit], end * UNITS[unit]), min_size=1))
    dtype = pl.Datetime(unit, zone)
    slow = pl.Series(values, dtype=pl.Int64).cast(dtype).to_list()
    assert texts(values, dtype) == [str(moment) for moment in slow]


@settings(deadline=None)
@given(data=st.data(), unit=st.sampled_from([*UNITS]))
def test_durations_are_the_texts_of_what_polars_gives(data, unit):
    """Where Python can hold a duration, the text is that of its own type."""
    end = 2**63 - 1 if unit == "ns" else 10**12 * UNITS[unit]
    values = data.draw(st.lists(st.integers(-end, end), min_size=1))
    slow = pl.Series(values, dtype=pl.Int64).cast(pl.Duration(unit)).to_list()
    assert texts(values, pl.Duration(unit)) == [str(duration) for duration in slow]


def test_texts_are_found_at_any_depth():
    """Lists, arrays and structs keep their form and what is not temporal in them, nulls aside."""
    schema = pl.Schema(
        {
            "turns": pl.List(pl.Struct({"at": pl.Datetime("us"), "n": pl.Int64})),
            "pair": pl.Array(pl.Duration("us"), 2),
            "day": pl.Date,
            "time": pl.Time,
        }
    )
    moment = datetime(2024, 2, 29, 12, 0, 0, 500_000)
    rows = [
        ([{"at": moment, "n": 1}, None, {"at": None, "n": 2}], [timedelta(1), None], None, None),
        (None, None, date(2024, 2, 29), None),
        ([], [timedelta(0, 1), timedelta(-1)], date(1, 1, 1), None),
    ]
    assert list(iter_records(pl.DataFrame(rows, schema=schema, orient="row"))) == [
        {
            "turns": [{"at": "2024-02-29 12:00:00.500000", "n": 1}, None, {"n": 2}],
            "pair": ["1 day, 0:00:00", None],
            "day": None,
            "time": None,
        },
        {"turns": None, "pair": None, "day": "2024-02-29", "time": None},
        {"turns": [], "pair": ["0:00:01", "-1 day, 0:00:00"], "day": "0001-01-01", "time": None},
    ]
