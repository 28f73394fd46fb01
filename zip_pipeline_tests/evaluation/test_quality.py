"""Q of a version: by a judge where one is set, else by the filters."""

from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.evaluation.quality import QualityAuditSettings, quality_of
from zip_pipeline.judge.client import Endpoint, EndpointError
from zip_pipeline.samples import Sample, Turn, frame_of, sample_columns, sample_id
from zip_pipeline_tests.judge.judge_server import (
    Behaviour,
    JudgeServer,
    Received,
    fails,
    in_turn,
    says,
)

COUNTS = [
    {"num_rows_read": "120", "num_quarantined": "20"},
    {"num_rows_read": 80, "num_quarantined": 0},
]


def _subset(count: int) -> pl.DataFrame:
    samples = [
        Sample((Turn("user", f"{i} + 1?"), Turn("assistant", f"{i + 1}"))) for i in range(count)
    ]
    rows = [{"sample_id": sample_id(s), **sample_columns(s)} for s in samples]
    return frame_of("sft", rows)


def _settings(server: JudgeServer, **options: int) -> QualityAuditSettings:
    return QualityAuditSettings(
        judge=Endpoint(url=server.url, model="judge", backoff_seconds=0.01), **options
    )


def test_without_a_judge_quality_is_the_pass_rate(tmp_path: Path):
    """180 of 200 rows passed the filters; nothing is asked or written."""
    quality = quality_of(_subset(2), "sft", None, tmp_path / "store", COUNTS)
    assert (quality.Q, quality.Q_name, quality.num_samples) == (0.9, "filter pass rate", 200)
    assert not (tmp_path / "store").exists()


def test_with_a_judge_quality_is_its_mean_rating(tmp_path: Path):
    """The drawn samples are judged as often as set, whatever the filters counted."""
    with JudgeServer(lambda *_: says("Good. [[4]]")) as server:
        settings = _settings(server, num_samples=5, repetitions=2)
        quality = quality_of(_subset(9), "sft", settings, tmp_path, COUNTS)
        assert len(server.requests) == 10
    assert (quality.Q, quality.num_samples, quality.num_missing) == (4.0, 5, 0)
    assert quality.Q_name.startswith("judge judge, prompt ")


def test_judge_that_fails_for_a_while_is_asked_on(tmp_path: Path):
    """Rate limits, server errors and malformed ratings cost attempts, not ratings."""
    trouble = [fails(429, Retry_After="0"), fails(503), says("no rating"), says("[[7]]")]
    with JudgeServer(in_turn(trouble, says("[[3]]"))) as server:
        quality = quality_of(_subset(4), "sft", _settings(server), tmp_path, COUNTS)
        assert len(server.requests) == 4 + 4
    assert (quality.Q, quality.num_missing, quality.num_malformed) == (3.0, 0, 2)


def test_judge_that_fails_for_good_leaves_its_ratings(tmp_path: Path):
    """The next call asks only what was not answered."""

    def closes(_: Received, count: int) -> Behaviour:
        return says("[[2]]") if count < 3 else fails(401)

    with JudgeServer(closes) as server, pytest.raises(EndpointError, match="HTTP 401"):
        quality_of(_subset(6), "sft", _settings(server), tmp_path, COUNTS)
    stored = (tmp_path / "quality_audit.jsonl").read_text().count("\n")
    assert stored == 3
    with JudgeServer(lambda *_: says("[[4]]")) as server:
        assert quality_of(_subset(6), "sft", _settings(server), tmp_path, COUNTS).Q == 3.0
        assert len(server.requests) == 3
