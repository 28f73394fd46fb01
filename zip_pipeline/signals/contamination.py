"""Signal ``contamination``: what of the user's benchmarks stands in a sample."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.samples import Stage
from zip_pipeline.settings import Choices, Settings, read_table
from zip_pipeline.signals import Measure, Signal, Tools
from zip_pipeline.signals.turn_texts import PLACE, gathered, turn_texts

Hashes: TypeAlias = NDArray[np.uint64]
Numbers: TypeAlias = NDArray[np.int64]

Span: TypeAlias = Mapping[str, Any]

BENCHMARKS = "benchmarks"
"""The folder of the data root whose files are looked for where none are named."""
_SPAN = pl.Schema(
    {
        **PLACE,
        "role": pl.String,
        "file": pl.String,
        "row": pl.Int64,
        "side": pl.String,
        "num_words": pl.Int64,
        "share": pl.Float64,
    }
)


class ContaminationSettings(Settings):
    """Which benchmarks are looked for: the table ``[signals.contamination]``."""

    files: list[str] = Field(
        default=[],
        description="Files and folders of benchmarks, in any format that drops may have; relative "
        f"paths start at the data root. If not given, all of its folder {BENCHMARKS}. The "
        "questions of [mt_bench] count besides.",
    )
    policy: str = Field(default="exclude", description="What becomes of samples with an overlap.")
    min_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Least share of the words of a question or an answer that must stand in a "
        "sample for it to be left out.",
    )
    choices: ClassVar[Choices] = {
        "policy": lambda: {"exclude": "they take no part", "report": "they are told, and stay"}
    }


class Contamination(Signal):
    """Questions and answers of benchmarks that stand in a sample, in words of any case and signs.

    Found is a question or an answer of which 13 words in a row stand in one turn; of one with 8 to
    16 words four fifths, but at least 8. What is shorter counts beside the other side of its row
    only: a short answer where the question was found, a short question where it is a whole turn
    and the answer was found. Words that are in more than ten rows of a file are its template, and
    are not looked for.

    Of the rows of a file the one with most words in a turn is told, the first of equals.

    Source: GPT-3 (arXiv 2005.14165), appendix C: 13-grams, fewer words for short examples.
    Deviation: its ten rows are of the benchmark here; there, of the training data.
    """

    name = "contamination"
    description = "which rows of the benchmark files stand in the sample, and where"
    settings = ContaminationSettings
    columns = pl.Schema([("overlap", pl.String()), ("spans", pl.List(pl.Struct(_SPAN)))])
    block = 4096
    fate = "contaminated"
    checks_held_out = True

    def identity(self, settings: ContaminationSettings, tools: Tools) -> str:
        """Return a hash of the files, by which a changed one measures anew."""
        files = _files(settings, tools.root)
        hashes = [hashlib.blake2b(path.read_bytes()).hexdigest() for path in files.values()]
        return f"13-grams 1 of {len(files)} files, {fingerprint([*files, *hashes])}"

    @contextmanager
    def open(
        self, settings: ContaminationSettings, stage: Stage, tools: Tools
    ) -> Iterator[Measure]:
        """Read the benchmarks."""
        files = _files(settings, tools.root)
        index = _Index({name: tools.read_texts(path) for name, path in files.items()})

        def measure(samples: pl.DataFrame) -> pl.DataFrame:
            if not files:
                return self.columns.to_frame().clear(samples.height)
            texts = turn_texts(samples, stage)
            found = index.found_in(texts)
            spans = gathered(texts[found["text"]].hstack(found.drop("text")), samples.height, _SPAN)
            return pl.select(overlap=_overlap(spans), spans=spans)

        yield measure

    def marks(self, table: pl.DataFrame, settings: ContaminationSettings) -> pl.Series:
        """Return the row that most words of stand in the sample, and in which turn."""
        if settings.policy == "report":
            return super().marks(table, settings)
        found = [_decisive(spans or (), settings.min_share) for spans in table["spans"].to_list()]
        words = [_in_words(max(spans, key=_size)) if spans else None for spans in found]
        return pl.Series("mark", words, dtype=pl.String)

    def by_source(self, sources: pl.Series, table: pl.DataFrame) -> pl.DataFrame:
        """Return how many samples of each source overlap with each benchmark file.

        Returns:
            ``file``, ``source``, ``prompt``, ``answer`` and ``both``: numbers of samples by where
            the overlap stands; sorted by file and source, without rows of zeros.
        """
        spans = (
            table.select("spans")
            .with_columns(source=sources)
            .with_row_index("sample")
            .explode("spans", empty_as_null=False)
            .drop_nulls("spans")
            .unnest("spans")
        )
        is_answer = pl.col("role") == "assistant"
        of_sample = spans.group_by("file", "source", "sample").agg(
            answer=is_answer.any(), prompt=(~is_answer).any()
        )
        both = pl.col("answer") & pl.col("prompt")
        return (
            of_sample.group_by("file", "source")
            .agg(
                prompt=(pl.col("prompt") & ~both).sum(),
                answer=(pl.col("answer") & ~both).sum(),
                both=both.sum(),
            )
            .sort("file", "source")
        )


def _decisive(spans: Sequence[Span], min_share: float) -> list[Span]:
    """Return the longest span of each row of a benchmark, where it has enough of its side.

    So a short answer that stands there whole does not count for more than its question.
    """
    longest: dict[tuple[str, int], Span] = {}
    for span in sorted(spans, key=_size):
        longest[span["file"], span["row"]] = span
    return [span for span in longest.values() if span["share"] >= min_share]


def _overlap(spans: pl.Series) -> pl.Expr:
    """Return on which sides of a sample spans stand: none, prompt, answer or both."""
    is_answer = pl.element().struct.field("role") == "assistant"
    in_answer = pl.lit(spans).list.eval(is_answer)
    return (
        pl.when(in_answer.list.len() == 0)
        .then(pl.lit("none"))
        .when(in_answer.list.all())
        .then(pl.lit("answer"))
        .when(in_answer.list.any())
        .then(pl.lit("both"))
        .otherwise(pl.lit("prompt"))
    )


def _size(span: Span) -> int:
    return int(span["num_words"])


def _in_words(span: Span) -> str:
    return (
        f"{span['num_words']} words ({span['share']:.0%}) of the {span['side']} of "
        f"{span['file']}, row {span['row']}, stand in {span['column']}, turn {span['turn']}, "
        f"characters {span['start']} to {span['end']}"
    )


def _files(settings: ContaminationSettings, root: Path) -> dict[str, Path]:
    """Return the files by what messages call them, sorted; with the questions of MT-bench in use.

    Raises:
        UserError: one that is named does not exist.
    """
    found = []
    for name in settings.files or [BENCHMARKS]:
        path = root / name
        if settings.files and not path.exists():
            raise UserError(f"signals: contamination: files: {path}: no such file or folder")
        found += [p for p in path.rglob("*") if _is_data(p)] if path.is_dir() else [path]
    _, in_use = read_table(root, "mt_bench") or (root, {})
    if "questions" in in_use:
        found.append(root / str(in_use["questions"]))
        if not found[-1].is_file():
            raise UserError(f"mt_bench: questions: {found[-1]}: no such file")
    return {_shown(path, root): path for path in sorted(found) if path.is_file()}


def _is_data(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix not in {".toml", ".md"}


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


_NUM_WORDS, _MIN_WORDS, _MIN_SHORT_WORDS = 13, 8, 3
_MAX_ROWS = 10
# Chinese and Japanese have no spaces, so each character is a word.
_WORD = re.compile("[\u3040-\u30ff\u3400-\u9fff]|[^\\W_\u3040-\u30ff\u3400-\u9fff]+")


def _words(text: str) -> list[str]:
    return list(map(str.lower, _WORD.findall(text)))


class _Item(NamedTuple):
    """The question or the answer of a row."""

    file: str
    row: int
    side: str
    words: tuple[str, ...]

    @property
    def gram(self) -> int:
        """How many of its words in a row tell it; 0 where it is too short for that."""
        num = len(self.words)
        return min(_NUM_WORDS, max(_MIN_WORDS, num * 4 // 5)) if num >= _MIN_WORDS else 0

    @property
    def other(self) -> tuple[str, int, str]:
        """The other side of its row."""
        return self.file, self.row, "answer" if self.side == "prompt" else "prompt"


class _Index:
    """The items of benchmarks, by the words that tell them.

    Args:
        tables: ``row``, ``prompt`` and ``answer`` of each file.
    """

    def __init__(self, tables: Mapping[str, pl.DataFrame]) -> None:
        self.items = [item for file, table in tables.items() for item in _items(file, table)]
        self._by_side = {(item.file, item.row, item.side): item for item in self.items}
        # Of a word that no benchmark has nothing is looked for: its number is 0.
        self._ids = {w: _number(w) for w in {w for item in self.items for w in item.words}}
        self._grams = {
            num: self._grams_of(num) for num in sorted({item.gram for item in self.items} - {0})
        }
        self._short_questions: dict[tuple[str, ...], list[_Item]] = defaultdict(list)
        for item in self.items:
            if item.side == "prompt" and len(item.words) >= _MIN_SHORT_WORDS and not item.gram:
                self._short_questions[item.words].append(item)

    def _grams_of(self, num: int) -> tuple[Hashes, Numbers]:
        """Return the hashes of so many words in a row, sorted, and the item that each is of."""
        items = [n for n, item in enumerate(self.items) if item.gram == num]
        found = [_hashes(self._numbers([self.items[n].words]), num)[1] for n in items]
        grams = pl.DataFrame(
            {"hash": np.concatenate(found), "item": np.repeat(items, list(map(len, found)))}
        ).unique()
        files = pl.Series([item.file for item in self.items])
        of_file = grams.with_columns(file=files.gather(grams["item"]))
        rare = of_file.filter(pl.len().over("hash", "file") <= _MAX_ROWS).sort("hash", "item")
        return rare["hash"].to_numpy(), rare["item"].to_numpy()

    def _numbers(self, texts: Sequence[Sequence[str]]) -> Hashes:
        """Return the numbers of the words of texts, each text ended by a 0."""
        number = self._ids.get
        return np.array([number(w, 0) for text in texts for w in (*text, "")], np.uint64)

    def found_in(self, texts: pl.DataFrame) -> pl.DataFrame:
        """Return what of the items stands in texts (see :func:`turn_texts`).

        Returns:
            ``text``, the place of the text from 0, and the fields of a span that tell what it is.
        """
        words = list(map(_words, texts["text"]))
        by_grams = self._by_grams(words)
        hits = [
            _Hit(text, self.items[item], first, last, num)
            for text, item, first, last, num in by_grams.iter_rows()
        ]
        every = dict.fromkeys([*hits, *self._beside(hits, words, texts)])
        found = [hit.row(texts["text"][hit.text]) for hit in every]
        return pl.DataFrame(found, schema=_FOUND, orient="row").sort("text", maintain_order=True)

    def _by_grams(self, words: Sequence[Sequence[str]]) -> pl.DataFrame:
        """Return the best item of each file in each text: ``text``, ``item``, ``first`` and
        ``last`` word, and ``num`` of the words that stand in rows.
        """
        numbers = self._numbers(words)
        starts = np.cumsum([0, *(len(text) + 1 for text in words)])
        parts = [_MATCHES.to_frame()]
        for num, (hashes, items) in self._grams.items():
            places, found = _hashes(numbers, num)
            low, high = (np.searchsorted(hashes, found, side=side) for side in ("left", "right"))
            of_each = high - low
            hit = np.repeat(places, of_each)
            nth = np.arange(len(hit)) - np.repeat(np.cumsum(of_each) - of_each, of_each)
            text = np.searchsorted(starts, hit, side="right") - 1
            columns = [text, items[np.repeat(low, of_each) + nth], hit - starts[text]]
            parts.append(pl.DataFrame([*columns, np.full(len(hit), num)], schema=_MATCHES))
        matches = pl.concat(parts).sort("text", "item", "first")
        first, num_words = pl.col("first"), pl.col("num")
        step = first.diff().shift(-1).fill_null(num_words)
        overlaps = matches.group_by("text", "item", maintain_order=True).agg(
            first.min(),
            last=(first + num_words - 1).max(),
            num=pl.min_horizontal(step, num_words).sum(),
        )
        files = pl.Series([item.file for item in self.items], dtype=pl.String)
        return (
            overlaps.with_columns(file=files.gather(overlaps["item"]))
            .sort("text", "num", "item", descending=[False, True, False])
            .unique(["text", "file"], keep="first", maintain_order=True)
            .drop("file")
        )

    def _beside(
        self, hits: Sequence["_Hit"], words: Sequence[Sequence[str]], texts: pl.DataFrame
    ) -> Iterator["_Hit"]:
        """Yield short answers beside their questions, and short questions beside their answers."""
        is_answer = (texts["role"] == "assistant").to_list()
        samples = texts["sample"].to_list()
        answers: dict[int, list[int]] = defaultdict(list)
        for text, sample in enumerate(samples):
            if is_answer[text]:
                answers[sample].append(text)
        for hit in hits:
            answer = self._by_side.get(hit.item.other)
            if hit.item.side == "prompt" and answer is not None and not answer.gram:
                yield from _inside(answer, answers[samples[hit.text]], words)
        for text, said in enumerate(words):
            for question in self._short_questions.get(tuple(said), ()):
                answer = self._by_side.get(question.other)
                in_answers = answers[samples[text]]
                beside = [] if answer is None else list(_inside(answer, in_answers, words))
                if beside and not is_answer[text]:
                    yield _Hit(text, question, 0, len(said) - 1, len(said))
                    yield from beside


class _Hit(NamedTuple):
    """An item in a text: its first and last word there, and how many words stand in rows."""

    text: int
    item: _Item
    first: int
    last: int
    num: int

    def row(self, text: str) -> tuple[object, ...]:
        """Return it as a row of what is found, with its place in characters."""
        words = list(_WORD.finditer(text))
        item = self.item
        place = words[self.first].start(), words[self.last].end()
        share = min(1.0, self.num / len(item.words))
        return self.text, *place, item.file, item.row, item.side, self.num, share


_MATCHES = pl.Schema(dict.fromkeys(("text", "item", "first", "num"), pl.Int64))
_PLACES = {"column", "turn", "field", "role"}
_FOUND = pl.Schema(
    [("text", pl.Int64()), *(item for item in _SPAN.items() if item[0] not in _PLACES)]
)


def _items(file: str, table: pl.DataFrame) -> Iterator[_Item]:
    for row, *sides in table.select("row", "prompt", "answer").iter_rows():
        for side, text in zip(("prompt", "answer"), sides, strict=True):
            if words := _words(text):
                yield _Item(file, row, side, tuple(words))


def _number(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest()) | 1


def _hashes(numbers: Hashes, num: int) -> tuple[Numbers, Hashes]:
    """Return where so many known words stand in a row, and the hash of each such row.

    A hash is a polynomial of hashes of words, modulo 2^64: of a million rows in a benchmark and a
    billion in a pool one in 10,000 pools has one that is equal by chance.
    """
    unknown = np.concatenate([[0], np.cumsum(numbers == 0)])
    places = np.flatnonzero(unknown[num:] == unknown[:-num]) if len(numbers) >= num else _NONE
    hashes = np.zeros(len(places), np.uint64)
    for step in range(num):
        hashes = hashes * _BASE + numbers[places + step]
    return places, hashes


_BASE = np.uint64(0x9E3779B97F4A7C15)
_NONE = np.zeros(0, np.int64)


def _inside(item: _Item, texts: Sequence[int], words: Sequence[Sequence[str]]) -> Iterator[_Hit]:
    """Yield where the words of a short item stand in some texts, the first place of each."""
    num = len(item.words)
    for text in texts:
        said = words[text]
        places = (n for n in range(len(said) - num + 1) if tuple(said[n : n + num]) == item.words)
        for first in islice(places, 1):
            yield _Hit(text, item, first, first + num - 1, num)


SIGNAL = Contamination()
