"""Signal ``near_duplicates``: samples that say what another one says, but for a few words."""

import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from zip_pipeline.compression.texts import TemporaryTexts, parts_of
from zip_pipeline.errors import UserError, require
from zip_pipeline.files import ROWS_PER_GROUP
from zip_pipeline.samples import Stage
from zip_pipeline.settings import Settings
from zip_pipeline.signals import MARKS, MarkedPool, Measure, Signal, Tools
from zip_pipeline.signals.near_pairs import (
    NUM_HASHES,
    RULE,
    Members,
    Pairs,
    found_pairs,
    members_of,
)
from zip_pipeline.tables import Buckets, WholeTable, rows_in_parts

MIN_JACCARD = 0.4
"""of the word 2-grams of two texts that are near-copies"""
_SEED = 42
# A shorter text is the same where all words are, and says too little to be looked up by.
_MIN_WORDS = 8
_MANY_WORDS = 1 << 14
_PAIRS_AT_A_TIME = 1 << 17
_BYTES_AT_A_TIME = 1 << 26
_TEXTS_WITH_WORDS = 1 << 12
_BYTES_WITH_WORDS = 1 << 24
_MIN_SOURCE_SAMPLES = 20

Policy: TypeAlias = Literal["keep", "first", "longest", "best"]
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
NAMES = ("", *KINDS)
"""of kinds, the first of what is none"""


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
        return f"rensa {version('rensa')}, rule {RULE}"

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

    def mark(self, pool: MarkedPool, settings: NearDuplicatesSettings) -> Iterator[pl.DataFrame]:
        """Yield which samples are near-copies of one that takes part, and of which.

        Raises:
            UserError: a source would lose too much, or the best is asked for without a quality.
        """
        policies = settings.policies()
        by_id, found = found_pairs(
            pool, policies, NAMES, lambda pairs: _judge(pool, pairs, policies)
        )
        marked = _Marked.none_of(len(by_id))
        for kind, policy in policies.items():
            pairs = ((by_id[members_of(own)], own) for own in found.each())
            _mark(kind, pairs, _precedence(pool, policy), marked, pool.scratch)
        check_losses(pool.index, marked.first >= 0, settings.max_loss)
        yield from _as_tables(pool, marked)


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


def _judge(
    pool: MarkedPool, pairs: Members, kinds: Collection[str]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the kind and likenesses of pairs of positions, by the words of the samples."""
    # Samples that stand together in the pool are read together.
    order = np.lexsort((pairs.max(axis=1), pairs.min(axis=1)))
    num_bytes = pool.texts.num_bytes_of(pairs[order]).sum(axis=1)
    found, alike = np.zeros(len(pairs), np.int8), np.zeros((len(pairs), 2), np.float32)
    for part in parts_of(order, num_bytes, _BYTES_AT_A_TIME, _PAIRS_AT_A_TIME):
        texts = _texts(pool, np.unique(pairs[part]))
        for place, (x, y) in zip(part.tolist(), pairs[part].tolist(), strict=True):
            kind, *likeness = kind_of(texts(x), texts(y), kinds)
            found[place], alike[place] = NAMES.index(kind), likeness
    return found, alike


def _texts(
    pool: MarkedPool, positions: NDArray[np.int64]
) -> Callable[[int], tuple["Text", "Text"]]:
    """Return what gives prompt and answer at one of some ascending positions."""
    places = positions.tolist()
    sides = (zip(*sides_of(part, pool.stage), strict=True) for part in pool.said(places))
    said = dict(zip(places, chain.from_iterable(sides), strict=True))
    most_bytes = max(int(pool.texts.num_bytes_of(positions).max()), 1)

    # Words take more memory than texts, and new memory takes time.
    @lru_cache(max(min(_TEXTS_WITH_WORDS, _BYTES_WITH_WORDS // most_bytes), 2))
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
        if max(len(self.words), len(other.words)) > _MANY_WORDS:
            numbers, of_other = _numbers_of_pairs(self.words), _numbers_of_pairs(other.words)
            num_common = len(np.intersect1d(numbers, of_other, assume_unique=True))
            return num_common / (len(numbers) + len(of_other) - num_common)
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
        # What looks for few changes first is faster, and may find others that are as few.
        most = max(len(self.words), len(other.words))
        hint = most // 20 if most > _MANY_WORDS else None
        for step in Levenshtein.opcodes(self.words, other.words, score_hint=hint):
            size = max(step.src_end - step.src_start, step.dest_end - step.dest_start)
            if step.tag != "equal":
                changed += range(num_words, num_words + size)
            num_words += size
        num_together = sum(y - x == 1 for x, y in pairwise(changed))
        by_chance = len(changed) ** 2 / max(num_words, 1)
        sixths = zip(changed, changed[5:], strict=False)
        is_rewritten = any(last - first < 8 for first, last in sixths)
        return num_together <= 1 + 4 * by_chance and not is_rewritten


def _numbers_of_pairs(words: Words) -> NDArray[np.uint64]:
    """Return a hash of each two words that stand together, once and ascending."""
    hashes = np.fromiter((zlib.crc32(word.encode()) for word in words), np.uint64, len(words))
    return np.unique(hashes[:-1] << _HALF | hashes[1:])


def _is_number(word: str) -> bool:
    return not any(character.isalpha() for character in word)


def _relation(one: Text, other: Text) -> tuple[str, float | None]:
    """Return how two texts are related, and their Jaccard index where that had to be known."""
    if one.words == other.words:
        return "same", 1.0
    if one.differs_in_numbers(other):
        return "numbers", None
    # Most texts that are alike are rewritten; to see that takes less time than the index.
    few, many = sorted((len(one.words), len(other.words)))
    if few >= _MIN_WORDS and many > _MANY_WORDS and (index := one.jaccard(other)) < MIN_JACCARD:
        return "other", index
    if few >= _MIN_WORDS and one.is_edited(other):
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
    num_samples = len(pool.texts)
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
    lengths = np.zeros(len(pool.texts), np.int64)
    start = 0
    for part in pool.said(range(len(lengths))):
        prompts, answers = sides_of(part, pool.stage)
        own = [len(p) + len(a) for p, a in zip(prompts, answers, strict=True)]
        lengths[start : start + len(own)] = own
        start += len(own)
    return lengths


@dataclass(frozen=True)
class _Marked:
    """The sample that stays in place of each, -1 where it takes part, and what they were found."""

    first: NDArray[np.int64]
    kind: NDArray[np.int8]
    likeness: NDArray[np.float32]

    @classmethod
    def none_of(cls, num_samples: int) -> "_Marked":
        """Return that all take part."""
        likeness = np.zeros((num_samples, 2), np.float32)
        return cls(np.full(num_samples, -1), np.zeros(num_samples, np.int8), likeness)


# The place of the one in the order of precedence, both, and how alike their sides are.
_COPY = np.dtype(
    [("place", np.int64), ("copy", np.int64), ("first", np.int64), ("likeness", np.float32, 2)]
)


def _mark(
    kind: str,
    pairs: Iterable[tuple[Members, Pairs]],
    places: NDArray[np.int64],
    marked: _Marked,
    scratch: Path,
) -> None:
    """Mark who is like a sample that takes part and goes before it, in the order of precedence.

    Of several such samples the one stands that is most alike.

    Args:
        kind: of near-copies.
        pairs: near-copies of all kinds, with their positions.
        places: of each sample, see :func:`_precedence`.
        marked: who is marked already; more come in.
        scratch: where a file goes.
    """
    code = NAMES.index(kind)
    by_place = Buckets(_COPY, len(places), scratch)
    for positions, found in pairs:
        of_kind = found["kind"] == code
        both = positions[of_kind]
        order = np.argsort(places[both], axis=1)
        first, copy = np.take_along_axis(both, order, axis=1).T
        rows = np.zeros(len(both), _COPY)
        rows["place"], rows["copy"], rows["first"] = places[copy], copy, first
        rows["likeness"] = found["likeness"][of_kind]
        by_place.add(rows["place"], rows)
    for rows in by_place.each():
        likeness = -rows["likeness"].sum(axis=1)
        rows = rows[np.lexsort((places[rows["first"]], likeness, rows["place"]))]
        for copy, first, alike in zip(rows["copy"], rows["first"], rows["likeness"], strict=True):
            if marked.first[copy] < 0 and marked.first[first] < 0:
                marked.first[copy], marked.kind[copy] = first, code
                marked.likeness[copy] = alike


def check_losses(index: WholeTable, is_marked: NDArray[np.bool_], max_loss: float) -> None:
    """Raise UserError where a source of 20 samples or more loses too large a share."""
    losses = source_losses(index, is_marked)
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


def source_losses(index: WholeTable, is_marked: NDArray[np.bool_]) -> pl.DataFrame:
    """Return what each source loses: ``source``, ``num_pool``, ``num_marked`` and ``share``.

    Most samples come first, then by name.
    """
    rows = [index.lazy().select("source"), pl.LazyFrame({"is_marked": is_marked})]
    grouped = (
        pl.concat(rows, how="horizontal")
        .group_by("source")
        .agg(num_pool=pl.len(), num_marked=pl.col("is_marked").sum())
        .collect(engine="streaming")
    )
    shares = grouped.with_columns(share=pl.col("num_marked") / pl.col("num_pool"))
    return shares.sort("share", "num_marked", "source", descending=[True, True, False])


def _as_tables(pool: MarkedPool, marked: _Marked) -> Iterator[pl.DataFrame]:
    """Yield the marks of the samples in order."""
    place = pl.format("{} ({}, row {})", "sample_id", "source_file", "source_row")
    columns = ("sample_id", "source_file", "source_row")
    places = (part.select(place).to_series() for part in rows_in_parts(pool.index, *columns))
    texts = ([own.encode() for own in part] for part in places)
    with TemporaryTexts.write(texts, pool.scratch) as where:
        for start in range(0, len(marked.first), ROWS_PER_GROUP):
            rows = slice(start, start + ROWS_PER_GROUP)
            (own,) = np.nonzero(marked.first[rows] >= 0)
            firsts = [text.decode() for text in where.read(marked.first[rows][own])]
            evidence: list[str | None] = [None] * len(marked.first[rows])
            other = evidence.copy()
            for n, first in zip(own.tolist(), firsts, strict=True):
                prompt, answer = marked.likeness[start + n].tolist()
                words = KINDS[NAMES[marked.kind[start + n]]]
                likeness = f"prompts alike by {prompt:.2f}, answers by {answer:.2f}"
                evidence[n] = f"{words}: {likeness}, as {first}"
                other[n] = first.partition(" ")[0]
            yield pl.DataFrame({"evidence": evidence, "other": other}, schema=MARKS)


SIGNAL = NearDuplicates()
