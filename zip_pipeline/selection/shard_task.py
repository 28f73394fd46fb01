"""One shard's selection, in whatever process it is to run."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.compression.codecs import codec_versions
from zip_pipeline.selection.checkpoint import Checkpoint
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.play import play
from zip_pipeline.selection.progress import Progress, Run
from zip_pipeline.selection.shard_files import Shard
from zip_pipeline.storage import fingerprint, write_bytes

_PROGRESS_FILE = "progress.json"
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
        return cls(run.picks, pi, run.fate, run.round_of, run.num_rounds)


# Called now and then while tasks run.
Tick: TypeAlias = Callable[[], None]
Runner: TypeAlias = Callable[[Sequence[ShardTask], Tick], list[ShardOutcome]]


def select_shard(task: ShardTask) -> ShardOutcome:
    """Select from one shard, from its checkpoint where there is one.

    The outcome depends on the shard and the configuration alone. A process that is killed leaves
    the checkpoint of its last rounds, and the next one for the same task goes on from it.

    Raises:
        ValueError: the codec libraries here are not those of whoever asks, or the files of the
            shard are not there.
    """
    if dict(task.codecs) != codec_versions():
        raise ValueError(
            f"shard {task.number}: the codec libraries there are {codec_versions()}, here "
            f"{dict(task.codecs)}; sizes would differ, install the same versions on every node"
        )
    shard = Shard.read(task.folder, task.owner)
    try:
        store = Checkpoint(task.folder / "checkpoint.npz", task.owner)
        run = play(
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
