"""The MT-bench protocol: a model answers two-turn questions, a judge rates each turn 1 to 10."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zip_pipeline.errors import UserError
from zip_pipeline.evaluation.client import (
    EndpointError,
    Exchange,
    ExchangeStore,
    Message,
    Reply,
    RequestRefused,
    Responder,
)
from zip_pipeline.evaluation.judge import (
    JudgeSettings,
    Rating,
    RatingSummary,
    ask_in_parallel,
    rate_all,
    summarise,
)

REFERENCE_CATEGORIES = frozenset({"math", "reasoning", "coding"})
_PROMPTS = ("single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn")
_FIELDS = ("question", "answer", "question_1", "question_2", "answer_1", "answer_2")
_REFERENCE_FIELDS = ("ref_answer_1", "ref_answer_2")


@dataclass(frozen=True)
class BenchQuestion:
    """A question of two turns, with the reference answers that its category needs."""

    question_id: str
    category: str
    turns: tuple[str, str]
    references: tuple[str, str] | None


@dataclass(frozen=True)
class JudgePrompt:
    """What a judge is told; ``template`` has named places for questions and answers."""

    system: str
    template: str


@dataclass(frozen=True)
class Bench:
    """All that the protocol reads from files."""

    questions: tuple[BenchQuestion, ...]
    prompts: Mapping[str, JudgePrompt]


def load_bench(questions: Path, prompts: Path, references: Path | None = None) -> Bench:
    """Read the files of the benchmark.

    Args:
        questions: JSONL with ``question_id``, ``category``, ``turns`` (two) and, where the
            references are here, ``reference`` (two).
        prompts: JSONL with ``name``, ``system_prompt`` and ``prompt_template``; the four
            ``single-...`` prompts of the benchmark are read.
        references: JSONL with ``question_id`` and ``choices[0].turns``, or None.

    Raises:
        UserError: a file does not exist, a line is not such a record, a prompt is missing, or
            a question of math, reasoning or coding has no reference answer.

    Source: MT-bench (arXiv 2306.05685), formats of its published files.
    """
    known = dict(_references(references)) if references is not None else {}
    read = [_question(record, where, known) for record, where in _records(questions)]
    if not read:
        raise UserError(f"{questions}: no question in it")
    ids = [question.question_id for question in read]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise UserError(f"{questions}: question_id {', '.join(twice)} more than once")
    without = [q.question_id for q in read if _needs_reference(q) and q.references is None]
    if without:
        raise UserError(
            f"{questions}: no reference answer for the questions {', '.join(without)} of math, "
            "reasoning or coding; point to the file that has them"
        )
    return Bench(tuple(read), _prompts(prompts))


def _needs_reference(question: BenchQuestion) -> bool:
    return question.category in REFERENCE_CATEGORIES


def _records(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the records of a JSONL file, each with the file and line for messages."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; point to a file in the benchmark's format")
    # Not splitlines: a text may hold other line ends that JSON leaves as they are.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise UserError(f"{where}: {type(record).__name__}; must be a JSON object")
        yield record, where


def _text(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise UserError(f"{where}: {name} is {value!r}; must be text")
    return value


def _two(value: object, name: str, where: str) -> tuple[str, str]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value):
        return value[0], value[1]
    raise UserError(f"{where}: {name} must be a list of two texts, is {value!r:.80}")


def _question_id(record: Mapping[str, Any], where: str) -> str:
    value = record.get("question_id")
    if isinstance(value, int | str) and value != "":
        return str(value)
    raise UserError(f"{where}: question_id is {value!r}; must be a number or text")


def _question(
    record: Mapping[str, Any], where: str, references: Mapping[str, tuple[str, str]]
) -> BenchQuestion:
    question_id = _question_id(record, where)
    own = record.get("reference")
    return BenchQuestion(
        question_id,
        _text(record, "category", where),
        _two(record.get("turns"), "turns", where),
        _two(own, "reference", where) if own else references.get(question_id),
    )


def _references(path: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    for record, where in _records(path):
        choices = record.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        turns = first.get("turns") if isinstance(first, dict) else None
        yield _question_id(record, where), _two(turns, "choices[0].turns", where)


def _prompts(path: Path) -> dict[str, JudgePrompt]:
    prompts = {}
    for record, where in _records(path):
        name = record.get("name")
        if name in _PROMPTS:
            prompts[name] = _prompt(record, where, name)
    missing = [name for name in _PROMPTS if name not in prompts]
    if missing:
        raise UserError(f"{path}: no prompt named {', '.join(missing)}; all four are needed")
    return prompts


def _prompt(record: Mapping[str, Any], where: str, name: str) -> JudgePrompt:
    prompt = JudgePrompt(
        _text(record, "system_prompt", where), _text(record, "prompt_template", where)
    )
    fields: tuple[str, ...] = _FIELDS[2:] if name.endswith("multi-turn") else _FIELDS[:2]
    if "math" in name:
        fields += _REFERENCE_FIELDS
    try:
        prompt.template.format(**dict.fromkeys(fields, ""))
    except (LookupError, ValueError, AttributeError) as error:
        raise UserError(
            f"{where}: prompt_template cannot be filled in ({error!r}); allowed places: "
            f"{', '.join('{' + field + '}' for field in fields)}; other braces are doubled"
        ) from None
    return prompt


TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "stem": 0.1,
    "humanities": 0.1,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
}
"""Temperature of the answers by category; of a category that is not listed, 0.7."""
_OTHER_TEMPERATURE = 0.7
MAX_ANSWER_TOKENS = 1024
LOW, HIGH = 1.0, 10.0


@dataclass(frozen=True)
class Answer:
    """A model's two answers.

    ``num_cut`` counts those that the limit on tokens cut off, ``num_refused`` those that the
    model refused (``refusal`` says why): they are empty, and judged like any other.
    """

    turns: tuple[str, str]
    num_cut: int
    num_refused: int = 0
    refusal: str = ""


@dataclass(frozen=True)
class MtBenchResult:
    """Z by MT-bench, 1 to 10, higher = better.

    Attributes:
        summary: mean over all turns, drift of the judge, error over questions' turns, counts.
        by_category: mean rating by category; a category without any rating is left out.
        by_turn: mean rating of first and of second turns; None without any rating.
        num_questions: how many questions there are (the benchmark has 80).
        num_cut_answers: answers cut off by the limit on tokens.
        num_refused_answers: answers that the model refused, judged as empty ones.
    """

    summary: RatingSummary
    by_category: dict[str, float]
    by_turn: tuple[float | None, float | None]
    num_questions: int
    num_cut_answers: int
    num_refused_answers: int

    def as_dict(self) -> dict[str, object]:
        """Return the result as plain values, for JSON."""
        return asdict(self)


def run_mt_bench(
    bench: Bench,
    *,
    model: Responder,
    model_name: str,
    judge: Responder,
    settings: JudgeSettings,
    store: ExchangeStore,
    num_answer_workers: int = 8,
) -> MtBenchResult:
    """Return how a judge rates a model's answers to all questions.

    The judge's drift between repetitions is as large as many published gains: read Z together
    with ``summary.drift``.

    Args:
        bench: the files, from :func:`zip_pipeline.evaluation.mt_bench.load_bench`.
        model: who answers.
        model_name: names the trained model and its version; stored answers are found by it.
        judge: who rates.
        settings: how; ``low`` and ``high`` are those of :func:`mt_bench_settings`.
        store: what was asked before; a killed run goes on from it.
        num_answer_workers: answers under way at once; 1 for a model in this process.

    Raises:
        EndpointError: an endpoint failed, or the model refused every question; what is stored
            stays.

    Source: MT-bench (arXiv 2306.05685), single-answer grading.
    """

    def answer_one(question: BenchQuestion) -> Answer:
        return answer(question, model, model_name, store)

    answers = ask_in_parallel(answer_one, bench.questions, num_answer_workers)
    if all(given.num_refused == 2 for given in answers):
        raise EndpointError(f"every question was refused; the first: {answers[0].refusal}")
    prompts = [
        judge_messages(bench, question, given, turn)
        for question, given in zip(bench.questions, answers, strict=True)
        for turn in (1, 2)
    ]
    ratings = rate_all(judge, store, prompts, settings)
    return _result(bench.questions, answers, ratings)


def mt_bench_settings(model: str, *, repetitions: int = 3, num_workers: int = 8) -> JudgeSettings:
    """Return how the benchmark's judge is asked: at temperature 0, on a scale from 1 to 10."""
    return JudgeSettings(
        model=model, low=LOW, high=HIGH, repetitions=repetitions, num_workers=num_workers
    )


def answer(
    question: BenchQuestion, model: Responder, model_name: str, store: ExchangeStore
) -> Answer:
    """Return a model's answers to the two turns, the second given the first.

    After a refused turn the next is not asked: its conversation would be longer still.
    """
    messages: tuple[Message, ...] = ()
    replies: list[Reply] = []
    for turn in question.turns:
        messages += ({"role": "user", "content": turn},)
        exchange = Exchange(
            model=f"answers of {model_name}",
            messages=messages,
            temperature=TEMPERATURES.get(question.category, _OTHER_TEMPERATURE),
            max_tokens=MAX_ANSWER_TOKENS,
        )
        try:
            replies.append(store.ask(model, exchange))
        except RequestRefused as refusal:
            return _answer(replies, str(refusal))
        messages += ({"role": "assistant", "content": replies[-1].text},)
    return _answer(replies)


def _answer(replies: Sequence[Reply], refusal: str = "") -> Answer:
    num_cut = sum(reply.finish_reason == "length" for reply in replies)
    first, second, *_ = (*(reply.text for reply in replies), "", "")
    return Answer((first, second), num_cut, 2 - len(replies), refusal)


def judge_messages(
    bench: Bench, question: BenchQuestion, given: Answer, turn: int
) -> tuple[Message, Message]:
    """Return what the judge is asked about the first turn, or about the second given the first.

    Args:
        bench: with the judge prompts.
        question: the question.
        given: the model's answers.
        turn: 1 or 2.
    """
    needs_reference = question.category in REFERENCE_CATEGORIES
    name = "single-math-v1" if needs_reference else "single-v1"
    fields = {"question": question.turns[0], "answer": given.turns[0]}
    if turn == 2:
        name += "-multi-turn"
        fields = {"question_1": question.turns[0], "question_2": question.turns[1]}
        fields |= {"answer_1": given.turns[0], "answer_2": given.turns[1]}
    if needs_reference:
        assert question.references is not None
        fields |= {"ref_answer_1": question.references[0], "ref_answer_2": question.references[1]}
    prompt = bench.prompts[name]
    return (
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": prompt.template.format(**fields)},
    )


def _result(
    questions: Sequence[BenchQuestion],
    answers: Sequence[Answer],
    ratings: Sequence[Sequence[Rating]],
) -> MtBenchResult:
    categories = [question.category for question in questions for _ in (1, 2)]
    by_category: dict[str, float] = {}
    for category in sorted(set(categories)):
        of_category = [r for r, c in zip(ratings, categories, strict=True) if c == category]
        mean = _mean(of_category)
        if mean is not None:
            by_category[category] = mean
    by_turn = (_mean(ratings[::2]), _mean(ratings[1::2]))
    return MtBenchResult(
        summarise(ratings),
        by_category,
        by_turn,
        num_questions=len(questions),
        num_cut_answers=sum(given.num_cut for given in answers),
        num_refused_answers=sum(given.num_refused for given in answers),
    )


def _mean(ratings: Sequence[Sequence[Rating]]) -> float | None:
    values = [r.value for of_question in ratings for r in of_question if r.value is not None]
    return statistics.fmean(values) if values else None
