"""Samples that stand near each other by their signatures, and what was found of them, in files."""

from collections.abc import Callable, Collection, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.files import hashing, read_metadata, scan_table, write_table
from zip_pipeline.signals import MarkedPool
from zip_pipeline.tables import (
    Buckets,
    TemporaryMatrix,
    WholeTable,
    id_numbers,
    positions_by_id,
    rows_in_parts,
)

NUM_HASHES = 128
"""of a signature, numbers of 16 bits; a band, by which signatures are looked up, is four of them"""
NUM_BANDS = NUM_HASHES // 4
PAIR = np.dtype(
    [("pair", np.uint64), ("num", np.int32), ("kind", np.int8), ("likeness", np.float32, 2)]
)
"""Two samples, the one with the lower id first, in 32 bits each; in how many bands they stand near
each other; and what was found of them: the place of the kind among its names, and how alike prompts
and answers are"""
RULE = "1"  # changes when what is measured, or how pairs are judged, does
_LAYOUT = "2"  # changes when what is stored does
_UNKNOWN = -1
_SEED = 42
# What the signatures say of the Jaccard index is some hundredths off.
_MIN_ESTIMATE = 0.32
# In a bucket of a band each signature is compared with so many that follow it.
_NEIGHBOURS = 5
_PAIRS_AT_A_TIME = 1 << 14
_PAIRS_JUDGED_AT_A_TIME = 1 << 18
_SIGNATURES_AT_A_TIME = 1 << 18
_SAMPLES_AT_A_TIME = 1 << 12
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_LOW = np.uint64(2**32 - 1)
_PLACE = np.uint64(2**28 - 1)
_HIT_BITS = 16
_NUMBER = np.dtype(np.uint64)
_OF_PAIR = {
    "high": pl.UInt32,
    "num": pl.Int32,
    "kind": pl.String,
    "prompt": pl.Float32,
    "answer": pl.Float32,
}
_STORED = pl.Schema([("id", pl.UInt64()), ("pairs", pl.List(pl.Struct(_OF_PAIR)))])

Pairs: TypeAlias = NDArray[Any]
"""of the type :data:`PAIR`, shape (pairs,)"""
Members: TypeAlias = NDArray[np.int64]
"""two samples of each pair, shape (pairs, 2)"""
Numbers: TypeAlias = NDArray[np.uint64]
Judge: TypeAlias = Callable[[Members], tuple[NDArray[np.int8], NDArray[np.float32]]]
"""Takes positions, returns the kind of each pair and how alike its sides are, shape (pairs, 2)."""


def members_of(pairs: Pairs) -> Members:
    """Return the two samples of each pair, by their places in the order of the ids."""
    return np.stack([pairs["pair"] >> _HALF, pairs["pair"] & _LOW], axis=1).astype(np.int64)


def found_pairs(
    pool: MarkedPool, kinds: Collection[str], names: Sequence[str], judge: Judge
) -> tuple[NDArray[np.int64], Buckets]:
    """Return what was found of samples that stand near each other, and all positions by id.

    Who stands near whom, and what was found of them, is kept: a new batch costs its own pairs
    alone. Samples are in the order of their ids, so that it does not matter when they came.

    Args:
        pool: with signatures of prompts and of answers.
        kinds: of near-copies that are asked for.
        names: of all kinds, the first of what is none.
        judge: tells what a pair is; it gets new ones that may be of those kinds.

    Returns:
        Positions in the order of the ids, shape (samples,), and :data:`PAIR` of all pairs.
    """
    by_id, scratch = positions_by_id(pool.index), pool.scratch
    path = pool.folder / f"pairs-{'-'.join(sorted(kinds))}.parquet"
    known, is_new = _read(path, id_numbers(pool.index)[by_id], names, scratch)
    if not is_new.any():
        return by_id, known
    rank = np.empty(len(by_id), np.uint32)
    rank[by_id] = np.arange(len(by_id), dtype=np.uint32)
    prompt, answer = (Side(pool.table, name, len(by_id), scratch) for name in ("prompt", "answer"))
    come, gone = (Buckets(_NUMBER, len(by_id), scratch) for _ in range(2))
    for side, other in ((prompt, answer), (answer, prompt)):
        for numbers, parted in _changes(side, other, rank, is_new):
            come.add(numbers >> _HALF, numbers)
            gone.add(parted >> _HALF, parted)
    found, unknown = (Buckets(PAIR, len(by_id), scratch) for _ in range(2))
    for rows in zip(known.each(), come.each(), gone.each(), strict=True):
        pairs = _changed(*rows)
        is_unknown = pairs["kind"] == _UNKNOWN
        _add(found, pairs[~is_unknown])
        pairs = pairs[is_unknown]
        positions = by_id[members_of(pairs)]
        is_wanted = _wanted(prompt, answer, positions, kinds)
        # Samples that stand together in the pool are read together.
        unknown.add(positions[is_wanted].min(axis=1), pairs[is_wanted])
    for pairs in unknown.each(least=_PAIRS_JUDGED_AT_A_TIME):
        pairs["kind"], pairs["likeness"] = judge(by_id[members_of(pairs)])
        _add(found, pairs)
    with hashing(path):
        ids = id_numbers(pool.index)[by_id]
        write_table(path, _stored(ids, found, names), _made_by())
    return by_id, found


def _add(buckets: Buckets, pairs: Pairs) -> None:
    buckets.add(pairs["pair"] >> _HALF, pairs)


class Side:
    """The signatures of the prompts, or of the answers, of the samples of a pool, in files.

    Args:
        table: of the signal.
        column: of the signatures.
        num_samples: of the pool.
        scratch: where the files go.
    """

    def __init__(self, table: WholeTable, column: str, num_samples: int, scratch: Path) -> None:
        self.is_long = np.zeros(num_samples, np.bool_)
        self._first_halves = np.zeros(num_samples, np.uint32)
        self._signatures = TemporaryMatrix((num_samples, NUM_HASHES), np.uint16, scratch)
        # By band, as bands are looked at one by one.
        self._halves = TemporaryMatrix((NUM_BANDS, num_samples), np.uint32, scratch)
        start = 0
        for part in rows_in_parts(table, column):
            own, rows = part.to_series(), slice(start, start + part.height)
            is_long = own.bin.size() == NUM_HASHES * np.dtype(np.uint16).itemsize
            array = pl.Array(pl.UInt16, NUM_HASHES)
            signatures = own.filter(is_long).bin.reinterpret(dtype=array).to_numpy()
            self.is_long[rows] = is_long
            # Of a short text the same number for the same words stands for each band.
            bands = np.repeat(own.hash(_SEED).to_numpy()[:, None], NUM_BANDS, axis=1)
            bands[self.is_long[rows]] = np.ascontiguousarray(signatures).view(np.uint64)
            self._signatures.write(np.arange(start, rows.stop), bands.view(np.uint16))
            halves = ((bands * _FACTOR) >> _HALF).astype(np.uint32)
            self._halves.write(np.arange(NUM_BANDS), halves.T, start)
            self._first_halves[rows] = halves[:, 0]
            start = rows.stop

    def half(self, band: int) -> NDArray[np.uint32]:
        """Return half of a hash of a band of each sample; of a short text of its words."""
        halves: NDArray[np.uint32] = self._halves[slice(band, band + 1)][0]
        return halves

    def alike(self, pairs: Members) -> NDArray[np.bool_]:
        """Return which pairs have a Jaccard index of perhaps 0.4, or are short and the same."""
        x, y = pairs.T
        alike: NDArray[np.bool_] = self.is_long[x] == self.is_long[y]
        # To read the others takes a hundred times as long.
        alike &= self.is_long[x] | (self._first_halves[x] == self._first_halves[y])
        alike[alike] = self._have_like_signatures(pairs[alike])
        return alike

    def _have_like_signatures(self, pairs: Members) -> NDArray[np.bool_]:
        least = np.where(self.are_long(pairs), _MIN_ESTIMATE * NUM_HASHES, NUM_HASHES)
        num_equal = np.zeros(len(pairs), np.int64)
        for start in range(0, len(pairs), _PAIRS_AT_A_TIME):
            part = slice(start, start + _PAIRS_AT_A_TIME)
            own, places = np.unique(pairs[part], return_inverse=True)
            signatures, (x, y) = self._signatures[own], places.reshape(-1, 2).T
            num_equal[part] = np.count_nonzero(signatures[x] == signatures[y], axis=1)
        return np.asarray(num_equal >= least)

    def are_long(self, pairs: Members) -> NDArray[np.bool_]:
        """Return of which pairs both are long enough to be looked up by."""
        return np.asarray(self.is_long[pairs].all(axis=1))


def _changes(
    side: Side, other: Side, rank: NDArray[np.uint32], is_new: NDArray[np.bool_]
) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield which pairs stand near each other in a band of new samples, and which no longer do.

    A pair is one number, and stands there once for each such band. In a bucket stand together those
    that are alike on the other side as well, or share the next band, then in the order of samples:
    in templated sources a bucket can hold hundreds. So who stands near whom depends on the samples
    alone, and only buckets with a new one are looked at.

    Args:
        side: whose bands are looked at.
        other: the other side.
        rank: place of each sample in the order of the ids, shape (samples,).
        is_new: by those places.
    """
    ranks = rank[side.is_long]
    is_new_one = is_new[ranks]
    # The bits of the band for which there is no room in what is sorted.
    ends = np.zeros(len(rank), np.uint8)
    num_parts = np.uint64(len(ranks) // _SIGNATURES_AT_A_TIME + 1)
    for number in range(NUM_BANDS):
        band = side.half(number)[side.is_long]
        ends[ranks] = band & 0xFF
        second = (side.half(number - 1) if number % 2 else other.half(number))[side.is_long]
        is_hit = np.zeros(1 << 16, np.bool_)
        is_hit[band[is_new_one] >> _HIT_BITS] = True
        # Some buckets at a time, as to sort a signature takes some fifty bytes.
        part_of = ((band * num_parts) >> _HALF).astype(np.uint16)
        part_of[~is_hit[band >> _HIT_BITS]] = num_parts
        for part in range(int(num_parts)):
            (near,) = np.nonzero(part_of == part)
            # 24 bits of the band, 12 of what it is sorted by and 28 of the place, for they sort
            # fast.
            keys = (band[near].astype(np.uint64) >> np.uint64(8)) << np.uint64(40)
            keys |= (second[near].astype(np.uint64) >> np.uint64(20)) << np.uint64(28)
            keys |= ranks[near].astype(np.uint64)
            keys.sort()
            place = (keys & _PLACE).astype(np.int64)
            yield _neighbours(keys >> np.uint64(40), ends[place], place, is_new[place])


def _neighbours(
    buckets: Numbers,
    ends: NDArray[np.uint8],
    members: NDArray[np.int64],
    is_new: NDArray[np.bool_],
) -> tuple[Numbers, Numbers]:
    """Return each two members of a bucket that new ones made neighbours, and that they parted.

    Args:
        buckets: of the members, ascending.
        ends: more of the band by which they are in a bucket; neighbours have the same.
        members: places of samples.
        is_new: which of them are.
    """
    numbers = members.astype(np.uint64)
    (old,) = np.nonzero(~is_new)
    come, gone = [], []
    for step in range(1, _NEIGHBOURS + 1):
        is_same = (buckets[step:] == buckets[:-step]) & (ends[step:] == ends[:-step])
        (first,) = np.nonzero(is_same & (is_new[step:] | is_new[:-step]))
        come.append(_as_numbers(numbers[first], numbers[first + step]))
        one, two = old[:-step], old[step:]
        is_parted = (buckets[one] == buckets[two]) & (ends[one] == ends[two])
        is_parted &= two - one > _NEIGHBOURS
        gone.append(_as_numbers(numbers[one[is_parted]], numbers[two[is_parted]]))
    return np.concatenate(come), np.concatenate(gone)


def _as_numbers(one: Numbers, two: Numbers) -> Numbers:
    """Return pairs as one number each, the lower member first."""
    return np.minimum(one, two) << _HALF | np.maximum(one, two)


def _changed(known: Pairs, come: Numbers, gone: Numbers) -> Pairs:
    """Return pairs that still, or now, stand near each other, ascending; new ones are unknown."""
    counted = [np.unique(numbers, return_counts=True) for numbers in (come, gone)]
    pairs = np.unique(np.concatenate([known["pair"], *(numbers for numbers, _ in counted)]))
    found = np.zeros(len(pairs), PAIR)
    found["pair"], found["kind"] = pairs, _UNKNOWN
    found[np.searchsorted(pairs, known["pair"])] = known
    for sign, (numbers, times) in zip((1, -1), counted, strict=True):
        found["num"][np.searchsorted(pairs, numbers)] += sign * times.astype(np.int32)
    return found[found["num"] > 0]


def _wanted(
    prompt: Side, answer: Side, pairs: Members, kinds: Collection[str]
) -> NDArray[np.bool_]:
    """Return which pairs may be near-copies of some kinds."""
    by_prompt = prompt.alike(pairs)
    is_asked = by_prompt | ("same_answer" in kinds)
    by_answer = np.zeros_like(by_prompt)
    by_answer[is_asked] = answer.alike(pairs[is_asked])
    wanted = by_prompt & by_answer
    if "same_prompt" in kinds:
        wanted |= by_prompt & prompt.are_long(pairs)
    if "same_answer" in kinds:
        wanted |= by_answer & answer.are_long(pairs)
    return wanted


def _made_by() -> dict[str, str]:
    """Return what pairs hang on besides the ids of samples."""
    return {"rule": RULE, "layout": _LAYOUT, "rensa": version("rensa"), "polars": version("polars")}


def _read(
    path: Path, ids: Numbers, names: Sequence[str], scratch: Path
) -> tuple[Buckets, NDArray[np.bool_]]:
    """Return the pairs that are kept, by places among some ids, and which of these are new.

    Where a sample is gone all are new: who stands near whom is told anew, and what was found of
    them stays. A table that cannot be read, or was made by other means, counts for none.
    """
    is_new = np.ones(len(ids), np.bool_)
    try:
        if not _made_by().items() <= read_metadata(path).items():
            return Buckets(PAIR, len(ids), scratch), is_new
        known, place = Buckets(PAIR, len(ids), scratch), _places(path, ids)
        is_any_gone, start = bool((place < 0).any()), 0
        rows = scan_table(path).select("pairs")
        for part in rows.collect_batches(chunk_size=_SAMPLES_AT_A_TIME, maintain_order=True):
            low = pl.Series("low", place[start : start + part.height])
            start += part.height
            found = part.with_columns(low).explode("pairs").drop_nulls().unnest("pairs")
            pairs = np.zeros(found.height, PAIR)
            both = np.stack([found["low"].to_numpy(), place[found["high"].to_numpy()]], axis=1)
            pairs["pair"] = (both[:, 0].astype(np.uint64) << _HALF) | both[:, 1].astype(np.uint64)
            pairs["num"] = 0 if is_any_gone else found["num"]
            pairs["kind"] = found["kind"].replace_strict(names, range(len(names)))
            pairs["likeness"] = found.select("prompt", "answer").to_numpy()
            _add(known, pairs[(both >= 0).all(axis=1)])
    except (FileNotFoundError, pl.exceptions.PolarsError):
        return Buckets(PAIR, len(ids), scratch), is_new
    if not is_any_gone:
        is_new[place] = False
    return known, is_new


def _places(path: Path, ids: Numbers) -> NDArray[np.int64]:
    """Return the place of each stored sample among some ids, -1 where it is gone."""
    stored = scan_table(path).select("id").collect().to_series().to_numpy()
    if not len(ids):
        return np.full(len(stored), -1)
    order = np.argsort(ids, kind="stable")
    place = order[np.minimum(np.searchsorted(ids, stored, sorter=order), len(ids) - 1)]
    return np.where(ids[place] == stored, place, -1)


def _stored(ids: Numbers, found: Buckets, names: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Yield pairs by the sample with the lower id, with the place of the other one."""
    yield _STORED.to_frame()
    for number, pairs in enumerate(found.each()):
        first, of_bucket = number * found.width, pairs[np.argsort(pairs["pair"])]
        for start in range(first, min(first + found.width, len(ids)), _SAMPLES_AT_A_TIME):
            own = ids[start : min(start + _SAMPLES_AT_A_TIME, first + found.width)]
            ends = np.array([start, start + len(own)], np.uint64) << _HALF
            inside = of_bucket[slice(*np.searchsorted(of_bucket["pair"], ends).tolist())]
            low, high = members_of(inside).T
            rows = pl.DataFrame(
                {
                    "low": low,
                    "high": high,
                    "num": inside["num"],
                    "kind": [names[kind] for kind in inside["kind"].tolist()],
                    "prompt": inside["likeness"][:, 0],
                    "answer": inside["likeness"][:, 1],
                },
                schema_overrides={"kind": pl.String},
            )
            lists = rows.group_by("low").agg(pairs=pl.struct(pl.exclude("low")))
            every = pl.DataFrame({"low": np.arange(start, start + len(own)), "id": own})
            table = every.join(lists, on="low", how="left", maintain_order="left")
            yield table.select(_STORED.names()).cast(_STORED)
