"""Signal contamination: what of benchmarks is found, where, and what is left alone."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline import read
from zip_pipeline.errors import UserError
from zip_pipeline.samples import AnySample, PreferencePair, Sample, Turn
from zip_pipeline.signals import settings_of, signals
from zip_pipeline.signals.language import said_by
from zip_pipeline_tests.signals.measured import TOOLS, measured, table_of, talk

CONTAMINATION = signals["contamination"]
_WORDS = ["river", "stone", "garden", "seven", "letter", "market", "engine", "winter", "gives"]
_WORDS += ["village", "bridge", "story", "finds", "every", "under", "twelve", "costs", "apples"]


def _words(rng: random.Random, low: int, high: int) -> str:
    text = " ".join(rng.choice(_WORDS) for _ in range(rng.randint(low, high)))
    return f"{text.capitalize()}."


def _rows(num: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    return [(_words(rng, 10, 60), _words(rng, 10, 80)) for _ in range(num)]


def _benchmark(root: Path, rows: Sequence[tuple[str, str]], name: str = "exam.jsonl") -> None:
    folder = root / "benchmarks"
    folder.mkdir(exist_ok=True)
    lines = (json.dumps({"question": asked, "answer": said}) + "\n" for asked, said in rows)
    (folder / name).write_text("".join(lines), encoding="utf-8")


def _marked(root: Path, samples: Sequence[AnySample], **policy: object) -> list[str | None]:
    table = measured("contamination", table_of(samples), root=root)
    return CONTAMINATION.marks(table, settings_of("contamination", policy)).to_list()


def _shout(text: str) -> str:
    return text.upper().replace(" ", "\n\t").replace(".", " ?!")


def _part(text: str) -> str:
    words = text.split()
    return " ".join(words[-round(0.8 * len(words)) :])


PLANTS: dict[str, Callable[[str, str, str], Sample]] = {
    "verbatim": lambda asked, said, other: talk(asked, said),
    "case and space changed": lambda asked, said, other: talk(_shout(asked), other),
    "80% of the question": lambda asked, said, other: talk(_part(asked), other),
    "answer only": lambda asked, said, other: talk(other, said),
    "in the middle of a long turn": lambda asked, said, other: talk(
        f"{other * 20} {asked} {other * 20}", other
    ),
}


def test_questions_of_the_mt_bench_in_use_count(tmp_path: Path) -> None:
    """Of both turns, wherever the file lies, beside files that are named."""
    first, second, third, other = (asked for asked, _ in _rows(4, seed=3))
    _benchmark(tmp_path, [(third, "Yes.")])
    question = {"question_id": 81, "category": "writing", "turns": [first, second]}
    (tmp_path / "mt").mkdir()
    path = tmp_path / "mt" / "question.jsonl"
    path.write_text(json.dumps(question) + "\n")
    table = '[mt_bench]\nquestions = "mt/question.jsonl"\nprompts = "mt/prompts.jsonl"\n'
    (tmp_path / "zip_pipeline.toml").write_text(table)
    marks = _marked(tmp_path, [talk(said, "No.") for said in (first, second, third, other)])
    assert all("question.jsonl, row 1," in (mark or "") for mark in marks[:2])
    assert "exam.jsonl, row 1," in (marks[2] or "")
    assert marks[3] is None
    tools = replace(TOOLS, root=tmp_path)
    settings = settings_of("contamination", {})
    before = CONTAMINATION.identity(settings, tools)
    path.write_text(json.dumps(question | {"turns": [third, second]}) + "\n")
    assert CONTAMINATION.identity(settings, tools) != before
    path.unlink()
    with pytest.raises(UserError, match=r"mt_bench: questions: .*question\.jsonl: no such file"):
        CONTAMINATION.identity(settings, tools)


@pytest.mark.parametrize("name", PLANTS)
def test_what_is_planted_is_found(tmp_path: Path, name: str) -> None:
    """At least 95% of 200 rows, each by its own file and row."""
    rows = _rows(200, seed=1)
    _benchmark(tmp_path, rows)
    others = [asked for asked, _ in _rows(200, seed=2)]
    planted = [PLANTS[name](*row, other) for row, other in zip(rows, others, strict=True)]
    marks = _marked(tmp_path, planted)
    right = [
        mark is not None and f"of benchmarks/exam.jsonl, row {number}," in mark
        for number, mark in enumerate(marks, 1)
    ]
    assert sum(right) >= 190


def test_clean_samples_are_left_alone(tmp_path: Path) -> None:
    """Of 1,000 samples in the same words none is marked, at most one may be."""
    _benchmark(tmp_path, _rows(200, seed=1))
    marks = _marked(tmp_path, [talk(*row) for row in _rows(1000, seed=3)])
    assert sum(mark is not None for mark in marks) <= 1


_QUESTION = "A farmer has twelve hens and sells the eggs of nine hens every day. How many are left?"


def test_spans_tell_what_stands_where(tmp_path: Path) -> None:
    """In characters of the turn, with file and row; a short answer counts beside its question."""
    _benchmark(tmp_path, [("Name a river.", "Nile"), (_QUESTION, "Three hens")])
    table = measured(
        "contamination",
        table_of([talk(f"Solve: {_QUESTION}", "It is three  HENS."), talk("Hens?", "Three hens")]),
        root=tmp_path,
    )
    assert table["overlap"].to_list() == ["both", "none"]
    asked, said = table["spans"].to_list()[0]
    assert f"Solve: {_QUESTION}"[asked["start"] : asked["end"]] == _QUESTION.rstrip("?")
    assert "It is three  HENS."[said["start"] : said["end"]] == "three  HENS"
    told = ("column", "turn", "field", "role", "file", "row", "side", "num_words", "share")
    place = ("turns", 1, "content", "user", "benchmarks/exam.jsonl", 2)
    assert tuple(asked[name] for name in told) == (*place, "prompt", 18, 1.0)
    place = ("turns", 2, "content", "assistant", "benchmarks/exam.jsonl", 2)
    assert tuple(said[name] for name in told) == (*place, "answer", 2, 1.0)
    marks = CONTAMINATION.marks(table, settings_of("contamination", {}))
    assert marks.to_list() == [
        "18 words (100%) of the prompt of benchmarks/exam.jsonl, row 2, stand in turns, turn 1, "
        "characters 7 to 92",
        None,
    ]


@pytest.mark.parametrize(
    ("sample", "overlap"),
    [
        (talk("Name a big river", "The Nile."), "both"),
        (talk("Name a big river", "The Rhine."), "none"),
        (talk("Name a big river of Asia", "The Nile."), "none"),
        (talk("Where are crocodiles?", "In the Nile."), "none"),
    ],
)
def test_short_rows_count_whole(tmp_path: Path, sample: Sample, overlap: str) -> None:
    """A short question is a whole turn, and its answer stands in the answer."""
    _benchmark(tmp_path, [("Name a big river!", "Nile")])
    assert measured("contamination", table_of([sample]), root=tmp_path)["overlap"][0] == overlap


def test_words_of_a_template_are_no_evidence(tmp_path: Path) -> None:
    """What stands in eleven rows of a file is not looked for, in ten it is."""
    head = "Read the text and answer the question below with one of the four options given here"
    for num_rows, overlap in ((10, "prompt"), (11, "none")):
        rows = [(f"{head} {' '.join([name] * 20)}", "yes") for name in "abcdefghijk"[:num_rows]]
        _benchmark(tmp_path, rows)
        table = table_of([talk(f"{head}: who?", "me")])
        assert measured("contamination", table, root=tmp_path)["overlap"].to_list() == [overlap]


def test_pairs_reasoning_and_chinese_are_looked_into(tmp_path: Path) -> None:
    """Every column and field of a turn is; a Chinese character is a word."""
    chinese = "列表是空的并且不存在索引所以程序会报错"
    _benchmark(tmp_path, [(_QUESTION, chinese)])
    pair = PreferencePair(
        (Turn("user", "Hm?"),),
        (Turn("assistant", "Yes", reasoning=_QUESTION),),
        (Turn("assistant", f"好{chinese}!"),),
    )
    table = measured("contamination", table_of([pair], "preference"), "preference", root=tmp_path)
    found = [
        (span["column"], span["turn"], span["field"], span["side"], span["start"], span["end"])
        for span in table["spans"].to_list()[0]
    ]
    assert found == [
        ("chosen", 1, "reasoning", "prompt", 0, 85),
        ("rejected", 1, "content", "answer", 1, 20),
    ]
    assert table["overlap"].to_list() == ["answer"]


def test_policy_and_share_decide_what_is_marked(tmp_path: Path) -> None:
    """They change no measured value, and so not the identity."""
    _benchmark(tmp_path, [(f"{_QUESTION} {_words(random.Random(1), 40, 40)}", "Three")])
    sample = talk(_QUESTION, "Three")
    (mark,) = _marked(tmp_path, [sample])
    assert mark is not None
    assert "18 words (31%)" in mark
    assert _marked(tmp_path, [sample], policy="report") == [None]
    assert _marked(tmp_path, [sample], min_share=0.31) == [mark]
    # The short answer stands there whole, but counts beside its question only.
    assert _marked(tmp_path, [sample], min_share=0.32) == [None]
    tools = replace(TOOLS, root=tmp_path)
    both = ({}, {"policy": "report", "min_share": 0.5})
    settings = [settings_of("contamination", values) for values in both]
    assert len({CONTAMINATION.identity(each, tools) for each in settings}) == 1
    with pytest.raises(UserError, match="policy: got 'mask'; allowed are exclude, report"):
        settings_of("contamination", {"policy": "mask"})


def test_a_changed_file_is_another_identity(tmp_path: Path) -> None:
    """So is a new one; a note beside them is not."""
    tools, settings = replace(TOOLS, root=tmp_path), settings_of("contamination", {})
    seen = [CONTAMINATION.identity(settings, tools)]
    for rows, name in ((1, "a.jsonl"), (2, "a.jsonl"), (2, "b.jsonl")):
        _benchmark(tmp_path, _rows(rows, 1), name)
        seen.append(CONTAMINATION.identity(settings, tools))
    (tmp_path / "benchmarks" / "README.md").write_text("notes")
    assert len(set(seen)) == 4
    assert CONTAMINATION.identity(settings, tools) == seen[-1]


def test_named_files_are_looked_for_instead(tmp_path: Path) -> None:
    """Relative to the data root; one that is not there is an error, the folder may be absent."""
    sample = talk(_QUESTION, "Three")
    nothing = measured("contamination", table_of([sample]), root=tmp_path)
    assert nothing.row(0) == (None, None)
    assert CONTAMINATION.marks(nothing, settings_of("contamination", {})).to_list() == [None]
    (tmp_path / "other.csv").write_text(f'question,answer\n"{_QUESTION}",Three\n')
    table = measured("contamination", table_of([sample]), root=tmp_path, files=["other.csv"])
    assert table["spans"].to_list()[0][0]["file"] == "other.csv"
    with pytest.raises(UserError, match=r"files: .*none\.csv: no such file or folder"):
        measured("contamination", table_of([sample]), root=tmp_path, files=["none.csv"])


def test_questions_without_answers_are_looked_for(tmp_path: Path) -> None:
    """Rows that are no samples, as of MT-bench, give their texts."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    row = {"question_id": 81, "category": "math", "turns": [_QUESTION, "Why is that so?"]}
    (folder / "mt.jsonl").write_text(f"not json\n{json.dumps(row)}\n")
    (mark,) = _marked(tmp_path, [talk(_QUESTION, "Three")])
    assert mark is not None
    assert "of the prompt of benchmarks/mt.jsonl, row 2, stand in" in mark


def test_counts_are_by_file_and_source(tmp_path: Path) -> None:
    """A sample counts once for each file that it overlaps with."""
    _benchmark(tmp_path, [(_QUESTION, "Three")], "a.jsonl")
    _benchmark(tmp_path, [(_QUESTION, _words(random.Random(1), 20, 20))], "b.jsonl")
    samples = [talk(_QUESTION, "Three"), talk(_QUESTION, "Four"), talk("No", "No")]
    table = measured("contamination", table_of(samples), root=tmp_path)
    counts = signals["contamination"].by_source(pl.Series(["web", "book", "web"]), table)
    assert counts.rows() == [
        ("benchmarks/a.jsonl", "book", 1, 0, 0),
        ("benchmarks/a.jsonl", "web", 0, 0, 1),
        ("benchmarks/b.jsonl", "book", 1, 0, 0),
        ("benchmarks/b.jsonl", "web", 1, 0, 0),
    ]


@pytest.mark.slow
def test_real_samples(tmp_path: Path, shared_folder: Path) -> None:
    """GSM8K as its own test set, planted in and beside samples of other sources."""
    folder = shared_folder / "pools" / "sft"
    gsm8k = read(folder / "gsm8k_train.jsonl.gz").samples
    asked, said = (said_by(gsm8k, "sft", [role]) for role in ("user", "assistant"))
    rows = list(zip(asked, said, strict=True))
    random.Random(1).shuffle(rows)
    exam, train = rows[:1319], rows[1319:]
    _benchmark(tmp_path, exam)
    names = ("alpaca_5_percent", "gpteacher_roleplay", "code_alpaca_new")
    clean = read([folder / f"{name}.json.gz" for name in names]).samples
    others = said_by(clean, "sft", ["user"])
    of_clean = measured("contamination", clean, block=4096, root=tmp_path)
    num_clean = CONTAMINATION.marks(of_clean, settings_of("contamination", {})).drop_nulls().len()
    print(f"clean: {num_clean} of {clean.height:,} marked")
    assert num_clean <= clean.height / 1000
    for name, plant in PLANTS.items():
        planted = [plant(*row, other) for row, other in zip(exam, others, strict=False)]
        found = sum(mark is not None for mark in _marked(tmp_path, planted))
        print(f"{name}: {found} of {len(planted):,} found")
        assert found >= 0.95 * len(planted)
    marks = list(filter(None, _marked(tmp_path, [talk(*row) for row in train])))
    print(f"GSM8K: {len(marks)} of {len(train):,} other rows marked", *marks, sep="\n")
    assert len(marks) < 0.05 * len(train)
