"""A running selection: fates, bookkeeping, and how long it will take."""

import hashlib
import zipfile
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zip_pipeline.compression.codecs import codec_versions
from zip_pipeline.compression.texts import TextFile
from zip_pipeline.files import fingerprint, write_atomically
from zip_pipeline.selection.candidates import Fit, Indices, Mask, Measured
from zip_pipeline.selection.config import SelectionConfig


class Fate(IntEnum):
    """What became of a sample; among the unpicked the furthest stage it reached."""

    NEVER_REACHED = 0
    CANDIDATE = 1
    SHORTLISTED = 2
    OVER_BUDGET = 3
    QUOTA = 4
    PICKED = 5
    NOISE = 6


FATE_OF_MISFIT = {Fit.OVER_BUDGET: Fate.OVER_BUDGET, Fit.QUOTA: Fate.QUOTA}


@dataclass(frozen=True)
class Progress:
    """How far a selection has come.

    ``used`` and ``budget`` are in ``unit``, ``rate`` in units per second; ``rate`` and
    ``remaining_seconds`` are None while nobody knows. An estimate, of all that is to be done, comes
    once, before the first round or soon after. A selection that goes on from a checkpoint first
    tells where.
    """

    round: int
    num_picked: int
    used: int
    budget: int
    unit: str
    seconds: float
    phase: str = "Selecting"
    rate: float | None = None
    remaining_seconds: float | None = None
    is_estimate: bool = False
    is_resumption: bool = False

    def words(self) -> str:
        """Return the report as a line of a log."""
        if self.is_estimate and self.remaining_seconds is not None:
            return f"{self.phase}: estimated time {about(self.remaining_seconds)}"
        unit = self.unit.replace("_", " ")
        if self.is_resumption:
            after = f" after round {self.round}" if self.round else ""
            used = f"{self.used:,} of {self.budget:,} {unit} picked"
            return f"{self.phase}: resumed{after}, {used}"
        parts = [
            f"{self.phase}: round {self.round}, {self.num_picked:,} picked, {self.used:,} of "
            f"{self.budget:,} {unit} in {self.seconds:.0f} s"
        ]
        if self.rate is not None and self.remaining_seconds is not None:
            parts += [f"{self.rate:,.0f} {unit}/s", f"{about(self.remaining_seconds)} left"]
        return ", ".join(parts)


def about(seconds: float) -> str:
    """Return a rough duration in words: ``about 40 s``, ``about 3 min`` or ``about 2.5 h``."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"


@dataclass
class Run:
    """The state of a selection between two rounds: all that a checkpoint must hold.

    ``pi`` is the redundancy state, shape (samples,), raw / compressed bytes, higher = more
    redundant; ``fate`` and ``round_of`` run along it; ``picks`` are indices in pick order, 8 bytes
    each. ``scores``, too, where the strategy picks by scores: the last known one of each sample.
    """

    pi: NDArray[np.floating[Any]]
    fate: NDArray[np.int8]
    round_of: NDArray[np.int32]
    picks: "array[int]" = field(default_factory=lambda: array("q"))
    num_rounds: int = 0
    scores: NDArray[np.float64] | None = None

    @classmethod
    def start(cls, pi: NDArray[np.floating[Any]]) -> "Run":
        """Return the state before the first round; who changes ``pi`` copies it."""
        return cls(pi, np.zeros(len(pi), np.int8), np.zeros(len(pi), np.int32))

    @property
    def unpicked(self) -> Mask:
        """Which samples are not picked, shape (samples,)."""
        unpicked: Mask = self.fate != Fate.PICKED
        return unpicked

    def reach(self, indices: Indices, fate: Fate) -> None:
        """Record that unpicked samples reached a stage in this round."""
        newly = indices[self.fate[indices] <= fate]
        self.fate[newly] = fate
        self.round_of[newly] = self.num_rounds

    def pass_over(self, index: int, fit: Fit) -> None:
        """Record that a sample was next in line and did not fit."""
        self.fate[index] = FATE_OF_MISFIT[fit]
        self.round_of[index] = self.num_rounds

    def pick(self, index: int) -> None:
        """Record a pick."""
        assert self.fate[index] != Fate.PICKED, "a sample is picked once"
        self.fate[index] = Fate.PICKED
        self.round_of[index] = self.num_rounds
        self.picks.append(index)

    def spread(self, positions: Indices, num_samples: int) -> "Run":
        """Return this run as one of a pool in which it is that of the samples at ``positions``.

        The others are noise, of which ``pi`` is not known.
        """
        whole = Run.start(np.full(num_samples, np.nan, self.pi.dtype))
        whole.fate[:] = Fate.NOISE
        whole.pi[positions], whole.fate[positions] = self.pi, self.fate
        whole.round_of[positions] = self.round_of
        whole.picks = as_picks(positions[self.picks])
        whole.num_rounds = self.num_rounds
        if self.scores is not None:
            whole.scores = np.full(num_samples, np.nan)
            whole.scores[positions] = self.scores
        return whole

    def picks_by_round(self) -> list[list[int]]:
        """Return the picks of each round in which there were any, in order."""
        rounds: dict[int, list[int]] = {}
        for index in self.picks:
            rounds.setdefault(int(self.round_of[index]), []).append(index)
        return list(rounds.values())


def as_picks(indices: Indices) -> "array[int]":
    """Return indices as the picks of a run."""
    return array("q", np.ascontiguousarray(indices, np.int64).tobytes())


def digest_of(numbers: NDArray[Any]) -> str:
    """Return a hash of an array: 32 hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(numbers).data, digest_size=16).hexdigest()


ROUNDS_BETWEEN = 3


class Checkpoint:
    """The stored state of one selection; a file of another pool or configuration is ignored.

    Args:
        path: the file, None for no checkpoints.
        key: hash of all that the picks depend on.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path = path
        self._key = key

    @classmethod
    def of_texts(
        cls,
        path: Path | None,
        config: SelectionConfig,
        texts: TextFile,
        *numbers: NDArray[Any] | None,
        facts: Mapping[str, str] | None = None,
    ) -> "Checkpoint":
        """Return the checkpoint of a selection over ``texts`` (hashed only when needed).

        ``numbers`` and ``facts`` are what picks depend on and a text alone does not tell, as costs
        in tokens and the models of signals.
        """
        if path is None:
            return cls(None, "")
        versions = codec_versions(config.resolved_codec).values()
        parts = [config.fingerprint(), *versions, texts.fingerprint()]
        parts += [digest_of(array) for array in numbers if array is not None]
        parts += [part for fact in sorted((facts or {}).items()) for part in fact]
        return cls(path, fingerprint(parts))

    def save(self, run: Run) -> None:
        """Store ``run`` if its round is due."""
        if run.num_rounds % ROUNDS_BETWEEN == 0:
            self.save_now(run)

    def save_now(self, run: Run) -> None:
        """Store ``run``."""
        if self._path is None:
            return
        arrays = {
            "key": np.array(self._key),
            "pi": run.pi,
            "fate": run.fate,
            "round_of": run.round_of,
            "picks": np.array(run.picks, dtype=np.int64),
            "num_rounds": np.array(run.num_rounds),
        }
        if run.scores is not None:
            arrays["scores"] = run.scores

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)

        write_atomically(self._path, write)

    def load(self) -> Run | None:
        """Return the stored state, None where there is none for this pool and configuration."""
        if self._path is None or not self._path.exists():
            return None
        try:
            with np.load(self._path, allow_pickle=False) as stored:
                if str(stored["key"]) != self._key:
                    return None
                return Run(
                    stored["pi"],
                    stored["fate"],
                    stored["round_of"],
                    as_picks(stored["picks"]),
                    int(stored["num_rounds"]),
                    stored.get("scores"),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def remove(self) -> None:
        """Remove the stored state."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


NOWHERE = Checkpoint(None, "")


_WINDOW_ROUNDS = 20
# Rounds that are run before a strategy is asked what all of them will take.
PILOT_SECONDS = 1.0


@dataclass(frozen=True)
class Pilot:
    """How the first rounds of a selection went."""

    left: int
    """what was to be used of the budget when the clock started, in its unit"""
    used: int
    """what the rounds used of it, more than 0"""
    num_rounds: int
    """how many they were, more than 0"""
    seconds: float


def num_picks(pool: Measured, budget: int) -> float:
    """Return about how many samples fit a budget, in its unit."""
    return budget / max(float(pool.costs.mean()), 1.0)


class RemainingTime:
    """How fast a selection has been of late, and how long the rest takes at that rate.

    Args:
        total: the budget.
        used: what was used of it before the clock started.
    """

    def __init__(self, total: int, used: int) -> None:
        self._total = total
        self._seen: deque[tuple[int, float]] = deque([(used, 0.0)], maxlen=_WINDOW_ROUNDS)

    def after(self, used: int, seconds: float) -> tuple[float | None, float | None]:
        """Return budget units per second and the seconds left; None while nothing is known."""
        first_used, first_seconds = self._seen[0]
        self._seen.append((used, seconds))
        if used <= first_used or seconds <= first_seconds:
            return None, None
        rate = (used - first_used) / (seconds - first_seconds)
        return rate, (self._total - used) / rate
