"""Z by MT-bench; run as ``python -m zip_pipeline.evaluation.mt_bench --config FILE``.

A model answers questions of two turns, and a judge rates each turn from 1 to 10.
"""

import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from zip_pipeline.chat_models import model_identity
from zip_pipeline.errors import UserError
from zip_pipeline.evaluation.evaluators import Evaluator, TrainedVersion, main, read_job
from zip_pipeline.evaluation.local_model import LocalModel
from zip_pipeline.files import fingerprint, hashing, readable, write_json
from zip_pipeline.judge.client import (
    ChatClient,
    Endpoint,
    EndpointError,
    Exchange,
    ExchangeStore,
    Message,
    Reply,
    RequestRefused,
    Responder,
)
from zip_pipeline.judge.ratings import (
    JudgeSettings,
    Rating,
    ask_in_parallel,
    rate_all,
    summarise,
)
from zip_pipeline.process import Reporter
from zip_pipeline.settings import SETTINGS_FILE, Settings, read_settings, read_table


class MtBenchSettings(Settings):
    """Where the benchmark's files are, and who judges: the table ``[mt_bench]``."""

    shows_texts = False

    questions: Path = Field(strict=False)
    prompts: Path = Field(strict=False)
    judge: Endpoint
    references: Path | None = Field(default=None, strict=False)
    """reference answers; None where the questions have them"""
    answers: Endpoint | None = None
    """a server of the trained model; None: the model answers in the evaluating process"""
    repetitions: int = Field(default=3, ge=1)
    """how often each answer is judged"""


def mt_bench_settings_of(data_root: Path) -> MtBenchSettings | None:
    """Return what the table [mt_bench] says, None where there is none.

    Paths in the file are relative to the data root.

    Raises:
        UserError: see :func:`.read_settings`.
    """
    if read_table(data_root, "mt_bench") is None:
        return None
    settings = read_settings(data_root, "mt_bench", MtBenchSettings)
    given = settings.model_dump(include={"questions", "prompts", "references"}, exclude_none=True)
    return settings.model_copy(update={name: data_root / path for name, path in given.items()})


REFERENCE_CATEGORIES = frozenset({"math", "reasoning", "coding"})
_REFERENCE_FIELDS = ("ref_answer_1", "ref_answer_2")
_FIELDS = {
    "single-v1": ("question", "answer"),
    "single-math-v1": ("question", "answer", *_REFERENCE_FIELDS),
    "single-v1-multi-turn": ("question_1", "question_2", "answer_1", "answer_2"),
    "single-math-v1-multi-turn": (
        *("question_1", "question_2", "answer_1", "answer_2"),
        *_REFERENCE_FIELDS,
    ),
}


@dataclass(frozen=True)
class BenchQuestion:
    """A question of two turns, with the reference answers that its category needs."""

    question_id: str
    category: str
    turns: tuple[str, str]
    references: tuple[str, str] | None

    @property
    def needs_references(self) -> bool:
        """Whether the judge is shown how it is answered right."""
        return self.category in REFERENCE_CATEGORIES


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
    """Read the files of the benchmark, all of them JSONL.

    Args:
        questions: ``question_id``, ``category``, ``turns`` (two) and, where the references are
            here, ``reference`` (two).
        prompts: ``name``, ``system_prompt`` and ``prompt_template``; the four ``single-...``
            prompts of the benchmark are read.
        references: ``question_id`` and ``choices[0].turns``.

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
    without = [q.question_id for q in read if q.needs_references and q.references is None]
    if without:
        raise UserError(
            f"{questions}: no reference answer for the questions {', '.join(without)} of math, "
            "reasoning or coding; point to the file that has them"
        )
    return Bench(tuple(read), _prompts(prompts))


def _records(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the records of a JSONL file, each with the file and line for messages."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; point to a file in the benchmark's format")
    with readable(path, "write it as JSON lines in UTF-8"):
        text = path.read_text(encoding="utf-8-sig")
    # Not splitlines: a text may hold other line ends that JSON leaves as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
            json.dumps(record, ensure_ascii=False).encode()
        except RecursionError:
            raise UserError(f"{where}: nested too deep; write it as the benchmark does") from None
        except UnicodeEncodeError:
            raise UserError(
                f"{where}: a text holds half a character (a lone surrogate such as \\ud83d); write "
                "the whole one"
            ) from None
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
        if name in _FIELDS:
            prompts[name] = _prompt(record, where, _FIELDS[name])
    missing = [name for name in _FIELDS if name not in prompts]
    if missing:
        raise UserError(f"{path}: no prompt named {', '.join(missing)}; all four are needed")
    return prompts


def _prompt(record: Mapping[str, Any], where: str, fields: Sequence[str]) -> JudgePrompt:
    prompt = JudgePrompt(
        _text(record, "system_prompt", where), _text(record, "prompt_template", where)
    )
    try:
        prompt.template.format(**dict.fromkeys(fields, ""))
    except (LookupError, ValueError, AttributeError) as error:
        raise UserError(
            f"{where}: prompt_template cannot be filled in ({error!r}); allowed places: "
            f"{', '.join('{' + field + '}' for field in fields)}; other braces are doubled"
        ) from None
    return prompt


TEMPERATURES = {"stem": 0.1, "humanities": 0.1} | dict.fromkeys(
    ("extraction", "math", "coding", "reasoning"), 0.0
)
"""Temperature of the answers by category; 0.7 in writing, roleplay and any other."""
_OTHER_TEMPERATURE = 0.7
MAX_ANSWER_TOKENS = 1024


@dataclass(frozen=True)
class Answer:
    """A model's two answers.

    ``num_cut`` counts those that the limit on tokens cut off, ``num_refused`` those that the
    model refused (``refusal`` says why): they are empty, and judged like any other.
    """

    turns: tuple[str, str]
    num_cut: int
    num_refused: int
    refusal: str


def run_mt_bench(
    bench: Bench,
    settings: MtBenchSettings,
    *,
    model: Responder,
    model_name: str,
    judge: Responder,
    store: ExchangeStore,
) -> dict[str, Any]:
    """Return how a judge rates a model's answers to all questions, as it is recorded.

    ``Z`` is the mean rating over all turns, 1 to 10, higher = better; ``Z_spread`` the standard
    deviation between the judge's repetitions, None with one: it is as large as many published
    gains; ``Z_name`` tells results apart that are not comparable. Ratings that are missing are
    left out of means; a category without any rating is left out of ``by_category``.

    Args:
        bench: from :func:`load_bench`.
        settings: of the data root.
        model: who answers.
        model_name: names the trained model and its version; stored answers are found by it.
        judge: who rates.
        store: what was asked before; a killed run goes on from it.

    Raises:
        EndpointError: an endpoint failed, or the model refused every question; what is stored
            stays.

    Source: MT-bench (arXiv 2306.05685), single-answer grading.
    """
    answer_one = partial(answer, model=model, model_name=model_name, store=store)
    # A model in this process answers one question at a time.
    num_workers = settings.answers.max_concurrency if settings.answers else 1
    answers = ask_in_parallel(answer_one, bench.questions, num_workers)
    if all(given.num_refused == 2 for given in answers):
        raise EndpointError(f"every question was refused; the first: {answers[0].refusal}")
    prompts = [
        judge_messages(bench, question, given, turn)
        for question, given in zip(bench.questions, answers, strict=True)
        for turn in (1, 2)
    ]
    asked = JudgeSettings(judge=settings.judge, low=1, high=10, repetitions=settings.repetitions)
    ratings = rate_all(judge, store, prompts, asked)
    summary = summarise(ratings)
    files = (settings.questions, settings.prompts, settings.references)
    files_hash = fingerprint(path.read_text(encoding="utf-8-sig") for path in files if path)
    return {
        "Z": summary.mean,
        "Z_spread": summary.drift,
        "Z_name": f"MT-bench {files_hash[:8]}, judge {settings.judge.model}",
        "model_name": model_name,
        "sampling_error": summary.sampling_error,
        "by_repetition": summary.by_repetition,
        "by_category": _by_category(bench.questions, ratings),
        "by_turn": [_mean(ratings[::2]), _mean(ratings[1::2])],
        "num_questions": len(bench.questions),
        "num_ratings": summary.num_ratings,
        "num_missing": summary.num_missing,
        "num_malformed": summary.num_malformed,
        "num_refused": summary.num_refused,
        "num_cut_answers": sum(given.num_cut for given in answers),
        "num_refused_answers": sum(given.num_refused for given in answers),
    }


def answer(
    question: BenchQuestion, *, model: Responder, model_name: str, store: ExchangeStore
) -> Answer:
    """Return a model's answers to the two turns, the second given the first.

    After a refused turn the next is not asked: its conversation would be longer still.
    """
    messages: tuple[Message, ...] = ()
    replies: list[Reply] = []
    refusal = ""
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
        except RequestRefused as error:
            refusal = str(error)
            break
        messages += ({"role": "assistant", "content": replies[-1].text},)
    first, second, *_ = (*(reply.text for reply in replies), "", "")
    num_cut = sum(reply.finish_reason == "length" for reply in replies)
    return Answer((first, second), num_cut, 2 - len(replies), refusal)


def judge_messages(
    bench: Bench, question: BenchQuestion, given: Answer, turn: int
) -> tuple[Message, Message]:
    """Return what the judge is asked about turn 1, or about turn 2 given the first."""
    name = "single-math-v1" if question.needs_references else "single-v1"
    fields = {"question": question.turns[0], "answer": given.turns[0]}
    if turn == 2:
        name += "-multi-turn"
        fields = {"question_1": question.turns[0], "question_2": question.turns[1]}
        fields |= {"answer_1": given.turns[0], "answer_2": given.turns[1]}
    if question.needs_references:
        assert question.references is not None
        fields |= dict(zip(_REFERENCE_FIELDS, question.references, strict=True))
    prompt = bench.prompts[name]
    return (
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": prompt.template.format(**fields)},
    )


def _by_category(
    questions: Sequence[BenchQuestion], ratings: Sequence[Sequence[Rating]]
) -> dict[str, float]:
    by_category: dict[str, list[Sequence[Rating]]] = {}
    for number, question in enumerate(questions):
        by_category.setdefault(question.category, []).extend(ratings[2 * number : 2 * number + 2])
    means = {category: _mean(by_category[category]) for category in sorted(by_category)}
    return {category: mean for category, mean in means.items() if mean is not None}


def _mean(ratings: Sequence[Sequence[Rating]]) -> float | None:
    values = [r.value for of_question in ratings for r in of_question if r.value is not None]
    return statistics.fmean(values) if values else None


STORE_FILE, RESULT_FILE = "exchanges.jsonl", "result.json"
_LINE_SECONDS = 5.0


def counted(responder: Responder, report: Reporter, what: str) -> Responder:
    """Return what answers like ``responder``, and says every few seconds how often it did."""
    lock = threading.Lock()
    num_answered, last_line = 0, time.monotonic()

    def complete(exchange: Exchange) -> Reply:
        nonlocal num_answered, last_line
        reply = responder(exchange)
        with lock:
            num_answered += 1
            now = time.monotonic()
            if now - last_line >= _LINE_SECONDS:
                last_line = now
                report.line(f"{num_answered} new {what}")
        return reply

    return complete


def evaluate(config: Path, report: Reporter) -> None:
    """Run the benchmark as a JSON file says, and write ``result.json``.

    Questions and answers are kept beside it: a run that was killed goes on, and one that is
    repeated asks nothing again.

    Args:
        config: an object with ``model`` (folder of the trained model), ``model_name`` (which
            version it is), ``data_root`` (whose settings hold) and ``output`` (folder);
            ``fingerprint`` may tell jobs apart whose model changed, and changes nothing.
        report: told how it goes.

    Raises:
        UserError: a field, setting or file is wrong, or a key is not set.
        EndpointError: an endpoint failed; what is stored stays.
    """
    job = read_job(config, ("model", "model_name", "data_root", "output"), fingerprint=str)
    settings = mt_bench_settings_of(Path(job["data_root"]))
    if settings is None:
        raise UserError(
            f"{Path(job['data_root']) / SETTINGS_FILE}: no table [mt_bench]. Add it with "
            "questions, prompts and judge"
        )
    output = Path(job["output"])
    bench = load_bench(settings.questions, settings.prompts, settings.references)
    num_answers = 2 * len(bench.questions)
    num_judgments = num_answers * settings.repetitions
    with (
        ChatClient(settings.judge) as judge,
        _answering(settings, Path(job["model"]), job["model_name"]) as (model, model_name),
        ExchangeStore(output / STORE_FILE) as store,
    ):
        report.line(f"{len(bench.questions)} questions; {len(store)} exchanges are stored")
        result = run_mt_bench(
            bench,
            settings,
            model=counted(model, report, f"answers of {num_answers}"),
            model_name=model_name,
            judge=counted(judge.complete, report, f"judgments of {num_judgments} or more"),
            store=store,
        )
    with hashing(output / RESULT_FILE):
        write_json(output / RESULT_FILE, result)
    report.line(f"MT-bench: {result['Z']:.3f} of 10, {output / RESULT_FILE}")


@contextmanager
def _answering(
    settings: MtBenchSettings, model: Path, name: str
) -> Iterator[tuple[Responder, str]]:
    """Yield the served model where one is set, else the model folder, and its name."""
    served = settings.answers
    if served is None:
        # A version that was trained again must not be given the answers of before.
        identity = model_identity(str(model), None, with_template=True)
        yield (
            LocalModel(model).complete,
            f"{name}, weights {identity[:12]}" if model.is_dir() else name,
        )
    else:
        with ChatClient(served) as client:
            yield client.complete, f"{name}, served as {served.model}"


class MtBench(Evaluator):
    """The rating of a judge; only the latest version of a stage is asked."""

    name = "mt_bench"
    module = "zip_pipeline.evaluation.mt_bench"
    job_file = "mt_bench/job.json"
    result_file = f"mt_bench/{RESULT_FILE}"

    def is_configured(self, data_root: Path) -> bool:
        """Return whether there is a table ``[mt_bench]``."""
        return mt_bench_settings_of(data_root) is not None

    def job(self, version: TrainedVersion) -> dict[str, Any]:
        """Return what :func:`evaluate` is told."""
        data_root = version.folder.root.path
        settings = repr(mt_bench_settings_of(data_root))
        return {
            "model": str(version.output / "model"),
            "model_name": f"{version.folder.stage} version {version.number}",
            "data_root": str(data_root),
            "output": str(version.output / "evaluation" / "mt_bench"),
            "fingerprint": fingerprint([version.record["fingerprint"], settings]),
        }


EVALUATOR = MtBench()


if __name__ == "__main__":
    sys.exit(main("mt_bench", evaluate))
