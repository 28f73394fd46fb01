"""All record formats by name, and how the format of a file is told."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

from zip_pipeline.errors import UserError
from zip_pipeline.ingest.choices import CHOICE_FORMATS
from zip_pipeline.ingest.conversations import SFT_FORMATS
from zip_pipeline.ingest.preferences import PAIR_FORMATS
from zip_pipeline.ingest.rankings import RANKING_FORMATS
from zip_pipeline.ingest.ratings import ratings_in
from zip_pipeline.ingest.rows import Format, Record, RejectionError, holds_messages
from zip_pipeline.ingest.turns import parse_messages
from zip_pipeline.samples import Stage

FORMATS: dict[str, Format] = {
    f.name: f for f in (*SFT_FORMATS, *RANKING_FORMATS, *PAIR_FORMATS, *CHOICE_FORMATS)
}

_MAX_PLACES = 5


def _of_stage(stage: Stage) -> list[Format]:
    return [f for f in FORMATS.values() if f.stage == stage]


def format_named(name: str, stage: Stage) -> Format:
    """Return a format by its name.

    Raises:
        UserError: the stage has no such format.
    """
    known = [f.name for f in _of_stage(stage)]
    if name not in known:
        raise UserError(
            f"format: {name!r} is no format of {stage}; choose one of {', '.join(known)}, "
            "or leave it out to have it detected"
        )
    return FORMATS[name]


def detect_format(records: Sequence[Record], stage: Stage) -> Format | None:
    """Return the format that the records look like, None where they look like none.

    Of the formats that fit at least three quarters as many records as the best one does it is
    the one that asks for most, so that a few broken records do not hide it; :data:`FORMATS` has
    them in that order.
    """
    counts = [(sum(map(f.matches, records)), f) for f in _of_stage(stage)]
    most = max(num_matches for num_matches, _ in counts)
    return next(f for num, f in counts if 4 * num >= 3 * most) if most else None


def describe_unknown(record: Record, stage: Stage) -> str:
    """Return what a record of no known format has, and what is known."""
    fields = f"fields {', '.join(sorted(record)[:20]) or 'none'}"
    other = next((f for f in FORMATS.values() if f.stage != stage and f.matches(record)), None)
    ratings = ratings_in(record) if stage == "preference" or other is None else []
    if ratings:
        return (
            f"{fields}, rated in {', '.join(ratings)}, but no pair or rated answer as it stands; "
            "say what is what, with --map user=… --map chosen=… --map rejected=… for a pair, "
            "--map user=… --map assistant=… --map label=… for an answer"
        )
    if other is not None:
        return f"{fields}: this is {other.name} of {other.stage}; drop the file there"
    if places := sorted(islice(_places_of_rows(record, ""), _MAX_PLACES), key=_is_no_training):
        found = " or ".join(f'rows = "{place}"' for place in places)
        return f"{fields}: the object holds rows; say {found} in the sidecar, or --rows {places[0]}"
    if _is_header(record):
        return f"{fields}: this row has the names of the fields; remove the lines above it"
    if place := _place_of_messages(record):
        return (
            f'{fields}: {place} holds messages; say map = {{ messages = "{place}" }} in the '
            f"sidecar, or --map messages={place}"
        )
    known = "; ".join(f"{f.name} ({f.fields})" for f in _of_stage(stage))
    return f"{fields}; known are {known}"


def _is_no_training(path: str) -> bool:
    return "train" not in path.lower()


def _is_header(record: Record) -> bool:
    """Return whether the cells of a row are the names of a known format's fields."""
    names = {value.strip().lower(): "" for value in record.values() if isinstance(value, str)}
    return len(names) == len(record) and any(f.matches(dict(names)) for f in FORMATS.values())


def _place_of_messages(record: Record) -> str:
    """Return the path of the only conversation in a record, empty where it has none or several."""
    places = list(_places_of_conversations(record, ""))
    return places[0] if len(places) == 1 else ""


def _places_of_conversations(value: object, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _places_of_conversations(inner, f"{path}.{name}".lstrip("."))
    elif holds_messages(value):
        with suppress(RejectionError):
            if parse_messages(value)[-1].role == "assistant":
                yield path


def _places_of_rows(value: object, path: str) -> Iterator[str]:
    """Yield the paths of lists that begin with a record of a known format."""
    if isinstance(value, list) and value and isinstance(first := value[0], dict):
        if any(f.matches(first) for f in FORMATS.values()):
            yield path
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _places_of_rows(inner, f"{path}.{name}".lstrip("."))
