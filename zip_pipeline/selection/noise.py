"""The noise guard: marks samples in which somebody says neither language nor code nor data."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.codecs import codecs
from zip_pipeline.compression.texts import parts_of
from zip_pipeline.errors import UserError
from zip_pipeline.selection.candidates import Candidates, Mask
from zip_pipeline.selection.language import (
    KINDS,
    NUMBER,
    PART_BYTES,
    Bytes,
    Joined,
    Language,
    excerpt,
)

_ANSWER, _QUESTION, _TEXT = "its answer", "its question", "its text"
# What is shorter is too short to tell; a noisy question is only told where it is long.
_MIN_BYTES = {_ANSWER: 24, _TEXT: 24, _QUESTION: 160}
_ROLE = re.compile(rb"\n(system|user|assistant|tool)(?: [^:\n]*)?: ")


class Turn(NamedTuple):
    """What somebody says: in which sample, who, the content, and what was asked before."""

    sample: int
    whose: str
    content: bytes
    asked: bytes


def turns_of(sample: int, text: bytes) -> Iterator[Turn]:
    """Yield questions and answers of a serialised sample; a text without roles is one turn."""
    text = b"\n" + text
    matches = list(_ROLE.finditer(text))
    head = text[: matches[0].start()] if matches else text
    if head and not head.startswith(b"\ntools: "):
        yield Turn(sample, _TEXT, head.strip(), b"")
    asked = b""
    ends = [match.start() for match in matches[1:]] + [len(text)]
    for match, end in zip(matches, ends, strict=False):
        content = text[match.end() : end].strip()
        if match[1] == b"assistant":
            yield Turn(sample, _ANSWER, content, asked)
        elif match[1] == b"user":
            yield Turn(sample, _QUESTION, content, asked := content)


def find_noise(candidates: Candidates, workers: int) -> pl.Series:
    """Return why each sample is noise, a category, shape (samples,); null where it is not.

    A sample is judged by its turns one by one: by signs of their own, by how usual their characters
    and the order of their words are in the pool, and by the compression ratio of answers.

    Args:
        candidates: the pool; its trusted samples, where there are any, set the band of ratios.
        workers: number of threads; the reasons do not depend on it.

    Raises:
        UserError: there are too few trusted samples for a band.
    """
    texts = candidates.texts
    trusted = _trusted(candidates.trusted, workers) if candidates.trusted else None
    language = Language(texts)
    # A pool may be noise alone, and of the words few differ; the first are of what is no noise.
    words: dict[str | None, int] = {None: 0}
    places = np.zeros(len(texts), np.uint32)

    def mark(sample: int, reason: str) -> None:
        if places[sample] == words[None]:
            places[sample] = words.setdefault(reason, len(words))

    ratios = [_RATIOS.to_frame()]
    for positions, part in texts.placed_parts(most_bytes=PART_BYTES):
        turns = _long_turns(zip(positions.tolist(), part, strict=True))
        for few in _parts_of_turns(turns):
            for turn, sign in zip(few, _signs(few, language), strict=True):
                if sign is not None:
                    mark(turn.sample, f"{turn.whose} {sign}")
        ratios.append(_ratios(turns, workers))
    answers = pl.concat(ratios)
    sources = candidates.sources.cast(pl.Categorical).to_physical()
    answers = answers.with_columns(source=sources.gather(answers["sample"]))
    for sample, reason in _outside(answers, answers if trusted is None else trusted):
        mark(sample, reason)
    return pl.Series(list(words), dtype=pl.String).cast(pl.Categorical).gather(places)


def _long_turns(samples: Iterable[tuple[int, bytes]]) -> list[Turn]:
    turns = (turn for sample, text in samples for turn in turns_of(sample, text))
    return [turn for turn in turns if len(turn.content) >= _MIN_BYTES[turn.whose]]


def _parts_of_turns(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Yield turns some megabytes at a time, long ones with an excerpt of their content."""
    short = [turn._replace(content=excerpt(turn.content)) for turn in turns]
    num_bytes = np.array([len(turn.content) for turn in short], np.int64)
    for places in parts_of(np.arange(len(short)), num_bytes, PART_BYTES):
        yield [short[place] for place in places.tolist()]


_RATIOS = pl.Schema(
    {
        "sample": pl.UInt32(),
        "whose": pl.Enum([_ANSWER, _QUESTION, _TEXT]),
        "length": pl.UInt8(),
        "ratio": pl.Float32(),
    }
)
_MIN_RATIO_BYTES = 64
# So many answers of a class of length make a band.
_MIN_IN_CLASS = 100
# Classes of length are fewer: they are half octaves.
_MAX_LENGTHS = 64
# So many answers at a time are compared with their bands.
_ANSWERS_AT_ONCE = 1 << 18


def _trusted(texts: Sequence[bytes], workers: int) -> pl.DataFrame:
    """Return the ratios of trusted samples; their sources need not be those of the pool."""
    answers = _ratios(_long_turns(enumerate(texts)), workers)
    most = max(Counter(answers["length"].to_list()).values(), default=0)
    if most < _MIN_IN_CLASS:
        raise UserError(
            f"trusted: got {len(texts):,} samples, of which at most {most} answers are about as "
            f"long as each other; needed are {_MIN_IN_CLASS} for a band, so name a file with more, "
            "or leave trusted out"
        )
    return answers.with_columns(source=pl.lit(None, pl.UInt32))


def _ratios(turns: Sequence[Turn], workers: int) -> pl.DataFrame:
    answers = [t for t in turns if t.whose != _QUESTION and len(t.content) >= _MIN_RATIO_BYTES]
    num_bytes = np.array([len(turn.content) for turn in answers], np.float64)
    sizes = codecs["deflate"].alone_sizes([turn.content for turn in answers], 9, workers)
    columns = {
        "sample": [turn.sample for turn in answers],
        "whose": [turn.whose for turn in answers],
        "length": (2 * np.log2(num_bytes)).astype(np.int64),
        "ratio": num_bytes / sizes,
    }
    return pl.DataFrame(columns, schema=_RATIOS)


def _outside(answers: pl.DataFrame, trusted: pl.DataFrame) -> Iterator[tuple[int, str]]:
    """Yield the samples with an answer outside the band, and on which side.

    The band of a source and class of length reaches from the median less 2.5 times its distance to
    the 5% quantile, up to 4 times the median. Where a source has few answers of a class it is that
    of all sources, and never reaches farther up than twice that; longer answers than there are many
    of are in the last class.

    Source: Compel (OpenReview KFafeqE5fe): samples whose own ratio is in a band of trusted data.
    Deviation: of answers, by source and length; from inner quantiles, which noise hardly moves.
    """
    ratio, kind = pl.col("ratio"), pl.col("source") * _MAX_LENGTHS + pl.col("length")
    of_source, of_all = (_bands(trusted, keys) for keys in (kind, pl.col("length")))
    if of_all.is_empty():
        return
    longest = pl.col("length").clip(upper_bound=of_all["kind"].max())  # type: ignore[arg-type]
    least, most = pl.col("low"), pl.min_horizontal("high", 2 * pl.col("high_of_all"))
    sides = (
        (ratio < least, _INCOMPRESSIBLE, least, "at least"),
        (ratio > most, _REPETITIVE, most, "at most"),
    )
    for part in answers.iter_slices(_ANSWERS_AT_ONCE):
        bounds = (
            part.with_columns(length=longest.cast(pl.UInt32))
            .with_columns(kind=kind)
            .join(of_source, on="kind", how="left", maintain_order="left")
            .join(
                of_all,
                left_on="length",
                right_on="kind",
                how="left",
                maintain_order="left",
                suffix="_of_all",
            )
            .with_columns(
                pl.coalesce(name, f"{name}_of_all").alias(name) for name in ("low", "high")
            )
        )
        for side, sign, limit, words in sides:
            rows = bounds.filter(side).select("sample", "whose", "ratio", limit.alias("limit"))
            for sample, whose, value, bound in rows.iter_rows():
                told = _told(sign, f"ratio {value:.2f}", f"{words} {bound:.2f}")
                yield sample, f"{whose} {told}"


def _bands(answers: pl.DataFrame, kind: pl.Expr) -> pl.DataFrame:
    """Return the ``low`` and ``high`` of each ``kind`` of answers that are many.

    Kinds and ratios are sorted in place as one number, 8 bytes an answer; to group them takes 46.
    """
    of = answers.select(kind.cast(pl.UInt32).alias("kind"), "ratio").drop_nulls()
    kinds, ratios = of["kind"].to_numpy(), of["ratio"].to_numpy()
    names, nums = np.unique(kinds, return_counts=True)
    starts = np.cumsum(nums) - nums
    # The bits of numbers above 0 are in their order.
    ordered = kinds.astype(np.uint64) << np.uint64(32)
    ordered |= ratios.view(np.uint32)
    ordered.sort()

    def ratio_at(places: NDArray[np.int64]) -> NDArray[np.float64]:
        ratio: NDArray[np.float32] = ordered[starts + places].astype(np.uint32).view(np.float32)
        return ratio.astype(np.float64)

    inner = ratio_at((0.05 * (nums - 1) + 0.5).astype(np.int64))
    median = (ratio_at((nums - 1) // 2) + ratio_at(nums // 2)) / 2
    bands = pl.DataFrame({"kind": names, "low": 2.5 * inner - 1.5 * median, "high": 4 * median})
    return bands.filter(nums >= _MIN_IN_CLASS)


def _told(sign: str, measured: str, allowed: str) -> str:
    """Return a sign with what was measured and what is allowed; a report counts it without."""
    return f"{sign} ({measured}, allowed is {allowed})"


_INCOMPRESSIBLE = "is less compressible than others of its source and length"
_REPETITIVE = "is far more repetitive than others of its source and length"
_BASE64 = "is base64"
_HEX = "is hexadecimal digits"
_MOJIBAKE = "is mojibake, text that was read in the wrong character set"
_CHARACTERS = "is random characters"
_MASH = "is random letters or keyboard mash"
_MINIFIED = "is minified code or data"
_SALAD = "is word salad, words in no order"


def _signs(turns: Sequence[Turn], language: Language) -> list[str | None]:
    """Return what each turn is where that is noise."""
    joined = Joined([turn.content for turn in turns])
    familiarity, num = language.familiarity(joined)
    num *= language.knows_characters
    signs: list[str | None] = [None] * len(turns)
    for n in np.flatnonzero(_are_odd(joined) | (familiarity < _FAMILIAR)).tolist():
        signs[n] = _sign_of(turns[n], float(familiarity[n]), int(num[n]))
    if not language.knows_words:
        return signs
    answers = [n for n, t in enumerate(turns) if t.whose != _QUESTION and signs[n] is None]
    for n, gain in zip(answers, _salad_gains([turns[n] for n in answers], language), strict=True):
        if not np.isnan(gain):
            words = f"what their order tells {gain:.2f} bits a pair"
            signs[n] = _told(_SALAD, words, f"at least {_MIN_GAIN}")
    return signs


# Below it a text is looked at closely; text of the pool and most other good text is above.
_FAMILIAR = 1.5
# Random characters are below it where many were judged, and below its negative where few were.
_UNFAMILIAR = 0.3


def _are_odd(joined: Joined) -> Mask:
    """Return which texts have hardly a space, many digits, or characters beyond ASCII."""
    num_spaces = joined.sums(_is_space(joined.bytes))
    num_digits = joined.sums(KINDS[joined.bytes] == NUMBER)
    num_foreign = joined.sums(joined.bytes > 127)
    sizes = joined.sizes
    odd: Mask = num_spaces < 0.08 * sizes
    return odd | (num_digits > 0.25 * sizes) | (num_foreign > 0.01 * sizes)


def _is_space(joined: Bytes) -> Mask:
    is_space: Mask = (joined == ord(" ")) | ((joined >= ord("\t")) & (joined <= ord("\r")))
    return is_space


_MIN_PAIRS, _MIN_GAIN = 8, 2.2
# Text in the languages of the pool is above it.
_VERY_FAMILIAR = 2.7


def _salad_gains(turns: Sequence[Turn], language: Language) -> NDArray[np.float64]:
    """Return what the order of the words tells, in answers that are words in no order; else NaN.

    They are of the words that the pool knows.

    What has lines, indents or many commas is a list, a table or code, and what has more unknown
    words than known ones is another language.
    """
    texts = Joined([turn.content for turn in turns])
    order = language.order(texts, [turn.sample for turn in turns])
    before, after = np.roll(texts.bytes, 1), np.roll(texts.bytes, -1)
    is_single = (texts.bytes == ord(" ")) & (before > ord(" ")) & (after > ord(" "))
    is_listed = is_single & np.isin(before, np.frombuffer(b",;|/", np.uint8))
    num_single = texts.sums(is_single)
    is_prose = num_single >= np.maximum(
        0.9 * texts.sums(_is_space(texts.bytes)), 0.08 * texts.sizes
    )
    is_prose &= texts.sums(is_listed) <= 0.25 * num_single
    is_prose &= order.num_pairs >= 0.35 * num_single
    familiarity, _ = language.familiarity(texts)
    least_known = np.where(familiarity > _VERY_FAMILIAR, 0.4, 0.75) * order.num_pairs
    is_known = order.num_known >= np.maximum(_MIN_PAIRS, least_known)
    is_salad = is_prose & is_known & (order.gain < _MIN_GAIN)
    return np.where(is_salad, order.gain, np.nan)


_MAX_ASKED_BYTES = 2000
# Who asks for it in the question gets it.
_CODES = r"passwords?\b|passphrase|cipher|encrypt|rot ?13|regex|regular exp|smiles\b|amino acid"
_CODES += r"|\b[dr]na\b|genom|random (string|character|letter)|gibberish|nonsense|emoji|symbols"
_ASKED = {
    _BASE64: r"base ?(64|32|85)|encod|decod",
    _HEX: r"\bhex|\bsha-?\d|\bmd5|\bhash (of|value)|uuid|guid|checksum",
    _CHARACTERS: _CODES,
    _MASH: _CODES,
    _MINIFIED: r"minif|json|one.?liner?|single line|regex|regular exp|smiles",
}


def _sign_of(turn: Turn, familiarity: float, num_judged: int) -> str | None:
    text = turn.content.decode("utf-8", "replace")
    if len(_URL.sub("", text)) < 0.5 * len(text):
        return None
    sign = _encoded(text) or _broken(text) or _random(text, familiarity, num_judged)
    if sign is None and turn.whose != _QUESTION:
        sign = _minified(text)
    wanted = _ASKED.get((sign or "").partition(" (")[0])
    if wanted is not None and len(text) <= _MAX_ASKED_BYTES:
        asked = turn.asked.decode("utf-8", "replace")
        return None if re.search(wanted, asked, re.IGNORECASE) else sign
    return sign


_URL = re.compile(r"https?://\S+")
_RUN = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
_BETWEEN = re.compile(r"[\s:,;|{}\[\]()-]+")
_HEX_TOKEN = re.compile(r"(?:0x|\\x)?[0-9a-fA-F]{2,}")
# Of random digits few have no letter, and few no digit.
_MIXED_TOKEN = re.compile(r"[0\\]x.*|.*([0-9][a-fA-F]|[a-fA-F][0-9]).*")


def _encoded(text: str) -> str | None:
    """Return whether most of a text is base64, base32 or hexadecimal."""
    size = _num_visible(text)
    runs = "".join(run for run in _RUN.findall(text) if _is_mixed(run))
    if len(runs) > 0.5 * size:
        sign = _BASE64 if re.search("[^0-9A-Fa-f-]", runs) else _HEX
        return _told(sign, f"{len(runs) / size:.0%} of it", "at most 50%")
    if sum(map(text.count, "0123456789")) < 0.2 * size:
        return None
    tokens = [token for token in _BETWEEN.split(text) if token]
    digits = [token for token in tokens if _HEX_TOKEN.fullmatch(token)]
    num_mixed = sum(_MIXED_TOKEN.fullmatch(token) is not None for token in digits)
    is_hex = len(digits) >= max(8, 0.6 * len(tokens)) and num_mixed > 0.25 * len(digits)
    share = len(digits) / max(len(tokens), 1)
    return _told(_HEX, f"{share:.0%} of its words", "below 60%") if is_hex else None


def _is_mixed(run: str) -> bool:
    """Return whether capitals, small letters and digits change often; without digits it is a name.

    In base64 and hexadecimal neighbours differ in 0.3 to 0.65 of places, in words and paths hardly.
    """
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in run if c.isalnum()]
    return "d" in kinds and sum(a != b for a, b in pairwise(kinds)) >= 0.2 * len(run)


def _num_visible(text: str) -> int:
    return len("".join(text.split()))


# In these UTF-8 and what it was read as can be told apart; other Cyrillic sets look like UTF-8.
_MISREAD_AS = ("cp1252", "latin-1", "cp1251", "koi8-r", "cp437", "mac-roman")
_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
# No language has so many of these letters in a row, but Cyrillic or Chinese that was read as Latin.
_LATIN_RUN = re.compile(r"[\u00a0-\u00ff]{4,}")
_FOREIGN_RUN = re.compile(r"[^\x00-\x7f]+")
_IDEOGRAPHS = re.compile(r"[\u4e00-\u9fff]+")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NO_CHARACTER = ("Cc", "Cn", "Co", "Cs")


def _broken(text: str) -> str | None:
    """Return whether what is not ASCII was read wrongly, or is no text."""
    foreign = " ".join(_FOREIGN_RUN.findall(text))
    if len(foreign) < max(3, 0.01 * len(text)):
        return None
    if share := _share_misread(foreign):
        return _told(_MOJIBAKE, f"{share:.0%} of what is not ASCII", "at most 50%")
    unreadable = sum(c == "\ufffd" or unicodedata.category(c) in _NO_CHARACTER for c in foreign)
    share = (unreadable + len(_CONTROL.findall(text))) / len(text)
    if share > 0.02:
        return _told(_CHARACTERS, f"{share:.0%} of it unreadable", "at most 2%")
    return _jumble(foreign) if len(foreign) > max(16, 0.3 * len(text)) else None


def _share_misread(foreign: str) -> float:
    """Return how much of a text was read wrongly where that is most of it, else 0."""
    for encoding in _MISREAD_AS:
        read = foreign.encode(encoding, "ignore")
        if len(read) > 0.5 * len(foreign) and _num_utf8(read) > 0.5 * len(read):
            return _num_utf8(read) / len(read)
    chinese = "".join(_IDEOGRAPHS.findall(foreign)).encode("gbk", "ignore")
    if _num_utf8(chinese) > max(24, 0.8 * len(chinese)):
        return _num_utf8(chinese) / len(chinese)
    num_latin = sum(map(len, _LATIN_RUN.findall(foreign)))
    return num_latin / len(foreign) if num_latin > max(15, 0.5 * len(foreign)) else 0.0


def _num_utf8(read: bytes) -> int:
    return sum(map(len, _UTF8.findall(read)))


def _jumble(foreign: str) -> str | None:
    """Return whether characters are of many scripts, or ideographs that nobody uses together."""
    scripts = {_script(character) for character in foreign if character.isalpha()}
    ideographs = "".join(_IDEOGRAPHS.findall(foreign))
    in_use = (ideographs.encode(name, "ignore").decode(name) for name in _COMMON_IDEOGRAPHS)
    if len(scripts) >= 8:
        return _told(_CHARACTERS, f"{len(scripts)} scripts", "at most 7")
    share = max(map(len, in_use)) / max(len(ideographs), 1)
    if len(ideographs) < 16 or share >= 0.9:
        return None
    return _told(_CHARACTERS, f"{share:.0%} of its ideographs in use together", "at least 90%")


_COMMON_IDEOGRAPHS = ("gb2312", "big5", "euc_jp")


@lru_cache(maxsize=1 << 16)
def _script(character: str) -> str:
    return unicodedata.name(character, "?").partition(" ")[0]


_LETTERS = re.compile("[A-Za-z]+")
_VOWEL = re.compile("[AEIOUYaeiouy]")


def _random(text: str, familiarity: float, num_judged: int) -> str | None:
    """Return whether characters follow one another as in no text of the pool, or of any language.

    Of Latin letters 30 to 50% are vowels in any language.
    """
    letters = "".join(_LETTERS.findall(text))
    is_latin = len(letters) > max(40, 0.6 * _num_visible(text))
    is_latin &= sum(map(str.isascii, text)) > 0.95 * len(text)
    num_vowels = len(_VOWEL.findall(letters))
    if is_latin and num_vowels < 0.19 * len(letters):
        return _told(_MASH, f"{num_vowels / len(letters):.0%} vowels", "at least 19%")
    limit = _UNFAMILIAR if num_judged >= 64 else -_UNFAMILIAR
    is_random = familiarity < limit and num_judged >= max(16, 0.2 * len(text))
    is_random |= familiarity < -0.5 and num_judged >= 8
    if not is_random or sum(map(str.isascii, text)) < 0.5 * len(text):
        return None
    sign = _MASH if len(letters) > 0.85 * _num_visible(text) else _CHARACTERS
    least = limit if familiarity < limit else -0.5
    return _told(sign, f"familiarity {familiarity:.2f}", f"at least {least}")


_LONG_WORD = re.compile("[A-Za-z]{3,}")
_PUNCTUATION = re.compile(r"[{}()\[\];=,:.<>!&|?+*\"'`]")
_OF_CODE = re.compile("[{}();=]")
_TOOL_CALL = re.compile('"(arguments|parameters)"')


def _minified(text: str) -> str | None:
    """Return whether a text is code, or data that is not words, in long lines without spaces."""
    share_of_space = 1 - _num_visible(text) / len(text)
    if share_of_space > 0.07 or len(text) < 100 * text.count("\n") + 100:
        return None
    told = _told(_MINIFIED, f"{share_of_space:.0%} of it spaces", "above 7%")
    if text[0] in "[{" and _is_json(text):
        is_words = len("".join(_LONG_WORD.findall(text))) >= 0.45 * len(text)
        return None if is_words or _TOOL_CALL.search(text) else told
    num_punctuation, num_of_code = (len(p.findall(text)) for p in (_PUNCTUATION, _OF_CODE))
    least = 0.13 if share_of_space < 0.05 else 0.2
    is_code = num_punctuation > least * len(text) and num_of_code > 0.04 * len(text)
    return told if is_code else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
