"""Samples measured by a signal, as a pool's batch is."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.samples import (
    AnySample,
    Sample,
    Stage,
    Turn,
    frame_of,
    sample_columns,
    sample_id,
)
from zip_pipeline.signals import Tools, settings_of, signals
from zip_pipeline.workflow.signals import preset_model
from zip_pipeline.workflow.sources import question_texts

TOOLS = Tools(preset_model, Path(), Path(), question_texts)


def table_of(
    samples: Sequence[AnySample], stage: Stage = "sft", raw: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return samples, and their records where given, as a pool table."""
    both = zip(samples, raw or ["{}"] * len(samples), strict=True)
    rows = [
        {"sample_id": sample_id(sample), "source": "a", "raw": record, **sample_columns(sample)}
        for sample, record in both
    ]
    return frame_of(stage, rows)


def measured(
    name: str,
    table: pl.DataFrame,
    stage: Stage = "sft",
    block: int = 1000,
    root: Path = Path(),
    **settings: Any,
) -> pl.DataFrame:
    """Return a signal of each row, measured in blocks of a size."""
    signal = signals[name]
    tools = replace(TOOLS, root=root)
    with signal.open(settings_of(name, settings), stage, tools) as measure:
        starts = range(0, table.height, block)
        parts = [measure(table.slice(start, block)).cast(signal.columns) for start in starts]
    return pl.concat(parts)


def talk(*said: str) -> Sample:
    """Return a conversation in which user and assistant take turns, the user first."""
    roles = ("user", "assistant")
    return Sample(tuple(Turn(roles[place % 2], text) for place, text in enumerate(said)))
