"""Greedy in every shard, greedy over the union of their picks, then over all for the rest."""

import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.codecs import codec_versions
from zip_pipeline.compression.texts import TemporaryTexts, parts_of
from zip_pipeline.errors import UserError
from zip_pipeline.files import (
    fingerprint,
    own_folder,
    read_metadata,
    remove_own_folder,
    write_bytes,
)
from zip_pipeline.samples import Stage
from zip_pipeline.selection.candidates import Candidates, Indices, Measured, part_of
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ProgressHook, run_selection
from zip_pipeline.selection.run import (
    Checkpoint,
    Fate,
    Progress,
    RemainingTime,
    Run,
    as_picks,
    digest_of,
)

_PARTS = "part-*.parquet"
_SCHEMA = pl.Schema(
    {
        "text": pl.Binary,
        "source": pl.String,
        "pi": pl.Float64,
        "cost": pl.Int64,
        "weight": pl.Float64,
    }
)
_NARROW = ["source", "pi", "cost", "weight"]


def shard_of(sample_ids: pl.Series, num_shards: int) -> NDArray[np.int64]:
    """Return the shard of each sample, from 0, shape (samples,).

    It is a hash of the id, so that neither the order of the pool nor other samples decide.
    """
    hashes = (zlib.crc32(sample_id.encode()) for sample_id in sample_ids)
    return np.fromiter(hashes, np.int64, len(sample_ids)) % num_shards


def write_shard(folder: Path, pool: Measured, positions: Indices, owner: str) -> None:
    """Write the samples at these positions of the pool, in parts of some megabytes.

    ``owner`` tells the selection and the shard; :meth:`Shard.read` asks for the same one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(_PARTS):
        old.unlink()
    # In a shard clusters are sources like any others.
    sources = pool.candidates.competes_in
    # A shard without samples has one part without rows: no part at all means that it is lost.
    texts = pool.candidates.texts
    parts = parts_of(positions, texts.num_bytes_of(positions)) or [positions]
    for part, rows in enumerate(parts):
        table = pl.DataFrame(
            {
                "text": texts.read(rows),
                "source": sources[rows].cast(pl.String),
                "pi": pool.pi[rows],
                "cost": pool.costs[rows],
                "weight": None if pool.weights is None else pool.weights[rows],
            },
            schema=_SCHEMA,
        )
        table.write_parquet(
            folder / f"part-{part:05d}.parquet",
            compression="zstd",
            metadata={"owner": owner, "num_parts": str(len(parts))},
        )


@dataclass(frozen=True)
class Shard:
    """The samples of a shard, in pool order: measured, texts in a file."""

    measured: Measured

    @classmethod
    def read(cls, folder: Path, owner: str) -> "Shard":
        """Return the shard in ``folder``; its texts go to a file there, until it is closed.

        Raises:
            UserError: what lies there is not the whole shard of this owner.
        """
        paths = sorted(folder.glob(_PARTS))
        expected = {"owner": owner, "num_parts": str(len(paths))}
        found = [read_metadata(path) for path in paths]
        if not paths or any(not expected.items() <= metadata.items() for metadata in found):
            raise UserError(
                f"{folder}: the files of this shard are lost, or another selection has written "
                "there; give each selection a shard folder that all nodes see, and start again"
            )
        table = pl.concat(pl.read_parquet(path, columns=_NARROW) for path in paths)
        texts = TemporaryTexts.write(_texts(paths), folder)
        index = table.select("source")
        return cls(
            Measured(
                Candidates(index, texts),
                None,
                table["pi"].to_numpy(),
                table["cost"].to_numpy(),
                None if table["weight"].has_nulls() else table["weight"].to_numpy(),
            )
        )

    def close(self) -> None:
        """Remove the file of texts."""
        self.measured.candidates.texts.close()


def _texts(paths: list[Path]) -> Iterator[list[bytes]]:
    for path in paths:
        yield pl.read_parquet(path, columns=["text"])["text"].to_list()


_PROGRESS_FILE = "progress.json"
_CHECKPOINT_FILE = "checkpoint.npz"
_SECONDS_BETWEEN_REPORTS = 1.0


@dataclass(frozen=True)
class ShardTask:
    """What a process needs to know to select from one shard.

    Args:
        number: of the shard, from 0.
        folder: its Parquet files; the checkpoint and the progress lie there too.
        config: with the shard's own budget.
        key: hash of all that the picks of the whole selection depend on.
        workers: threads or processes.
        codecs: versions of the codec libraries of whoever asks.
    """

    number: int
    folder: Path
    config: SelectionConfig
    key: str
    workers: int
    codecs: tuple[tuple[str, str], ...]

    @property
    def owner(self) -> str:
        """What the files of the shard are marked with."""
        return fingerprint([self.key, self.config.fingerprint(), str(self.number)])

    def progress(self) -> tuple[int, int]:
        """Return how many samples the shard has picked, and what they cost; 0, 0 before."""
        try:
            stored = json.loads((self.folder / _PROGRESS_FILE).read_text())
        except (OSError, ValueError):
            return 0, 0
        return int(stored["num_picked"]), int(stored["used"])


@dataclass(frozen=True)
class ShardOutcome:
    """The finished run of a shard; arrays of shape (samples of the shard,)."""

    picks: list[int]
    pi: NDArray[np.float64]
    fate: NDArray[np.int8]
    round_of: NDArray[np.int32]
    num_rounds: int

    @classmethod
    def of(cls, run: Run) -> "ShardOutcome":
        """Return the outcome of a finished run."""
        pi = run.pi.astype(np.float64)
        return cls(run.picks.tolist(), pi, run.fate, run.round_of, run.num_rounds)


# Called now and then while tasks run.
Tick: TypeAlias = Callable[[], None]
Runner: TypeAlias = Callable[[Sequence[ShardTask], Tick], list[ShardOutcome]]


def select_shard(task: ShardTask) -> ShardOutcome:
    """Select from one shard, from its checkpoint where there is one.

    The outcome depends on the shard and the configuration alone. A process that is killed leaves
    the checkpoint of its last rounds, and the next one for the same task goes on from it.

    Raises:
        UserError: the codec libraries here are not those of whoever asks, or the files of the
            shard are not there.
    """
    versions = codec_versions(task.config.resolved_codec)
    if dict(task.codecs) != versions:
        raise UserError(
            f"shard {task.number}: the codec libraries there are {versions}, here "
            f"{dict(task.codecs)}; sizes would differ, install the same versions on every node"
        )
    shard = Shard.read(task.folder, task.owner)
    try:
        store = Checkpoint(task.folder / _CHECKPOINT_FILE, task.owner)
        run = run_selection(
            shard.measured,
            task.config,
            store,
            workers=task.workers,
            progress=_progress_writer(task.folder),
            estimate=False,
        )
        store.save_now(run)
        return ShardOutcome.of(run)
    finally:
        shard.close()


def _progress_writer(folder: Path) -> Callable[[Progress], None]:
    last = -_SECONDS_BETWEEN_REPORTS

    def write(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last < _SECONDS_BETWEEN_REPORTS:
            return
        last = time.monotonic()
        stored = {"num_picked": progress.num_picked, "used": progress.used}
        write_bytes(folder / _PROGRESS_FILE, json.dumps(stored).encode())

    return write


SHARDS_SUFFIX = ".shards"
_FILLING = "Filling up"


def run_here(tasks: Sequence[ShardTask], tick: Tick) -> list[ShardOutcome]:
    """Run the tasks one after another in this process."""
    outcomes = []
    for task in tasks:
        outcomes.append(select_shard(task))
        tick()
    return outcomes


def run_sharded(
    pool: Measured,
    config: SelectionConfig,
    store: Checkpoint,
    *,
    stage: Stage,
    workers: int,
    run_tasks: Runner,
    folder: Path | None,
    progress: ProgressHook | None = None,
) -> tuple[Run, NDArray[np.int64]]:
    """Return the finished run over ``pool``, and the shard of each sample.

    Of the run, round and ratio of what no shard picked are those of its shard; of what a shard
    picked, those of the merge. What a shard picked and the merge did not was on a shortlist.

    Args:
        pool: the candidates, measured.
        config: with ``num_shards`` above 1.
        store: where the merge is kept between rounds.
        stage: of the pool; it names the folder of the shards.
        workers: threads or processes of the merge.
        run_tasks: runs the shards.
        folder: where the folder of the shards is made, on every node under the same path; None
            for a temporary one.
        progress: called after rounds.

    Raises:
        UserError: the same selection is running with this folder, or something else lies there.
    """
    numbers = [digest_of(a) for a in (pool.costs, pool.weights) if a is not None]
    key = fingerprint([config.fingerprint(), pool.candidates.texts.fingerprint(), *numbers])
    shards = shard_of(pool.candidates.sample_ids, config.num_shards)
    # Shards and their union hold other shares of a source than the pool does.
    of_parts = config.with_mixture_of(_supply(pool))
    with _place_in(folder, f"{stage}-{key}{SHARDS_SUFFIX}") as place:
        members = [np.flatnonzero(shards == number) for number in range(config.num_shards)]
        tasks = _tasks(pool, of_parts, place, members, workers, key)
        outcomes = run_tasks(tasks, _ticker(tasks, progress))
        run, union = _gather(pool, members, outcomes)
        _merge(pool, of_parts, run, union, store, workers, progress)
    # A shard may have had less to give than its share, or had no room for a large sample.
    return run_selection(
        pool, config, run=run, workers=workers, progress=progress, phase=_FILLING, estimate=False
    ), shards


def _supply(pool: Measured) -> dict[str, int]:
    costs = pl.DataFrame({"group": pool.candidates.competes_in, "cost": pool.costs})
    return dict(costs.group_by("group").agg(pl.col("cost").sum()).iter_rows())


@contextmanager
def _place_in(folder: Path | None, name: str) -> Iterator[Path]:
    """Give a folder of this selection alone; it stays for a resumption when the block fails."""
    if folder is None:
        with TemporaryDirectory(prefix="shards-") as temporary:
            yield Path(temporary)
        return
    with own_folder(folder / name, "a selection from this pool with these options") as place:
        yield place
        remove_own_folder(place)


def _tasks(
    pool: Measured,
    config: SelectionConfig,
    folder: Path,
    members: Sequence[Indices],
    workers: int,
    key: str,
) -> list[ShardTask]:
    codecs = tuple(sorted(codec_versions(config.resolved_codec).items()))
    tasks = []
    for number, positions in enumerate(members):
        place = (folder / f"shard-{number:04d}").absolute()
        task = ShardTask(number, place, config.for_a_shard(), key, workers, codecs)
        write_shard(place, pool, positions, task.owner)
        tasks.append(task)
    return tasks


def _gather(
    pool: Measured, members: Sequence[Indices], outcomes: Sequence[ShardOutcome]
) -> tuple[Run, Indices]:
    """Return the shards' runs as one without picks, and the positions that any shard picked."""
    run = Run.start(pool.pi.copy())
    union = []
    for positions, outcome in zip(members, outcomes, strict=True):
        run.pi[positions] = outcome.pi
        run.fate[positions] = np.minimum(outcome.fate, Fate.QUOTA)
        run.round_of[positions] = outcome.round_of
        union.append(positions[outcome.picks])
    return run, np.sort(np.concatenate(union))


def _merge(
    pool: Measured,
    config: SelectionConfig,
    run: Run,
    union: Indices,
    store: Checkpoint,
    workers: int,
    progress: ProgressHook | None,
) -> None:
    with part_of(pool, union) as part:
        merged = run_selection(
            part, config, store, workers=workers, progress=progress, phase="Merging"
        )
    run.pi[union] = merged.pi
    run.fate[union] = np.maximum(merged.fate, Fate.SHORTLISTED)
    run.round_of[union] = merged.round_of
    run.picks = as_picks(union[merged.picks])
    run.num_rounds = merged.num_rounds


def _ticker(tasks: Sequence[ShardTask], progress: ProgressHook | None) -> Tick:
    started = time.monotonic()
    config = tasks[0].config
    total = config.budget * len(tasks)
    remaining = RemainingTime(total, sum(task.progress()[1] for task in tasks))

    def tick(*, is_resumption: bool = False) -> None:
        if progress is None:
            return
        picked, used = (
            sum(numbers) for numbers in zip(*(t.progress() for t in tasks), strict=True)
        )
        seconds = time.monotonic() - started
        rate, left = remaining.after(used, seconds)
        phase = f"{len(tasks)} shards"
        progress(
            Progress(
                0, picked, used, total, config.unit, seconds,
                phase=phase, rate=rate, remaining_seconds=left, is_resumption=is_resumption,
            )
        )  # fmt: skip

    if any((task.folder / _CHECKPOINT_FILE).exists() for task in tasks):
        tick(is_resumption=True)
    return tick
