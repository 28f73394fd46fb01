"""Signal ``near_duplicates``: samples that say what another one says, but for a few words."""

import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from importlib.metadata import version
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from zip_pipeline.compression.ngrams import UNSPACED
from zip_pipeline.errors import UserError, require
from zip_pipeline.files import hashing, read_metadata, scan_table, write_table
from zip_pipeline.samples import Stage
from zip_pipeline.settings import Settings
from zip_pipeline.signals import MARKS, MarkedPool, Measure, Signal, Tools

NUM_HASHES = 128
"""of a signature; a band, by which signatures are looked up, is four of them"""
MIN_JACCARD = 0.4
"""of the word 2-grams of two texts that are near-copies"""
_RULE = "1"  # changes when what is measured, or how pairs are judged, does
_SEED = 42
# A shorter text is the same where all words are, and says too little to be looked up by.
_MIN_WORDS = 8
# What the signatures say of the Jaccard index is some hundredths off.
_MIN_ESTIMATE = 0.32
# In a bucket of a band each signature is compared with so many that follow it.
_NEIGHBOURS = 5
_PAIRS_AT_A_TIME = 1 << 14
_TEXTS_WITH_WORDS = 1 << 12
_MIN_SOURCE_SAMPLES = 20

Policy: TypeAlias = Literal["keep", "first", "longest", "best"]
Pairs: TypeAlias = NDArray[np.int64]
Numbers: TypeAlias = NDArray[np.uint64]
Words: TypeAlias = list[str]


class NearDuplicatesSettings(Settings):
    """Which near-copies take no part: the table ``[signals.near_duplicates]``.

    Of each policy: ``keep`` them all, or only the ``first`` in the order of the pool, the
    ``longest``, or the ``best`` by the quality that the selection asks for.
    """

    same: Policy = Field(
        default="first", description="Of those with the same prompt and the same answer."
    )
    template: Policy = Field(default="keep", description="Of those that differ in numbers alone.")
    same_prompt: Policy = Field(
        default="keep", description="Of those with the same prompt and another answer."
    )
    same_answer: Policy = Field(
        default="keep",
        description=f"Of those with the same answer, of at least {_MIN_WORDS} words, and another "
        "prompt.",
    )
    max_loss: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="A source that would lose a larger share stops the selection.",
    )

    def policies(self) -> dict[str, Policy]:
        """Return the policy of each kind that is not kept."""
        found = {kind: getattr(self, kind) for kind in KINDS}
        return {kind: policy for kind, policy in found.items() if policy != "keep"}


KINDS = {
    "same": "the same prompt and answer",
    "template": "the same but for numbers",
    "same_prompt": "the same prompt with another answer",
    "same_answer": "the same answer to another prompt",
}
"""of near-copies, in words; who is marked for one kind is not looked at for the next"""


class NearDuplicates(Signal):
    """MinHash signatures of what is asked and of what is answered, each by itself.

    Two samples are compared word by word where their signatures share a band. Their prompts, or
    answers, are the same where the Jaccard index of their word 2-grams is at least 0.4 and the
    words that differ are scattered: a changed word here and there makes a copy, another question
    about the same passage, or another sentence around the same question, does not. Who is marked
    is like a sample that takes part: a chain of small changes does not make copies of its ends.

    Source: MinHash (Broder 1997) by ``rensa``; banding (Leskovec, Rajaraman and Ullman, Mining of
        Massive Datasets, section 3.4).
    Deviation: no connected components, which leave next to nothing of templated sources.
    """

    name = "near_duplicates"
    description = "which samples say the same but for a few words"
    settings = NearDuplicatesSettings
    columns = pl.Schema({"prompt": pl.Binary, "answer": pl.Binary})
    block = 8192
    fate = "near_duplicate"

    def identity(self, settings: NearDuplicatesSettings, tools: Tools) -> str:
        """Return the version of what hashes; the policy changes no signature."""
        require("rensa", "signal near_duplicates")
        return f"rensa {version('rensa')}, rule {_RULE}"

    @contextmanager
    def open(
        self, settings: NearDuplicatesSettings, stage: Stage, tools: Tools
    ) -> Iterator[Measure]:
        """Give what signs prompts and answers."""
        require("rensa", "signal near_duplicates")

        def measure(samples: pl.DataFrame) -> pl.DataFrame:
            prompts, answers = sides_of(samples, stage)
            return pl.DataFrame(
                {
                    "prompt": _signed(prompts),
                    "answer": _signed(answers),
                },
                schema=self.columns,
            )

        yield measure

    def mark(self, pool: MarkedPool, settings: NearDuplicatesSettings) -> pl.DataFrame:
        """Return which samples are near-copies of one that takes part, and of which.

        Raises:
            UserError: a source would lose too much, or the best is asked for without a quality.
        """
        policies = settings.policies()
        pairs = _judged(pool, policies)
        marks: dict[int, tuple[int, str]] = {}
        for kind, policy in policies.items():
            _mark(pairs.filter(kind=kind), _precedence(pool, policy), marks)
        check_losses(pool.index, list(marks), settings.max_loss)
        return _as_table(pool.index, marks)


def sides_of(samples: pl.DataFrame, stage: Stage) -> tuple[list[str], list[str]]:
    """Return what is asked and what is answered in each row of a pool table, turns joined."""
    if stage == "preference":
        said = (pl.col("prompt"), pl.concat_list("chosen", "rejected"))
    else:
        is_answer = pl.element().struct.field("role") == "assistant"
        said = (
            pl.col("turns").list.eval(pl.element().filter(~is_answer)),
            pl.col("turns").list.eval(pl.element().filter(is_answer)),
        )
    content = pl.element().struct.field("content")
    prompts, answers = (side.list.eval(content).list.join("\n") for side in said)
    table = samples.select(prompts.alias("prompt"), answers.alias("answer"))
    return table["prompt"].to_list(), table["answer"].to_list()


# From a letter or digit to the last one before a space: what people change at a time.
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}](?:[^\s{UNSPACED}]*[^\W{UNSPACED}])?")
_SIGNS = "".join(c for c in map(chr, range(128)) if not c.isalnum() and c != "_")
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)
_HALF = np.uint64(32)


def words_of(text: str) -> Words:
    """Return the words of a text, in lower case and without signs around them."""
    if text.isascii():  # the same by simpler means
        return [word for part in text.lower().split() if (word := part.strip(_SIGNS))]
    return _WORD.findall(text.lower())


def _hashes(words: Words) -> list[int]:
    return [zlib.crc32(word.encode()) for word in words]


def _signed(texts: Sequence[str]) -> list[bytes]:
    """Return the signature of the word 2-grams of each text: 128 numbers of 16 bits, as bytes.

    That of a text of fewer words are its words.
    """
    import rensa

    words = [_hashes(words_of(text)) for text in texts]
    sizes = np.array([len(own) for own in words], np.int64)
    hashes = np.fromiter(chain.from_iterable(words), np.uint64, count=int(sizes.sum()))
    owners = np.repeat(np.arange(len(words)), sizes)
    pairs = (hashes[:-1] ^ (hashes[:-1] >> _HALF)) * _FACTORS[1] + hashes[1:]
    pairs = (pairs * _FACTORS[0])[owners[1:] == owners[:-1]]
    borders = np.concatenate([[0], np.cumsum(np.maximum(sizes - 1, 0))]).astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(pairs, borders, NUM_HASHES, _SEED)
    rows = np.array(matrix.to_rows(), np.uint32).astype(np.uint16)
    return [
        row.tobytes() if len(own) >= _MIN_WORDS else np.array(own, np.uint64).tobytes()
        for row, own in zip(rows, words, strict=True)
    ]


class _Side:
    """The signatures of the prompts, or of the answers, of some samples."""

    def __init__(self, column: pl.Series) -> None:
        is_long = column.bin.size() == NUM_HASHES * np.dtype(np.uint16).itemsize
        self.is_long = is_long.to_numpy()
        self._number = np.cumsum(self.is_long) - 1
        numbers = column.filter(is_long).bin.reinterpret(dtype=pl.Array(pl.UInt16, NUM_HASHES))
        self._signatures = numbers.to_numpy()
        # The same number for the same words; those of long texts are not asked for.
        self._words = column.hash(_SEED).to_numpy()

    @cached_property
    def halves(self) -> NDArray[np.uint32]:
        """Half of a hash of each band, shape (bands, texts); of a short text of its words."""
        bands = ((self._signatures.view(np.uint64) * _FACTORS[0]) >> _HALF).astype(np.uint32)
        halves = np.empty((bands.shape[1], len(self.is_long)), np.uint32)
        halves[:] = (self._words * _FACTORS[0]) >> _HALF
        halves[:, self.is_long] = bands.T
        return halves

    def alike(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Return which pairs have a Jaccard index of perhaps 0.4, or are short and the same."""
        alike: NDArray[np.bool_] = self._words[pairs[:, 0]] == self._words[pairs[:, 1]]
        (long,) = np.nonzero(self.are_long(pairs))
        for part in np.array_split(long, len(long) // _PAIRS_AT_A_TIME + 1):
            x, y = self._signatures[self._number[pairs[part]]].swapaxes(0, 1)
            alike[part] = np.count_nonzero(x == y, axis=1) >= _MIN_ESTIMATE * NUM_HASHES
        return alike

    def are_long(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Return of which pairs both are long enough to be looked up by."""
        return np.asarray(self.is_long[pairs].all(axis=1))


def _changes(side: _Side, other: _Side, is_new: NDArray[np.bool_]) -> tuple[Numbers, Numbers]:
    """Return which pairs stand near each other in a band of new samples, and which no longer do.

    A pair is one number, and stands there once for each such band. In a bucket stand together those
    that are alike on the other side as well, or share the next band, then in the order of samples:
    in templated sources a bucket can hold hundreds. So who stands near whom depends on the samples
    alone, and only buckets with a new one are looked at.
    """
    (members,) = np.nonzero(side.is_long)
    halves, others = side.halves[:, members], other.halves[:, members]
    is_new = is_new[members]
    found = []
    for number, band in enumerate(halves):
        second = halves[number - 1] if number % 2 else others[number]
        is_hit = np.zeros(1 << 16, np.bool_)
        is_hit[band[is_new] >> _HIT_BITS] = True
        (near,) = np.nonzero(is_hit[band >> _HIT_BITS])
        # 24 bits of the band, 12 of what it is sorted by and 28 of the place, for they sort fast.
        keys = (band[near].astype(np.uint64) >> 8) << 40
        keys |= (second[near].astype(np.uint64) >> 20) << 28
        keys |= near.astype(np.uint64)
        keys.sort()
        place = (keys & _PLACE).astype(np.int64)
        found.append(_neighbours(keys >> 40, members[place], is_new[place]))
    come, gone = zip(*found, strict=True)
    return np.concatenate(come), np.concatenate(gone)


def _neighbours(
    buckets: NDArray[np.uint64], members: NDArray[np.int64], is_new: NDArray[np.bool_]
) -> tuple[Numbers, Numbers]:
    """Return each two members of a bucket that new ones made neighbours, and that they parted."""
    numbers = members.astype(np.uint64)
    (old,) = np.nonzero(~is_new)
    come, gone = [], []
    for step in range(1, _NEIGHBOURS + 1):
        is_same = buckets[step:] == buckets[:-step]
        (first,) = np.nonzero(is_same & (is_new[step:] | is_new[:-step]))
        come.append(_as_numbers(numbers[first], numbers[first + step]))
        one, two = old[:-step], old[step:]
        is_parted = (buckets[one] == buckets[two]) & (two - one > _NEIGHBOURS)
        gone.append(_as_numbers(numbers[one[is_parted]], numbers[two[is_parted]]))
    return np.concatenate(come), np.concatenate(gone)


def _as_numbers(one: Numbers, two: Numbers) -> Numbers:
    """Return pairs as one number each, the lower member first."""
    return np.minimum(one, two) << _HALF | np.maximum(one, two)


def _counted(numbers: Numbers) -> pl.DataFrame:
    """Return each of some numbers once, and how often it is there."""
    # Faster than numpy's unique, which hashes.
    numbers.sort()
    (first,) = np.nonzero(np.diff(numbers, prepend=_NO_PAIR))
    times = np.diff(first, append=len(numbers))
    return pl.DataFrame({"pair": numbers[first], "num": times}, schema=_TIMES)


_NO_PAIR = np.uint64(2**64 - 1)
_LOW = np.uint64(2**32 - 1)
_PLACE = np.uint64(2**28 - 1)
_HIT_BITS = 16


def _wanted(prompt: _Side, answer: _Side, pairs: Pairs, kinds: Collection[str]) -> pl.Series:
    """Return which pairs may be near-copies of some kinds."""
    by_prompt, by_answer = prompt.alike(pairs), answer.alike(pairs)
    wanted = by_prompt & by_answer
    if "same_prompt" in kinds:
        wanted |= by_prompt & prompt.are_long(pairs)
    if "same_answer" in kinds:
        wanted |= by_answer & answer.are_long(pairs)
    return pl.Series(wanted)


# What a look at two samples tells: see :func:`kind_of`.
_FOUND = pl.Schema({"kind": pl.String, "prompt": pl.Float32, "answer": pl.Float32})
# In how many bands two samples stand near each other; each is a number of 32 bits of ``pair``.
_TIMES = pl.Schema({"pair": pl.UInt64, "num": pl.Int64})
_PAIRS = pl.Schema({**_TIMES, **_FOUND})


def _judged(pool: MarkedPool, kinds: Collection[str]) -> pl.DataFrame:
    """Return the near-copies of the pool: positions ``x`` and ``y``, and ``_FOUND``.

    Who stands near whom, and what was found of them, is kept: a new batch costs its own pairs
    alone. Samples are in the order of their ids, so that it does not matter when they came.
    """
    order = pool.index["sample_id"].arg_sort()
    ids = pool.index["sample_id"].gather(order)
    path = pool.folder / f"pairs-{'-'.join(sorted(kinds))}.parquet"
    pairs, is_new = _read_pairs(path, ids)
    if is_new.any():
        pairs = _with_new(pairs, pool.table[order], is_new, kinds)
        is_known = pairs["kind"].is_not_null()
        new = pairs.filter(~is_known)
        judged = _judge(pool, order.to_numpy()[_members(new)], kinds)
        pairs = pl.concat([pairs.filter(is_known), new.select(*_TIMES).hstack(judged)])
        _write_pairs(path, ids, pairs)
    copies = pairs.filter(pl.col("kind") != "")
    x, y = order.to_numpy()[_members(copies)].T
    return copies.select(*_FOUND).with_columns(x=pl.Series(x), y=pl.Series(y))


def _members(pairs: pl.DataFrame) -> Pairs:
    """Return the two samples of each pair, by their places."""
    numbers = pairs["pair"].to_numpy()
    return np.stack([numbers >> _HALF, numbers & _LOW], axis=1).astype(np.int64)


def _with_new(
    known: pl.DataFrame, table: pl.DataFrame, is_new: NDArray[np.bool_], kinds: Collection[str]
) -> pl.DataFrame:
    """Return the pairs of all samples, of which those with new ones have no kind yet."""
    prompt, answer = _Side(table["prompt"]), _Side(table["answer"])
    both = _changes(prompt, answer, is_new), _changes(answer, prompt, is_new)
    come, gone = (_counted(np.concatenate(numbers)) for numbers in zip(*both, strict=True))
    changes = pl.concat([come, gone.with_columns(-pl.col("num"))])
    times = changes.group_by("pair").agg(change=pl.col("num").sum())
    num = pl.sum_horizontal("num", "change")
    pairs = known.join(times, on="pair", how="full", coalesce=True).with_columns(num=num)
    pairs = pairs.filter(pl.col("num") > 0).select(*_PAIRS).sort("pair")
    is_known = pairs["kind"].is_not_null()
    new = pairs.filter(~is_known)
    new = new.filter(_wanted(prompt, answer, _members(new), kinds))
    return pl.concat([pairs.filter(is_known), new])


def _made_by() -> dict[str, str]:
    """Return what pairs hang on besides the ids of samples."""
    return {"rule": _RULE, "rensa": version("rensa"), "polars": version("polars")}


def _read_pairs(path: Path, ids: pl.Series) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """Return the pairs that are kept, by places among some ids, and which of these are new.

    Where a sample is gone all are new: who stands near whom is told anew, and what was found of
    them stays. A table that cannot be read, or was made by other means, counts for none.
    """
    is_new = np.ones(len(ids), np.bool_)
    try:
        is_ours = _made_by().items() <= read_metadata(path).items()
        table = scan_table(path).collect() if is_ours else None
    except (FileNotFoundError, pl.exceptions.PolarsError):
        table = None
    if table is None:
        return _PAIRS.to_frame(), is_new
    every = ids.to_frame().with_row_index("place")
    place = table.join(every, on="sample_id", how="left", maintain_order="left")["place"]
    found = table.select("pairs", low=place).explode("pairs").drop_nulls().unnest("pairs")
    found = found.with_columns(high=place.gather(found["high"])).drop_nulls("high")
    number = pl.col("low").cast(pl.UInt64) * 2**32 + pl.col("high")
    pairs = found.with_columns(pair=number).select(*_PAIRS).cast(_PAIRS)
    if place.null_count():
        return pairs.with_columns(num=pl.lit(0, pl.Int64)), is_new
    is_new[place.to_numpy()] = False
    return pairs, is_new


def _write_pairs(path: Path, ids: pl.Series, pairs: pl.DataFrame) -> None:
    """Keep pairs by the sample with the lower id, with the place of the other one."""
    low, high = _members(pairs).astype(np.uint32).T
    found = pairs.with_columns(low=pl.Series(low), high=pl.Series(high))
    lists = found.group_by("low").agg(pairs=pl.struct("high", "num", *_FOUND))
    every = ids.to_frame().with_row_index("low")
    table = every.join(lists, on="low", how="left", maintain_order="left").drop("low")
    with hashing(path):
        write_table(path, table, _made_by())


def _judge(pool: MarkedPool, pairs: Pairs, kinds: Collection[str]) -> pl.DataFrame:
    """Return ``_FOUND`` of pairs of positions, by the words of the samples."""
    # Samples that stand together in the pool are read together.
    order = np.lexsort((pairs.max(axis=1), pairs.min(axis=1)))
    found = []
    for part in np.array_split(pairs[order], len(pairs) // _PAIRS_AT_A_TIME + 1):
        texts = _texts(pool, np.unique(part).tolist())
        found += [kind_of(texts(x), texts(y), kinds) for x, y in part.tolist()]
    return pl.DataFrame(found, schema=_FOUND, orient="row")[np.argsort(order)]


def _texts(pool: MarkedPool, positions: Sequence[int]) -> Callable[[int], tuple["Text", "Text"]]:
    """Return what gives prompt and answer at one of some ascending positions."""
    sides = (zip(*sides_of(part, pool.stage), strict=True) for part in pool.said(positions))
    said = dict(zip(positions, chain.from_iterable(sides), strict=True))

    # Words take more memory than texts, and new memory takes time.
    @lru_cache(_TEXTS_WITH_WORDS)
    def texts(position: int) -> tuple[Text, Text]:
        prompt, answer = said[position]
        return Text(prompt), Text(answer)

    return texts


class Text:
    """A prompt or an answer, to be compared with others by its words."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def words(self) -> Words:
        """Its words, see :func:`words_of`."""
        return words_of(self._text)

    def jaccard(self, other: "Text") -> float:
        """Return the Jaccard index of the word 2-grams, 0 to 1."""
        # Made anew for each pair: what is kept takes new memory, which costs more.
        pairs, others = set(pairwise(self.words)), set(pairwise(other.words))
        num_common = len(pairs & others)
        num_all = len(pairs) + len(others) - num_common
        return num_common / num_all if num_all else float(self.words == other.words)

    def differs_in_numbers(self, other: "Text") -> bool:
        """Return whether another text is this one with other numbers."""
        return len(self.words) == len(other.words) and all(
            x == y or (_is_number(x) and _is_number(y))
            for x, y in zip(self.words, other.words, strict=True)
        )

    def is_edited(self, other: "Text") -> bool:
        """Return whether the words in which two texts differ are scattered.

        Of words that change at random, each with the same probability, few stand together. Where
        many more do, or six of eight, somebody wrote another sentence.
        """
        from rapidfuzz.distance import Levenshtein

        changed: list[int] = []
        num_words = 0
        for step in Levenshtein.opcodes(self.words, other.words):
            size = max(step.src_end - step.src_start, step.dest_end - step.dest_start)
            if step.tag != "equal":
                changed += range(num_words, num_words + size)
            num_words += size
        num_together = sum(y - x == 1 for x, y in pairwise(changed))
        by_chance = len(changed) ** 2 / max(num_words, 1)
        sixths = zip(changed, changed[5:], strict=False)
        is_rewritten = any(last - first < 8 for first, last in sixths)
        return num_together <= 1 + 4 * by_chance and not is_rewritten


def _is_number(word: str) -> bool:
    return not any(character.isalpha() for character in word)


def _relation(one: Text, other: Text) -> tuple[str, float | None]:
    """Return how two texts are related, and their Jaccard index where that had to be known."""
    if one.words == other.words:
        return "same", 1.0
    if one.differs_in_numbers(other):
        return "numbers", None
    # Most texts that are alike are rewritten; to see that takes less time than the index.
    is_long = min(len(one.words), len(other.words)) >= _MIN_WORDS
    if is_long and one.is_edited(other):
        likeness = one.jaccard(other)
        return "same" if likeness >= MIN_JACCARD else "other", likeness
    return "other", None


# By how prompts, and answers, are related; of all others nothing is said.
_KIND_OF = {
    ("same", "same"): "same",
    ("numbers", "same"): "template",
    ("numbers", "numbers"): "template",
    ("same", "numbers"): "same_prompt",
    ("same", "other"): "same_prompt",
    ("other", "same"): "same_answer",
}


def kind_of(
    x: tuple[Text, Text], y: tuple[Text, Text], kinds: Collection[str] = tuple(KINDS)
) -> tuple[str, float, float]:
    """Return the kind of near-copies that two samples are, and how alike their sides are.

    Args:
        x: prompt and answer of the one.
        y: prompt and answer of the other.
        kinds: that are asked for.

    Returns:
        The kind and the Jaccard indices of the word 2-grams of prompts and of answers, 0 to 1.
        Where they are near-copies of no such kind it is empty, and the indices are 0.
    """
    (prompt, answer), (other_prompt, other_answer) = x, y
    of_prompts, prompts_alike = _relation(prompt, other_prompt)
    if not any(of == of_prompts and kind in kinds for (of, _), kind in _KIND_OF.items()):
        return "", 0.0, 0.0
    of_answers, answers_alike = _relation(answer, other_answer)
    kind = _KIND_OF.get((of_prompts, of_answers), "")
    if kind not in kinds:
        return "", 0.0, 0.0
    return (
        kind,
        prompt.jaccard(other_prompt) if prompts_alike is None else prompts_alike,
        answer.jaccard(other_answer) if answers_alike is None else answers_alike,
    )


def _precedence(pool: MarkedPool, policy: str) -> NDArray[np.int64]:
    """Return the place of each sample, shape (samples,): the lowest of some near-copies stays."""
    num_samples = pool.index.height
    if policy == "first":
        return np.arange(num_samples)
    if policy == "best":
        if pool.quality is None:
            raise UserError(
                "signals: near_duplicates: got the policy best, and the selection asks for no "
                "quality; name one (quality), or take first or longest"
            )
        worth = pool.quality.to_numpy()
    else:
        worth = _lengths(pool)
    places = np.empty(num_samples, np.int64)
    places[np.argsort(-worth, kind="stable")] = np.arange(num_samples)
    return places


def _lengths(pool: MarkedPool) -> NDArray[np.int64]:
    """Return the characters of each sample."""
    lengths: list[int] = []
    for part in pool.said(range(pool.index.height)):
        prompts, answers = sides_of(part, pool.stage)
        lengths += [len(p) + len(a) for p, a in zip(prompts, answers, strict=True)]
    return np.array(lengths, np.int64)


def _mark(
    pairs: pl.DataFrame, places: NDArray[np.int64], marks: dict[int, tuple[int, str]]
) -> None:
    """Mark who is like a sample that takes part and goes before it, in the order of precedence.

    Of several such samples the one stands that is most alike.

    Args:
        pairs: near-copies of one kind, see :func:`_judged`.
        places: of each sample, see :func:`_precedence`.
        marks: by position: the position of the sample that stays, and words; more come in.
    """
    x, y = pairs["x"].to_numpy(), pairs["y"].to_numpy()
    is_first = places[x] < places[y]
    firsts, copies = np.where(is_first, x, y), np.where(is_first, y, x)
    likeness = (pairs["prompt"] + pairs["answer"]).to_numpy()
    order = np.lexsort((places[firsts], -likeness, places[copies]))
    ordered = zip(copies[order].tolist(), firsts[order].tolist(), order.tolist(), strict=True)
    told = pairs.select(*_FOUND).rows()
    for copy, first, row in ordered:
        if copy not in marks and first not in marks:
            kind, prompt, answer = told[row]
            words = f"{KINDS[kind]}: prompts alike by {prompt:.2f}, answers by {answer:.2f}"
            marks[copy] = first, words


def check_losses(index: pl.DataFrame, marked: Sequence[int], max_loss: float) -> None:
    """Raise UserError where a source of 20 samples or more loses too large a share."""
    losses = source_losses(index, marked)
    worst = losses.filter(
        (pl.col("share") > max_loss) & (pl.col("num_pool") >= _MIN_SOURCE_SAMPLES)
    )
    if worst.is_empty():
        return
    words = ", ".join(
        f"{source} {num_marked:,} of {num_pool:,} samples ({share:.1%})"
        for source, num_pool, num_marked, share in worst.head(5).iter_rows()
    )
    raise UserError(
        f"signals: near_duplicates: of {worst.height:,} sources more than max_loss, "
        f"{max_loss:.0%}, would be left out as near-copies: {words}. Look at some of them with "
        "zip-pipeline trace after a selection with a higher max_loss, or keep them with the "
        "policy keep"
    )


def source_losses(index: pl.DataFrame, marked: Sequence[int]) -> pl.DataFrame:
    """Return what each source loses: ``source``, ``num_pool``, ``num_marked`` and ``share``.

    Most samples come first, then by name.
    """
    is_marked = np.zeros(index.height, np.bool_)
    is_marked[list(marked)] = True
    grouped = (
        index.select("source", is_marked=pl.Series(is_marked))
        .group_by("source")
        .agg(num_pool=pl.len(), num_marked=pl.col("is_marked").sum())
    )
    shares = grouped.with_columns(share=pl.col("num_marked") / pl.col("num_pool"))
    return shares.sort("share", "num_marked", "source", descending=[True, True, False])


def _as_table(index: pl.DataFrame, marks: Mapping[int, tuple[int, str]]) -> pl.DataFrame:
    firsts = [first for first, _ in marks.values()]
    said = pl.Series("words", [words for _, words in marks.values()], dtype=pl.String)
    where = pl.format("{}, as {} ({}, row {})", said, "sample_id", "source_file", "source_row")
    found = index[firsts].select(where.alias("evidence"), other="sample_id")
    found = found.with_columns(position=pl.Series(list(marks), dtype=pl.Int64))
    every = pl.DataFrame({"position": pl.int_range(index.height, eager=True)})
    return every.join(found, on="position", how="left", maintain_order="left").select(*MARKS)


SIGNAL = NearDuplicates()
