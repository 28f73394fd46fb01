"""How a person says that files are to be read: in a sidecar, on the command line, in Python."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, field_validator

from zip_pipeline.errors import UserError
from zip_pipeline.ingest.formats import format_named
from zip_pipeline.ingest.ratings import RATINGS
from zip_pipeline.ingest.rows import RawRow, Record, RejectionError, rejected_row
from zip_pipeline.ingest.streams import check_encoding_name
from zip_pipeline.samples import ROLES, Stage
from zip_pipeline.settings import Settings

TARGETS = {
    "user": "prompt",
    "assistant": "completion",
    **{
        name: name
        for name in (
            "system", "history", "context", "messages", "tools", "images", "chosen", "rejected",
            "label", "source",
        )
    },
}  # fmt: skip
"""What a column may be mapped to, and the field that it becomes."""


_SAID = frozenset({"user", "assistant", "messages", "chosen", "rejected"})


class ReadOptions(Settings):
    """How files are to be read, where detection is wrong or has nothing to go by."""

    format: str | None = Field(
        default=None, description="Format of the rows, such as alpaca; empty to detect it."
    )
    source: str | None = Field(
        default=None, min_length=1, description="Source of all rows, instead of their own."
    )
    media: Literal["quarantine", "keep"] = Field(
        default="quarantine",
        description="Rows with pictures or sound: quarantine, or keep, which measures their text.",
    )
    pairs: Literal["best-worst", "all"] = Field(
        default="best-worst",
        description="Of ranked answers the best against the worst, or all that differ in rank.",
    )
    encoding: str | None = Field(
        default=None, description="Encoding of text files that are not UTF-8, such as cp1252."
    )
    separator: str | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="Character between the columns of a CSV file; empty to detect it.",
    )
    rows: str | None = Field(
        default=None,
        min_length=1,
        description="Where a JSON file has its list of rows, as in result.items.",
    )
    map: dict[str, str] = Field(
        default={},
        description=f"Which field is what: {', '.join(TARGETS)}; dots lead into nested fields.",
    )
    roles: dict[str, str] = Field(
        default={}, description=f"Which role a name stands for: {', '.join(ROLES)}."
    )

    @field_validator("encoding")
    @classmethod
    def _is_encoding(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            return check_encoding_name(value)
        except UserError as error:
            raise ValueError(str(error).removeprefix("encoding: ")) from None

    @field_validator("map")
    @classmethod
    def _maps_known(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name not in TARGETS:
                raise ValueError(f"got {name!r}; allowed are {', '.join(TARGETS)}")
        return value

    @field_validator("roles")
    @classmethod
    def _names_roles(cls, value: dict[str, str]) -> dict[str, str]:
        for role in value.values():
            if role not in ROLES:
                raise ValueError(f"got {role!r}; allowed are {', '.join(ROLES)}")
        return {name.strip().lower(): role for name, role in value.items()}

    def check_stage(self, stage: Stage) -> None:
        """Raise UserError where the format is none of the stage."""
        if self.format is not None:
            format_named(self.format, stage)

    def over(self, other: "ReadOptions") -> "ReadOptions":
        """Return these options, and those of ``other`` where these say nothing."""
        return ReadOptions(**{**other.model_dump(exclude_unset=True), **self.given()})

    def given(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        return {
            name: value
            for name, value in self.model_dump().items()
            if value != type(self).model_fields[name].default
        }

    def toml(self) -> str:
        """Return the text of a sidecar with these options."""
        lines = [f"{name} = {_toml(value)}" for name, value in self.given().items()]
        return "".join(f"{line}\n" for line in lines)

    def applied(self, rows: Iterable[RawRow]) -> Iterator[RawRow]:
        """Yield rows as ``rows`` and ``map`` say, or rejected where they cannot be read so."""
        for row in self._unfolded(rows) if self.rows else rows:
            if row.record is None or not self.map:
                yield row
                continue
            try:
                yield self._mapped(row, row.record)
            except RejectionError as why:
                yield rejected_row(row.source_file, row.source_row, row.raw, why)

    def _mapped(self, row: RawRow, record: Record) -> RawRow:
        made = {TARGETS[name]: _value_at(record, path) for name, path in self.map.items()}
        paths = self.map.values()
        used = {path if path in record else path.partition(".")[0] for path in paths}
        # What says that an answer was rated is not lost by a mapping that leaves it out, and a
        # mapping of neither question nor answer adds to the record.
        is_whole = not _SAID.isdisjoint(self.map)
        rest = {
            name: value
            for name, value in record.items()
            if name not in {*used, *made} and (name in RATINGS or not is_whole)
        }
        left_out = list(row.left_out)
        left_out += [name for name in record if name not in used and name not in rest]
        for name in used.difference(paths):
            for path, value in _unmapped(record[name], name, set(paths)):
                left_out.append(path)
                field = path.rpartition(".")[2]
                if field in RATINGS:
                    rest.setdefault(field, value)
        return replace(row, record={**rest, **made}, left_out=tuple(left_out))

    def _unfolded(self, rows: Iterable[RawRow]) -> Iterator[RawRow]:
        """Yield the rows of the list at ``rows`` in the place of the object that holds it."""
        for row in rows:
            if row.record is None:
                yield row
                continue
            try:
                items = _value_at(row.record, self.rows or "")
                if not isinstance(items, list):
                    raise RejectionError("wrong_type", f"rows: {self.rows} is no list")
            except RejectionError as why:
                yield rejected_row(row.source_file, row.source_row, row.raw, why)
                continue
            around = _unmapped(row.record, "", {f".{self.rows}"})
            beside = replace(row, left_out=tuple(path[1:] for path, _ in around))
            yield from (_item_row(beside, n, item) for n, item in enumerate(items, start=1))


AS_FOUND = ReadOptions()
"""Everything is detected."""


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items())
        return f"{{ {inner} }}"
    return json.dumps(value, ensure_ascii=False)


def _item_row(row: RawRow, number: int, item: object) -> RawRow:
    raw = json.dumps(item, ensure_ascii=False)
    if isinstance(item, dict):
        return replace(row, source_row=number, raw=raw, record=item)
    why = RejectionError("not_an_object", f"the row is a JSON {type(item).__name__}")
    return rejected_row(row.source_file, number, raw, why)


def _unmapped(value: object, path: str, mapped: set[str]) -> Iterator[tuple[str, object]]:
    """Yield path and value of what stands beside the mapped fields inside of a field."""
    if path in mapped or value in (None, "", [], {}):
        return
    items = dict(enumerate(value)) if isinstance(value, list) else value
    if isinstance(items, dict) and any(name.startswith(f"{path}.") for name in mapped):
        for name, inner in items.items():
            yield from _unmapped(inner, f"{path}.{name}", mapped)
    else:
        yield path, value


def _value_at(record: Record, path: str) -> object:
    """Return the value that a dotted path leads to; a number is a place in a list, from 0.

    A field whose own name has dots comes first.
    """
    value: object = record
    if path in record:
        return record[path]
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise RejectionError("missing_field", f"{path}, which is mapped, is not there")
    return value
