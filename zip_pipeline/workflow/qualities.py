"""The quality of each sample, by which a strategy multiplies what the sample adds."""

import math
from pathlib import Path

import polars as pl
import polars.selectors as cs

from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.pool.pool import SelectionPool
from zip_pipeline.selection.candidates import SignalTables
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.strategies import strategies
from zip_pipeline.tables import rows_of

_COLUMNS = ("sample_id", "score")


def score_file(config: SelectionConfig, folder: Path = Path()) -> Path | None:
    """Return the file that ``quality`` names; None where it names a field, or is not heeded."""
    if (named := config.heeded("quality")) is None:
        return None
    path = folder / named
    return path if path.suffix in (".parquet", ".csv") else None


def score_fingerprint(config: SelectionConfig, folder: Path = Path()) -> str | None:
    """Return the hash of the file of scores, None where there is no such file.

    Raises:
        UserError: it cannot be read.
    """
    if (path := score_file(config, folder)) is None:
        return None
    try:
        return fingerprint([path.read_bytes().hex()])
    except OSError as error:
        raise UserError(f"quality: {path}: {error.strerror}; give a file of scores") from error


def qualities(
    pool: SelectionPool,
    config: SelectionConfig,
    folder: Path = Path(),
    signals: SignalTables | None = None,
) -> pl.Series | None:
    """Return the quality of each sample of the index, None where the strategy asks for none.

    Args:
        pool: the pool.
        config: names a number of the records, several of them as their product
            (``meta.quality * meta.complexity``), a number that a signal tells, of which null counts
            as 0, or a Parquet or CSV file with the columns ``sample_id`` and ``score``.
        folder: where a relative path starts.
        signals: what the signals tell that the configuration needs.

    Raises:
        UserError: the file is none of scores, or a sample has no quality, or one below 0 where the
            strategy multiplies by it.
    """
    if (named := config.heeded("quality")) is None:
        return None
    if (place := config.quality_signal) is not None:
        return _told(place, signals)
    path = score_file(config, folder)
    found = _product(pool, named) if path is None else _scores(path, pool.index)
    is_factor = strategies[config.strategy].uses("quality_power")
    least, wanted = (0.0, "number of 0 and up") if is_factor else (-math.inf, "number")
    is_wrong = ~((found >= least) & found.is_finite()).fill_null(value=False)
    for row in pool.index.filter(is_wrong).head(1).iter_rows(named=True):
        raise UserError(
            f"quality: {is_wrong.sum():,} of {len(found):,} samples have no {wanted} as "
            f"{named}, first {row['source_file']}, row {row['source_row']} (sample "
            f"{row['sample_id']}); score them, or take them out of the pool"
        )
    return found


def _told(place: tuple[str, str], signals: SignalTables | None) -> pl.Series:
    name, column = place
    table = rows_of(signals.pool[name]) if signals else pl.DataFrame()
    numbers = table.select(cs.numeric()).columns
    if column not in numbers:
        raise UserError(
            f"quality: signals.{name}.{column}: the signal {name} tells no such number; it has "
            f"{', '.join(numbers) or 'none'}"
        )
    found = table[column].cast(pl.Float64).fill_null(0.0)
    if (found < 0).any() or not found.is_finite().all():
        raise UserError(
            f"quality: signals.{name}.{column}: it is {found.min()!r} for some samples; a quality "
            "must be 0 or above"
        )
    return found


def _product(pool: SelectionPool, named: str) -> pl.Series:
    first, *others = (pool.numbers(field.strip()) for field in named.split("*"))
    for other in others:
        first = first * other
    return first


def _scores(path: Path, index: pl.DataFrame) -> pl.Series:
    try:
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
        known = table.select("sample_id", pl.col("score").cast(pl.Float64, strict=False))
    except (OSError, pl.exceptions.PolarsError) as error:
        words = str(error).partition("\n")[0]
        raise UserError(
            f"quality: {path}: no readable table with the columns {' and '.join(_COLUMNS)} "
            f"({words}); write one, for example from a ledger's column sample_id"
        ) from error
    first = known.unique("sample_id", keep="first")
    joined = index.select("sample_id").join(
        first, on="sample_id", how="left", maintain_order="left"
    )
    return joined["score"]
