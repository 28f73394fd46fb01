"""Greedy in every shard, greedy over the union of their picks, then over all for the rest."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.compression.codecs import codec_versions
from zip_pipeline.compression.text_file import TemporaryTexts
from zip_pipeline.locks import own_folder, remove_own_folder
from zip_pipeline.samples import Stage
from zip_pipeline.selection.budget import Indices
from zip_pipeline.selection.candidates import Candidates, Measured
from zip_pipeline.selection.checkpoint import Checkpoint
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.estimate import RemainingTime
from zip_pipeline.selection.play import ProgressHook, play
from zip_pipeline.selection.progress import Fate, Progress, Run
from zip_pipeline.selection.shard_files import shard_of, write_shard
from zip_pipeline.selection.shard_task import Runner, ShardOutcome, ShardTask, Tick, select_shard
from zip_pipeline.storage import fingerprint

SHARDS_SUFFIX = ".shards"
_FILLING = "Filling up"


def run_here(tasks: Sequence[ShardTask], tick: Tick) -> list[ShardOutcome]:
    """Run the tasks one after another in this process."""
    outcomes = []
    for task in tasks:
        outcomes.append(select_shard(task))
        tick()
    return outcomes


def play_sharded(
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
        ValueError: the same selection is running with this folder, or something else lies there.
    """
    key = fingerprint([config.fingerprint(), pool.candidates.texts.fingerprint()])
    shards = shard_of(pool.candidates.index["sample_id"], config.num_shards)
    with _place_in(folder, f"{stage}-{key}{SHARDS_SUFFIX}") as place:
        members = [np.flatnonzero(shards == number) for number in range(config.num_shards)]
        tasks = _tasks(pool, config, place, members, workers, key)
        outcomes = run_tasks(tasks, _ticker(tasks, progress))
        run, union = _gather(pool, members, outcomes)
        _merge(pool, config, run, union, store, workers, progress)
    # A shard may have had less to give than its share, or had no room for a large sample.
    return play(
        pool, config, run=run, workers=workers, progress=progress, phase=_FILLING, estimate=False
    ), shards


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
    codecs = tuple(sorted(codec_versions().items()))
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
    run = Run.start(pool.pi)
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
    texts = pool.candidates.texts
    with TemporaryTexts.write([texts.read(union)], texts.path.parent) as own:
        part = Measured(
            Candidates(pool.candidates.index[union], own),
            pool.num_bytes[union],
            None,
            pool.pi[union],
            pool.costs[union],
        )
        merged = play(part, config, store, workers=workers, progress=progress, phase="Merging")
    run.pi[union] = merged.pi
    run.fate[union] = np.maximum(merged.fate, Fate.SHORTLISTED)
    run.round_of[union] = merged.round_of
    run.picks = union[merged.picks].tolist()
    run.num_rounds = merged.num_rounds


def _ticker(tasks: Sequence[ShardTask], progress: ProgressHook | None) -> Tick:
    started = time.monotonic()
    config = tasks[0].config
    total = config.budget * len(tasks)
    remaining = RemainingTime(total, sum(task.progress()[1] for task in tasks))

    def tick() -> None:
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
                phase=phase, rate=rate, remaining_seconds=left,
            )
        )  # fmt: skip

    return tick
