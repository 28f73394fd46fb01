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
from zip_pipeline.storage import read_metadata

_ROWS_PER_PART = 1 << 14
_PARTS = "part-*.parquet"
_SCHEMA = pl.Schema({"text": pl.Binary, "source": pl.String, "pi": pl.Float64, "cost": pl.Int64})
_NARROW = ["source", "pi", "cost"]


def shard_of(sample_ids: pl.Series, num_shards: int) -> NDArray[np.int64]:
    """Return the shard of each sample, from 0, shape (samples,).

    It is a hash of the id, so that neither the order of the pool nor other samples decide.
    """
    hashes = (zlib.crc32(sample_id.encode()) for sample_id in sample_ids)
    return np.fromiter(hashes, np.int64, len(sample_ids)) % num_shards


def write_shard(folder: Path, pool: Measured, positions: Indices, owner: str) -> None:
    """Write the samples at these positions of the pool, in parts of some thousand rows.

    ``owner`` tells the selection and the shard; :meth:`Shard.read` asks for the same one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(_PARTS):
        old.unlink()
    sources = pool.candidates.index["source"]
    # A shard without samples has one part without rows: no part at all means that it is lost.
    starts = range(0, max(len(positions), 1), _ROWS_PER_PART)
    for part, start in enumerate(starts):
        rows = positions[start : start + _ROWS_PER_PART]
        table = pl.DataFrame(
            {
                "text": pool.candidates.texts.read(rows),
                "source": sources[rows],
                "pi": pool.pi[rows],
                "cost": pool.costs[rows],
            },
            schema=_SCHEMA,
        )
        table.write_parquet(
            folder / f"part-{part:05d}.parquet",
            compression="zstd",
            metadata={"owner": owner, "num_parts": str(len(starts))},
        )


@dataclass(frozen=True)
class Shard:
    """The samples of a shard, in pool order: measured, texts in a file."""

    measured: Measured

    @classmethod
    def read(cls, folder: Path, owner: str) -> "Shard":
        """Return the shard in ``folder``; its texts go to a file there, until it is closed.

        Raises:
            ValueError: what lies there is not the whole shard of this owner.
        """
        paths = sorted(folder.glob(_PARTS))
        expected = {"owner": owner, "num_parts": str(len(paths))}
        found = [read_metadata(path) for path in paths]
        if not paths or any(not expected.items() <= metadata.items() for metadata in found):
            raise ValueError(
                f"{folder}: the files of this shard are lost, or another selection has written "
                "there; give each selection a shard folder that all nodes see, and start again"
            )
        table = pl.concat(pl.read_parquet(path, columns=_NARROW) for path in paths)
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
