"""Samples kept for evaluation: drawn once per source, frozen, and never in any pool."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import polars as pl

from zip_pipeline.locks import locked
from zip_pipeline.pool.held_out_set import HeldOut, read_held_out
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.storage import DataRoot, write_table
from zip_pipeline.stored_batches import batches_stay, scan_rows, stored_members
from zip_pipeline.training_file import TRAINING_FILE, read_training_table

TABLE = "held_out"


@dataclass(frozen=True, kw_only=True)
class HeldOutSettings:
    """Which samples of a pool are kept for evaluation.

    They count when a source is first seen: a setting that changes later has no effect on the
    sources that ``held_out/<stage>.parquet`` has drawn from. To draw another set, remove that
    file; models that were trained before may then have seen some of it.
    """

    share: float = 0.02
    """of the samples of each source, 0 to 1"""
    seed: int = 0
    """another seed holds out other samples"""
    min_source_samples: int = 200
    """a source with fewer samples in the pool holds out nothing"""
    max_source_samples: int = 200
    """the most that one source holds out"""
    whole_sources: tuple[str, ...] = ()
    """sources held out altogether, also what is dropped of them later"""

    def __post_init__(self) -> None:
        if not _is_number(self.share, int | float) or not 0 <= self.share <= 1:
            raise ValueError(f"share: got {self.share!r}; allowed is 0 to 1")
        for name in ("seed", "min_source_samples", "max_source_samples"):
            value = getattr(self, name)
            if not _is_number(value, int) or not 0 <= value < 2**63:
                raise ValueError(f"{name}: got {value!r}; allowed are whole numbers from 0")
        if not all(isinstance(source, str) for source in self.whole_sources):
            raise ValueError(f"whole_sources: got {self.whole_sources!r}; allowed are names")


def _is_number(value: object, kind: Any) -> bool:  # noqa: ANN401
    return isinstance(value, kind) and not isinstance(value, bool)


def held_out_settings(root: DataRoot) -> HeldOutSettings:
    """Return what the table [held_out] of ``training.toml`` sets.

    Raises:
        ValueError: the file is wrong (see :func:`.read_training_table`), or a setting is unknown
            or out of range.
    """
    path = root.path / TRAINING_FILE
    table = read_training_table(root.path, TABLE) or {}
    allowed = [field.name for field in fields(HeldOutSettings)]
    unknown = sorted(set(table) - set(allowed))
    if unknown:
        raise ValueError(
            f"{path}: [{TABLE}] sets {', '.join(unknown)}; allowed are {', '.join(allowed)}"
        )
    try:
        return _settings(table)
    except ValueError as error:
        raise ValueError(f"{path}: [{TABLE}] {error}") from error


def _settings(table: Mapping[str, Any]) -> HeldOutSettings:
    sources = table.get("whole_sources", [])
    if not isinstance(sources, list):
        raise ValueError(f"whole_sources: got {sources!r}; must be a list of names")
    return HeldOutSettings(**{**table, "whole_sources": tuple(sources)})


def is_held_out(samples: pl.DataFrame, settings: HeldOutSettings) -> pl.Series:
    """Return for each sample of a pool whether it is kept for evaluation.

    Of each source those with the lowest seeded hash of their id, so that neither the order of
    the pool nor another source decides.

    Args:
        samples: a pool table (``sample_id`` and ``source``), each id once.
        settings: how many of which sources.

    Returns:
        Booleans, shape (samples,).
    """
    key = settings.seed.to_bytes(8, "little")
    draws = (hashlib.blake2b(i.encode(), digest_size=8, key=key) for i in samples["sample_id"])
    numbers = (int.from_bytes(draw.digest(), "little") for draw in draws)
    draw = pl.Series(np.fromiter(numbers, np.uint64, len(samples)))
    table = pl.DataFrame({"source": samples["source"], "draw": draw})
    num_samples = pl.len().over("source")
    num_held_out = (num_samples * settings.share).round().clip(0, settings.max_source_samples)
    is_drawn = pl.col("draw").rank("ordinal").over("source") <= num_held_out
    return table.select(
        held_out=pl.col("source").is_in(list(settings.whole_sources))
        | (is_drawn & (num_samples >= settings.min_source_samples))
    )["held_out"]


def freeze_held_out(
    root: DataRoot,
    stage: Stage,
    samples: pl.DataFrame,
    settings: HeldOutSettings,
    rows: Callable[[pl.DataFrame], pl.DataFrame] = lambda held: held,
) -> HeldOut | None:
    """Draw what each new source of a pool holds out, and write it for good.

    A source is drawn from when it is first seen, and never again: no version can have picked any
    of its samples before. One that is too small at that time holds out nothing, ever. What is
    held out already stays, whatever the pool and the settings are by now, and so does a file
    that a person put there. Callers at the same time wait for each other.

    Args:
        root: the data root.
        stage: ``sft`` or ``preference``.
        samples: the pool as it is now; of a sample that two sources have, the first one counts.
        settings: how many samples of which sources.
        rows: returns the pool table of some of the samples, where ``samples`` are not whole.

    Returns:
        The frozen set; None where the pool is too small to hold anything out.

    Raises:
        ValueError: a whole source is in no pool, the whole pool would be held out, or the set
            that is there is wrong (see :func:`.read_held_out`).
    """
    with locked(root.held_out(stage).with_name(f".{stage}.lock")):
        frozen = read_held_out(root, stage)
        if frozen is not None and frozen.is_given:
            return frozen
        seen = frozen.seen_sources if frozen else ()
        fresh = samples.filter(~pl.col("source").is_in(list(seen)))
        if frozen is not None and fresh.is_empty():
            return frozen
        _check_sources(root, settings)
        held = rows(fresh.filter(is_held_out(fresh, settings)))
        if frozen is None and held.is_empty():
            return None
        _require_rest(root, stage, held, samples, settings)
        _write(root, stage, frozen, held, samples, settings)
        return read_held_out(root, stage)


def _require_rest(
    root: DataRoot,
    stage: Stage,
    held: pl.DataFrame,
    samples: pl.DataFrame,
    settings: HeldOutSettings,
) -> None:
    if held.height == samples.height:
        raise ValueError(
            f"{root.path / TRAINING_FILE}: [{TABLE}] would hold out all {held.height} samples of "
            f"the {stage} pool; lower share, or name fewer whole_sources"
        )


def _write(
    root: DataRoot,
    stage: Stage,
    frozen: HeldOut | None,
    held: pl.DataFrame,
    samples: pl.DataFrame,
    settings: HeldOutSettings,
) -> None:
    before = frozen.samples if frozen else held.clear()
    seen = {*(frozen.seen_sources if frozen else ()), *samples["source"].unique()}
    whole = {*(frozen.whole_sources if frozen else ()), *settings.whole_sources}
    grown = HeldOut(pl.concat([before, held]))
    described = {
        **grown.summary(),
        "settings": asdict(settings),
        "seen_sources": sorted(seen),
        "whole_sources": sorted(whole),
    }
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in described.items()}
    write_table(root.held_out(stage), grown.samples, metadata)


def _check_sources(root: DataRoot, settings: HeldOutSettings) -> None:
    missing = set(settings.whole_sources)
    # The settings are those of both stages, so a source need not be in this one.
    for stage in STAGES if missing else ():
        with batches_stay(root, stage):
            for member in stored_members(root, stage):
                rows = scan_rows(root.samples(stage, member.stored_in), member)
                missing -= set(rows.select(pl.col("source").unique()).collect()["source"])
    if missing:
        raise ValueError(
            f"{root.path / TRAINING_FILE}: [{TABLE}] whole_sources names {sorted(missing)[0]!r}, "
            "which is a source of no ingested batch; take names from the column source of a pool, "
            "or drop its file first"
        )
