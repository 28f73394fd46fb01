"""The MT-bench protocol, from the user's files to Z."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from zip_pipeline.errors import UserError
from zip_pipeline.evaluation.mt_bench import MtBenchSettings, load_bench, run_mt_bench
from zip_pipeline.judge.client import ChatClient, Endpoint, EndpointError, ExchangeStore
from zip_pipeline_tests.judge.judge_server import (
    Behaviour,
    JudgeServer,
    Received,
    fails,
    in_turn,
    says,
)

QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write {a} poem.", "Shorter\u2028now."]},
    {"question_id": 111, "category": "math", "turns": ["1 + 1?", "Plus 3?"], "reference": []},
    {"question_id": "x", "category": "stem", "turns": ["Why is it blue?", "And red?"]},
]
REFERENCES = [{"question_id": 111, "choices": [{"turns": ["It is 2.", "It is 5."]}]}]
PROMPTS = [
    {"name": "pair-v2", "system_prompt": "other"},
    {
        "name": "single-v1",
        "system_prompt": "You judge.",
        "prompt_template": "Q {question} A {answer} in {{braces}}",
    },
    {
        "name": "single-math-v1",
        "system_prompt": "You judge math.",
        "prompt_template": "Q {question} REF {ref_answer_1} A {answer}",
    },
    {
        "name": "single-v1-multi-turn",
        "system_prompt": "You judge turn two.",
        "prompt_template": "{question_1} / {answer_1} / {question_2} / {answer_2}",
    },
    {
        "name": "single-math-v1-multi-turn",
        "system_prompt": "You judge math, turn two.",
        "prompt_template": "{question_1} / {ref_answer_1} / {answer_1} / {question_2} / "
        "{ref_answer_2} / {answer_2}",
    },
]


def write_bench(folder: Path, **replaced: list[object]) -> dict[str, Path]:
    """Write the benchmark's files, some with other records, and return their paths."""
    records = {"questions": QUESTIONS, "prompts": PROMPTS, "references": REFERENCES} | replaced
    paths = {}
    for name, rows in records.items():
        lines = [
            row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows
        ]
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return paths


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (r'{"question_id": 1, "category": "x", "turns": ["\ud83d", "b"]}', "half a character"),
        ('{"question_id": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deep"),
    ],
)
def test_a_line_that_no_judge_can_be_asked_is_named(tmp_path: Path, line: str, words: str) -> None:
    """Half an emoji cannot be sent, and deep nesting cannot be read."""
    paths = write_bench(tmp_path, questions=[QUESTIONS[0], line])
    with pytest.raises(UserError, match=rf"questions\.jsonl, line 2: .*{words}"):
        load_bench(**paths)
    paths["questions"].write_bytes(b"\xff{}")
    with pytest.raises(UserError, match=r"questions\.jsonl: cannot be read .* in UTF-8"):
        load_bench(**paths)


def _run(
    model: JudgeServer,
    judge: JudgeServer,
    folder: Path,
    repetitions: int = 2,
    name: str = "v1",
    num_workers: int = 8,
) -> dict[str, Any]:
    served = Endpoint(url=model.url, model="served")
    asked = Endpoint(url=judge.url, model="judge", max_concurrency=num_workers)
    paths = write_bench(folder)
    settings = MtBenchSettings(judge=asked, answers=served, repetitions=repetitions, **paths)
    with (
        ChatClient(served) as answering,
        ChatClient(asked) as judging,
        ExchangeStore(folder / "mt_bench.jsonl") as store,
    ):
        return run_mt_bench(
            load_bench(**paths),
            settings,
            model=answering.complete,
            model_name=name,
            judge=judging.complete,
            store=store,
        )


def _answers(received: Received, _: int) -> Behaviour:
    turn = (len(received.body["messages"]) + 1) // 2
    ends = "length" if received.question == "And red?" else "stop"
    return says(f"answer {turn} to {received.question}", finish_reason=ends)


def _judges(received: Received, _: int) -> Behaviour:
    by_system = {
        "You judge.": "[[8]]",
        "You judge math.": "[[2]]",
        "You judge turn two.": "[[6]]",
        "You judge math, turn two.": "none",
    }
    return says(by_system[received.body["messages"][0]["content"]])


def test_mt_bench_follows_the_protocol(tmp_path: Path):
    """Two turns are answered at the category's temperature, and each is judged at 0."""
    with JudgeServer(_answers) as model, JudgeServer(_judges) as judge:
        _run(model, judge, tmp_path, repetitions=1)
    asked = {request.question: request.body for request in model.requests}
    assert len(model.requests) == 6
    assert asked["Shorter\u2028now."]["messages"] == [
        {"role": "user", "content": "Write {a} poem."},
        {"role": "assistant", "content": "answer 1 to Write {a} poem."},
        {"role": "user", "content": "Shorter\u2028now."},
    ]
    assert {q: body["temperature"] for q, body in asked.items() if "?" not in q} == {
        "Write {a} poem.": 0.7,
        "Shorter\u2028now.": 0.7,
    }
    assert asked["Plus 3?"]["temperature"] == 0.0
    assert asked["And red?"]["temperature"] == 0.1
    assert {body["max_tokens"] for body in asked.values()} == {1024}
    judged = [r.body for r in judge.requests if len(r.body["messages"]) == 2]
    assert {body["temperature"] for body in judged} == {0.0}
    assert sorted(body["messages"][1]["content"] for body in judged) == sorted(
        [
            "Q Write {a} poem. A answer 1 to Write {a} poem. in {braces}",
            "Write {a} poem. / answer 1 to Write {a} poem. / Shorter\u2028now. / "
            "answer 2 to Shorter\u2028now.",
            "Q 1 + 1? REF It is 2. A answer 1 to 1 + 1?",
            "1 + 1? / It is 2. / answer 1 to 1 + 1? / Plus 3? / It is 5. / answer 2 to Plus 3?",
            "Q Why is it blue? A answer 1 to Why is it blue? in {braces}",
            "Why is it blue? / answer 1 to Why is it blue? / And red? / answer 2 to And red?",
        ]
    )


def test_mt_bench_averages_turns_and_leaves_missing_ratings_out(tmp_path: Path):
    """Z is the mean over rated turns: 8, 6, 2, 8, 6 make 6.0; the unrated one is counted."""
    with JudgeServer(_answers) as model, JudgeServer(_judges) as judge:
        result = _run(model, judge, tmp_path)
    assert result["Z"] == 6.0
    assert result["by_repetition"] == (6.0, 6.0)
    assert result["Z_spread"] == 0.0
    assert (result["num_ratings"], result["num_missing"]) == (10, 2)
    assert result["num_malformed"] == 6
    assert result["by_category"] == {"math": 2.0, "stem": 7.0, "writing": 7.0}
    assert result["by_turn"] == [6.0, 6.0]
    assert (result["num_questions"], result["num_cut_answers"]) == (3, 1)


def test_mt_bench_asks_nothing_twice(tmp_path: Path):
    """A second run asks nobody; more repetitions ask only the judge; another model is asked."""
    with JudgeServer(_answers) as model, JudgeServer(_judges) as judge:
        first = _run(model, judge, tmp_path)
        counts = len(model.requests), len(judge.requests)
        assert counts == (6, 2 * (5 + 3))
        assert _run(model, judge, tmp_path) == first
        assert (len(model.requests), len(judge.requests)) == counts
        _run(model, judge, tmp_path, repetitions=3)
        assert (len(model.requests), len(judge.requests)) == (6, 24)
        _run(model, judge, tmp_path, name="v2")
        assert len(model.requests) == 12
    assert set(Counter(repr(r.body["messages"]) for r in model.requests).values()) == {2}


def test_mt_bench_judges_a_refused_answer_as_an_empty_one(tmp_path: Path):
    """A question that the model cannot take costs its rating, not the run; others are asked."""

    def refuses(received: Received, count: int) -> Behaviour:
        too_long = received.question in ("Plus 3?", "Why is it blue?")
        return fails(400, "too long") if too_long else _answers(received, count)

    with JudgeServer(refuses) as model, JudgeServer(_judges) as judge:
        result = _run(model, judge, tmp_path, repetitions=1)
    assert result["num_refused_answers"] == 3
    assert result["num_cut_answers"] == 0
    assert sorted(r.question for r in model.requests) == [
        "1 + 1?",
        "Plus 3?",
        "Shorter\u2028now.",
        "Why is it blue?",
        "Write {a} poem.",
    ]
    judged = [r.body["messages"][1]["content"] for r in judge.requests]
    assert "Q Why is it blue? A  in {braces}" in judged
    assert "Why is it blue? /  / And red? / " in judged


def test_mt_bench_of_a_model_that_refuses_everything_fails(tmp_path: Path):
    """A server that takes no question as right is a fault of the settings, not a Z of 1."""
    with (
        JudgeServer(lambda *_: fails(400, "no such field")) as model,
        JudgeServer(_judges) as judge,
        pytest.raises(EndpointError, match=r"every question was refused; the first: .* HTTP 400"),
    ):
        _run(model, judge, tmp_path)
    assert not judge.requests


def test_mt_bench_reports_the_drift_between_repetitions(tmp_path: Path):
    """A judge that rates each repetition differently has a drift."""
    seen = Counter[str]()

    def wavering(received: Received, _: int) -> Behaviour:
        seen[received.question] += 1
        return says(f"[[{6 + seen[received.question]}]]")

    with JudgeServer(_answers) as model, JudgeServer(wavering) as judge:
        result = _run(model, judge, tmp_path, num_workers=1)
    assert sorted(result["by_repetition"]) == [7.0, 8.0]
    assert result["Z"] == 7.5
    assert result["Z_spread"] == pytest.approx(0.5**0.5)


def test_mt_bench_of_one_unrated_category_leaves_it_out(tmp_path: Path):
    """A category without any rating has no mean, rather than one of 0."""
    respond = in_turn([], says("I cannot say."))

    def only_writing(received: Received, count: int) -> Behaviour:
        return says("[[4]]") if "poem" in repr(received.body) else respond(received, count)

    with JudgeServer(_answers) as model, JudgeServer(only_writing) as judge:
        result = _run(model, judge, tmp_path, repetitions=1)
    assert result["by_category"] == {"writing": 4.0}
    assert result["num_missing"] == 4


_QUESTION = QUESTIONS[0]


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"questions": []}, r"questions\.jsonl: no question in it"),
        ({"questions": ["{"]}, r"questions\.jsonl, line 1: not JSON"),
        ({"questions": [[1]]}, r"line 1: list; must be a JSON object"),
        ({"questions": [_QUESTION, _QUESTION]}, "question_id 81 more than once"),
        ({"questions": [_QUESTION | {"turns": ["one"]}]}, "line 1: turns must be a list of two"),
        ({"questions": [_QUESTION | {"category": 3}]}, "line 1: category is 3; must be text"),
        ({"questions": [_QUESTION | {"question_id": None}]}, "question_id is None"),
        ({"references": []}, "no reference answer for the questions 111 of math"),
        ({"references": [{"question_id": 111}]}, r"choices\[0\]\.turns must be a list of two"),
        ({"prompts": PROMPTS[:3]}, "no prompt named single-v1-multi-turn, single-math-v1-multi"),
        (
            {"prompts": [PROMPTS[1] | {"prompt_template": "{question} {anwser}"}]},
            r"line 1: prompt_template cannot be filled in \(KeyError\('anwser'\)\); allowed "
            r"places: \{question\}, \{answer\}",
        ),
        ({"prompts": [PROMPTS[1] | {"prompt_template": "{"}]}, "cannot be filled in"),
    ],
)
def test_bench_files_are_checked_before_anything_is_asked(
    tmp_path: Path, replaced: dict[str, list[object]], message: str
):
    """What is wrong with a file is said with its name and line."""
    with pytest.raises(ValueError, match=message):
        load_bench(**write_bench(tmp_path, **replaced))


def test_bench_needs_itswrite_bench(tmp_path: Path):
    """A path without a file is named; references are optional where no question needs them."""
    paths = write_bench(tmp_path, questions=[_QUESTION])
    bench = load_bench(paths["questions"], paths["prompts"])
    assert [q.question_id for q in bench.questions] == ["81"]
    with pytest.raises(ValueError, match=r"absent\.jsonl: no such file"):
        load_bench(tmp_path / "absent.jsonl", paths["prompts"])


def test_bench_takes_references_from_the_questions(tmp_path: Path):
    """A reference in the question's own record needs no further file."""
    own = QUESTIONS[1] | {"reference": ["2", "5"]}
    paths = write_bench(tmp_path, questions=[own])
    assert load_bench(paths["questions"], paths["prompts"]).questions[0].references == ("2", "5")
