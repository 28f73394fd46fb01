"""The user's MT-bench files: questions, judge prompts and reference answers."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        ValueError: a file does not exist, a line is not such a record, a prompt is missing, or
            a question of math, reasoning or coding has no reference answer.

    Source: MT-bench (arXiv 2306.05685), formats of its published files.
    """
    known = dict(_references(references)) if references is not None else {}
    read = [_question(record, where, known) for record, where in _records(questions)]
    if not read:
        raise ValueError(f"{questions}: no question in it")
    ids = [question.question_id for question in read]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise ValueError(f"{questions}: question_id {', '.join(twice)} more than once")
    without = [q.question_id for q in read if _needs_reference(q) and q.references is None]
    if without:
        raise ValueError(
            f"{questions}: no reference answer for the questions {', '.join(without)} of math, "
            "reasoning or coding; point to the file that has them"
        )
    return Bench(tuple(read), _prompts(prompts))


def _needs_reference(question: BenchQuestion) -> bool:
    return question.category in REFERENCE_CATEGORIES


def _records(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the records of a JSONL file, each with the file and line for messages."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; point to a file in the benchmark's format")
    # Not splitlines: a text may hold other line ends that JSON leaves as they are.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{where}: {type(record).__name__}; must be a JSON object")
        yield record, where


def _text(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{where}: {name} is {value!r}; must be text")
    return value


def _two(value: object, name: str, where: str) -> tuple[str, str]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value):
        return value[0], value[1]
    raise ValueError(f"{where}: {name} must be a list of two texts, is {value!r:.80}")


def _question_id(record: Mapping[str, Any], where: str) -> str:
    value = record.get("question_id")
    if isinstance(value, int | str) and value != "":
        return str(value)
    raise ValueError(f"{where}: question_id is {value!r}; must be a number or text")


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
        raise ValueError(f"{path}: no prompt named {', '.join(missing)}; all four are needed")
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
        raise ValueError(
            f"{where}: prompt_template cannot be filled in ({error!r}); allowed places: "
            f"{', '.join('{' + field + '}' for field in fields)}; other braces are doubled"
        ) from None
    return prompt
