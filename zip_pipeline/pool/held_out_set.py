"""The frozen set of samples that are kept for evaluation, on disk."""

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from zip_pipeline.samples import (
    PreferencePair,
    Sample,
    Stage,
    Turn,
    pool_schema,
    sample_id,
)
from zip_pipeline.storage import DataRoot, fingerprint, read_metadata

_TURN_COLUMNS = ("turns", "prompt", "chosen", "rejected")


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

    def split(self, samples: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the samples of a pool that may be selected, and those kept for evaluation."""
        is_kept = samples["sample_id"].is_in(self.samples["sample_id"].to_list())
        is_kept |= samples["source"].is_in(list(self.whole_sources))
        return samples.filter(~is_kept), samples.filter(is_kept)


def read_held_out(root: DataRoot, stage: Stage) -> HeldOut | None:
    """Return the held-out set of a stage, None where there is none.

    A file that a person put there is used as it is, if it is a pool table of that stage.

    Raises:
        ValueError: the file is no such table.
    """
    path = root.held_out(stage)
    if not path.exists():
        return None
    try:
        schema, metadata = pl.read_parquet_schema(path), read_metadata(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); put a Parquet file there, or remove it so that "
            "another set is drawn"
        ) from error
    for name, dtype in pool_schema(stage).items():
        if schema.get(name) != dtype:
            found = f"is {schema[name]}" if name in schema else "is missing"
            raise _wrong_column(path, name, f"{found}, must be {dtype}")
    samples = pl.read_parquet(path, columns=pool_schema(stage).names(), glob=False)
    if metadata.get("hash") != HeldOut(samples).hash:
        _check_given(path, samples)
        return HeldOut(samples, is_given=True)
    seen, whole = (json.loads(metadata[name]) for name in ("seen_sources", "whole_sources"))
    return HeldOut(samples, tuple(seen), tuple(whole))


def _check_given(path: Path, samples: pl.DataFrame) -> None:
    """Check a person's own table: a wrong id would let the sample into the pool."""
    turns = [name for name in _TURN_COLUMNS if name in samples.columns]
    for name in ("sample_id", "source", *turns):
        if samples[name].null_count():
            raise _wrong_column(path, name, "has empty cells")
    if samples["sample_id"].is_duplicated().any():
        raise _wrong_column(path, "sample_id", "has an id twice")
    for row, (given, *groups) in enumerate(samples.select("sample_id", *turns).iter_rows(), 1):
        parts = [tuple(Turn(**{k: str(v) for k, v in t.items()}) for t in g) for g in groups]
        found = sample_id(Sample(parts[0]) if len(parts) == 1 else _pair(*parts))
        if given != found:
            problem = f"has {given!r} in row {row}, where the turns make {found!r}"
            raise _wrong_column(path, "sample_id", problem)


def _pair(*parts: tuple[Turn, ...]) -> PreferencePair:
    prompt, chosen, rejected = parts
    return PreferencePair(prompt, chosen, rejected)


def _wrong_column(path: Path, name: str, problem: str) -> ValueError:
    return ValueError(
        f"{path}: the column {name} {problem}; give rows of pool/<stage>/<batch>.parquet, or "
        "remove the file so that another set is drawn"
    )
