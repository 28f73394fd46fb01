"""Files, folders and records in memory to raw rows, whatever their kind and state."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import polars as pl

from zip_pipeline.errors import UserError
from zip_pipeline.ingest.json_values import read_json
from zip_pipeline.ingest.rows import (
    DATA_ERRORS,
    DEFAULT_LIMITS,
    PREFIX_BYTES,
    ROW_BYTES,
    Outcome,
    RawRow,
    ReadLimits,
    Record,
    RejectionError,
    json_text,
    nesting_depth,
    printable,
    rejected_row,
    too_long,
    unexpected,
)
from zip_pipeline.ingest.streams import (
    COMPRESSIONS,
    HEAD_BYTES,
    check_encoding_name,
    compression_of,
    decompressed_file,
    peek,
    read_chunks,
    text_chunks,
    text_encoding,
)
from zip_pipeline.ingest.tables import (
    check_separator,
    is_table,
    iter_records,
    read_csv,
    read_table,
)

LINKS_VARIABLE = "ZIP_PIPELINE_LINKS"
"""Names the folders, besides the drop folder, to which links of drops may lead."""


def unreadable(path: Path, error: OSError | MemoryError) -> UserError:
    """Return what to tell a person whom the system keeps from a file; next time it may not."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    place = getattr(error, "filename", None)
    if place is not None and str(place) != str(path):
        reason = f"{place}: {reason}"
    return UserError(
        f"{path}: cannot be read ({reason}); nothing of it is taken in. Put that right, then try "
        "again"
    )


def check_place(path: Path, within: Path) -> Path:
    """Return where a file or folder really lies, whatever links lead to it.

    Raises:
        UserError: it is gone, or its link leads nowhere, in a circle, or to a place that is
            neither in ``within`` nor in a folder of ``ZIP_PIPELINE_LINKS``.
    """
    place = _place(path)
    named = [name for name in os.environ.get(LINKS_VARIABLE, "").split(os.pathsep) if name]
    if not any(place.is_relative_to(os.path.realpath(name)) for name in (str(within), *named)):
        raise UserError(
            f"{path}: the link leads out of {within}, to {place}; put a copy in its place, or name "
            f"a folder that holds {place} in {LINKS_VARIABLE}"
        )
    return place


def _place(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path, strict=True))
    except OSError as error:
        if not path.is_symlink():
            raise unreadable(path, error) from error
        raise UserError(
            f"{path}: the link to {path.readlink()} leads nowhere ({error.strerror}); mend it or "
            "remove it"
        ) from error


def link_bounds(path: Path, within: Path | None) -> Path | None:
    """Return the folder that links of an input may not leave, None for a single named file.

    Args:
        path: a drop, or what a person named.
        within: the drop folder; None for what a person named. That is followed wherever it
            leads, and links inside of it may lead anywhere inside of it.
    """
    return within or (path if path.is_dir() else None)


def list_files(path: Path, within: Path | None = None) -> list[tuple[str, Path]]:
    """Return the files of a drop with their names in it, sorted; hidden ones are left out.

    Linked files and folders are followed. An empty folder has no file.

    Args:
        path: a file or folder.
        within: the folder that links may not leave, see :func:`link_bounds`.

    Raises:
        UserError: there is no such file or folder, a part of it cannot be read, or a link leads
            nowhere, in a circle or out of bounds.
    """
    if not os.path.lexists(path):
        raise UserError(f"{path}: no such file or folder; check the name, or drop it again")
    try:
        bounds = link_bounds(path, within)
        # Most drops are plain files, and sensors look at all of them all the time.
        if bounds is None or (path.is_file() and not path.is_symlink()):
            return [(printable(path.name), path)]
        place = check_place(path, bounds)
        if not place.is_dir():
            return [(printable(path.name), path)]
        files = list(_walk(path, place, bounds))
    except OSError as error:
        raise unreadable(Path(error.filename or path), error) from error
    return sorted((printable(file.relative_to(path).as_posix()), file) for file in files)


def _walk(top: Path, place: Path, bounds: Path) -> Iterator[Path]:
    """Yield the files below ``top``, which really lies at ``place``."""
    waiting: list[tuple[Path, tuple[Path, ...]]] = [(top, (place,))]
    while waiting:
        folder, places = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path = folder / entry.name
                if entry.name.startswith("."):
                    continue
                is_link = entry.is_symlink()
                place = check_place(path, bounds) if is_link else places[-1] / entry.name
                if not entry.is_dir():
                    yield path
                    continue
                if is_link and any(above.is_relative_to(place) for above in places):
                    raise UserError(
                        f"{path}: the link leads back to {place}, which holds it; remove the link"
                    )
                waiting.append((path, (*places, place)))


def data_files(path: Path, within: Path | None = None) -> list[tuple[str, Path]]:
    """Return the files of a drop that may hold rows as :func:`list_files` does, at least one.

    What a data set's repository or saved folder says of itself is left out, unless it is all.

    Raises:
        UserError: as :func:`list_files`, or the folder holds no file.
    """
    files = list_files(path, within)
    if not files:
        raise UserError(f"{path}: the folder holds no file; drop files into it, or remove it")
    names = {name for name, _ in files}
    return [(name, file) for name, file in files if not _tells_of_data(name, names)] or files


_INFO_FILES = {
    "readme.md",
    "license",
    "license.md",
    "license.txt",
    "dataset_infos.json",
    "dataset_info.json",
    "dataset_dict.json",
}


def _tells_of_data(name: str, names: set[str]) -> bool:
    """Return whether a file of a data set's repository or saved folder holds no rows itself."""
    folder, _, file_name = name.rpartition("/")
    is_saved = f"{folder}/dataset_info.json".lstrip("/") in names
    is_cache = file_name.startswith("cache-") and file_name.endswith(".arrow")
    return file_name.lower() in _INFO_FILES or (
        is_saved and (file_name == "state.json" or is_cache)
    )


_TRAIN = ("train", "training")
_HELD_BACK = ("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation")


def left_out_splits(path: Path, within: Path | None = None) -> list[str]:
    """Return the files of a folder that are not read, for they are for tests or validation.

    Their own name, or else that of the nearest folder that names a split, begins or ends with
    ``test``, ``validation`` or the like. They are read in a folder without a file for training:
    its names then tell no splits.

    Raises:
        UserError: as :func:`data_files`.
    """
    return sorted(_left_out_splits(data_files(path, within)))


def _left_out_splits(files: list[tuple[str, Path]]) -> set[str]:
    return held_back({name: name for name, _ in files})


def held_back(labels: Mapping[str, str]) -> set[str]:
    """Return the files for tests or validation, where others are for training.

    Args:
        labels: for each file the name that tells its split, mostly its own.
    """
    splits = {name: split_of(label) for name, label in labels.items()}
    if not any(split in _TRAIN for split in splits.values()):
        return set()
    return {name for name, split in splits.items() if split in _HELD_BACK}


def split_of(name: str) -> str | None:
    """Return which split a file belongs to by its name, None where that does not tell."""
    *folders, file_name = name.split("/")
    for part in (plain_name(file_name), *reversed(folders)):
        # Shards have numbers behind: test-00000-of-00001.
        words = [word for word in re.split(r"[-._ \d]+", part.lower()) if word not in ("", "of")]
        for split in (*_TRAIN, *_HELD_BACK):
            if split in (*words[:1], *words[-1:]):
                return split
    return None


_TextReader: TypeAlias = Callable[[Iterator[bytes], str, ReadLimits], Iterator[RawRow]]
_TABLES = (".parquet", ".arrow", ".feather")
EXTENSIONS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", *_TABLES)


@lru_cache
def _split_name(name: str) -> tuple[str, str]:
    """Return the name without extensions, and the extension that tells the kind of file."""
    compressions = [c for c in COMPRESSIONS if name.lower().endswith(c)]
    plain = name[: -len(compressions[0])] if compressions else name
    kinds = [e for e in EXTENSIONS if plain.lower().endswith(e)]
    return (plain[: -len(kinds[0])], kinds[0]) if kinds else (plain, "")


def plain_name(name: str) -> str:
    """Return a file name without its supported extensions, e.g. ``a`` for ``a.jsonl.gz``."""
    return _split_name(name)[0]


def _read_file(
    source_file: str, path: Path, limits: ReadLimits, encoding: str | None, separator: str | None
) -> Iterator[RawRow]:
    extension = _split_name(path.name)[1]
    _check_regular(path)
    head, chunks = peek(read_chunks(path, limits), lambda head: len(head) >= _FOREIGN_BYTES)
    if words := _foreign(head):
        raise RejectionError("unsupported_file", f"this is {words}")
    if not extension and _tells_its_kind(path, limits):
        extension = ".jsonl"
    if not extension:
        known = f"{', '.join(EXTENSIONS)}, each also with {' or '.join(COMPRESSIONS)}"
        raise RejectionError("unsupported_file", f"supported are {known}")
    if extension in _TABLES or is_table(head):
        with decompressed_file(path, limits) as plain:
            yield from read_table(plain, source_file, limits)
        return
    read = _text_reader(extension, separator)
    yield from read(text_chunks(chunks, encoding), source_file, limits)


def _check_regular(path: Path) -> None:
    """Refuse a pipe, whose reading would wait for whoever writes, a device and a socket."""
    if path.exists() and not path.is_file():
        raise RejectionError("unsupported_file", "neither a regular file nor a folder")


_FOREIGN_BYTES = 512
_FOREIGN = {
    rb"version https://git-lfs": "a Git LFS pointer, not the file itself; run git lfs pull",
    rb"PK\x03\x04.{26}(\[Content_Types|xl/|_rels/)": "an Excel workbook; save its sheet as CSV",
    rb"\xd0\xcf\x11\xe0": "an Excel workbook of before 2007; save its sheet as CSV",
    rb"PK\x03\x04": "a zip archive; unpack it into a folder, and drop that",
    rb".{257}ustar": "a tar archive; unpack it into a folder, and drop that",
    rb"7z\xbc\xaf|Rar!": "an archive; unpack it into a folder, and drop that",
    rb"\s*<(?i:!doctype html|html)": "a web page, as servers give that want a login; download the "
    "file itself",
    rb"%PDF-": "a PDF document; write its rows as JSON lines",
    rb"SQLite format 3": "an SQLite database; write the table as CSV or JSON lines",
}


def _foreign(head: bytes) -> str:
    """Return what a file is that no reader reads, and what to do; empty for any other."""
    found = (words for mark, words in _FOREIGN.items() if re.match(mark, head, re.DOTALL))
    return next(found, "")


def _tells_its_kind(path: Path, limits: ReadLimits) -> bool:
    """Return whether a file without a known ending begins like JSON, or is a table."""
    head, _ = peek(read_chunks(path, limits), lambda head: len(head) >= HEAD_BYTES)
    mark, encoding = text_encoding(head)
    text = head[len(mark) :].decode(encoding, "ignore").lstrip()
    return is_table(head) or text[:2] in ('{"', "[{") or (text[:1] in ("{", "[") and '"' in text)


def describe_file(path: Path, encoding: str | None = None) -> str:
    """Return kind, compression and encoding of a file, as in ``JSON, gzip, utf-8``."""
    _check_regular(path)
    extension = _split_name(path.name)[1]
    chunks = read_chunks(path)
    head, _ = peek(chunks, lambda head: len(head) >= HEAD_BYTES)
    if extension in _TABLES or is_table(head):
        kind, text = "Arrow" if extension in _TABLES[1:] else "Parquet", ""
    else:
        kind = "CSV" if extension in (".csv", ".tsv") else "JSON" if extension else "unknown"
        text = text_encoding(head, encoding)[1]
    return ", ".join(filter(None, (kind, compression_of(path), text)))


def _text_reader(extension: str, separator: str | None) -> _TextReader:
    if extension in (".csv", ".tsv"):
        guess = "\t" if extension == ".tsv" else ","
        return partial(read_csv, separator=separator, first_guess=guess)
    return partial(read_json, is_lines=extension != ".json")


_ROWS_PER_CHECK = 1 << 10


def read_rows(
    path: Path,
    limits: ReadLimits = DEFAULT_LIMITS,
    *,
    within: Path | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    outcome: Outcome | None = None,
) -> Iterator[RawRow]:
    """Yield every row of a file, or of all files in a folder in the order of their names.

    A row that cannot be parsed comes with ``record`` None and a reason. Where a file is damaged,
    its good rows come first and one more row stands for the rest.

    Args:
        path: a file or a folder; names that start with a dot are left out in folders.
        limits: what a row and a file may cost.
        within: the folder that links may not leave; None follows ``path`` wherever it leads, and
            links in a folder inside of it.
        encoding: of texts that have no byte order mark; None takes them for UTF-8, or UTF-16 or
            UTF-32 where that shows.
        separator: between the cells of CSV files; None tells it from their first records.
        outcome: what becomes of the rows that were yielded, kept up to date by who takes them.

    Raises:
        UserError: encoding or separator is none, there is no such file or folder, no file in the
            folder, a link leads out of bounds, or the system does not let a file be read.
    """
    encoding = check_encoding_name(encoding) if encoding is not None else None
    separator = check_separator(separator) if separator is not None else None
    bounds = link_bounds(path, within)
    files = data_files(path, within)
    left_out = _left_out_splits(files)
    outcome = outcome or Outcome()
    for source_file, file in files:
        if source_file in left_out:
            continue
        if bounds:
            # Once more: a long reading leaves time to put a link in a file's place.
            check_place(file, bounds)
        last_row, num_characters, before = 0, 0, replace(outcome)
        try:
            stored_bytes = file.stat().st_size
            rows = _read_file(source_file, file, limits, encoding, separator)
            for num_before, row in enumerate(rows):
                # Millions of rows that a few bytes expand to are no data.
                limits.check_expansion(num_before * ROW_BYTES, stored_bytes)
                if num_before % _ROWS_PER_CHECK == 0:
                    outcome.since(before).check(num_characters, stored_bytes)
                num_characters += len(row.raw)
                last_row = row.source_row
                yield row
        except RejectionError as why:
            yield rejected_row(source_file, last_row + 1, "", why)
        except (OSError, MemoryError) as error:
            raise unreadable(file, error) from error
        except DATA_ERRORS as error:
            yield rejected_row(source_file, last_row + 1, "", unexpected(error))


def rows_in_memory(
    records: Iterable[object], name: str, limits: ReadLimits = DEFAULT_LIMITS
) -> Iterator[RawRow]:
    """Yield records that a program holds as the rows of a file ``name``, one for each.

    They are read as the rows of a Parquet file are: dates, times and decimal numbers come as
    text, arrays as lists.

    Args:
        records: mappings with the fields of a sample, or a Polars table.
        name: stands for the file name in what is said of a row.
        limits: what a row may cost.
    """
    values = iter_records(records) if isinstance(records, pl.DataFrame) else records
    for number, value in enumerate(values, start=1):
        try:
            record = _record_in_memory(value, limits)
            text = json_text(record)
            if len(text) > limits.max_row_bytes:
                raise too_long(len(text), limits, text[:PREFIX_BYTES].encode())
            yield RawRow(name, number, text, record)
        except RejectionError as why:
            yield rejected_row(name, number, _shown(value), why)
        except DATA_ERRORS as error:
            yield rejected_row(name, number, _shown(value), unexpected(error))


def _shown(value: object) -> str:
    """Return the beginning of what an object prints of itself, whatever goes wrong in that."""
    try:
        return printable(repr(value)[:PREFIX_BYTES])
    except Exception as error:  # noqa: BLE001
        return f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"


def _record_in_memory(value: object, limits: ReadLimits) -> Record:
    if not isinstance(value, Mapping):
        raise RejectionError("not_an_object", f"the record is a {type(value).__name__}")
    try:
        record = {_field_name(name): _plain(field) for name, field in value.items()}
    except RecursionError:
        raise RejectionError("nested_too_deep", f"allowed are {limits.max_depth} levels") from None
    if nesting_depth(record) > limits.max_depth:
        raise RejectionError("nested_too_deep", f"allowed are {limits.max_depth} levels")
    return record


_AS_TEXT = (date, time, timedelta, Decimal, UUID)


def _plain(value: object) -> object:
    """Return a value as JSON has it; bytes stay, for a field that matters may not hold them."""
    if value is None or isinstance(value, str | bool | int | float | bytes):
        return value
    if isinstance(value, Mapping):
        return {_field_name(name): _plain(field) for name, field in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, _AS_TEXT):
        return str(value)
    if to_list := getattr(value, "tolist", None):  # arrays and numbers of NumPy and PyTorch
        return _plain(to_list())
    raise RejectionError("wrong_type", f"a {type(value).__name__} cannot be kept as JSON")


def _field_name(name: object) -> str:
    if not isinstance(name, str):
        raise RejectionError("wrong_type", f"names of fields are texts, got {name!r}")
    return name
