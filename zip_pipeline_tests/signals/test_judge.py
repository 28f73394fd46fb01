"""A judge as signal: what is paid once, what it may cost, and what stays unrated."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.signals import signals
from zip_pipeline.workflow.versions import read_version, select_version
from zip_pipeline_tests.defs.trained_roots import ingested
from zip_pipeline_tests.judge.judge_server import (
    Behaviour,
    JudgeServer,
    Received,
    Respond,
    fails,
    says,
)

NUM = 20
TOKENS = (100, 10)
Serve = Callable[[Respond], JudgeServer]


def with_usage(behaviour: Behaviour) -> Behaviour:
    """Tell what it took: 100 tokens of question, 10 of answer."""
    body = json.loads(behaviour.body)
    body["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), TOKENS, strict=True))
    return Behaviour(body=json.dumps(body).encode())


def rating_of(received: Received, _: int) -> Behaviour:
    """Rate by the number in the question: its last digit, halved."""
    digit = str(received.body["messages"]).split("What is ")[1].split()[0][-1]
    return with_usage(says(f"Fine. Rating: [[{int(digit) / 2:g}]]"))


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    """Return a data root with a batch of twenty conversations."""
    found = DataRoot(tmp_path)
    ingested(found, "a.jsonl", NUM)
    return found


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that stop with the test."""
    with ExitStack() as servers:
        yield lambda respond: servers.enter_context(JudgeServer(respond))


def config(server: JudgeServer, **settings: float) -> SelectionConfig:
    """Return a configuration in which quality is the judge's rating."""
    endpoint: dict[str, Any] = {"url": server.url, "model": "j", "max_concurrency": 1}
    endpoint |= {"backoff_seconds": 0.0, "max_attempts": 2}
    return SelectionConfig(
        strategy="long_range",
        budget_samples=4,
        mixture="none",
        noise_guard=False,
        quality="signals.judge.rating",
        quality_power=50.0,
        signals={"judge": {"endpoint": endpoint, **settings}},
    )


def ratings(root: DataRoot) -> list[float | None]:
    """Return what is stored."""
    return pl.read_parquet(root["sft"].signal("judge", "a.jsonl"))["rating"].to_list()


def test_ratings_are_the_quality_of_a_selection(root: DataRoot, serve: Serve) -> None:
    """The best rated win where quality is all; the second selection asks nothing."""
    server = serve(rating_of)
    log: list[str] = []
    wanted = config(server, price_asked=1.0)
    version = read_version(root["sft"], select_version(root["sft"], wanted, log.append))
    assert set(version.ledger.filter(fate="picked")["quality"]) == {4.5, 4.0}
    assert version.manifest["signals"]["judge"].startswith("judge j, prompt ")
    assert len(server.requests) == NUM
    assert any("20 samples to measure, by j, at most 0.0" in line for line in log)
    select_version(root["sft"], wanted, print)
    assert len(server.requests) == NUM


def test_a_price_limit_holds_and_the_next_run_goes_on(root: DataRoot, serve: Serve) -> None:
    """A question may cost a token per byte before it is answered, and 100 tokens after."""
    server = serve(rating_of)
    limited = config(server, price_asked=1000.0, max_cost=2.5)
    with pytest.raises(UserError, match=r"max_cost: .* of 2\.50 are spent.*go on, or raise it"):
        select_version(root["sft"], limited, print)
    first = len(server.requests)
    assert 0 < first < NUM
    assert first * TOKENS[0] * 1000 / 1e6 <= 2.5
    select_version(root["sft"], config(server, price_asked=1000.0, max_cost=100.0), print)
    assert len(server.requests) == NUM
    assert None not in ratings(root)


def test_a_judge_that_dies_halfway_is_gone_on_with(root: DataRoot, serve: Serve) -> None:
    """What was answered is not asked again."""

    def dies(received: Received, count: int) -> Behaviour:
        return rating_of(received, count) if count < 7 else fails(500)

    with pytest.raises(UserError, match=r"(?s)signals: judge: .*no answer in 2 attempts.*go on"):
        select_version(root["sft"], config(serve(dies)), print)
    healthy = serve(rating_of)
    select_version(root["sft"], config(healthy), print)
    assert len(healthy.requests) == NUM - 7


def test_nonsense_leaves_a_sample_unrated(root: DataRoot, serve: Serve) -> None:
    """It is null in the signal, and comes last."""

    def silent(received: Received, count: int) -> Behaviour:
        if "What is 9 " in str(received.body["messages"][1]):
            return says("I would rather not say.")
        return rating_of(received, count)

    version = select_version(root["sft"], config(serve(silent)), print)
    assert ratings(root).count(None) == 1
    picked = read_version(root["sft"], version).ledger.filter(fate="picked")
    assert 4.5 in picked["quality"].to_list()
    assert 0 not in picked["quality"].to_list()


def test_a_judge_without_an_endpoint_is_refused(root: DataRoot) -> None:
    """The message says which table to write, and what a signal tells."""
    wanted = SelectionConfig(budget_samples=4, quality="signals.judge.rating")
    with pytest.raises(UserError, match=r"endpoint: none is given; .*\[signals\.judge\.endpoint\]"):
        select_version(root["sft"], wanted, print)
    assert signals["judge"].columns.names() == ["rating"]
