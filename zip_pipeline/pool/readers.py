"""Files and folders to raw rows, whatever their kind and state."""

from collections.abc import Iterator
from pathlib import Path

from zip_pipeline.pool.drop_files import check_place, data_files, link_bounds, unreadable
from zip_pipeline.pool.json_values import read_json
from zip_pipeline.pool.lines import read_json_lines
from zip_pipeline.pool.quarantine import DATA_ERRORS, RejectionError, unexpected
from zip_pipeline.pool.rows import RawRow, Record, rejected_row
from zip_pipeline.pool.streams import (
    COMPRESSIONS,
    DEFAULT_LIMITS,
    ReadLimits,
    decompressed_file,
    read_text_chunks,
)
from zip_pipeline.pool.tables import read_csv, read_parquet

__all__ = ["EXTENSIONS", "RawRow", "ReadLimits", "Record", "plain_name", "read_rows"]

_TEXT_READERS = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
}
EXTENSIONS = (*_TEXT_READERS, ".parquet")


def _split_name(name: str) -> tuple[str, str]:
    """Return the name without extensions, and the extension that tells the kind of file."""
    compressions = [c for c in COMPRESSIONS if name.lower().endswith(c)]
    plain = name[: -len(compressions[0])] if compressions else name
    kinds = [e for e in EXTENSIONS if plain.lower().endswith(e)]
    return (plain[: -len(kinds[0])], kinds[0]) if kinds else (plain, "")


def plain_name(name: str) -> str:
    """Return a file name without its supported extensions, e.g. ``a`` for ``a.jsonl.gz``."""
    return _split_name(name)[0]


def _read_file(source_file: str, path: Path, limits: ReadLimits) -> Iterator[RawRow]:
    extension = _split_name(path.name)[1]
    if path.exists() and not path.is_file():
        raise RejectionError("unsupported_file", "neither a regular file nor a folder")
    if not extension:
        known = f"{', '.join(EXTENSIONS)}, each also with {' or '.join(COMPRESSIONS)}"
        raise RejectionError("unsupported_file", f"supported are {known}")
    if extension == ".parquet":
        with decompressed_file(path, limits) as plain:
            yield from read_parquet(plain, source_file, limits)
    else:
        chunks = read_text_chunks(path, limits)
        yield from _TEXT_READERS[extension](chunks, source_file, limits)


def read_rows(
    path: Path, limits: ReadLimits = DEFAULT_LIMITS, *, within: Path | None = None
) -> Iterator[RawRow]:
    """Yield every row of a file, or of all files in a folder in the order of their names.

    A row that cannot be parsed comes with ``record`` None and a reason. Where a file is damaged,
    its good rows come first and one more row stands for the rest.

    Args:
        path: a file or a folder; names that start with a dot are left out in folders.
        limits: what a row and a file may cost.
        within: the folder that links may not leave; None follows ``path`` wherever it leads, and
            links in a folder inside of it.

    Raises:
        ValueError: there is no such file or folder, no file in the folder, a link leads out of
            bounds, or the system does not let a file be read.
    """
    bounds = link_bounds(path, within)
    for source_file, file in data_files(path, within):
        if bounds:
            # Once more: a long reading leaves time to put a link in a file's place.
            check_place(file, bounds)
        last_row = 0
        try:
            for row in _read_file(source_file, file, limits):
                last_row = row.source_row
                yield row
        except RejectionError as why:
            yield rejected_row(source_file, last_row + 1, "", why)
        except (OSError, MemoryError) as error:
            raise unreadable(file, error) from error
        except DATA_ERRORS as error:
            yield rejected_row(source_file, last_row + 1, "", unexpected(error))
