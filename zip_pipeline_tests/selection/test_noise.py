"""The noise guard: what it marks, what it leaves alone, and what a selection makes of it."""

import base64
import itertools
import json
import os
import random
import re
import tracemalloc
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from zip_pipeline.compression.ngrams import ngram_counts
from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.errors import UserError
from zip_pipeline.report.fates import explain_fate
from zip_pipeline.samples import Sample, Turn
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.language import EXCERPT_BYTES, excerpt
from zip_pipeline.selection.noise import _bands, find_noise
from zip_pipeline.selection.select import Selection, select, select_candidates
from zip_pipeline_tests.selection.pools import pool_table

_NOUNS = ["river", "stone", "garden", "window", "letter", "market", "engine", "winter", "doctor"]
_NOUNS += ["village", "bridge", "story"]
_VERBS = ["finds", "keeps", "follows", "remembers", "repairs", "opens", "watches", "carries"]
_PLACES = ["in the morning", "near the old town", "without a word", "for the first time"]
_MORE = ["because it is late", "as everybody knows", "and that is all", "before the rain comes"]


def _sentence(rng: random.Random) -> str:
    one, other = rng.sample(_NOUNS, 2)
    return (
        f"The {one} of the {rng.choice(_NOUNS)} {rng.choice(_VERBS)} a {other} "
        f"{rng.choice(_PLACES)}, {rng.choice(_MORE)}."
    )


def _prose(seed: int, num_sentences: int = 6) -> str:
    rng = random.Random(seed)
    return " ".join(_sentence(rng) for _ in range(num_sentences))


@cache
def _pool() -> tuple[bytes, ...]:
    """Return 1,300 answers in plain sentences, 110,000 words in all."""
    return tuple(_text(_prose(seed, 1), _prose(10_000 + seed)) for seed in range(1300))


def _text(question: str, answer: str) -> bytes:
    return f"user: {question}\nassistant: {answer}\n".encode()


def _reasons(
    texts: Sequence[bytes], pool: Sequence[bytes] = (), trusted: Sequence[bytes] = ()
) -> list[str | None]:
    """Return why each of the texts is noise in a pool."""
    whole = [*pool, *texts]
    with TemporaryTexts.write([whole]) as file:
        index = pl.DataFrame({"source": ["web"] * len(whole)})
        found = find_noise(Candidates(index, file, trusted=trusted), workers=1)
    return found.to_list()[len(pool) :]


def _shuffled(words: Sequence[str], seed: int) -> str:
    mixed = list(words)
    random.Random(seed).shuffle(mixed)
    return " ".join(mixed)


_RANDOM = random.Random(5).randbytes(300)
_CHINESE = "列表是空的并且不存在索引。人工智能可以帮助医生分析病人的数据。"
_NOISE = {
    "base64": base64.b64encode(_RANDOM).decode(),
    "wrapped base64": base64.encodebytes(_RANDOM).decode(),
    "base64 of text": base64.b64encode(_prose(1).encode()).decode(),
    "base64 behind words": f"Sure, here it is: {base64.b64encode(_RANDOM).decode()}",
    "base32": base64.b32encode(_RANDOM).decode(),
    "hex": _RANDOM.hex(),
    "hex bytes": _RANDOM[:60].hex(" "),
    "C array": ", ".join(f"0x{byte:02x}" for byte in _RANDOM[:40]),
    "hex dump": "\n".join(
        f"{n:08x}  {_RANDOM[n : n + 16].hex(' ')}  |................|" for n in range(0, 96, 16)
    ),
    "mojibake": _CHINESE.encode().decode("latin-1"),
    "twice mojibake": _CHINESE.encode().decode("latin-1").encode().decode("latin-1"),
    "French mojibake": "Le café est fermé à midi, à côté du théâtre.".encode().decode("cp1252"),
    "Cyrillic as Latin": "Привет, как дела сегодня вечером".encode("cp1251").decode("latin-1"),
    "UTF-8 as GBK": (_CHINESE * 2).encode().decode("gbk", "ignore"),
    "undecodable": _RANDOM.decode("utf-8", "replace"),
    "all scripts": "".join(chr(0x370 + byte * 17) for byte in _RANDOM),
    "random ideographs": "".join(chr(0x4E00 + byte * 79) for byte in _RANDOM),
    "keyboard mash": "asdfjkl sdkfjh lkjsdf qwrtp zxcvbnm fghjk dfgdfg sdkjfhs lkjhgf zxcmnb",
    "minified script": 'function a(b,c){return b?c[0]:d.e(f)};var g=1,h={i:"j"};if(g>2){k(l)}' * 3,
    "data without words": json.dumps(
        {f"k{n}": [n * 7919, n / 7] for n in range(30)}, separators=(",", ":")
    ),
}


@pytest.mark.parametrize("name", _NOISE)
def test_noise_with_a_sign_of_its_own_is_marked_in_any_pool(name: str) -> None:
    """Even alone, so that no pool is needed to know it."""
    assert _reasons([_text("Why is the sky blue?", _NOISE[name])]) != [None]


def test_reasons_say_who_is_what() -> None:
    """The answer and a long question are told apart, and a text without roles is a text."""
    noise = _NOISE["base64"]
    texts = [_text("Why?", noise), _text(noise, "No."), noise.encode()]
    measured = "(100% of it, allowed is at most 50%)"
    assert _reasons(texts) == [
        f"its answer is base64 {measured}",
        f"its question is base64 {measured}",
        f"its text is base64 {measured}",
    ]
    told = {name: _reasons([_text("Why?", _NOISE[name])])[0] for name in _NOISE}
    assert told["hex"] == f"its answer is hexadecimal digits {measured}"
    assert told["all scripts"] == (
        "its answer is random characters (13% of it unreadable, allowed is at most 2%)"
    )
    shape = re.compile(r"its answer is .+ \(.*\d.*, allowed is .*\d.*\)")
    assert all(shape.fullmatch(words or "") for words in told.values())


def test_every_answer_of_a_dialogue_is_judged() -> None:
    """One noisy answer among good ones is enough; what tools and systems say is left out."""
    good, noise = _prose(1), _NOISE["base64"]
    dialogue = f"user: Go on.\nassistant: {good}\nuser: And?\nassistant: {noise}\n"
    tool = f"tools: {noise}\nsystem: {noise}\nuser: Look.\ntool: {noise}\nassistant: {good}\n"
    assert _reasons([dialogue.encode(), tool.encode()]) == [
        "its answer is base64 (100% of it, allowed is at most 50%)",
        None,
    ]


_TABLE = "| name | age | city |\n|---|---|---|\n" + "\n".join(
    f"| {noun} | {10 + n} | {_NOUNS[-n]} |" for n, noun in enumerate(_NOUNS)
)
_GOOD = {
    "number": "42",
    "name": "Paris",
    "code": "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n"
    "    return total / len(values)\n\n\nprint(mean([1, 2, 3]))",
    "query": "SELECT o.id, c.name FROM orders AS o JOIN customers AS c ON o.customer_id = c.id;",
    "one line of code": "print(sum(x*x for x in range(10) if x%2))",
    "identifier": "theNameOfTheFunctionThatShouldBeCalledFirst",
    "maths": "12 + 5 = 17\n17 * 3 = 51\n51 - 9 = 42\nSo the result is 42.",
    "LaTeX": r"$$\int_0^1 x^2\,dx = \left[\frac{x^3}{3}\right]_0^1 = \frac{1}{3}$$ and "
    r"$$\sum_{i=1}^n x_i \leq \sqrt{a^2+b^2}$$",
    "table": _TABLE,
    "CSV": "name,age,city\n" + "\n".join(f"{noun},{n},{n * 3.5}" for n, noun in enumerate(_NOUNS)),
    "JSON": json.dumps([{"name": noun, "kind": "word", "tags": ["a", "b"]} for noun in _NOUNS]),
    "compact JSON": '[{"name":"river","kind":"water","active":true},{"name":"stone","kind":"solid",'
    '"active":false},{"name":"garden","kind":"place","active":true}]',
    "tool call": '[{"id":"call_3Zq73I2O","type":"function","function":{"name":"get_weather",'
    '"arguments":"{\\"city\\":\\"Paris\\",\\"n\\":7}"}}]',
    "links": "\n".join(f"https://www.example.org/watch?v=aB3dE{n}fG7hI" for n in range(8)),
    "list": ", ".join(_NOUNS * 2),
    "names": ", ".join(
        f"{a.title()} {b.title()}" for a, b in zip(_NOUNS, _NOUNS[3:], strict=False)
    ),
    "primes": "2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79",
    "chess": "1. e4 e5 2. Nf3 Nc6 3. Bb5 a6 4. Ba4 Nf6 5. O-O Be7 6. Re1 b5 7. Bb3 d6 8. c3 O-O",
    "poem": "Roses are red,\nviolets are blue,\nthe river is long,\nand so, dear, are you.",
    "Chinese": _CHINESE,
    "Japanese": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "Arabic": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق وقد وهبوا عقلا وضميرا.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।",
    "Russian": "Все люди рождаются свободными и равными в своём достоинстве и правах.",  # noqa: RUF001
    "Polish": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
    "Finnish": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.",
    "Zulu": "Bonke abantu bazalwa bekhululekile belingana ngesithunzi nangamalungelo futhi.",
    "Vietnamese": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "two scripts": "The word слово means word, and 言葉 means it, too; so does कलमा, some say.",
}


@pytest.mark.parametrize("pool", [False, True])
def test_good_answers_are_not_marked(pool: bool) -> None:
    """Neither in a pool of many others nor in one of their own, however rare they are."""
    texts = [_text("Please answer.", answer) for answer in _GOOD.values()]
    found = dict(zip(_GOOD, _reasons(texts, _pool() if pool else ()), strict=True))
    assert found == dict.fromkeys(_GOOD)


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Encode this in base64.", "base64"),
        ("What is the SHA-256 of it?", "hex"),
        ("Generate a long password.", "keyboard mash"),
        ("Minify this script.", "minified script"),
    ],
)
def test_who_asks_for_it_gets_it_while_it_is_short(question: str, name: str) -> None:
    """What was asked for is no noise, unless it is very long."""
    answer = _NOISE[name]
    assert _reasons([_text(question, answer)]) == [None]
    assert _reasons([_text("Why?", answer)]) != [None]
    long = (answer + "\n") * (2000 // len(answer) + 2)
    assert _reasons([_text(question, long)], _pool()) != [None]


_SALAD = "its answer is word salad, words in no order"


def test_words_in_no_order_are_marked_and_the_same_words_in_order_are_not() -> None:
    """Shuffled sentences, drawn words of the pool, and a few words again and again."""
    real = [_prose(20_000 + n, 4) for n in range(20)]
    shuffled = [_shuffled(answer.split(), n) for n, answer in enumerate(real)]
    rng = random.Random(1)
    drawn = [" ".join(rng.choices(_NOUNS + _VERBS, k=60)) for _ in range(5)]
    few = [" ".join(rng.choices(_NOUNS[:3], k=60)) for _ in range(5)]
    texts = [_text("Why?", answer) for answer in [*real, *shuffled, *drawn, *few]]
    found = _reasons(texts, _pool())
    assert found[:20] == [None] * 20
    assert [(words or "").partition(" (")[0] for words in found[20:]] == [_SALAD] * 30
    (gain,) = re.findall(r"tells (\S+) bits a pair, allowed is at least 2.2\)", found[20] or "")
    assert float(gain) < 2.2


def test_long_texts_are_judged_in_little_memory() -> None:
    """A text of 8 MB, and as much in turns of 1 MB, need 200 MB; each byte took a hundred."""
    words = random.Random(1).choices(_NOUNS + _VERBS, k=1_000_000)
    prose = " ".join(_prose(seed, 1000) for seed in range(100))
    turns = [_text("Why?", " ".join(words[n : n + 125_000])) for n in range(0, len(words), 125_000)]
    texts = [_text("Why?", prose), _text("Why?", " ".join(words)), b"".join(turns)]
    pool = _pool()
    tracemalloc.start()
    found = [(reason or "").partition(" (")[0] for reason in _reasons(texts, pool)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    repetitive = "its answer is far more repetitive than others of its source and length"
    assert found == [repetitive, _SALAD, _SALAD]
    assert peak < 300 << 20


def test_an_excerpt_is_of_the_whole_text() -> None:
    """Four stretches from the first byte to the last; a text that is short is left as it is."""
    assert excerpt(text := bytes(EXCERPT_BYTES)) is text
    long = bytes([1]) * EXCERPT_BYTES + bytes([2]) * EXCERPT_BYTES + bytes([3]) * EXCERPT_BYTES
    stretches = excerpt(long).split(b" ")
    assert [set(stretch) for stretch in stretches] == [{1}, {1, 2}, {2, 3}, {3}]
    assert len(excerpt(long)) == EXCERPT_BYTES + 3


def test_an_order_is_not_judged_where_the_pool_knows_too_little() -> None:
    """In a small pool, and of words that the pool does not know."""
    shuffled = [_text("Why?", _shuffled(_prose(n).split(), n)) for n in range(20)]
    assert _reasons(shuffled) == [None] * 20
    unknown = ["kuvi", "neda", "losa", "mirute", "pala", "senoki", "tura", "vime", "dano", "rike"]
    texts = [_text("Why?", _shuffled(unknown, n)) for n in range(3)]
    assert _reasons(texts, _pool()) == [None] * 3


def test_random_letters_are_marked_where_the_pool_knows_texts_of_many_kinds() -> None:
    """Letters drawn with as many vowels as a language has, among this project's code and tests."""
    rng = random.Random(2)
    letters = "".join(rng.choices("bcdfgklmnprst" + "aeiou" * 2, k=300))
    assert _reasons([_text("Why?", letters)], _pool()) == [None]
    pages = [path.read_text(encoding="utf-8") for path in sorted(_CODE.glob("zip_*/**/*.py"))]
    pool = [_text("Go on.", page[n : n + 900]) for page in pages for n in range(0, len(page), 900)]
    found = _reasons([_text("Why?", letters)], pool)
    assert (found[0] or "").startswith("its answer is random letters or keyboard mash (familiarity")


def test_an_answer_far_outside_the_ratios_of_its_length_is_marked() -> None:
    """The same words over and over; a trusted file sets the band in place of the pool."""
    repeated = _text("Why?", "The river finds a stone. " * 30)
    (found,) = _reasons([repeated], _pool())
    words = "its answer is far more repetitive than others of its source and length"
    numbers = re.fullmatch(
        rf"{words} \(ratio (\d+\.\d\d), allowed is at most (\d+\.\d\d)\)", found or ""
    )
    assert numbers
    assert float(numbers[1]) > float(numbers[2])
    texts = [repeated, _text("Why?", _prose(1, 11))]
    good, poor = _reasons(texts, trusted=[repeated] * 100)
    assert good is None
    assert (poor or "").startswith(
        "its answer is less compressible than others of its source and length (ratio 3."
    )


def test_bands_are_those_of_grouped_ratios() -> None:
    """Nearest quantile and median of each kind that is many, to the bit, also of equal ratios."""
    rng = np.random.default_rng(0)
    for digits, num in itertools.product((0, 1, 7), (0, 1, 99, 100, 101, 731, 4_000)):
        for num_kinds in (1, 3):
            columns = {
                "source": rng.integers(0, num_kinds, num).astype(np.uint32),
                "length": np.full(num, 9, np.uint8),
                "ratio": (rng.gamma(2, 1, num) + 0.1).round(digits).astype(np.float32) + 1,
            }
            answers = pl.DataFrame(columns).with_columns(
                source=pl.when(pl.col("source") < 2).then("source")
            )
            ratio = pl.col("ratio").cast(pl.Float64)
            wanted = (
                answers.drop_nulls()
                .group_by("source")
                .agg(
                    pl.len().alias("num"),
                    low=2.5 * ratio.quantile(0.05) - 1.5 * ratio.median(),
                    high=4 * ratio.median(),
                )
                .filter(pl.col("num") >= 100)
                .sort("source")
            )
            found = _bands(answers, pl.col("source"))
            assert found.equals(wanted.select(pl.col("source").alias("kind"), "low", "high"))


def _samples(num_noisy: int = 6) -> pl.DataFrame:
    good = [_sample(_prose(seed, 1), _prose(100 + seed, 2)) for seed in range(40)]
    rng = random.Random(3)
    noisy = [
        _sample(f"Question {n}?", base64.b64encode(rng.randbytes(60 + n)).decode())
        for n in range(num_noisy)
    ]
    return pool_table([*good[:20], *noisy, *good[20:]])


def _sample(question: str, answer: str) -> Sample:
    return Sample((Turn("user", question), Turn("assistant", answer)))


_K = {"k1": 20, "k2": 8, "k3": 2}


def _select(table: pl.DataFrame, **options: object) -> Selection:
    settings = {"strategy": "long_range", "budget_samples": 12, **_K, **options}
    return select(table, None, "sft", SelectionConfig(**settings))


@pytest.mark.parametrize("num_shards", [1, 3])
def test_noise_takes_no_part_and_the_ledger_says_why(num_shards: int) -> None:
    """All else is as if the pool did not hold it, with shards and without."""
    table = _samples()
    is_good = [not 20 <= row < 26 for row in range(46)]
    selection = _select(table, num_shards=num_shards)
    clean = _select(table.filter(is_good), num_shards=num_shards)
    assert [table["sample_id"][i] for i in selection.picks] == clean.ledger.filter(
        pl.col("rank").is_not_null()
    ).sort("rank")["sample_id"].to_list()
    rest = selection.ledger.filter(is_good)
    assert rest.drop("source_row", "noise").equals(clean.ledger.drop("source_row", "noise"))
    marked = selection.ledger.filter(fate="noise")
    assert marked["sample_id"].to_list() == table["sample_id"][20:26].to_list()
    words = "its answer is base64 (100% of it, allowed is at most 50%)"
    assert set(marked["noise"]) == {words}
    assert marked["rank"].null_count() == 6
    row = marked.row(0, named=True)
    assert explain_fate(row, selection.manifest) == f"marked as noise: {words}"
    assert selection.manifest["noise"] == {
        "num_marked": 6,
        "share": 6 / 46,
        "reasons": {"its answer is base64": 6},
    }


def test_the_guard_is_on_but_for_the_published_strategies() -> None:
    """And what it says goes: off, it leaves no trace in ledger and manifest."""
    table = _samples()
    assert "noise" in _select(table).ledger
    for options in ({"strategy": "zip"}, {"strategy": "random"}, {"noise_guard": False}):
        selection = _select(table, **options)
        assert "noise" not in selection.ledger
        assert "noise" not in selection.manifest
    on = _select(table, strategy="zip", noise_guard=True)
    assert on.manifest["fates"]["noise"] == 6


def test_noise_has_neither_score_nor_weight_in_a_choice() -> None:
    """A strategy that scores selects as if the pool did not hold it, also by stored n-grams."""
    table = _samples()
    is_good = [not 20 <= row < 26 for row in range(46)]
    selection = _select(table, strategy="coverage")
    clean = _select(table.filter(is_good), strategy="coverage")
    rest = selection.ledger.filter(is_good)
    assert rest.drop("source_row", "noise").equals(clean.ledger.drop("source_row", "noise"))
    assert selection.ledger.filter(fate="noise")["score"].null_count() == 6
    texts = texts_of(table, "sft")
    with (
        TemporaryTexts.write([texts]) as file,
        TemporaryTexts.write([ngram_counts(texts)]) as ngrams,
    ):
        candidates = Candidates(table, file, ngrams=lambda: ngrams)
        config = SelectionConfig(strategy="coverage", budget_samples=12)
        assert select_candidates(candidates, "sft", config).picks == selection.picks


def test_a_guarded_selection_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """The checkpoint is that of the samples that take part."""
    table, path = _samples(), tmp_path / "checkpoint"
    config = SelectionConfig(strategy="long_range", budget_samples=12, **_K)

    def stop(_: object) -> None:
        if path.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select(table, None, "sft", config, checkpoint=path, progress=stop)
    rounds: list[int] = []
    resumed = select(
        table,
        None,
        "sft",
        config,
        checkpoint=path,
        progress=lambda progress: rounds.append(progress.round),
    )
    assert rounds[:2] == [3, 4]
    assert resumed.ledger.equals(_select(table).ledger)
    assert not path.exists()


def test_pools_of_nothing_or_of_noise_alone_are_selected_from() -> None:
    """Nothing is picked, and nothing fails."""
    assert _select(_samples().clear()).picks == []
    table = _samples()[20:26]
    selection = _select(table)
    assert selection.picks == []
    assert selection.manifest["fates"] == {"noise": 6}


def test_a_configuration_without_the_guard_keeps_its_fingerprint() -> None:
    """It has none of the fields, and with the guard it is another."""
    off = SelectionConfig(strategy="zip", budget_samples=1)
    on = SelectionConfig(strategy="zip", budget_samples=1, noise_guard=True)
    trusting = SelectionConfig(
        strategy="zip", budget_samples=1, noise_guard=True, trusted="good.jsonl"
    )
    assert not {"noise_guard", "trusted"} & off.as_dict().keys()
    assert on.as_dict() == off.as_dict() | {"noise_guard": True}
    assert trusting.as_dict() == on.as_dict() | {"trusted": "good.jsonl"}
    assert len({config.fingerprint() for config in (off, on, trusting)}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"strategy": "zip", "trusted": "good.jsonl"},
            "trusted: got 'good.jsonl', and strategy zip has no noise guard; turn noise_guard on, "
            "or leave trusted out",
        ),
        (
            {"reference_compat": True, "noise_guard": True},
            "reference_compat: got noise_guard; the published implementation takes every row, "
            "leave noise_guard off",
        ),
    ],
)
def test_a_guard_that_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    """The message names the option and the remedy."""
    with pytest.raises(UserError) as caught:
        SelectionConfig(budget_samples=1, **options)
    assert str(caught.value) == message


_CODE = Path(__file__).parents[2]
_SHARED = Path(os.environ.get("ZIP_SHARED", Path(__file__).parents[3] / "shared"))


def _noise_rows(rng: random.Random, answers: Sequence[str]) -> list[str]:
    """Return 200 noise answers of ten kinds."""
    vocabulary = sorted({word for answer in answers[:2000] for word in answer.split()})

    def shuffled(words: Sequence[str]) -> str:
        return " ".join(rng.sample(words, len(words)))

    def mashed(num: int) -> str:
        rows = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
        return " ".join("".join(rng.choices(rng.choice(rows), k=7)) for _ in range(num))

    long = [answer for answer in answers if 30 <= len(answer.split()) <= 200]
    chinese = [_CHINESE[n:] + _CHINESE[:n] for n in range(20)]
    code = ("a(b,c);", "if(d>e){f()}", "var g=h[3];", "return i?j:k}", "for(;l<m;l++)n(o);")
    kinds = [
        lambda: base64.b64encode(rng.randbytes(rng.randint(60, 600))).decode(),
        lambda: rng.randbytes(rng.randint(40, 400)).hex(),
        lambda: "".join(chr(rng.randint(33, 126)) for _ in range(rng.randint(80, 600))),
        lambda: shuffled(rng.choice(long).split()),
        lambda: " ".join(rng.choices(vocabulary, k=rng.randint(30, 90))),
        lambda: rng.choice(chinese).encode().decode("latin-1"),
        lambda: rng.choice(chinese).encode().decode("latin-1").encode().decode("latin-1"),
        lambda: "".join(rng.choices(code, k=rng.randint(20, 60))),
        lambda: mashed(rng.randint(10, 60)),
        lambda: f"{rng.choice(vocabulary)} " * rng.randint(60, 200),
    ]
    return [kind() for _ in range(20) for kind in kinds]


@pytest.mark.slow
@pytest.mark.skipif(not (_SHARED / "pools").is_dir(), reason="needs real pools in ZIP_SHARED")
def test_of_200_noise_rows_in_20000_real_ones_at_most_two_are_picked() -> None:
    """At any budget up to a million tokens, as no more are left; of the real ones 0.5% go."""
    from zip_pipeline.workflow.sources import read

    pool = read(str(_SHARED / "pools" / "sft")).samples
    real = pool.sample(20_000, seed=1)
    rng = random.Random(1)
    turns = real["turns"].to_list()
    answers = [turn[-1]["content"] for turn in turns]
    questions = [turn[0]["content"] for turn in turns[:200]]
    noise = pool_table(
        [_sample(*pair) for pair in zip(questions, _noise_rows(rng, answers), strict=True)],
        real["source"].unique(maintain_order=True).to_list(),
    )
    table = pl.concat([real, noise]).sample(fraction=1, shuffle=True, seed=2)
    texts = texts_of(table, "sft")
    with TemporaryTexts.write([texts]) as file:
        found = find_noise(Candidates(table, file), workers=2)
    is_noise = table["sample_id"].is_in(noise["sample_id"].to_list())
    assert found.filter(is_noise).null_count() <= 2
    marked = found.is_not_null()
    assert marked.filter(~is_noise).mean() < 0.005
    is_code = table["source"].str.starts_with("code_alpaca") & ~is_noise
    assert marked.filter(is_code).mean() < 0.01
    config = SelectionConfig(strategy="long_range", budget_tokens=200_000)
    selection = select(table, None, "sft", config)
    assert is_noise[selection.picks].sum() <= 2
