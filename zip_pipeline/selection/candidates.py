"""The pool as a selection sees it: narrow columns, texts in a file, sizes, and one budget."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import chain

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.codecs import codecs, pool_levels
from zip_pipeline.compression.sets import Sizes
from zip_pipeline.compression.state import TOKENS_SCHEMA
from zip_pipeline.compression.texts import TemporaryTexts, TextFile
from zip_pipeline.compression.tokens import count_tokens
from zip_pipeline.errors import UserError
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.strategies import strategies
from zip_pipeline.tables import PartOfTable, Table, positions_by_id, rows_of

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Fit(IntEnum):
    """Whether a sample may still be picked, and if not, why."""

    YES = 0
    OVER_BUDGET = 1
    QUOTA = 2


_FITTED_AT_A_TIME = 1 << 16


class Budget:
    """What has been used of a budget and who may still use it.

    A sample fits when its cost is at most what is left, its source stays within its maximum,
    and what other sources still need for their minimum remains. A minimum reserves no more
    than its source can still supply.

    In a mixture every source has its allotment besides (:func:`allotments`). A sample fits into it
    when at least half of its cost does, so that sources end above it as often as below. What the
    allotments leave, as no sample fits them any more, is for all sources.

    Args:
        value: the budget, in its unit.
        costs: cost of each sample in that unit, shape (samples,).
        sources: the source of each sample, shape (samples,).
        quotas: least and largest share of the budget by source.
        mixture: what a source with a supply weighs in the mixture; None for no mixture.
    """

    def __init__(
        self,
        value: int,
        costs: Indices,
        sources: Sequence[str] | pl.Series,
        quotas: Mapping[str, tuple[float | None, float | None]],
        mixture: Callable[[str, int], float] | None = None,
    ) -> None:
        self.value = value
        self.costs = costs
        self.used = 0
        self.sources = sorted({*quotas, *(sources if mixture else ())})
        codes = {name: code for code, name in enumerate(self.sources)}
        # The last code stands for all sources without a quota.
        other = len(codes)
        each = (codes.get(source, other) for source in sources)
        self._codes = np.fromiter(each, np.int32, len(costs))
        shares = [quotas.get(name, (None, None)) for name in self.sources]
        self._minimum = np.array([int((low or 0) * value) for low, _ in shares] + [0])
        limits = [value if high is None else int(high * value) for _, high in shares]
        self._maximum = np.array([*limits, value])
        self._used = np.zeros(other + 1, dtype=np.int64)
        self._reserved = np.zeros(other + 1, dtype=np.int64)
        self.allotment: Indices | None = None
        if mixture is not None:
            supply = self._supply(np.ones(len(costs), dtype=np.bool_))
            weights = np.array([*map(mixture, self.sources, supply.tolist()), 0.0])
            most = np.minimum(self._maximum, supply)
            self.allotment = allotments(value, weights, np.minimum(self._minimum, most), most)

    @property
    def unused(self) -> int:
        """What is left of the budget."""
        return self.value - self.used

    def by_source(self) -> dict[str, dict[str, int]]:
        """Return what each source of a mixture may use and what it has used, in budget units."""
        if self.allotment is None:
            return {}
        figures = zip(self.allotment.tolist(), self._used.tolist(), strict=True)
        return {
            source: {"allotted": allotted, "used": used}
            for source, (allotted, used) in zip(self.sources, figures, strict=False)
        }

    def _supply(self, among: Mask) -> Indices:
        costs = np.bincount(
            self._codes[among], weights=self.costs[among], minlength=len(self._minimum)
        )
        return costs.astype(np.int64)

    def open_round(self, unpicked: Mask) -> None:
        """Reserve what sources below their minimum can still supply."""
        if not self._minimum.any():
            return
        lacking = np.minimum(self._minimum - self._used, self._supply(unpicked))
        self._reserved = np.clip(lacking, 0, None)

    def release(self) -> bool:
        """Let all sources use what the allotments left; return whether there were any."""
        had_any, self.allotment = self.allotment is not None, None
        return had_any

    def all_fits(self) -> NDArray[np.int8]:
        """Return the :class:`Fit` of each sample, shape (samples,)."""
        # In parts, as what is computed of a sample takes some forty bytes.
        starts = range(0, len(self.costs), _FITTED_AT_A_TIME)
        parts = [self.fits(slice(start, start + _FITTED_AT_A_TIME)) for start in starts]
        return np.concatenate([np.zeros(0, np.int8), *parts])

    def fits(self, which: Indices | slice) -> NDArray[np.int8]:
        """Return the :class:`Fit` of each of some samples."""
        codes, costs = self._codes[which], self.costs[which]
        for_others = self._reserved.sum() - self._reserved[codes]
        verdict = np.full(len(costs), Fit.YES, dtype=np.int8)
        verdict[costs > self.unused - for_others] = Fit.QUOTA
        verdict[self._used[codes] + costs > self._maximum[codes]] = Fit.QUOTA
        if self.allotment is not None:
            verdict[self._used[codes] + costs / 2 > self.allotment[codes]] = Fit.QUOTA
        verdict[costs > self.unused] = Fit.OVER_BUDGET
        return verdict

    def take(self, index: int) -> None:
        """Spend the cost of one sample."""
        code, cost = self._codes[index], int(self.costs[index])
        self.used += cost
        self._used[code] += cost
        self._reserved[code] = max(0, self._reserved[code] - cost)


def allotments(budget: int, weights: NDArray[np.float64], least: Indices, most: Indices) -> Indices:
    """Return what each source may use, shape (sources,), in the unit of the budget.

    It is the source's share by weight, but at least ``least`` and at most ``most``; what one
    source cannot take goes to the others by their weights. They add up to the budget where
    ``least`` and ``most`` let them.
    """
    low, high = 0.0, float(budget) / max(weights[weights > 0].min(initial=1.0), 1e-300)
    # What a weight of one gets: the sum of the allotments grows with it.
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (
            (middle, high)
            if np.clip(weights * middle, least, most).sum() < budget
            else (low, middle)
        )
    exact = np.clip(weights * high, least, most)
    rounded: Indices = np.floor(exact).astype(np.int64)
    num_left = min(max(budget - int(rounded.sum()), 0), int((exact > rounded).sum()))
    rounded[np.argsort(rounded - exact, kind="stable")[:num_left]] += 1
    return rounded


_HALVINGS = 100


MARKS_SCHEMA = pl.Schema(dict.fromkeys(("fate", "evidence", "other"), pl.String))


@dataclass(frozen=True)
class Marks:
    """Which samples take no part, as signals tell.

    Args:
        identities: of what measured the signals.
        table: row i is of row i of the index: the fate, why in words, and the id of the sample that
            takes part in its place (``MARKS_SCHEMA``); null where a sample takes part.
        told: by signal, what it told of each sample, where its policy hides something.
        hide: returns rows of the pool table as they are given out, without what a policy hides;
            given what was told of each.
        by_source: by signal, what it told, counted by source.
    """

    identities: Mapping[str, str]
    table: Table
    told: Mapping[str, Table]
    hide: Callable[[Mapping[str, pl.DataFrame], pl.DataFrame], pl.DataFrame]
    by_source: Mapping[str, pl.DataFrame]

    def part(self, positions: Indices) -> "Marks":
        """Return those of the samples at some positions of the index."""
        told = {name: PartOfTable.of(table, positions) for name, table in self.told.items()}
        return replace(self, table=PartOfTable.of(self.table, positions), told=told)

    def told_of(self, positions: Indices) -> "Marks":
        """Return those of the samples at some positions, with what was told of them in memory."""
        part = self.part(positions)
        return replace(part, told={name: rows_of(table) for name, table in part.told.items()})

    def masked(self, positions: Indices, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows of the pool table at some positions as they are given out."""
        told = self.part(positions).told
        return self.hide({name: rows_of(table) for name, table in told.items()}, rows)


@dataclass(frozen=True)
class SignalTables:
    """What the signals of a strategy tell, by their names.

    Args:
        identities: of what measured them.
        pool: row i is that of row i of the index.
        target: a row for each sample of the target file, none where there is no such file.
        tags: ``tag`` and ``vector`` of each tag of the pool in its plain form, by tag, where the
            strategy embeds them.
    """

    identities: Mapping[str, str]
    pool: Mapping[str, Table]
    target: Mapping[str, pl.DataFrame]
    tags: pl.DataFrame | None = None

    def part(self, positions: Indices) -> "SignalTables":
        """Return them for the samples at some positions of the index."""
        parts = {name: PartOfTable.of(table, positions) for name, table in self.pool.items()}
        return replace(self, pool=parts)


@dataclass(frozen=True)
class Candidates:
    """Every sample that may be picked: row i of the index, text i and row i of the state.

    Args:
        index: ``sample_id``, ``batch``, ``source``, ``source_file``, ``source_row``, without
            exact duplicates; other columns are left alone. It is read when it is asked for, and
            so may lie in a file. A strategy sees ids and sources alone.
        texts: the serialised samples.
        state: what is known of tokens (``TOKENS_SCHEMA``) and sizes (``deflate_bytes``,
            ``zstd_bytes``); what is not there and needed is measured.
        target: the serialised samples of the target file, none where there is no such file.
        quality: of each sample, where the configuration asks for it; 0 and up where a strategy
            multiplies by it.
        trusted: the serialised samples of the trusted file, none where there is no such file.
        signals: what the strategy asks for besides; None where that is nothing.
        clusters: the cluster of each sample, where clusters stand in for the sources.
        ngrams: returns the n-gram counts of the samples, where they are stored; where this is a
            part of an index, those of the whole.
        marks: which samples take no part; None where nobody looked.
    """

    index: Table
    texts: TextFile
    state: pl.DataFrame | None = None
    target: Sequence[bytes] = ()
    ngrams: Callable[[], TextFile] | None = None
    quality: pl.Series | None = None
    trusted: Sequence[bytes] = ()
    signals: SignalTables | None = None
    clusters: pl.Series | None = None
    marks: Marks | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.texts)}
        if isinstance(self.index, pl.DataFrame):
            lengths.add(self.index.height)
        if self.state is not None:
            lengths.add(len(self.state))
        assert len(lengths) == 1, f"index, texts and state differ in length: {lengths}"

    @property
    def sample_ids(self) -> pl.Series:
        """The id of each sample, read anew: nobody holds them, as they take 48 bytes each."""
        return rows_of(self.index, "sample_id")["sample_id"]

    def by_id(self) -> Indices:
        """Return all positions in the order of the ids."""
        return positions_by_id(self.index)

    def signal_table(self, name: str) -> Table:
        """Return what a signal that the strategy asks for tells, a row for each sample."""
        assert self.signals is not None, "the strategy declares its signals"
        return self.signals.pool[name]

    @property
    def sources(self) -> pl.Series:
        """The source of each sample, read anew."""
        return rows_of(self.index, "source")["source"]

    @property
    def competes_in(self) -> pl.Series:
        """What shares of a mixture are for: the cluster of each sample, or its source."""
        return self.sources if self.clusters is None else self.clusters


@dataclass(frozen=True)
class Measured:
    """Candidates with what a strategy needs to know of each, every array of shape (samples,).

    ``costs`` are in the budget's unit; ``pi`` is the initial redundancy state, higher = more
    redundant; ``tokens`` (``TOKENS_SCHEMA``) is None where nobody asked for them. ``weights`` are
    quality^a, above 0, by which ``pi`` is divided; None without qualities.
    """

    candidates: Candidates
    tokens: pl.DataFrame | None
    pi: NDArray[np.float64]
    costs: Indices
    weights: NDArray[np.float64] | None = None

    @property
    def num_bytes(self) -> Indices:
        """The size of each sample, told anew from where its text lies."""
        return self.candidates.texts.num_bytes

    def signal(self, name: str) -> pl.DataFrame:
        """Return what a signal that the strategy asks for tells of each sample, read anew."""
        return rows_of(self.candidates.signal_table(name))


@contextmanager
def part_of(pool: Measured, positions: Indices) -> Iterator[Measured]:
    """Give the samples at positions, in that order, as a pool; its texts in a file of their own.

    Of where they come from it has the source alone, and no tokens.
    """
    whole = pool.candidates
    if np.array_equal(positions, np.arange(len(whole.texts))):
        yield pool
        return
    parts, folder = whole.texts.parts(positions), whole.texts.path.parent
    with TemporaryTexts.write(parts, folder) as texts:
        candidates = Candidates(
            PartOfTable.of(whole.index, positions),
            texts,
            target=whole.target,
            ngrams=whole.ngrams,
            quality=None if whole.quality is None else whole.quality[positions],
            signals=None if whole.signals is None else whole.signals.part(positions),
            clusters=None if whole.clusters is None else whole.clusters[positions],
        )
        part = Measured(
            candidates,
            None,
            pool.pi[positions],
            _at(pool.costs, positions),
            None if pool.weights is None else pool.weights[positions],
        )
        # Of the whole pool nothing is held meanwhile.
        del pool, whole
        yield part


def _at(costs: Indices, positions: Indices) -> Indices:
    """Return costs at positions; where all are one number, that stays one number in memory."""
    if costs.strides == (0,) and len(costs):
        return np.broadcast_to(costs[0], len(positions))
    return costs[positions]


def marginal_ratios(
    raw_bytes: Sequence[int] | Sizes, marginal_bytes: Sizes, overhead_bytes: int
) -> NDArray[np.float64]:
    """Return rho = raw bytes / (marginal bytes - overhead); higher = more redundant.

    The overhead is what any piece costs whatever it says (frame, entropy tables); counting it
    makes tiny samples look new. At least one byte is left in the denominator.
    """
    return np.asarray(raw_bytes, np.float64) / np.maximum(marginal_bytes - overhead_bytes, 1)


def measure(
    candidates: Candidates, config: SelectionConfig, tokenizer: str, workers: int
) -> Measured:
    """Return sizes, costs and the initial redundancy state of all candidates, without the state.

    Raises:
        UserError: the budget is in target tokens, and nothing tells which these are; or the
            strategy needs a target or a signal, and there is none.
    """
    if config.needed_signals and candidates.signals is None:
        raise UserError(
            f"strategy: {config.strategy} needs the signal {config.needed_signals[0]}, which plain "
            "texts and tables of turns do not have; select from records or a data root"
        )
    if strategies[config.strategy].uses("target") and not candidates.target:
        raise UserError(
            f"target: {config.strategy} needs the samples of a file, with which plain texts do "
            "not come; select from records or a data root"
        )
    state, num_bytes = candidates.state, candidates.texts.num_bytes
    codec, level = config.resolved_codec, config.resolved_level
    if state is not None and f"{codec}_bytes" in state and pool_levels().get(codec) == level:
        sizes = state[f"{codec}_bytes"].to_numpy()
    else:
        alone = codecs[codec].alone_sizes
        parts = [alone(part, level, workers) for part in candidates.texts.parts()]
        sizes = np.concatenate([np.zeros(0, np.int64), *parts])
    tokens = _tokens(candidates, config.unit, tokenizer)
    overhead = config.overhead_bytes if strategies[config.strategy].uses("overhead_bytes") else 0
    pi = marginal_ratios(num_bytes, sizes, overhead)
    weights = _weights(candidates, config)
    costs = _costs(num_bytes, tokens, config)
    pi = pi if weights is None else pi / weights
    # Of the state no more than the tokens is needed from here on.
    return Measured(replace(candidates, state=None), tokens, pi, costs, weights)


# A quality of 0 comes last instead of dividing by it.
_LEAST_WEIGHT = 1e-12


def _weights(candidates: Candidates, config: SelectionConfig) -> NDArray[np.float64] | None:
    """Return quality^a of each sample, None where the strategy asks for none."""
    if config.heeded("quality") is None:
        return None
    if candidates.quality is None:
        raise UserError(
            "quality: plain texts and tables of turns have none; select from records or a data root"
        )
    power = config.heeded("quality_power") or 1.0
    return np.maximum(candidates.quality.to_numpy() ** power, _LEAST_WEIGHT)


def _tokens(candidates: Candidates, unit: str, tokenizer: str) -> pl.DataFrame | None:
    """Return the tokens that are known, or those that the budget needs."""
    state, tokens = candidates.state, None
    if state is not None and "num_tokens" in state:
        known = [name for name in TOKENS_SCHEMA if name in state and not state[name].has_nulls()]
        tokens = state.select(known)
    elif unit == "tokens":
        parts = ([text.decode() for text in part] for part in candidates.texts.parts())
        counts = [num for part in parts for num in count_tokens(part, tokenizer)]
        numbers = pl.Series(counts, dtype=pl.Int64)
        tokens = pl.DataFrame({"num_tokens": numbers})
    if unit == "target_tokens" and (tokens is None or "num_target_tokens" not in tokens):
        raise UserError(
            f"budget_target_tokens: in plain texts, counted by {tokenizer}, nobody knows which "
            "tokens the loss falls on; they are counted as a model reads them where transformers "
            "is installed (pip install 'zip-pipeline[train]') and a preset names the model"
        )
    return tokens


def _costs(num_bytes: Indices, tokens: pl.DataFrame | None, config: SelectionConfig) -> Indices:
    if config.unit == "samples":
        return np.broadcast_to(np.int64(1), len(num_bytes))
    if config.unit == "bytes":
        return num_bytes
    assert tokens is not None
    return tokens[f"num_{config.unit}"].to_numpy()


def refuse_to_pick_nothing(config: SelectionConfig, costs: Indices) -> None:
    """Raise UserError where not even the smallest sample fits the budget.

    Args:
        config: with a budget that may be a share of the pool.
        costs: of each sample that may be picked, in the unit of the budget, shape (samples,).
    """
    if not len(costs):
        return
    budget, unit = config.of_pool(int(costs.sum())).budget, config.unit.replace("_", " ")
    least = max(int(costs.min()), 1)
    if budget < least:
        asked = config.asked_budget
        words = f"{asked}, which is {budget:,} {unit}" if asked != budget else f"{budget:,}"
        raise UserError(
            f"budget_{config.unit}: got {words}, and the smallest sample has {least:,}, so nothing "
            f"could be picked; give {least} or more"
        )


def picked_tokens(texts: TextFile, picks: Sequence[int], tokenizer: str) -> pl.DataFrame:
    """Return ``num_tokens`` of each pick, null for all other texts."""
    counts, places = np.full(len(texts), -1), np.array(picks, np.int64)
    found = (count_tokens([t.decode() for t in part], tokenizer) for part in texts.parts(places))
    counts[places] = np.fromiter(chain.from_iterable(found), np.int64, len(places))
    return pl.DataFrame({"num_tokens": pl.Series(counts).replace(-1, None)})
