"""The evaluation tables of the settings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from zip_pipeline.evaluation.mt_bench import MtBenchSettings, mt_bench_settings_of
from zip_pipeline.evaluation.quality import QualityAuditSettings, quality_audit_settings_of
from zip_pipeline.judge.client import Endpoint

BOTH = """
[training]
preset = "tiny"

[mt_bench]
questions = "bench/question.jsonl"
prompts = "/somewhere/judge_prompts.jsonl"
references = "bench/reference.jsonl"
repetitions = 5

[mt_bench.judge]
url = "https://judge.example/v1"
model = "large"
key_variable = "JUDGE_KEY"
token_limit_field = "max_completion_tokens"
max_concurrency = 2
timeout_seconds = 60

[mt_bench.answers]
url = "http://localhost:8000/v1"
model = "served"

[quality_audit]
num_samples = 7
seed = 3
repetitions = 2
judge = { url = "https://judge.example/v1", model = "small" }
"""


def _root(folder: Path, text: str) -> Path:
    (folder / "zip_pipeline.toml").write_text(text, encoding="utf-8")
    return folder


def test_settings_are_read_from_their_tables(tmp_path: Path):
    """Every key has its place, relative paths start at the data root, other tables are ignored."""
    root = _root(tmp_path, BOTH)
    assert mt_bench_settings_of(root) == MtBenchSettings(
        questions=tmp_path / "bench/question.jsonl",
        prompts=Path("/somewhere/judge_prompts.jsonl"),
        references=tmp_path / "bench/reference.jsonl",
        repetitions=5,
        judge=Endpoint(
            url="https://judge.example/v1",
            model="large",
            key_variable="JUDGE_KEY",
            token_limit_field="max_completion_tokens",
            max_concurrency=2,
            timeout_seconds=60,
        ),
        answers=Endpoint(url="http://localhost:8000/v1", model="served"),
    )
    assert quality_audit_settings_of(root) == QualityAuditSettings(
        judge=Endpoint(url="https://judge.example/v1", model="small"),
        num_samples=7,
        seed=3,
        repetitions=2,
    )


def test_settings_have_defaults(tmp_path: Path):
    """Files and judge are enough."""
    judge = 'judge = { url = "http://localhost/v1", model = "m" }\n'
    paths = 'questions = "q"\nprompts = "p"\n'
    root = _root(tmp_path, f"[mt_bench]\n{paths}{judge}[quality_audit]\n{judge}")
    bench, audit = mt_bench_settings_of(root), quality_audit_settings_of(root)
    assert bench is not None
    assert audit is not None
    assert (bench.references, bench.answers, bench.repetitions) == (None, None, 3)
    assert (audit.num_samples, audit.seed, audit.repetitions) == (100, 0, 1)


@pytest.mark.parametrize("read", [mt_bench_settings_of, quality_audit_settings_of])
def test_absent_table_is_none(tmp_path: Path, read: Callable[[Path], object]):
    """Without the file or the table nothing is set; a fault in another table is left alone."""
    assert read(tmp_path) is None
    other = "quality_audit" if read is mt_bench_settings_of else "mt_bench"
    assert read(_root(tmp_path, f"[training]\npreset = 3\n[{other}]\nwrong = 1\n")) is None


JUDGE = '[mt_bench.judge]\nurl = "https://j.example/v1"\nmodel = "m"\n'
TABLE = '[mt_bench]\nquestions = "q"\nprompts = "p"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mt_bench", r"zip_pipeline\.toml: not valid TOML"),
        ("mt_bench = 3", r"zip_pipeline\.toml: mt_bench must be a table \[mt_bench\], is int"),
        (
            "[mt_bensh]",
            r"zip_pipeline\.toml: the table \[mt_bensh\] is not known; allowed are the t",
        ),
        (TABLE, r"\[mt_bench\] judge: missing; needed are questions, prompts, judge"),
        (f"{TABLE}judge = 'm'", r"\[mt_bench\] judge: got a value of type str; it must be a table"),
        (f"{TABLE}reps = 3\n{JUDGE}", r"reps: unknown; allowed are questions, prompts, judge"),
        (
            f"{TABLE}repetitions = 0\n{JUDGE}",
            "repetitions: got 0; allowed are whole numbers, 1 and up",
        ),
        (f"{TABLE}repetitions = 2.5\n{JUDGE}", "repetitions: got 2.5; allowed are whole numbers"),
        (f"{TABLE}repetitions = true\n{JUDGE}", "repetitions: got True; allowed are whole numbers"),
        (
            f"{TABLE}{JUDGE}max_concurrency = 0",
            r"\[mt_bench\] judge: max_concurrency: got 0; allowed are whole numbers, 1 and up",
        ),
        (
            f"{TABLE}{JUDGE}timeout_seconds = '9'",
            "timeout_seconds: got a value of type str; allowed are numbers, above 0",
        ),
        (
            f"{TABLE}{JUDGE}token_limit_field = 'x'",
            "it must be 'max_tokens' or 'max_completion_tok",
        ),
        (
            f"{TABLE}{JUDGE}[mt_bench.answers]\nmodel = 'm'",
            r"\[mt_bench\] answers: url: missing; needed are url, model",
        ),
        (f"{TABLE}{JUDGE.replace('https', 'ftp')}", r"\[mt_bench\] judge: url: 'ftp://j\.example"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, message: str):
    """File, table and key are said, with what is allowed."""
    with pytest.raises(ValueError, match=message):
        mt_bench_settings_of(_root(tmp_path, text))


def test_key_in_the_file_is_refused_and_not_shown(tmp_path: Path):
    """Whoever writes the key itself into the file is told so, and the key is not repeated."""
    for line in ("key_variable = 'sk-a1b2'", "key_variable = 'ska1b2'", "api_key = 'sk-a1b2'"):
        root = _root(tmp_path, f"{TABLE}{JUDGE}{line}")
        with pytest.raises(
            ValueError, match=r"\[mt_bench\] judge: (key_variable: not|api_key: unknown)"
        ) as error:
            mt_bench_settings_of(root)
        assert "a1b2" not in str(error.value)


def test_wrong_audit_is_named(tmp_path: Path):
    """The audit's table is checked like the benchmark's."""
    judge = 'judge = { url = "http://localhost/v1", model = "m" }\n'
    with pytest.raises(
        ValueError, match=r"\[quality_audit\] num_samples: got 0; allowed are whole"
    ):
        quality_audit_settings_of(_root(tmp_path, f"[quality_audit]\n{judge}num_samples = 0"))
    with pytest.raises(ValueError, match=r"\[quality_audit\] judge: missing"):
        quality_audit_settings_of(_root(tmp_path, "[quality_audit]\nseed = 1"))
