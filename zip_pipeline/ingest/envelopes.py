"""Which JSON objects are envelopes around a list of rows, and which are rows.

The rows of an envelope are its list ``data``, a list of objects or lists. Beside it an envelope
has only metadata: numbers, null, and texts under the names in ``METADATA_KEYS``, at any depth.
Metadata is left out, so whatever could be a row must not count as metadata. An object that
without its list is a row of a known format is a row. One with further lists of rows is rejected.
One with other texts is an envelope only if its list begins with a row of a known format; then
what is around the list is rejected on its own. Else the object is a row.
"""

import json
import re
from collections.abc import Iterable

from zip_pipeline.ingest.formats import FORMATS
from zip_pipeline.ingest.rows import ReadLimits, Record, RejectionError, parse_bytes

_METADATA_NAMES = """
name description version license author authors citation homepage url date created created_at
language split source
"""
METADATA_KEYS = frozenset(_METADATA_NAMES.split())
_TURNS = ({"role", "content"}, {"from", "value"})
_LIST_OF_ROWS = re.compile(rb"\[\s*+[\[{\]]")
_FIRST_BYTES = 1 << 20


def is_list_of_rows(items: bytes | bytearray) -> bool:
    """Return whether the list that begins here is empty, or begins with a list or object.

    A list that begins with a turn of a conversation holds none.
    """
    first = _first_item(items)
    is_turn = isinstance(first, dict) and _is_turn(first)
    return _LIST_OF_ROWS.match(items) is not None and not is_turn


def is_envelope(around: bytes, items: bytes, limits: ReadLimits) -> bool:
    """Return whether an object is an envelope; else it is a row.

    Args:
        around: the object with an empty list in place of its rows.
        items: the list of rows, or its beginning.
        limits: what a row may cost.

    Raises:
        RejectionError: ``mixed_object`` where it holds other lists of rows.
    """
    try:
        text, record = parse_bytes(around, limits)
    except RejectionError:
        # The rows may be sound; what is broken is rejected after them.
        return True
    if _is_known(record):
        return False
    own = _own_fields(text)
    if own and all(own.values()):
        raise _mixed(own)
    return not own or _is_known(_first_item(items))


def check_around(around: bytes, limits: ReadLimits) -> None:
    """Check that only metadata is around the rows of an envelope.

    Raises:
        RejectionError: ``mixed_object``, or as :func:`~zip_pipeline.ingest.rows.parse_bytes`; with
            the raw text.
    """
    text, record = parse_bytes(around, limits)
    own = _own_fields(text)
    if own or _is_known(record):
        why = _mixed(own or record)
        why.raw = text
        raise why


def _mixed(fields: Iterable[str]) -> RejectionError:
    names = ", ".join(json.dumps(name) for name in list(fields)[:20])
    return RejectionError(
        "mixed_object",
        f'the object has {names} beside its list of rows "data"; '
        "put each list into a file of its own, other fields into none",
    )


def _first_item(items: bytes | bytearray) -> object:
    """Return the first item of a list, None where it is broken or very long."""
    text = items[1:_FIRST_BYTES].decode("utf-8", "replace").lstrip()
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _is_known(value: object) -> bool:
    return isinstance(value, dict) and any(f.matches(value) for f in FORMATS.values())


def _is_turn(record: Record) -> bool:
    return any(fields <= record.keys() for fields in _TURNS)


def _own_fields(text: str) -> dict[str, bool]:
    """Return the fields of an object that are no metadata, and whether each is a list of rows."""
    # Objects become pairs, so that of a name that comes twice no value is missed.
    pairs = json.loads(text, object_pairs_hook=tuple)
    return {name: _holds_rows(value) for name, value in pairs if not _is_metadata(name, value)}


def _is_metadata(name: str, value: object) -> bool:
    if isinstance(value, tuple):
        record: Record = dict(value)
        return not _is_known(record) and all(_is_metadata(*pair) for pair in value)
    if isinstance(value, list):
        return all(_is_metadata(name, item) for item in value)
    return not isinstance(value, str) or not value.strip() or name.lower() in METADATA_KEYS


def _holds_rows(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, tuple) and not _is_turn(dict(item)) for item in value
    )
