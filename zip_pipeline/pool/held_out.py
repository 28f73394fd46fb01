"""Samples kept for evaluation: drawn once per source, frozen, and never in any pool."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint, locked, read_metadata, scan_table, write_table
from zip_pipeline.pool.parts import Parts
from zip_pipeline.samples import (
    STAGES,
    TURN_COLUMNS,
    Stage,
    pool_schema,
    sample_id,
    sample_of,
    with_all_columns,
)
from zip_pipeline.settings import MAX_NUMBER, SETTINGS_FILE, Settings, read_settings


@dataclass(frozen=True)
class HeldOut:
    """The frozen set of a stage.

    Args:
        samples: pool table of the samples that Z is measured on.
        seen_sources: sources that were drawn from, or were too small when they were first seen.
        whole_sources: sources of which no sample may come into a pool, not even a later one.
        is_given: whether a person put the set there, instead of its being drawn.
    """

    samples: pl.DataFrame
    seen_sources: tuple[str, ...] = ()
    whole_sources: tuple[str, ...] = ()
    is_given: bool = False

    @property
    def hash(self) -> str:
        """Return the hash of the sample ids, which does not depend on their order."""
        return fingerprint(sorted(self.samples["sample_id"]))

    def summary(self) -> dict[str, object]:
        """Return what a version records of the set: hash, number of samples, number by source."""
        sources = self.samples["source"].value_counts().sort("source")
        return {
            "hash": self.hash,
            "num_samples": self.samples.height,
            "sources": dict(sources.iter_rows()),
        }

    def split(self, samples: Parts) -> tuple[Parts, pl.DataFrame]:
        """Return the samples of a pool that may be selected, and those kept for evaluation."""
        is_kept = pl.col("sample_id").is_in(self.samples["sample_id"].to_list())
        is_kept |= pl.col("source").is_in(list(self.whole_sources))
        parts = samples.each("sample_id", "source")
        marked = pl.concat(part.select(is_kept=is_kept) for part in parts)["is_kept"]
        return samples.filter(~marked), samples.filter(marked).frame()


def read_held_out(folder: StageFolder) -> HeldOut | None:
    """Return the held-out set of a stage, None where there is none.

    A file that a person put there is used as it is, if it is a pool table of that stage.

    Raises:
        UserError: the file is no such table.
    """
    path = folder.held_out
    if not path.exists():
        return None
    try:
        rows, metadata = with_all_columns(scan_table(path), folder.stage), read_metadata(path)
        schema = rows.collect_schema()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); put a Parquet file there, or remove it so that "
            "another set is drawn"
        ) from error
    for name, dtype in pool_schema(folder.stage).items():
        if schema.get(name) != dtype:
            found = f"is {schema[name]}" if name in schema else "is missing"
            raise _wrong_column(path, name, f"{found}, must be {dtype}")
    samples = rows.select(pool_schema(folder.stage).names()).collect()
    if metadata.get("hash") != HeldOut(samples).hash:
        _check_given(path, samples, folder.stage)
        return HeldOut(samples, is_given=True)
    seen, whole = (json.loads(metadata[name]) for name in ("seen_sources", "whole_sources"))
    return HeldOut(samples, tuple(seen), tuple(whole))


def _check_given(path: Path, samples: pl.DataFrame, stage: Stage) -> None:
    """Check a person's own table: a wrong id would let the sample into the pool."""
    for name in ("sample_id", "source", *TURN_COLUMNS[stage], "tools", "media"):
        if samples[name].null_count():
            raise _wrong_column(path, name, "has empty cells")
    if samples["sample_id"].is_duplicated().any():
        raise _wrong_column(path, "sample_id", "has an id twice")
    for number, row in enumerate(samples.iter_rows(named=True), 1):
        given, found = row["sample_id"], sample_id(sample_of(row, stage))
        if given != found:
            problem = f"has {given!r} in row {number}, where the turns make {found!r}"
            raise _wrong_column(path, "sample_id", problem)


def _wrong_column(path: Path, name: str, problem: str) -> UserError:
    return UserError(
        f"{path}: the column {name} {problem}; give rows of pool/<stage>/<batch>.parquet, or "
        "remove the file so that another set is drawn"
    )


TABLE = "held_out"


class HeldOutSettings(Settings):
    """Which samples of a pool are kept for evaluation: the table ``[held_out]``.

    They count when a source is first seen: a setting that changes later has no effect on the
    sources that ``held_out/<stage>.parquet`` has drawn from. To draw another set, remove that
    file; models that were trained before may then have seen some of it.
    """

    share: float = Field(
        default=0.02, ge=0, le=1, description="Share of the samples of each source."
    )
    seed: int = Field(
        default=0, ge=0, le=MAX_NUMBER, description="Another seed holds out other samples."
    )
    min_source_samples: int = Field(
        default=200,
        ge=0,
        le=MAX_NUMBER,
        description="A source with fewer samples in the pool holds out nothing.",
    )
    max_source_samples: int = Field(
        default=200, ge=0, le=MAX_NUMBER, description="The most that one source holds out."
    )
    whole_sources: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Sources held out altogether, also what is dropped of them later.",
    )


def held_out_settings(root: DataRoot) -> HeldOutSettings:
    """Return what the table [held_out] sets.

    Raises:
        UserError: see :func:`.read_settings`.
    """
    return read_settings(root.path, TABLE, HeldOutSettings)


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
    return _is_drawn(_draws(samples, settings), settings)


def _draws(samples: pl.DataFrame, settings: HeldOutSettings) -> pl.DataFrame:
    """Return source and seeded hash (``draw``) of each sample."""
    key = settings.seed.to_bytes(8, "little")
    draws = (hashlib.blake2b(i.encode(), digest_size=8, key=key) for i in samples["sample_id"])
    numbers = (int.from_bytes(draw.digest(), "little") for draw in draws)
    draw = pl.Series("draw", np.fromiter(numbers, np.uint64, len(samples)))
    return pl.DataFrame([samples["source"], draw])


def _is_drawn(table: pl.DataFrame, settings: HeldOutSettings) -> pl.Series:
    """Return for each row of :func:`_draws` whether it is kept for evaluation."""
    num_samples = pl.len().over("source")
    num_held_out = (num_samples * settings.share).round().clip(0, settings.max_source_samples)
    is_drawn = pl.col("draw").rank("ordinal").over("source") <= num_held_out
    return table.select(
        held_out=pl.col("source").is_in(list(settings.whole_sources))
        | (is_drawn & (num_samples >= settings.min_source_samples))
    )["held_out"]


def freeze_held_out(
    folder: StageFolder,
    samples: Parts,
    settings: HeldOutSettings,
    rows: Callable[[pl.DataFrame], pl.DataFrame] = lambda held: held,
) -> HeldOut | None:
    """Draw what each new source of a pool holds out, and write it for good.

    A source is drawn from when it is first seen, and never again: no version can have picked any
    of its samples before, but one of a pool that was too small for a set, when none of its sources
    counted as seen. One that is too small at that time holds out nothing, ever. What is
    held out already stays, whatever the pool and the settings are by now, and so does a file
    that a person put there. Callers at the same time wait for each other.

    Args:
        folder: of the stage, as ``root["sft"]``.
        samples: the pool as it is now; of a sample that two sources have, the first one counts.
        settings: how many samples of which sources.
        rows: returns the pool table of some of the samples, where ``samples`` are not whole.

    Returns:
        The frozen set; None where the pool is too small to hold anything out.

    Raises:
        UserError: a whole source is in no pool, the whole pool would be held out, or the set
            that is there is wrong (see :func:`.read_held_out`).
    """
    with locked(folder.held_out.with_name(f".{folder.stage}.lock")):
        frozen = read_held_out(folder)
        if frozen is not None and frozen.is_given:
            return frozen
        seen = frozen.seen_sources if frozen else ()
        sources = samples.select("source")["source"]
        is_fresh = ~sources.is_in(list(seen))
        if frozen is not None and not is_fresh.any():
            return frozen
        _check_sources(folder.root, settings)
        fresh = samples.filter(is_fresh, "sample_id", "source")
        table = pl.concat(_draws(part, settings) for part in fresh.each())
        is_held = np.array(is_fresh)
        is_held[is_held] = _is_drawn(table, settings)
        held = rows(samples.filter(pl.Series(is_held)).frame())
        if frozen is None and held.is_empty():
            return None
        _require_rest(folder, held, samples, settings)
        _write(folder, frozen, held, sources.unique().to_list(), settings)
        return read_held_out(folder)


def _require_rest(
    folder: StageFolder,
    held: pl.DataFrame,
    samples: Parts,
    settings: HeldOutSettings,
) -> None:
    if held.height == samples.height:
        raise UserError(
            f"{folder.root.path / SETTINGS_FILE}: [{TABLE}] would hold out all {held.height} "
            f"samples of the {folder.stage} pool; lower share, or name fewer whole_sources"
        )


def _write(
    folder: StageFolder,
    frozen: HeldOut | None,
    held: pl.DataFrame,
    sources: Sequence[str],
    settings: HeldOutSettings,
) -> None:
    before = frozen.samples if frozen else held.clear()
    seen = {*(frozen.seen_sources if frozen else ()), *sources}
    whole = {*(frozen.whole_sources if frozen else ()), *settings.whole_sources}
    grown = HeldOut(pl.concat([before, held]))
    described = {
        **grown.summary(),
        "settings": settings.model_dump(),
        "seen_sources": sorted(seen),
        "whole_sources": sorted(whole),
    }
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in described.items()}
    write_table(folder.held_out, grown.samples, metadata)


def _check_sources(root: DataRoot, settings: HeldOutSettings) -> None:
    missing = set(settings.whole_sources)
    # The settings are those of both stages, so a source need not be in this one.
    for stage in STAGES if missing else ():
        for batch in root[stage].batches():
            rows = scan_table(root[stage].samples(batch))
            missing -= set(rows.select(pl.col("source").unique()).collect()["source"])
    if missing:
        raise UserError(
            f"{root.path / SETTINGS_FILE}: [{TABLE}] whole_sources names {sorted(missing)[0]!r}, "
            "which is a source of no ingested batch; take names from the column source of a pool, "
            "or drop its file first"
        )
