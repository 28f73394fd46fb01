"""The evaluation settings of a data root: two tables of ``training.toml``."""

import argparse
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zip_pipeline.errors import UserError
from zip_pipeline.evaluation.client import Endpoint, EndpointError
from zip_pipeline.process import PIPES_VARIABLE, Reporter, end_with_parent, report_error, reporter
from zip_pipeline.training_file import TRAINING_FILE, read_training_table

_TOKEN_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
# Lower case is left out so that a key, given in place of its variable, is noticed.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*|")
_Types = Mapping[str, type]
_ENDPOINT: _Types = {
    "url": str,
    "model": str,
    "key_variable": str,
    "token_limit_field": str,
    "max_concurrency": int,
    "timeout_seconds": float,
}
_MT_BENCH: _Types = {
    "questions": str,
    "prompts": str,
    "references": str,
    "repetitions": int,
    "judge": dict,
    "answers": dict,
}
_QUALITY_AUDIT: _Types = {"num_samples": int, "seed": int, "repetitions": int, "judge": dict}
_LEAST = {"repetitions": 1, "num_samples": 1, "seed": 0}


@dataclass(frozen=True, kw_only=True)
class MtBenchSettings:
    """Where the benchmark's files are, and who judges."""

    questions: Path
    prompts: Path
    judge: Endpoint
    references: Path | None = None
    """reference answers; None where the questions have them"""
    answers: Endpoint | None = None
    """a server of the trained model; None: the model answers in the evaluating process"""
    repetitions: int = 3
    """how often each answer is judged"""


@dataclass(frozen=True, kw_only=True)
class QualityAuditSettings:
    """Who judges how many samples of a version."""

    judge: Endpoint
    num_samples: int = 100
    seed: int = 0
    """of the drawn samples"""
    repetitions: int = 1
    """how often each sample is judged"""


def mt_bench_settings_of(data_root: Path) -> MtBenchSettings | None:
    """Return what the table [mt_bench] of ``training.toml`` says, None where there is none.

    Paths in the file are relative to the data root. ``[mt_bench.judge]`` and, where the trained
    model is served, ``[mt_bench.answers]`` are endpoints.

    Args:
        data_root: the folder with the file.

    Raises:
        UserError: the file is wrong (see :func:`.read_training_table`), or a key is unknown,
            missing or out of range.
    """
    table = _table(data_root, "mt_bench", _MT_BENCH, ("questions", "prompts", "judge"))
    if table is None:
        return None
    values: dict[str, Any] = table.values | {
        name: data_root / table.values[name]
        for name in ("questions", "prompts", "references")
        if name in table.values
    }
    endpoints: dict[str, Any] = {
        name: table.endpoint(name) for name in ("judge", "answers") if name in values
    }
    return MtBenchSettings(**(values | endpoints))


def quality_audit_settings_of(data_root: Path) -> QualityAuditSettings | None:
    """Return what the table [quality_audit] of ``training.toml`` says, None where there is none.

    ``[quality_audit.judge]`` is the endpoint.

    Args:
        data_root: the folder with the file.

    Raises:
        UserError: the file is wrong (see :func:`.read_training_table`), or a key is unknown,
            missing or out of range.
    """
    table = _table(data_root, "quality_audit", _QUALITY_AUDIT, ("judge",))
    if table is None:
        return None
    return QualityAuditSettings(**(table.values | {"judge": table.endpoint("judge")}))


@dataclass(frozen=True)
class _Table:
    """A table whose keys and types are right, and its place for messages."""

    place: str
    values: dict[str, Any]

    def endpoint(self, name: str) -> Endpoint:
        place = f"{self.place[:-1]}.{name}]"
        values = _checked(place, self.values[name], _ENDPOINT, ("url", "model"))
        field = values.get("token_limit_field", _TOKEN_LIMIT_FIELDS[0])
        if field not in _TOKEN_LIMIT_FIELDS:
            allowed = " and ".join(_TOKEN_LIMIT_FIELDS)
            raise UserError(
                f"{place}: token_limit_field is {field!r}; allowed are {allowed}. Take the one "
                "that the endpoint understands"
            )
        if not _VARIABLE.fullmatch(values.get("key_variable", "")):
            # Not shown: it may be the key itself.
            raise UserError(
                f"{place}: key_variable is not the name of an environment variable; allowed are "
                "A to Z, 0 to 9 and _. Put the key in a variable and give its name here"
            )
        try:
            return Endpoint(**values)
        except UserError as error:
            raise UserError(f"{place}: {error}") from error


def _table(data_root: Path, name: str, types: _Types, needed: tuple[str, ...]) -> _Table | None:
    values = read_training_table(data_root, name)
    if values is None:
        return None
    place = f"{data_root / TRAINING_FILE}: [{name}]"
    return _Table(place, _checked(place, values, types, needed))


def _checked(
    place: str, values: dict[str, Any], types: _Types, needed: tuple[str, ...]
) -> dict[str, Any]:
    """Return the table with only known keys of the right type, or say what is wrong with it."""
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise UserError(
            f"{place}: sets {', '.join(unknown)}; allowed are {', '.join(types)}. Correct or "
            "remove the line"
        )
    missing = [key for key in needed if key not in values]
    if missing:
        raise UserError(f"{place}: {missing[0]} is missing; needed are {', '.join(needed)}. Add it")
    for key, value in values.items():
        _check_value(place, key, value, types[key])
    return values


def _check_value(place: str, key: str, value: object, wanted: type) -> None:
    allowed = (int, float) if wanted is float else (wanted,)
    if not isinstance(value, allowed) or isinstance(value, bool):
        kind = {str: "text", int: "a whole number", float: "a number", dict: "a table"}[wanted]
        raise UserError(f"{place}: {key} must be {kind}, is {type(value).__name__}. Correct it")
    if isinstance(value, int) and value < _LEAST.get(key, value):
        raise UserError(
            f"{place}: {key} is {value}; allowed are whole numbers from {_LEAST[key]}. Correct it"
        )


def main(
    module: str, run: Callable[[Path, Reporter], None], arguments: Sequence[str] | None = None
) -> int:
    """Run job files one after the other; return the exit code: 0, or 2 where one is at fault.

    Args:
        module: name of the module in this package.
        run: what to do with a file, and where to say how it goes.
        arguments: of the command line; this process's by default.
    """
    parser = argparse.ArgumentParser(prog=f"python -m zip_pipeline.evaluation.{module}")
    parser.add_argument("--config", type=Path, nargs="+", required=True, help="a job as JSON")
    configs = parser.parse_args(arguments).config
    if PIPES_VARIABLE in os.environ:
        end_with_parent()
    try:
        with reporter() as report:
            for config in configs:
                run(config, report)
    except (UserError, EndpointError) as error:
        return report_error(error)
    return 0


def read_job(
    path: Path, required: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """Return the fields of a job file.

    Args:
        path: the file, a JSON object.
        required: type of each field that must be there.
        optional: type of each field that may be.

    Raises:
        UserError: the file cannot be read, or a field is missing, unknown or of another type.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read the job ({error}). Give a JSON file") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a job is a JSON object; got {type(values).__name__}")
    types = {**required, **(optional or {})}
    unknown = [key for key in values if key not in types]
    missing = [key for key in required if key not in values]
    if unknown or missing:
        fault = f"unknown field {unknown[0]!r}" if unknown else f"field {missing[0]!r} is missing"
        raise UserError(f"{path}: {fault}; the fields are {', '.join(types)}. Correct the file")
    for key, value in values.items():
        if not isinstance(value, types[key]) or isinstance(value, bool):
            raise UserError(
                f"{path}: {key} is {value!r}; must be of type {types[key].__name__}. Correct it"
            )
    return values
