"""Strategy ``coverage``: greedy on how much of the pool's word n-grams a subset covers."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.ngrams import MAX_COUNT, NUM_BUCKETS, ngram_counts
from zip_pipeline.compression.texts import TemporaryTexts, TextFile, parts_of
from zip_pipeline.errors import UserError
from zip_pipeline.selection.candidates import (
    Budget,
    Candidates,
    Indices,
    Mask,
    Measured,
)
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import Offer, Order, first_of, offer_to, open_round
from zip_pipeline.selection.run import Pilot, Run
from zip_pipeline.selection.strategies import Strategy
from zip_pipeline.tables import PartOfTable

DEFAULT_BETA = 1.0
PICKS_PER_ROUND = 200
# The next pick is looked for among so many of the highest known gains. Of these so many are
# refreshed at a time: more of them take fewer calls, and some that need not be refreshed. Where
# a few times bring no pick, as where many samples add the same, it is more and more of them.
_HEAD = 4096
_LONGEST_HEAD = 1 << 20
_REFRESHED = 256
_FEW = 4
_ORDERED_AT_A_TIME = 1 << 20
Gains = NDArray[np.float64]
Mass = NDArray[np.float64]
Costs = Callable[[Indices], NDArray[np.float64]]


class Counts:
    """The n-gram counts of each sample of a pool, as :func:`.ngram_counts` gives them.

    Args:
        file: holds them. It is read, not mapped: what is mapped counts as this process's memory.
        positions: where in the file those of each sample stand, shape (samples,); None where they
            stand in the order of the samples.
    """

    def __init__(self, file: TextFile, positions: Indices | None = None) -> None:
        self._file = file
        self._positions = positions

    def _where(self, indices: Indices) -> Indices:
        return indices if self._positions is None else self._positions[indices]

    def of(self, indices: Indices) -> tuple[NDArray[np.uint32], Indices]:
        """Return the numbers of some samples, one after another, and how many each has."""
        where = self._where(indices)
        numbers = np.frombuffer(self._file.joined(where), np.uint32)
        return numbers, self._file.num_bytes_of(where) // numbers.itemsize

    def parts(self, indices: Indices) -> Iterator[Indices]:
        """Yield places in ``indices``: parts whose counts have some megabytes, or one sample's.

        Of some hundred thousand samples at a time they come in the order of the file.
        """
        for start in range(0, len(indices), _ORDERED_AT_A_TIME):
            where = self._where(indices[start : start + _ORDERED_AT_A_TIME])
            order = np.argsort(where)
            yield from parts_of(start + order, self._file.num_bytes_of(where[order]))

    def mass(self, indices: Indices) -> Mass:
        """Return the sum of the counts of some samples by bucket, shape (buckets,)."""
        return mass_of(self.of(indices[part])[0] for part in self.parts(indices))

    def balanced_mass(self, groups: pl.Series) -> Mass:
        """Return the mass of the average group by bucket, shape (buckets,).

        Each group counts the same, whatever its size; together they have the mass of the pool.

        Args:
            groups: what each sample of the pool belongs to.
        """
        rows = pl.DataFrame({"group": groups}).with_row_index("index")
        # By name, so that the sum does not depend on the order of the samples.
        indices = rows.group_by("group").agg("index").sort("group")["index"]
        shares, of_pool = np.zeros(NUM_BUCKETS), 0.0
        for each in indices:
            mass = self.mass(each.to_numpy().astype(np.int64))
            shares += mass / max(mass.sum(), 1.0)
            of_pool += mass.sum()
        return shares * (of_pool / max(len(indices), 1))


class Coverage:
    """f(S) = sum over buckets u of w_u log(1 + m_u(S)), and what a sample would add to it.

    m_u(S) is the sum of the counts c_iu of the samples i in S. f is monotone and submodular: a gain
    only falls as S grows, so an old one is an upper bound. What a bucket adds is a number in single
    precision, and sums are in double: they hardly depend on their order, so that gains that are
    equal tie.

    Args:
        counts: of each sample of the pool.
        weights: w_u of each bucket, shape (buckets,).

    Source: feature-based submodular functions (Wei, Iyer and Bilmes 2014).
    """

    def __init__(self, counts: Counts, weights: NDArray[np.float64]) -> None:
        self._counts = counts
        self._weights = weights
        self._covered = np.zeros(NUM_BUCKETS, dtype=np.int64)
        # Row c - 1: what each bucket would add with the count c; those of no weight add nothing.
        self._adds = np.zeros((MAX_COUNT, NUM_BUCKETS), dtype=np.float32)
        self._refresh(np.flatnonzero(weights))

    def _refresh(self, buckets: Indices) -> None:
        covered, weights = self._covered[buckets], self._weights[buckets]
        known = np.log1p(covered)
        # Count by count, as of all buckets a number for each count takes megabytes.
        for count in range(1, MAX_COUNT + 1):
            self._adds[count - 1, buckets] = weights * (np.log1p(covered + count) - known)

    def add(self, index: int) -> None:
        """Add a sample to S."""
        buckets, num = _split(self._counts.of(np.array([index]))[0])
        self._covered[buckets] += num
        self._refresh(buckets)

    def gains(self, indices: Indices) -> Gains:
        """Return f(S + sample) - f(S) for each sample on its own, shape (indices,)."""
        gains = np.zeros(len(indices))
        for part in self._counts.parts(indices):
            gains[part] = self._gains(indices[part])
        return gains

    def _gains(self, indices: Indices) -> Gains:
        numbers, lengths = self._counts.of(indices)
        # All are in the table; the check for it would copy them (*measured*: 1.5 ms, 0.9 ms).
        adds = self._adds.ravel().take(numbers, mode="wrap")
        gains = np.zeros(len(indices))
        # reduceat would give a sample without words what is the next one's.
        has_words = lengths > 0
        firsts = np.cumsum(lengths) - lengths
        if has_words.any():
            gains[has_words] = np.add.reduceat(adds, firsts[has_words], dtype=np.float64)
        return gains


def mass_of(parts: Iterable[NDArray[np.uint32]]) -> Mass:
    """Return the sum of the counts of each bucket, shape (buckets,)."""
    mass = np.zeros(NUM_BUCKETS)
    for numbers in parts:
        buckets, num = _split(numbers)
        mass += np.bincount(buckets, weights=num, minlength=NUM_BUCKETS)
    return mass


def _split(numbers: NDArray[np.uint32]) -> tuple[Indices, Indices]:
    """Return bucket and count of each number."""
    return (numbers % NUM_BUCKETS).astype(np.int64), numbers.astype(np.int64) // NUM_BUCKETS + 1


class LazyGreedy:
    """Picks the highest gain per cost again and again, and refreshes no more than it must.

    Args:
        coverage: tells gains, and takes what is picked.
        num_samples: of the pool.
        costs: returns those of some samples, above 0; by quality^a less.
        executor: threads that tell gains; what is picked does not depend on their number.
        workers: their number.

    Source: cost-benefit lazy greedy (Minoux 1978; Leskovec et al. 2007).
    """

    def __init__(
        self,
        coverage: Coverage,
        num_samples: int,
        costs: Costs,
        executor: ThreadPoolExecutor,
        workers: int,
    ) -> None:
        self._coverage = coverage
        self._executor = executor
        self._workers = workers
        self._costs = costs
        # The last known gain per cost of each sample.
        self.scores = self._scores(np.arange(num_samples))

    def _scores(self, indices: Indices) -> Gains:
        # The gains of a part are looked up without the interpreter lock.
        parts = np.array_split(indices, self._workers)
        gains = np.concatenate([*self._executor.map(self._coverage.gains, parts)])
        return np.asarray(gains / self._costs(indices))

    def pick(self, among: Mask, k: int, offer: Offer) -> None:
        """Offer samples, best first, until ``k`` are accepted or none is left.

        The best has the highest gain per cost given all that were accepted; ties: lowest index.

        Args:
            among: which samples may be offered, shape (samples,); it loses those that were.
            k: how many are wanted.
            offer: returns whether a sample is accepted.
        """
        num_in_vain = 0
        while k and among.any():
            size = min(_HEAD << max(num_in_vain - _FEW, 0), _LONGEST_HEAD)
            head = np.sort(first_of(self.scores, among, size, Order.HIGHEST_FIRST))
            among[head] = False
            left = np.ones(len(head), dtype=np.bool_)
            num_picked = self._pick_from(head, left, self._best_of(among), k, offer)
            among[head[left]] = True
            k -= num_picked
            num_in_vain = 0 if num_picked else num_in_vain + 1

    def _best_of(self, among: Mask) -> tuple[float, int]:
        """Return the highest of the last known scores, and the first sample that has it."""
        highest = float(np.max(self.scores, initial=-np.inf, where=among))
        return highest, int((among & (self.scores == highest)).argmax())

    def _pick_from(
        self, head: Indices, left: Mask, other: tuple[float, int], k: int, offer: Offer
    ) -> int:
        """Pick while the best of the head goes before the best other; return how many.

        ``left`` loses those that were offered.
        """
        known, num_picked, num_in_vain = self.scores[head], 0, 0
        is_fresh = np.zeros(len(head), dtype=np.bool_)
        while num_picked < k:
            best = int(known.argmax())
            # In a tie the lower index does.
            if (known[best], -head[best]) <= (other[0], -other[1]):
                break
            if not is_fresh[best]:
                stale = _highest(known, _REFRESHED << max(num_in_vain - _FEW, 0))
                # With the best: where many tie with it, these may all be fresh.
                stale = np.union1d(stale[left[stale] & ~is_fresh[stale]], best)
                known[stale] = self.scores[head[stale]] = self._scores(head[stale])
                is_fresh[stale] = True
                num_in_vain += 1
                continue
            left[best], known[best] = False, -np.inf
            if offer(index := int(head[best])):
                self._coverage.add(index)
                is_fresh[:] = False
                num_picked += 1
                num_in_vain = 0
        return num_picked


def _highest(values: Gains, k: int) -> Indices:
    """Return the positions of the ``k`` highest values, in any order."""
    return np.argpartition(values, -k)[-k:] if len(values) > k else np.arange(len(values))


@contextmanager
def _counts_of(candidates: Candidates) -> Iterator[Counts]:
    """Yield the n-gram counts of the candidates: those that are stored, or counted now."""
    index = candidates.index
    if candidates.ngrams is not None:
        positions = index.positions if isinstance(index, PartOfTable) else None
        yield Counts(candidates.ngrams(), positions)
        return
    parts = map(ngram_counts, candidates.texts.parts())
    with TemporaryTexts.write(parts, candidates.texts.path.parent) as counts:
        yield Counts(counts)


def _costs_of(pool: Measured, config: SelectionConfig) -> Costs:
    """Return what tells the costs of samples, of which no number each is held."""
    of_texts = pool.candidates.texts.num_bytes_of

    def costs(indices: Indices) -> NDArray[np.float64]:
        own = of_texts(indices) if config.unit == "samples" else pool.costs[indices]
        weights = 1.0 if pool.weights is None else pool.weights[indices]
        return np.asarray(np.maximum(own, 1) / weights)

    return costs


class CoverageStrategy(Strategy):
    """Greedy on :class:`Coverage` per token, or per unit of another budget.

    With a budget in samples it is per byte: else the longest samples would come first.
    """

    name = "coverage"
    description = "what adds most to the word n-grams that the subset covers, per token"
    measure = "gain"
    parameters: ClassVar[tuple[str, ...]] = ("beta", "quality", "quality_power")
    words: ClassVar[Mapping[str, str]] = {
        "picked": "picked as number {rank}: it added most, for its size, to the word n-grams that "
        "the subset covers (gain {score:.4g})",
        "never_reached": "others added more, for their size, to the word n-grams that the subset "
        "covers before the budget was used (its last known gain {score:.4g})",
    }

    def check(self, config: SelectionConfig) -> None:
        """Raise UserError where shards are asked for, or a target is needed and missing."""
        super().check(config)
        if config.num_shards > 1:
            raise UserError(
                f"num_shards: got {config.num_shards}; {self.name} covers n-grams of the whole "
                "pool, and counts them in a file, not in memory: leave num_shards at 1, or take "
                "strategy zip or long_range"
            )

    def rounds(
        self, run: Run, budget: Budget, pool: Measured, config: SelectionConfig, workers: int
    ) -> Iterator[Run]:
        """Yield the run after each 200 picks; see :meth:`.Strategy.rounds`."""
        beta = DEFAULT_BETA if config.beta is None else config.beta
        num_samples = len(pool.candidates.texts)
        with _counts_of(pool.candidates) as counts, ThreadPoolExecutor(workers) as executor:
            mass = self.mass(pool, counts)
            coverage = Coverage(counts, np.where(mass > 0, mass**beta, 0.0))
            for index in run.picks:
                coverage.add(index)
            costs = _costs_of(pool, config)
            greedy = LazyGreedy(coverage, num_samples, costs, executor, workers)
            if run.scores is not None:
                greedy.scores[run.picks] = run.scores[run.picks]
            run.scores = greedy.scores
            order = Order.HIGHEST_FIRST
            while (eligible := open_round(run, budget, _HEAD, run.scores, order)).any():
                run.num_rounds += 1
                greedy.pick(eligible, PICKS_PER_ROUND, offer_to(run, budget))
                yield run

    def mass(self, pool: Measured, counts: Counts) -> Mass:
        """Return what makes an n-gram typical, shape (buckets,): its mass in the average source."""
        return counts.balanced_mass(pool.candidates.competes_in)

    def estimate_after(self, pilot: Pilot, pool: Measured, config: SelectionConfig) -> float:
        """Return roughly how many seconds all rounds take.

        Each pick lowers the gains of others by a smaller share than the one before, so fewer need
        to be refreshed: the time grows as the square root of what is used.
        """
        return pilot.seconds * math.sqrt(pilot.left / pilot.used)


STRATEGY = CoverageStrategy()
