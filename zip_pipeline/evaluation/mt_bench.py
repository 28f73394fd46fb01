"""The MT-bench protocol: a model answers two-turn questions, a judge rates each turn 1 to 10."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from zip_pipeline.evaluation.chat_client import Reply
from zip_pipeline.evaluation.endpoint import EndpointError, Message, RequestRefused
from zip_pipeline.evaluation.exchanges import Exchange, ExchangeStore, Responder
from zip_pipeline.evaluation.judge import (
    JudgeSettings,
    Rating,
    RatingSummary,
    rate_all,
    summarise,
)
from zip_pipeline.evaluation.mt_bench_files import REFERENCE_CATEGORIES, Bench, BenchQuestion
from zip_pipeline.evaluation.parallel import ask_in_parallel

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
        bench: the files, from :func:`zip_pipeline.evaluation.mt_bench_files.load_bench`.
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
