"""Where a sample came from, and what became of it in every version."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.files import read_json, scan_table
from zip_pipeline.report.fates import NOT_IN_POOL, explain_fate
from zip_pipeline.samples import (
    STAGES,
    TURN_COLUMNS,
    TURN_FIELDS,
    Stage,
    serialised_texts,
    with_all_columns,
)

ID_CHARACTERS = 32
MIN_PREFIX_CHARACTERS = 6


def checked_prefix(sample_id: str) -> str:
    """Return an id or its first digits in lower case.

    Raises:
        UserError: other characters, or too few or too many of them.
    """
    prefix = sample_id.strip().lower()
    is_hexadecimal = not prefix.strip("0123456789abcdef")
    if not is_hexadecimal or not MIN_PREFIX_CHARACTERS <= len(prefix) <= ID_CHARACTERS:
        raise UserError(
            f"sample id: got {sample_id!r}; allowed are {ID_CHARACTERS} hexadecimal digits, or "
            f"the first {MIN_PREFIX_CHARACTERS} and more; a ledger's column sample_id has them"
        )
    return prefix


def only_one(names: set[str], asked: str, where: str) -> str:
    """Return the only one of the ids that were found for what was asked.

    Raises:
        UserError: there is none, or more than one; ``where`` starts the message.
    """
    if len(names) == 1:
        return next(iter(names))
    if not names:
        raise UserError(f"{where}no sample {asked}; a ledger's column sample_id has the known ids")
    some = ", ".join(sorted(names)[:3])
    raise UserError(f"{where}{len(names)} samples start with {asked} ({some}, …); give more digits")


def pool_tables(folder: StageFolder) -> list[pl.LazyFrame]:
    """Return the stored samples of a stage."""
    return [folder.scan(folder.samples(batch)) for batch in folder.batches()]


def held_out_tables(folder: StageFolder) -> list[pl.LazyFrame]:
    """Return the samples kept for evaluation, nothing where there are none."""
    path = folder.held_out
    return [folder.scan(path)] if path.exists() else []


def ledgers(folder: StageFolder) -> list[pl.LazyFrame]:
    """Return the ledger of each version of a stage, ascending."""
    store = folder.versions
    return [store.ledger(number) for number in store.numbers()]


def ids_with(tables: Sequence[pl.LazyFrame], prefix: str) -> set[str]:
    """Return the sample ids in tables that start with ``prefix``."""
    starts = pl.col("sample_id").str.starts_with(prefix)
    found = pl.collect_all([table.select("sample_id").filter(starts) for table in tables])
    return {id_ for rows in found for id_ in rows["sample_id"]}


def _rows(tables: Sequence[pl.LazyFrame], sample_id: str) -> list[pl.DataFrame]:
    """Return the rows of a sample in each table, without the record as it came."""
    is_it = pl.col("sample_id") == sample_id
    # All at once, so that every core has something to read.
    return pl.collect_all([table.select(pl.exclude("raw")).filter(is_it) for table in tables])


@contextmanager
def _damage_named(*folders: StageFolder) -> Iterator[None]:
    """Let a pool table that cannot be read be an error that names it: by its hash, if it has one.

    Raises:
        UserError: the block reads a damaged table.
    """
    try:
        yield
    except pl.exceptions.PolarsError as error:
        for folder in folders:
            for batch in folder.batches():
                for path in (folder.samples(batch), folder.duplicates(batch)):
                    if path.exists():
                        folder.check(path)
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{folders[0].root.path}: a table is damaged ({reason}); zip-pipeline verify tells "
            "which, if it is hashed"
        ) from error


@dataclass(frozen=True)
class Origin:
    """One place of the pool where a sample's content stands."""

    batch: str
    source: str | None
    source_file: str
    source_row: int
    note: str


@dataclass(frozen=True)
class Fate:
    """What became of a sample in one selection, and why, in words."""

    selection: str
    created_at: str
    fate: str
    why: str
    other: str | None = None


@dataclass(frozen=True)
class Trace:
    """All that is known of a sample: its text (None where it left the pool), places and fates.

    ``others`` has the texts of the samples, by their ids, that took part in its place; of those
    that are still in the pool.
    """

    sample_id: str
    stage: str
    text: str | None
    origins: tuple[Origin, ...]
    fates: tuple[Fate, ...]
    others: Mapping[str, str] = field(default_factory=dict)


def trace_sample(root: DataRoot, sample_id: str, stages: Sequence[Stage] = STAGES) -> Trace:
    """Find a sample in pool and versions, ascending.

    Args:
        root: the data root.
        sample_id: 32 hexadecimal digits, or a prefix of at least 6 that names one sample; or where
            it stands, as ``FILE:ROW``.
        stages: where to look.

    Raises:
        UserError: an id that is too short, unknown, or the prefix of several samples; or no sample
            stands there.
    """
    folders = [root[stage] for stage in stages]
    with _damage_named(*folders):
        if place := _PLACE.fullmatch(sample_id):
            placed = [_placed(folder, folder.samples, folder.duplicates) for folder in folders]
            found = _ids_at([*chain.from_iterable(placed)], place)
            if not found:
                raise _no_sample_at(folders, place)
            sample_id = only_one(found, sample_id, f"{root.path}: ")
        return _traced(root, checked_prefix(sample_id), sample_id, stages)


# A file, or its path, and the number of a row or line.
_PLACE = re.compile("(.+):([1-9][0-9]{0,17})")


def _placed(folder: StageFolder, *tables: Callable[[str], Path]) -> list[pl.LazyFrame]:
    """Return tables of all batches, with the batch beside file and row."""
    return [
        folder.scan(table(batch)).with_columns(batch=pl.lit(batch))
        for table in tables
        for batch in folder.batches()
    ]


def _ids_at(tables: Sequence[pl.LazyFrame], place: re.Match[str]) -> set[str]:
    """Return the samples that stand at a place."""
    return {id_ for rows in _rows_at(tables, place, "sample_id") for (id_,) in rows.iter_rows()}


def _rows_at(
    tables: Sequence[pl.LazyFrame], place: re.Match[str], *columns: str
) -> list[pl.DataFrame]:
    """Return some columns of the rows at a place, of a file or of a folder's file."""
    file, row = place[1], int(place[2])
    names = ("source_file", "batch")
    found = pl.collect_all(
        [t.filter(pl.col("source_row") == row).select(*names, *columns) for t in tables]
    )
    whole = pl.lit(f"/{file}")
    is_it = pl.any_horizontal(whole.str.ends_with(pl.format("/{}", name)) for name in names)
    return [rows.filter(is_it).select(columns) for rows in found]


def _no_sample_at(folders: Sequence[StageFolder], place: re.Match[str]) -> UserError:
    """Return what to say of a place where no sample stands: why it was rejected, if it was."""
    for folder in folders:
        if words := _rejection(_placed(folder, folder.quarantine), place):
            return UserError(
                f"{words}. zip-pipeline quarantine --stage {folder.stage} shows such rows"
            )
    where = folders[0].root.path
    return UserError(
        f"{where}: no row {place[0]}; give FILE:ROW as `zip-pipeline diff --list` does"
    )


def _rejection(tables: Sequence[pl.LazyFrame], place: re.Match[str]) -> str | None:
    """Return why the row at a place was rejected, None where no table has it."""
    for rows in _rows_at(tables, place, "reason", "detail"):
        for reason, detail in rows.iter_rows():
            return f"{place[0]}: is no sample; it was rejected, {reason} ({detail})"
    return None


def _traced(root: DataRoot, prefix: str, asked: str, stages: Sequence[Stage]) -> Trace:
    # Ledgers of old versions know samples that have left the pool; they are only read for those.
    found = _find(root, stages, prefix, _samples) or _find(root, stages, prefix, ledgers)
    stage = next(iter(found), stages[0])
    full_id = only_one(set().union(*found.values()), asked, f"{root.path}: ")
    folder, versions = root[stage], root[stage].versions
    pool, held_out = _rows(pool_tables(folder), full_id), _rows(held_out_tables(folder), full_id)
    ledger_rows = dict(zip(versions.numbers(), _rows(ledgers(folder), full_id), strict=True))
    origins = _with_held_out([*_origins(folder, full_id, pool)], held_out)
    origins = origins or _recorded_origins(ledger_rows)
    text = _text(folder, pool + held_out)
    fates = [
        fate_of(f"version {number}", rows, versions.manifest(number))
        for number, rows in ledger_rows.items()
    ]
    ids = dict.fromkeys(fate.other for fate in fates if fate.other is not None)
    found_texts = {id_: _text(folder, _rows(_samples(folder), id_)) for id_ in ids}
    others = {id_: other for id_, other in found_texts.items() if other is not None}
    return Trace(full_id, stage, text, tuple(origins), tuple(fates), others)


def _text(folder: StageFolder, tables: Sequence[pl.DataFrame]) -> str | None:
    """Return the text of the sample in the first of some tables that holds one."""
    return next((readable(folder.stage, rows.head(1)) for rows in tables if rows.height), None)


def trace_in_ledger(ledger_file: Path, sample_id: str) -> Trace:
    """Find a sample in one ledger file; its text is not there.

    Args:
        ledger_file: ``STEM.ledger.parquet``; ``STEM.manifest.json`` beside it explains the
            configuration, and ``STEM.quarantine.parquet`` knows the rows that are no samples.
        sample_id: as in :func:`trace_sample`.

    Raises:
        UserError: no such file, not a ledger, or what names no sample, or more than one.
    """
    place = _PLACE.fullmatch(sample_id)
    prefix = "" if place else checked_prefix(sample_id)
    _check_ledger(ledger_file)
    manifest = _manifest_beside(ledger_file)
    ledger = scan_table(ledger_file)
    found = _ids_at([ledger], place) if place else ids_with([ledger], prefix)
    beside = _beside(ledger_file, "quarantine.parquet")
    rejected = [scan_table(beside)] if place and not found and beside.exists() else []
    if place and (words := _rejection(rejected, place)):
        raise UserError(f"{words}; {beside} has it as it came")
    full_id = only_one(found, sample_id, f"{ledger_file}: ")
    (rows,) = _rows([ledger], full_id)
    origins = tuple(_origin(row, _copy_note(row)) for row in rows.iter_rows(named=True))
    fate = fate_of(ledger_file.name, rows, manifest)
    return Trace(full_id, str(manifest.get("stage", "")), None, origins, (fate,))


def _check_ledger(path: Path) -> None:
    try:
        columns = pl.read_parquet_schema(path).keys()
    except (pl.exceptions.PolarsError, OSError) as error:
        problem = str(error).partition("\n")[0]
    else:
        problem = "" if {"sample_id", "fate", "pi"} <= columns else "a table without fates"
    if problem:
        raise UserError(
            f"{path}: no readable ledger ({problem}); give the .ledger.parquet that stands "
            "beside a selection"
        )


def _samples(folder: StageFolder) -> list[pl.LazyFrame]:
    return pool_tables(folder) + held_out_tables(folder)


def _find(
    root: DataRoot,
    stages: Sequence[Stage],
    prefix: str,
    tables: Callable[[StageFolder], list[pl.LazyFrame]],
) -> dict[Stage, set[str]]:
    found = {stage: ids_with(tables(root[stage]), prefix) for stage in stages}
    return {stage: names for stage, names in found.items() if names}


def readable(stage: Stage, row: pl.DataFrame) -> str:
    """Return the text of a sample; the answers of the preference stage are told apart."""
    return str(readable_texts(stage, row).item())


def readable_texts(stage: Stage, rows: pl.DataFrame) -> pl.Series:
    """Return :func:`readable` of each row of a pool table."""
    if stage == "sft":
        return serialised_texts(rows, stage)
    whole = with_all_columns(rows.lazy(), stage)
    is_pair = (pl.col("chosen").list.len() > 0) & (pl.col("rejected").list.len() > 0)
    words = (("chosen", "desirable"), ("rejected", "undesirable"))
    told = [
        pl.when(is_pair).then(_named(column, column)).otherwise(_named(column, alone))
        for column, alone in words
    ]
    return serialised_texts(whole.with_columns(told).collect(), stage)


def sample_texts(
    folder: StageFolder,
    ids: pl.Series,
    text_of: Callable[[Stage, pl.DataFrame], pl.Series] = readable_texts,
) -> pl.DataFrame:
    """Return ``sample_id`` and ``text`` of those samples that the pool holds, or evaluation."""
    columns = ("sample_id", *TURN_COLUMNS[folder.stage], "tools")
    wanted = ids.unique().implode()
    parts = [pl.DataFrame(schema={"sample_id": pl.String, "text": pl.String})]
    for table in _samples(folder):
        there = [name for name in columns if name in table.collect_schema()]
        with _damage_named(folder):
            rows = table.select(there).filter(pl.col("sample_id").is_in(wanted)).collect()
        parts.append(rows.select("sample_id", text_of(folder.stage, rows).alias("text")))
    return pl.concat(parts).unique("sample_id", keep="first", maintain_order=True)


def _named(column: str, name: str) -> pl.Expr:
    """Return the turns of a column with what they are of in the place of ``assistant``."""
    role = pl.element().struct.field("role")
    told = pl.when(role == "assistant").then(pl.lit(name)).otherwise(pl.lit(f"{name} ") + role)
    others = (pl.element().struct.field(field) for field in TURN_FIELDS if field != "role")
    turns = pl.col(column).list.eval(pl.struct(told.alias("role"), *others))
    return turns.alias(column)


def _origins(
    folder: StageFolder, sample_id: str, tables: Sequence[pl.DataFrame]
) -> Iterator[Origin]:
    rows = [row for table in tables for row in table.iter_rows(named=True)]
    first_batch: str | None = None
    for row in sorted(rows, key=itemgetter("batch")):
        note = f"exact copy; batch {first_batch} stands for it" if first_batch else ""
        first_batch = first_batch or row["batch"]
        yield _origin(row, note)
        copies = folder.duplicates(row["batch"])
        for table in _rows([folder.scan(copies)] if copies.exists() else [], sample_id):
            for copy in table.iter_rows(named=True):
                first = f"exact copy of {copy['first_source_file']}, row {copy['first_source_row']}"
                place = (copy["source_file"], copy["source_row"])
                yield Origin(row["batch"], row["source"], *place, first)


def _with_held_out(origins: list[Origin], held_out: Sequence[pl.DataFrame]) -> list[Origin]:
    rows = [row for table in held_out for row in table.iter_rows(named=True)]
    if origins and rows:
        return [replace(origins[0], note="kept for evaluation"), *origins[1:]]
    return origins or [_origin(row, "kept for evaluation; no batch holds it") for row in rows]


def _origin(row: Mapping[str, Any], note: str) -> Origin:
    return Origin(row["batch"], row["source"], row["source_file"], row["source_row"], note)


def _copy_note(row: Mapping[str, object]) -> str:
    if row["fate"] != "duplicate":
        return ""
    return f"exact copy of {row['duplicate_of_file']}, row {row['duplicate_of_row']}"


def _recorded_origins(ledger_rows: Mapping[int, pl.DataFrame]) -> list[Origin]:
    """Return where a sample that has left the pool was in the last version that held it."""
    number = max(number for number, rows in ledger_rows.items() if rows.height)
    note = f"as version {number} recorded it; no batch holds it any more"
    kept = ledger_rows[number].filter(pl.col("fate") != "duplicate")
    return [_origin(row, note) for row in kept.iter_rows(named=True)]


def fate_of(selection: str, rows: pl.DataFrame, manifest: Mapping[str, Any]) -> Fate:
    """Return what became of a sample in a selection, given what its ledger says of it."""
    created_at = str(manifest.get("created_at", ""))
    row: dict[str, Any] = {"fate": NOT_IN_POOL}
    if rows.height:
        # A copy's row only points to the sample that took part in its place.
        row = rows.sort(pl.col("fate") == "duplicate", maintain_order=True).row(0, named=True)
    why = explain_fate(row, manifest)
    return Fate(selection, created_at, str(row["fate"]), why, row.get("other"))


def _beside(ledger_file: Path, name: str) -> Path:
    """Return a file that was written with a ledger: ``STEM.NAME``, or ``NAME`` without a stem."""
    stem = ledger_file.name.removesuffix(".parquet").removesuffix("ledger")
    return ledger_file.with_name(f"{stem.removesuffix('.')}.{name}" if stem else name)


def _manifest_beside(ledger_file: Path) -> dict[str, object]:
    for path in (_beside(ledger_file, "manifest.json"), ledger_file.with_name("manifest.json")):
        if path.exists():
            return read_json(path, "move it away, or restore it from a backup")
    return {}
