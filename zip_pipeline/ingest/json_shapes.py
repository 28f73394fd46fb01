"""What a JSON list or object is: a row, a conversation, an envelope of rows or a whole table.

The rows of an envelope are its list ``data`` or ``rows``, a list of objects or, for ``data``,
lists. Beside it an envelope has only metadata: numbers, null, and texts under the names in
``METADATA_KEYS``, at any depth. Metadata is left out, so whatever could be a row must not count as
metadata. An object that without its list is a row of a known format is a row. One with further
lists of rows is rejected. One with other texts is an envelope only if its list begins with a row of
a known format; then what is around the list is rejected on its own. Else the object is a row, or a
whole table: see :func:`table_rows`. A list that begins with a turn is a conversation, a row.
"""

import json
import re
from collections.abc import Iterable, Iterator

from zip_pipeline.ingest.formats import FORMATS
from zip_pipeline.ingest.rows import (
    ReadLimits,
    Record,
    RejectionError,
    holds_messages,
    json_text,
    parse_bytes,
)

_SERVED_KEYS = {"row_idx", "row", "truncated_cells"}
_METADATA_NAMES = """
name description version license author authors citation homepage url date created created_at
language split source
"""
METADATA_KEYS = frozenset(_METADATA_NAMES.split())
_TURNS = ({"role", "content"}, {"from", "value"})
LIST_OF_ROWS = re.compile(rb"\[\s*+[\[{\]]")
_FIRST_BYTES = 1 << 20


def is_list_of_rows(items: bytes | bytearray, key: str) -> bool:
    """Return whether the list that begins here is empty, or begins with a list or object.

    A list that begins with a turn of a conversation holds none. Under ``rows`` tables have their
    cells as lists, so a list does not count there.
    """
    first = first_item(items)
    if is_turn(first) or (key == "rows" and isinstance(first, list)):
        return False
    return LIST_OF_ROWS.match(items) is not None


def is_envelope(around: bytes, items: bytes, limits: ReadLimits, key: str) -> bool:
    """Return whether an object is an envelope; else it is a row.

    Args:
        around: the object with an empty list in place of its rows.
        items: the list of rows, or its beginning.
        limits: what a row may cost.
        key: the name of the list.

    Raises:
        RejectionError: ``mixed_object`` where it holds other lists of rows.
    """
    try:
        text, record = parse_bytes(around, limits)
    except RejectionError:
        # The rows may be sound; what is broken is rejected after them.
        return True
    if is_known(record):
        return False
    own = _own_fields(text)
    if own and all(own.values()):
        raise _mixed(own, key)
    return not own or is_known(first_item(items))


def check_around(around: bytes, limits: ReadLimits, key: str) -> None:
    """Check that only metadata is around the rows of an envelope.

    Raises:
        RejectionError: ``mixed_object``, or as :func:`~zip_pipeline.ingest.rows.parse_bytes`; with
            the raw text.
    """
    text, record = parse_bytes(around, limits)
    own = _own_fields(text)
    if own or is_known(record):
        why = _mixed(own or record, key)
        why.raw = text
        raise why


def _mixed(fields: Iterable[str], key: str) -> RejectionError:
    names = ", ".join(json.dumps(name) for name in list(fields)[:20])
    return RejectionError(
        "mixed_object",
        f'the object has {names} beside its list of rows "{key}"; '
        "put each list into a file of its own, other fields into none",
    )


def first_item(items: bytes | bytearray) -> object:
    """Return the first item of a list, None where it is broken or very long."""
    text = items[1:_FIRST_BYTES].decode("utf-8", "replace").lstrip()
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def is_known(value: object) -> bool:
    """Return whether a value is a record that looks like one of the formats."""
    return isinstance(value, dict) and any(f.matches(value) for f in FORMATS.values())


def is_turn(value: object) -> bool:
    """Return whether a value is a turn of a conversation."""
    return isinstance(value, dict) and any(fields <= value.keys() for fields in _TURNS)


def _own_fields(text: str) -> dict[str, bool]:
    """Return the fields of an object that are no metadata, and whether each is a list of rows."""
    # Objects become pairs, so that of a name that comes twice no value is missed.
    pairs = json.loads(text, object_pairs_hook=tuple)
    return {
        name: _holds_rows(value)
        for name, value in pairs
        if not _is_metadata(name, value) and not _is_schema(name, value)
    }


def _is_metadata(name: str, value: object) -> bool:
    if isinstance(value, tuple):
        record: Record = dict(value)
        return not is_known(record) and all(_is_metadata(*pair) for pair in value)
    if isinstance(value, list):
        return all(_is_metadata(name, item) for item in value)
    return not isinstance(value, str) or not value.strip() or name.lower() in METADATA_KEYS


def _is_schema(name: str, value: object) -> bool:
    """Return whether a field is what the datasets server tells of the columns."""
    items = value if name == "features" and isinstance(value, list) else [None]
    return all(isinstance(item, tuple) and "feature_idx" in dict(item) for item in items)


def _holds_rows(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, tuple) and not is_turn(dict(item)) for item in value
    )


_CONVERSATIONS = ("messages", "conversations", "conversation")
BEGINS_NESTED = re.compile(rb'\{\s*+"[^"\\]*(?:\\.[^"\\]*)*"\s*+:\s*+[\[{]')


def table_rows(text: bytes, *, is_alone: bool) -> Iterator[Record] | None:
    """Return the rows of an object that is a whole table, None where it is a row itself.

    A table is an object of columns, lists or objects by row number, all with as many cells; what
    Pandas writes with ``orient="split"``; or an object that holds rows by their ids.

    Args:
        text: the object.
        is_alone: whether nothing else is in the file; only then fields of no known format count.
    """
    if not BEGINS_NESTED.match(text):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    for shape in (_rows_of_columns, _rows_of_split, _rows_by_id):
        if rows := shape(value, is_alone):
            return rows
    return None


def _unique(pairs: list[tuple[str, object]]) -> Record:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a name comes twice")
    return record


def _rows_of_columns(value: Record, is_alone: bool) -> Iterator[Record] | None:
    indices = [list(column) for column in value.values() if isinstance(column, dict)]
    if indices and indices != [indices[0]] * len(value):
        return None
    columns = [_cells(column) for column in value.values()]
    num_rows = {len(cells) for cells in columns}
    if len(columns) < 2 or len(num_rows) > 1 or num_rows == {0}:
        return None
    first = {name: cells[0] for name, cells in zip(value, columns, strict=True)}
    is_row = any(
        holds_messages(cells) or (name in _CONVERSATIONS and not _may_hold_turns(cells[0]))
        for name, cells in zip(value, columns, strict=True)
    )
    is_plain = not any(isinstance(cell, dict | list) for cell in first.values())
    if is_row or not (is_known(first) or (is_alone and num_rows != {1} and is_plain)):
        return None
    return (dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True))


def _cells(column: object) -> list[object]:
    """Return the cells of a column; none where it is no column."""
    if isinstance(column, dict) and all(name.isdecimal() for name in column):
        return list(column.values())
    return column if isinstance(column, list) else []


def _may_hold_turns(cell: object) -> bool:
    return isinstance(cell, list) or (isinstance(cell, str) and cell.lstrip().startswith("["))


def _rows_of_split(value: Record, is_alone: bool) -> Iterator[Record] | None:
    names, rows = value.get("columns"), value.get("data")
    if not isinstance(names, list) or not isinstance(rows, list) or not is_alone:
        return None
    if value.keys() - {"columns", "index", "data"} or len(set(map(str, names))) < len(names):
        return None
    if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return None
    return (dict(zip(map(str, names), row, strict=True)) for row in rows)


def _rows_by_id(value: Record, is_alone: bool) -> Iterator[Record] | None:
    rows = [row for row in value.values() if isinstance(row, dict) and not is_turn(row)]
    if len(rows) < len(value) or is_known(value):
        return None
    is_alike = len(rows) > 1 and all(row.keys() == rows[0].keys() for row in rows)
    if not all(map(is_known, rows)) and not (is_alone and is_alike and rows[0]):
        return None
    return (dict[str, object](id=key) | row for key, row in zip(value, rows, strict=True))


def served_row(text: str, record: Record) -> tuple[str, Record]:
    """Return a row without what the datasets server puts around it.

    Raises:
        RejectionError: ``unexpected_content`` where the server has cut cells.
    """
    row = record.get("row")
    is_served = isinstance(record.get("row_idx"), int) and not record.keys() - _SERVED_KEYS
    if not is_served or not isinstance(row, dict):
        return text, record
    if cut := record.get("truncated_cells"):
        detail = f"the datasets server has cut the cells {cut}; download the data set instead"
        raise RejectionError("unexpected_content", detail, text)
    return json_text(row), row
