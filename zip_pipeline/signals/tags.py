"""Signal ``tags``: what a record says that it is about."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
from pydantic import Field

from zip_pipeline.samples import Stage
from zip_pipeline.settings import Settings
from zip_pipeline.signals import Measure, Signal, Tools


class TagsSettings(Settings):
    """Where the tags stand: the table ``[signals.tags]``."""

    field: str = Field(
        default="tags",
        description="A field of the records: a list of texts, or a text with commas between the "
        "tags. Dots lead into nested fields, as in meta.tags.",
    )


class Tags(Signal):
    """The different tags of a record, in its order; null where it has none."""

    name = "tags"
    description = "the tags that the record has"
    settings = TagsSettings
    columns = pl.Schema({"tags": pl.List(pl.String)})
    block = 4096

    def identity(self, settings: TagsSettings, tools: Tools) -> str:
        """Return the field."""
        return f"field {settings.field}"

    @contextmanager
    def open(self, settings: TagsSettings, stage: Stage, tools: Tools) -> Iterator[Measure]:
        """Give what reads the records."""
        names = settings.field.split(".")

        def measure(samples: pl.DataFrame) -> pl.DataFrame:
            found = [_tags(json.loads(raw), names) for raw in samples["raw"]]
            return pl.DataFrame({"tags": found}, schema=self.columns)

        yield measure


def plain(tags: pl.Series) -> pl.Series:
    """Return tags without what forms of one tag differ in: case, and how much white space."""
    return tags.str.to_lowercase().str.replace_all(r"\s+", " ")


def _tags(value: Any, names: list[str]) -> list[str] | None:  # noqa: ANN401  what JSON can hold
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    given = value.split(",") if isinstance(value, str) else value
    listed = given if isinstance(given, list) else []
    texts = [tag.strip() for tag in listed if isinstance(tag, str)]
    return list(dict.fromkeys(filter(None, texts))) or None


SIGNAL = Tags()
