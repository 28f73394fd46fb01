"""Dates, times and durations of a table as text, however far they lie from today.

Python's own end at the years 1 and 9999, and Polars ends in a panic a little later. So they are
taken out of a table as integers, and written from these.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import polars as pl

from zip_pipeline.pool.rows import Record

_Convert: TypeAlias = Callable[[Any], object]

_EPOCH = datetime(1970, 1, 1)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS = {"ms": 1_000_000, "us": 1_000, "ns": 1}
_DAY = 86_400_000_000
_CYCLE_YEARS = 400
# The Gregorian calendar repeats after 400 years.
_CYCLE = 146_097 * _DAY


def _moment(microseconds: int, zone: tzinfo | None) -> datetime:
    if zone is None:
        return _EPOCH + timedelta(microseconds=microseconds)
    return (_EPOCH_UTC + timedelta(microseconds=microseconds)).astimezone(zone)


def _moment_text(microseconds: int, zone: tzinfo | None) -> str:
    """Return a moment as ISO 8601 with a blank; other years than 0 to 9999 have a sign."""
    try:
        return str(_moment(microseconds, zone))
    except OverflowError:
        cycles, rest = divmod(microseconds, _CYCLE)
        moment = _moment(rest, zone)
        year = moment.year + cycles * _CYCLE_YEARS
        words = f"+{year}" if year > 9999 else f"{year:0{5 if year < 0 else 4}}"
        return words + str(moment)[4:]


def _date_text(days: int) -> str:
    return _moment_text(days * _DAY, None).removesuffix(" 00:00:00")


def _datetime_text(value: int, nanoseconds: int, zone: tzinfo | None) -> str:
    return _moment_text(value * nanoseconds // 1000, zone)


def _duration_text(value: int, nanoseconds: int) -> str:
    # Towards zero, as Polars does.
    microseconds = abs(value) * nanoseconds // 1000 * (1 if value > 0 else -1)
    try:
        return str(timedelta(microseconds=microseconds))
    except OverflowError:
        days, rest = divmod(microseconds, _DAY)
        return f"{days} days, {timedelta(microseconds=rest)}"


def _text_of(dtype: pl.DataType) -> _Convert | None:
    """Return what writes a value of a type that is a date, a time of a day or a duration."""
    if isinstance(dtype, pl.Date):
        return _date_text
    if isinstance(dtype, pl.Datetime):
        zone = ZoneInfo(dtype.time_zone) if dtype.time_zone else None
        return partial(_datetime_text, nanoseconds=_NANOSECONDS[dtype.time_unit], zone=zone)
    if isinstance(dtype, pl.Duration):
        return partial(_duration_text, nanoseconds=_NANOSECONDS[dtype.time_unit])
    return None


def _each_item(convert: _Convert, items: list[object]) -> object:
    return [None if item is None else convert(item) for item in items]


def _each_field(converts: dict[str, _Convert], fields: Record) -> Record:
    return fields | {
        name: convert(value)
        for name, convert in converts.items()
        if (value := fields[name]) is not None
    }


def _as_integers(dtype: Any) -> tuple[pl.DataType, _Convert | None]:  # noqa: ANN401
    """Return the type with integers for dates and times, and what makes texts of these.

    None where there is nothing to convert.
    """
    if isinstance(dtype, pl.List | pl.Array):
        inner, convert = _as_integers(dtype.inner)
        outer = pl.Array(inner, dtype.size) if isinstance(dtype, pl.Array) else pl.List(inner)
        return outer, partial(_each_item, convert) if convert else None
    if isinstance(dtype, pl.Struct):
        fields = {field.name: _as_integers(field.dtype) for field in dtype.fields}
        converts = {name: convert for name, (_, convert) in fields.items() if convert}
        struct = pl.Struct({name: plain for name, (plain, _) in fields.items()})
        return struct, partial(_each_field, converts) if converts else None
    convert = _text_of(dtype)
    return (pl.Int64(), convert) if convert else (dtype, None)


def iter_records(table: pl.DataFrame) -> Iterator[Record]:
    """Yield the rows of a table as records, with dates, times and durations as text.

    The text is that of ``str`` for what Python can hold, such as ``2024-02-29 12:00:00+09:00``;
    further years are written alike, such as ``+56728-02-22``. Nanoseconds are cut off.
    """
    found = {name: _as_integers(dtype) for name, dtype in table.schema.items()}
    converts = {name: convert for name, (_, convert) in found.items() if convert}
    plain = table.cast({name: found[name][0] for name in converts})
    for record in plain.iter_rows(named=True):
        yield _each_field(converts, record) if converts else record
