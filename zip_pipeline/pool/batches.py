"""Ingested batches on disk: three tables that belong together."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import polars as pl

from zip_pipeline.compression.state import compression_state, state_settings
from zip_pipeline.data_root import StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint, read_metadata, scan_table, write_table
from zip_pipeline.samples import pool_schema
from zip_pipeline.stored_batches import (
    BATCH_METADATA,
    MEMBERS,
    Member,
    batches_stay,
    is_compacted,
    live_members,
    members_of,
    scan_quarantine,
    scan_rows,
)

BATCH_DUPLICATES_SCHEMA = pl.Schema(
    {
        "sample_id": pl.String,
        "source_file": pl.String,
        "source_row": pl.Int64,
        "first_source_file": pl.String,
        "first_source_row": pl.Int64,
    }
)


@dataclass(frozen=True)
class IngestResult:
    """What became of every row of a batch.

    Args:
        samples: the pool table (``pool_schema``), in reading order.
        quarantine: the rejected rows with reason, detail and raw text.
        duplicates: the rows that repeat an earlier sample of the batch, and that sample.
        num_rows_read: all rows; each is in exactly one of the three tables.
        fingerprint: hash of the three tables' content.
    """

    samples: pl.DataFrame
    quarantine: pl.DataFrame
    duplicates: pl.DataFrame
    num_rows_read: int
    fingerprint: str

    def __post_init__(self) -> None:
        num_kept = self.samples.height + self.quarantine.height + self.duplicates.height
        assert num_kept == self.num_rows_read, f"{self.num_rows_read} rows read, {num_kept} kept"

    def metadata(self) -> dict[str, str]:
        """Return what is stored with each of the three tables."""
        counts = {
            "num_rows_read": self.num_rows_read,
            "num_samples": self.samples.height,
            "num_quarantined": self.quarantine.height,
            "num_duplicates": self.duplicates.height,
        }
        return {"fingerprint": self.fingerprint} | {k: str(v) for k, v in counts.items()}


def batch_fingerprint(
    samples: pl.DataFrame, quarantine: pl.DataFrame, duplicates: pl.DataFrame
) -> str:
    """Return the hash of a batch's content; it does not depend on times or library versions.

    Turns and scores go in through the sample ids and the raw records.
    """
    tables = (samples.select(pl.col(pl.String, pl.Int64)), quarantine, duplicates)
    return fingerprint(
        value
        for table in tables
        for column in table.iter_columns()
        for value in chain([column.name, str(len(column))], column.cast(pl.String).fill_null(""))
    )


def write_batch(folder: StageFolder, batch: str, result: IngestResult) -> None:
    """Write the three tables of a batch; the pool table comes last and completes the batch.

    A writer killed in between leaves tables with different fingerprints, which
    :func:`batch_metadata` refuses.
    """
    metadata = result.metadata()
    with batches_stay(folder):
        write_table(folder.quarantine(batch), result.quarantine, metadata)
        write_table(folder.duplicates(batch), result.duplicates, metadata)
        write_table(folder.samples(batch), result.samples, metadata)


def stored_metadata(folder: StageFolder, stored: str) -> dict[str, str]:
    """Return the metadata of the pool table of a stored batch.

    Raises:
        UserError: there is no such stored batch, or its tables do not belong together.
    """
    paths = (
        folder.samples(stored),
        folder.quarantine(stored),
        folder.duplicates(stored),
    )
    remedy = _remedy(folder, stored)
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: the file is missing; {remedy}")
    try:
        metadata = [read_metadata(path) for path in paths]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{paths[0]}: the batch cannot be read ({error}); {remedy}") from error
    if len({m.get("fingerprint") for m in metadata}) > 1 or "fingerprint" not in metadata[0]:
        raise UserError(
            f"{paths[0]}: the tables of the batch differ in fingerprint, as after a stopped "
            f"ingestion; {remedy}"
        )
    return metadata[0]


def _remedy(folder: StageFolder, stored: str) -> str:
    if not is_compacted(stored):
        return f"ingest the batch {stored!r} of {folder.stage} again"
    if folder.samples(stored).exists():
        return f"remove what is left of {stored!r} and ingest the drops of {folder.stage} again"
    return "what it held is in another compacted batch by now, so delete its partition"


def stored_in(folder: StageFolder, batch: str) -> str:
    """Return the stored batch that holds a batch: a compacted one, or that of its own name."""
    member = _compacted_member(folder, batch)
    return member.stored_in if member else batch


def _compacted_member(folder: StageFolder, batch: str) -> Member | None:
    if folder.samples(batch).exists():
        return None
    compacted = [name for name in folder.batches() if is_compacted(name)]
    found = live_members({name: stored_metadata(folder, name) for name in compacted})
    return next((member for member in found if member.batch == batch), None)


def find_member(folder: StageFolder, batch: str) -> Member:
    """Return where the rows of a batch lie, or all rows of a compacted batch.

    They stay there within a block of :func:`.batches_stay` only.

    Raises:
        UserError: the batch is not ingested, or its tables do not belong together.
    """
    member = _compacted_member(folder, batch)
    if member is not None:
        return member
    metadata = stored_metadata(folder, batch)
    return Member(batch, batch, 0, {key: metadata[key] for key in BATCH_METADATA})


def batch_metadata(folder: StageFolder, batch: str) -> dict[str, str]:
    """Return a batch's fingerprint and counts, without reading its rows.

    Raises:
        UserError: the batch is not ingested, or its tables do not belong together.
    """
    with batches_stay(folder):
        return dict(find_member(folder, batch).metadata)


def is_ingested(folder: StageFolder, batch: str) -> bool:
    """Return whether the batch is there, whole."""
    try:
        batch_metadata(folder, batch)
    except UserError:
        return False
    return True


def read_batch(
    folder: StageFolder, batch: str, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the samples of a batch (``pool_schema``), or some of their columns.

    Raises:
        UserError: as :func:`batch_metadata`, or the table has other columns.
    """
    with batches_stay(folder):
        member = find_member(folder, batch)
        check_columns(folder, member.stored_in)
        rows = scan_rows(folder.samples(member.stored_in), member)
        return (rows if columns is None else rows.select(columns)).collect()


def check_columns(folder: StageFolder, batch: str) -> None:
    """Raise UserError where the pool table of a batch has other columns than ``pool_schema``."""
    path = folder.samples(batch)
    found = scan_table(path).collect_schema()
    if found != pool_schema(folder.stage):
        remedy = f"ingest {'the drops in ' if is_compacted(batch) else ''}{batch!r} again"
        raise UserError(f"{path}: the columns are of another release; {remedy}")


def read_quarantine(
    folder: StageFolder, batch: str, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return the rejected rows of a batch (``QUARANTINE_SCHEMA``), or some of their columns.

    Raises:
        UserError: as :func:`batch_metadata`.
    """
    with batches_stay(folder):
        rows = scan_quarantine(folder, find_member(folder, batch))
        return (rows if columns is None else rows.select(columns)).collect()


_PLACE = ("batch", "source_file", "source_row")

DUPLICATES_SCHEMA = pl.Schema(
    {
        "sample_id": pl.String,
        "batch": pl.String,
        "source_file": pl.String,
        "source_row": pl.Int64,
        "first_batch": pl.String,
        "first_source_file": pl.String,
        "first_source_row": pl.Int64,
    }
)


def split_duplicates(samples: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a pool table into the first sample of each ``sample_id`` and those that repeat it.

    Args:
        samples: a pool table; its row order decides which sample is the first.

    Returns:
        The first samples, and a table with one row per repeated sample that names it and the
        first (:data:`DUPLICATES_SCHEMA`); both in the order of the input.
    """
    is_first = samples.get_column("sample_id").is_first_distinct()
    firsts = samples.filter(is_first)
    repeats = samples.select("sample_id", *_PLACE).filter(~is_first)
    # A join with all first samples would build a table of the whole pool.
    is_repeated = firsts["sample_id"].is_in(repeats["sample_id"].unique().implode())
    places = firsts.select("sample_id", pl.col(_PLACE).name.prefix("first_")).filter(is_repeated)
    duplicates = repeats.join(places, on="sample_id", how="left", maintain_order="left")
    return firsts, duplicates.match_to_schema(DUPLICATES_SCHEMA)


DEFAULT_TOKENIZER = "tiny"
SIZES_SCHEMA = pl.Schema(
    {"num_tokens": pl.Int64, "deflate_bytes": pl.Int64, "zstd_bytes": pl.Int64}
)


def write_state(
    folder: StageFolder,
    batch: str,
    *,
    tokenizer: str = DEFAULT_TOKENIZER,
    workers: int = 0,
) -> pl.DataFrame:
    """Compute and store the compression state of an ingested batch; return it.

    That of a batch within a compacted one is stored with the states of all that it holds, which
    are computed anew, too.

    Raises:
        UserError: the batch is not ingested, or only half of it is.
    """
    with batches_stay(folder):
        stored = find_member(folder, batch).stored_in
        check_columns(folder, stored)
        pool = stored_metadata(folder, stored)
        states: dict[str, pl.DataFrame] = {}
        described: dict[str, dict[str, str]] = {}
        for member in members_of(stored, pool):
            samples = scan_rows(folder.samples(stored), member).collect()
            state = compression_state(samples, folder.stage, tokenizer=tokenizer, workers=workers)
            states[member.batch] = state
            described[member.batch] = _describe(state, member.fingerprint, tokenizer)
        is_one = not is_compacted(stored)
        metadata = described[stored] if is_one else state_of_members(pool, described)
        write_table(folder.state(stored), pl.concat(states.values()), metadata)
        return read_state(folder, batch)


def _describe(state: pl.DataFrame, pool_fingerprint: str, tokenizer: str) -> dict[str, str]:
    settings = state_settings(tokenizer)
    return {
        "pool_fingerprint": pool_fingerprint,
        "fingerprint": fingerprint([state.write_csv(), *settings.values()]),
        **settings,
    }


def state_of_members(
    pool: Mapping[str, str], states: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Return the metadata of the state of a compacted batch.

    Args:
        pool: metadata of its pool table.
        states: metadata of the state of each batch that it holds, in row order.
    """
    return {
        "pool_fingerprint": pool["fingerprint"],
        "fingerprint": fingerprint(state["fingerprint"] for state in states.values()),
        MEMBERS: json.dumps(states),
    }


def state_metadata(folder: StageFolder, batch: str) -> dict[str, str] | None:
    """Return the metadata of a batch's stored state, None where there is none."""
    with batches_stay(folder):
        stored = stored_in(folder, batch)
        path = folder.state(stored)
        metadata = read_metadata(path) if path.exists() else None
    if metadata is None or stored == batch:
        return metadata
    return states_of_members(metadata).get(batch)


def states_of_members(metadata: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the metadata of the state of each batch, given that of a compacted batch's state."""
    return dict(_parsed(metadata[MEMBERS]))


# Whoever asks for one batch after the other would parse the same text for each.
@lru_cache(maxsize=8)
def _parsed(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(text)
    return found


def measured_batches(folder: StageFolder) -> set[str]:
    """Return the batches that have a stored state, whichever form of them it describes."""
    found: set[str] = set()
    for path in folder.state("any").parent.glob("[!.]*.parquet"):
        stored = path.name.removesuffix(".parquet")
        with contextlib.suppress(FileNotFoundError):
            is_one = not is_compacted(stored)
            found |= {stored} if is_one else states_of_members(read_metadata(path)).keys()
    return found


def is_current(folder: StageFolder, batch: str) -> bool:
    """Return whether a batch's state describes the samples that are stored now."""
    with batches_stay(folder):
        state, samples = state_metadata(folder, batch), batch_metadata(folder, batch)
    return state is not None and state.get("pool_fingerprint") == samples["fingerprint"]


def read_state(folder: StageFolder, batch: str) -> pl.DataFrame:
    """Return the compression state of a batch, one row per sample in the same order.

    Raises:
        UserError: there is none, or it describes an earlier form of the batch.
    """
    with batches_stay(folder):
        return _scan_state(folder, batch).collect()


def read_sizes(folder: StageFolder, member: Member, sample_ids: pl.Series) -> pl.DataFrame:
    """Return tokens and compressed bytes alone of some samples of a batch.

    Args:
        folder: of the stage, as ``root["sft"]``.
        member: the batch.
        sample_ids: the ids of the samples, in the order of the batch.

    Returns:
        ``num_tokens``, ``deflate_bytes`` and ``zstd_bytes`` of each of them (``SIZES_SCHEMA``).

    Raises:
        UserError: there is no state, or it describes an earlier form of the batch.
    """
    # By its name: what was stored on its own a moment ago may be in a compacted batch now.
    with batches_stay(folder):
        rows = _scan_state(folder, member.batch)
        state = rows.select("sample_id", *SIZES_SCHEMA).collect()
    wanted = state.filter(state["sample_id"].is_in(sample_ids.implode()))
    if not wanted["sample_id"].equals(sample_ids):
        raise _no_state(folder, member.batch)
    return wanted.select(SIZES_SCHEMA.names())


def _scan_state(folder: StageFolder, batch: str) -> pl.LazyFrame:
    if not is_current(folder, batch):
        raise _no_state(folder, batch)
    member = find_member(folder, batch)
    return scan_rows(folder.state(member.stored_in), member)


def _no_state(folder: StageFolder, batch: str) -> UserError:
    stored = stored_in(folder, batch)
    return UserError(
        f"{folder.state(stored)}: no compression state for the samples that batch "
        f"{batch!r} holds now; materialise {folder.stage}/compression_state for the partition "
        f"{stored!r}"
    )


def members(folder: StageFolder) -> list[Member]:
    """Return all batches of a stage, in the order of their names, from metadata alone.

    That order does not depend on which of them are compacted (:func:`.live_members`).

    Raises:
        UserError: a batch is incomplete, as after a stopped ingestion.
    """
    with batches_stay(folder):
        stored = folder.batches()
        return live_members({name: stored_metadata(folder, name) for name in stored})


def whole_members(folder: StageFolder) -> list[Member]:
    """Return those batches of a stage that are complete, in the order of their names."""
    stored: dict[str, dict[str, str]] = {}
    with batches_stay(folder):
        for name in folder.batches():
            try:
                stored[name] = stored_metadata(folder, name)
            except UserError:
                # Half a batch still supersedes the one of its name in a compacted batch.
                stored |= {} if is_compacted(name) else {name: {}}
    return [member for member in live_members(stored) if member.metadata]


def all_members(folder: StageFolder, before: Iterable[Member] = ()) -> list[Member]:
    """Return :func:`members`, of which none is missing.

    Args:
        folder: of the stage, as ``root["sft"]``.
        before: batches that were there a moment ago.

    Raises:
        UserError: a batch is incomplete; or it is gone, though it was there a moment ago or has
            a compression state, which is never written before its samples.
    """
    with batches_stay(folder):
        found = members(folder)
        wanted = {member.batch for member in before} | measured_batches(folder)
        if gone := wanted - {member.batch for member in found}:
            raise gone_error(folder, gone)
        return found


def refuse_gone(folder: StageFolder, batches: Iterable[str]) -> None:
    """Raise UserError where one of these batches is not in the pool of a stage any more.

    One that is replaced right now, and so is incomplete, is there.
    """
    with batches_stay(folder):
        stored = folder.batches()
        there = set(stored)
        for name in filter(is_compacted, stored):
            with contextlib.suppress(FileNotFoundError):
                metadata = read_metadata(folder.samples(name))
                there |= {member.batch for member in members_of(name, metadata)}
    if gone := set(batches) - there:
        raise gone_error(folder, gone)


def gone_error(folder: StageFolder, gone: Iterable[str]) -> UserError:
    """Return what to say of batches that are not in the pool of a stage any more."""
    first, *others = sorted(gone)
    words = f"batch {first!r} is" if not others else f"batch {first!r} and {len(others):,} more are"
    return UserError(
        f"{folder.samples(first).parent}: {words} gone from the pool of {folder.stage}; ingest "
        f"what is missing again, or, to do without it, remove it from {folder.state(first).parent} "
        "as well"
    )
