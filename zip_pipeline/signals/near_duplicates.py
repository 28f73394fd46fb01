"""Signal ``near_duplicates``: samples that say what another one says, but for a few words."""

import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from itertools import chain, pairwise
from typing import Literal, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from zip_pipeline.compression.ngrams import UNSPACED
from zip_pipeline.errors import UserError, require
from zip_pipeline.files import read_metadata, scan_table, write_table
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
_MIN_SOURCE_SAMPLES = 20

Policy: TypeAlias = Literal["keep", "first", "longest", "best"]
Pairs: TypeAlias = NDArray[np.int64]
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
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)
_HALF = np.uint64(32)


def words_of(text: str) -> Words:
    """Return the words of a text, in lower case and without signs around them."""
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
    """The signatures of the prompts, or of the answers, of a pool."""

    def __init__(self, column: pl.Series) -> None:
        size = column.bin.size()
        is_long = size == NUM_HASHES * np.dtype(np.uint16).itemsize
        self.is_long = is_long.to_numpy()
        self._number = np.cumsum(self.is_long) - 1
        joined = b"".join(column.filter(is_long))
        self._signatures = np.frombuffer(joined, np.uint16).reshape(-1, NUM_HASHES)
        # The same number for the same words; those of long texts are not asked for.
        self._words = column.rank("dense").to_numpy()

    @cached_property
    def _halves(self) -> NDArray[np.uint64]:
        """Half of a hash of each band of each text, shape (texts, bands); of a short one its words.

        Two of them are one number to sort by.
        """
        words = (self._words.astype(np.uint64) * _FACTORS[0]) >> _HALF
        num_bands = NUM_HASHES * self._signatures.itemsize // np.dtype(np.uint64).itemsize
        halves = np.repeat(words[:, None], num_bands, axis=1)
        halves[self.is_long] = (self._signatures.view(np.uint64) * _FACTORS[0]) >> _HALF
        return halves

    def pairs(self, other: "_Side") -> Pairs:
        """Return the positions of samples that share a band and are alike, the lower first.

        In a bucket stand together those that are alike on the other side as well, or share the next
        band: in templated sources a bucket can hold hundreds.
        """
        (positions,) = np.nonzero(self.is_long)
        own, others = self._halves[positions], other._halves[positions]
        members = positions.astype(np.uint64)

        def of_band(number: int) -> NDArray[np.uint64]:
            band, second = own[:, number], own[:, number - 1] if number % 2 else others[:, number]
            order = np.argsort(band << _HALF | second, kind="stable")
            return _neighbours(band[order], members[order])

        pairs = _distinct(np.concatenate([of_band(number) for number in range(own.shape[1])]))
        return pairs[self.alike(pairs)]

    def alike(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Return which pairs have a Jaccard index of perhaps 0.5, or are short and the same."""
        both = self.is_long[pairs].all(axis=1)
        alike: NDArray[np.bool_] = self._words[pairs[:, 0]] == self._words[pairs[:, 1]]
        (long,) = np.nonzero(both)
        for part in np.array_split(long, len(long) // _PAIRS_AT_A_TIME + 1):
            x, y = self._signatures[self._number[pairs[part]]].swapaxes(0, 1)
            alike[part] = np.count_nonzero(x == y, axis=1) >= _MIN_ESTIMATE * NUM_HASHES
        return alike


def _neighbours(buckets: NDArray[np.uint64], members: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return each two members of a bucket that stand near each other, as one number."""
    found = [np.zeros(0, np.uint64)]
    for step in range(1, _NEIGHBOURS + 1):
        is_same = buckets[step:] == buckets[:-step]
        one, two = members[:-step][is_same], members[step:][is_same]
        found.append(np.minimum(one, two) << _HALF | np.maximum(one, two))
    return np.concatenate(found)


def _distinct(numbers: NDArray[np.uint64]) -> Pairs:
    """Return pairs of positions, ascending and each once, from numbers that hold two."""
    # Faster than numpy's unique, which hashes.
    numbers.sort()
    numbers = numbers[np.diff(numbers, prepend=_NO_PAIR) != 0]
    return np.stack([numbers >> _HALF, numbers & _LOW], axis=1).astype(np.int64)


_NO_PAIR = np.uint64(2**64 - 1)
_LOW = np.uint64(2**32 - 1)


def _candidates(table: pl.DataFrame, kinds: Collection[str]) -> Pairs:
    """Return the positions of samples that may be near-copies of some kinds, the lower first."""
    prompt, answer = _Side(table["prompt"]), _Side(table["answer"])
    by_prompt, by_answer = prompt.pairs(answer), answer.pairs(prompt)
    if "same_prompt" not in kinds:
        by_prompt = by_prompt[answer.alike(by_prompt)]
    if "same_answer" not in kinds:
        by_answer = by_answer[prompt.alike(by_answer)]
    both = np.concatenate([by_prompt, by_answer]).astype(np.uint64)
    return _distinct(both[:, 0] << _HALF | both[:, 1])


# What a look at two samples tells: see :func:`kind_of`.
_FOUND = pl.Schema({"kind": pl.String, "prompt": pl.Float32, "answer": pl.Float32})
# Of each two samples, by their ids, the lower first.
_JUDGED = pl.Schema([("low", pl.String), ("high", pl.String), *_FOUND.items()])


def _judged(pool: MarkedPool, kinds: Collection[str]) -> pl.DataFrame:
    """Return the near-copies of the pool: positions ``x`` < ``y``, and ``_JUDGED``.

    What was found of two samples is kept, so that a new batch costs its own pairs alone.
    """
    x, y = _candidates(pool.table, kinds).T
    ids = pool.index["sample_id"]
    pairs = pl.DataFrame({"x": x, "y": y, "one": ids.gather(x), "other": ids.gather(y)})
    pairs = pairs.with_columns(
        low=pl.min_horizontal("one", "other"), high=pl.max_horizontal("one", "other")
    ).drop("one", "other")
    path, keys = pool.folder / "pairs.parquet", ["low", "high"]
    known = _JUDGED.to_frame()
    if path.exists() and read_metadata(path).get("rule") == _RULE:
        known = scan_table(path).collect().join(pairs, on=keys, how="semi")
    new = pairs.join(known, on=keys, how="anti", maintain_order="left")
    if new.height:
        known = pl.concat([known, new.select(keys).hstack(_judge(pool, new))])
        write_table(path, known, {"rule": _RULE})
    return pairs.join(known.filter(pl.col("kind") != ""), on=keys, maintain_order="left")


def _judge(pool: MarkedPool, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return kind and Jaccard indices of pairs of positions, by the words of the samples."""
    found = []
    for part in pairs.iter_slices(_PAIRS_AT_A_TIME):
        positions = np.unique(part.select("x", "y").to_numpy())
        sides = zip(*sides_of(pool.rows(positions.tolist()), pool.stage), strict=True)
        texts = {
            position: (Text(words_of(prompt)), Text(words_of(answer)))
            for position, (prompt, answer) in zip(positions.tolist(), sides, strict=True)
        }
        found += [kind_of(texts[x], texts[y]) for x, y in part.select("x", "y").iter_rows()]
    return pl.DataFrame(found, schema=_FOUND, orient="row")


class Text:
    """The words of a prompt or an answer, to be compared with others."""

    def __init__(self, words: Words) -> None:
        self.words = words

    @cached_property
    def _pairs(self) -> set[tuple[str, str]]:
        return set(pairwise(self.words))

    def jaccard(self, other: "Text") -> float:
        """Return the Jaccard index of the word 2-grams, 0 to 1."""
        num_common = len(self._pairs & other._pairs)
        num_all = len(self._pairs) + len(other._pairs) - num_common
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


def _relation(one: Text, other: Text) -> str:
    if one.words == other.words:
        return "same"
    if one.differs_in_numbers(other):
        return "numbers"
    is_long = min(len(one.words), len(other.words)) >= _MIN_WORDS
    is_copy = is_long and one.jaccard(other) >= MIN_JACCARD and one.is_edited(other)
    return "same" if is_copy else "other"


# By how prompts, and answers, are related; of all others nothing is said.
_KIND_OF = {
    ("same", "same"): "same",
    ("numbers", "same"): "template",
    ("numbers", "numbers"): "template",
    ("same", "numbers"): "same_prompt",
    ("same", "other"): "same_prompt",
    ("other", "same"): "same_answer",
}


def kind_of(x: tuple[Text, Text], y: tuple[Text, Text]) -> tuple[str, float, float]:
    """Return the kind of near-copies that two samples are, and how alike their sides are.

    Args:
        x: prompt and answer of the one.
        y: prompt and answer of the other.

    Returns:
        The kind, empty where they are no near-copies, and the Jaccard indices of the word 2-grams
        of prompts and of answers, 0 to 1.
    """
    (prompt, answer), (other_prompt, other_answer) = x, y
    relations = _relation(prompt, other_prompt), _relation(answer, other_answer)
    likeness = prompt.jaccard(other_prompt), answer.jaccard(other_answer)
    return _KIND_OF.get(relations, ""), *likeness


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
    parts = [np.zeros(0, np.int64)]
    for start in range(0, pool.index.height, _PAIRS_AT_A_TIME):
        end = min(start + _PAIRS_AT_A_TIME, pool.index.height)
        sides = sides_of(pool.rows(range(start, end)), pool.stage)
        parts.append(
            np.array([len(prompt) + len(answer) for prompt, answer in zip(*sides, strict=True)])
        )
    return np.concatenate(parts)


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
    words = "{}: prompts alike by {:.2f}, answers by {:.2f}"
    found = []
    for x, y, kind, prompt, answer in pairs.select("x", "y", *_FOUND).iter_rows():
        first, copy = (x, y) if places[x] < places[y] else (y, x)
        likeness = prompt + answer
        told = words.format(KINDS[kind], prompt, answer)
        found.append((places[copy], -likeness, places[first], copy, first, told))
    for *_, copy, first, told in sorted(found):
        if copy not in marks and first not in marks:
            marks[copy] = first, told


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
    rows = []
    for copy, (first, words) in marks.items():
        place = index.row(first, named=True)
        where = f"{place['source_file']}, row {place['source_row']}"
        rows.append((copy, f"{words}, as {place['sample_id']} ({where})", place["sample_id"]))
    found = pl.DataFrame(rows, schema={"position": pl.Int64, **MARKS}, orient="row")
    every = pl.DataFrame({"position": pl.int_range(index.height, eager=True)})
    return every.join(found, on="position", how="left", maintain_order="left").drop("position")


SIGNAL = NearDuplicates()
