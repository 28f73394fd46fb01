"""A pool cut into shards: Parquet files that a process elsewhere selects from."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.text_file import TemporaryTexts
from zip_pipeline.selection.budget import Indices
from zip_pipeline.selection.candidates import Candidates, Measured

_ROWS_PER_PART = 1 << 14
_PARTS = "part-*.parquet"


def shard_of(sample_ids: pl.Series, num_shards: int) -> NDArray[np.int64]:
    """Return the shard of each sample, from 0, shape (samples,).

    It is a hash of the id, so that neither the order of the pool nor other samples decide.
    """
    hashes = (zlib.crc32(sample_id.encode()) for sample_id in sample_ids)
    return np.fromiter(hashes, np.int64, len(sample_ids)) % num_shards


def write_shard(folder: Path, pool: Measured, positions: Indices) -> None:
    """Write the samples at these positions of the pool, in parts of some thousand rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(_PARTS):
        old.unlink()
    sources = pool.candidates.index["source"]
    for part, start in enumerate(range(0, len(positions), _ROWS_PER_PART)):
        rows = positions[start : start + _ROWS_PER_PART]
        table = pl.DataFrame(
            {
                "text": pool.candidates.texts.read(rows),
                "source": sources[rows],
                "pi": pool.pi[rows],
                "cost": pool.costs[rows],
            },
            schema={"text": pl.Binary, "source": pl.String, "pi": pl.Float64, "cost": pl.Int64},
        )
        table.write_parquet(folder / f"part-{part:05d}.parquet", compression="zstd")


@dataclass(frozen=True)
class Shard:
    """The samples of a shard, in pool order: measured, texts in a file."""

    measured: Measured

    @classmethod
    def read(cls, folder: Path) -> "Shard":
        """Return the shard in ``folder``; its texts go to a file there, until it is closed."""
        paths = sorted(folder.glob(_PARTS))
        narrow = [pl.read_parquet(path, columns=["source", "pi", "cost"]) for path in paths]
        schema = {"source": pl.String, "pi": pl.Float64, "cost": pl.Int64}
        table = pl.concat([pl.DataFrame(schema=schema), *narrow])
        texts = TemporaryTexts.write(_texts(paths), folder)
        index = table.select("source")
        return cls(
            Measured(
                Candidates(index, texts),
                texts.num_bytes,
                None,
                table["pi"].to_numpy(),
                table["cost"].to_numpy(),
            )
        )

    def close(self) -> None:
        """Remove the file of texts."""
        self.measured.candidates.texts.close()


def _texts(paths: list[Path]) -> Iterator[list[bytes]]:
    for path in paths:
        yield pl.read_parquet(path, columns=["text"])["text"].to_list()
