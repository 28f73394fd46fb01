"""Ratings from a judge that is slow, vague, wrong or gone."""

import statistics
import threading
from collections import Counter
from pathlib import Path

import pytest

from zip_pipeline.judge.client import ChatClient, Endpoint, EndpointError, ExchangeStore
from zip_pipeline.judge.ratings import (
    JudgeSettings,
    Rating,
    parse_rating,
    rate_all,
    summarise,
)
from zip_pipeline_tests.judge.judge_server import (
    Behaviour,
    JudgeServer,
    Received,
    fails,
    in_turn,
    says,
)


def _settings(**fields: object) -> JudgeSettings:
    judge = Endpoint(url="http://localhost/v1", model="judge")
    given: dict[str, object] = {"judge": judge, "low": 1, "high": 10, "repetitions": 1} | fields
    return JudgeSettings(**given)  # type: ignore[arg-type]


def _questions(num: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"question {i}"}] for i in range(num)]


def _ratings(
    server: JudgeServer, path: Path, num: int = 1, *, at_once: int = 8, **fields: object
) -> list[list[Rating]]:
    endpoint = Endpoint(url=server.url, model="judge", max_attempts=2, max_concurrency=at_once)
    with ChatClient(endpoint, sleep=lambda _: None) as client, ExchangeStore(path) as store:
        return rate_all(
            client.complete, store, _questions(num), _settings(judge=endpoint, **fields)
        )


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Good. Rating: [[7]]", 7.0),
        ("Rating: [[7.5]] or [[9]]", 7.5),
        ("[8] of ten", 8.0),
        ("[3] stars, that is [[6]]", 6.0),
        ("[[10]]", 10.0),
        ("[[0]]", None),
        ("[[11]]", None),
        ("[[-3]]", None),
        ("[[seven]]", None),
        ("7/10", None),
        ("", None),
        ("[[7", None),
        ("[[7.]]", None),
    ],
)
def test_rating_is_the_first_number_in_brackets(text: str, rating: float | None):
    """Double brackets come first; what is outside 1 to 10 or no number is no rating."""
    assert parse_rating(text, 1, 10) == rating


def test_judge_is_asked_again_when_its_rating_is_malformed(tmp_path: Path):
    """The judge sees its own words and is asked for the form; both attempts are counted."""
    respond = in_turn([says("I like it."), says(None)], says("[[9]]"))
    with JudgeServer(respond) as server:
        assert _ratings(server, tmp_path / "a") == [[Rating(9.0, 2)]]
    second, third = (request.body["messages"] for request in server.requests[1:])
    assert [m["role"] for m in third] == ["user", "assistant", "user", "assistant", "user"]
    assert second[1]["content"] == "I like it."
    assert third[3]["content"] == "(no answer)"
    assert "no rating from 1 to 10" in third[4]["content"]


def test_rating_that_stays_malformed_is_missing_and_never_zero(tmp_path: Path):
    """After the re-asks the rating is None, the mean is that of the others, and it is counted."""

    def respond(received: Received, _: int) -> Behaviour:
        first = received.body["messages"][0]["content"]
        return says("Who knows?" if first == "question 1" else "[[8]]")

    with JudgeServer(respond) as server:
        ratings = _ratings(server, tmp_path / "a", 3, max_re_asks=2)
    assert ratings == [[Rating(8.0, 0)], [Rating(None, 3)], [Rating(8.0, 0)]]
    assert len(server.requests) == 5
    summary = summarise(ratings)
    assert summary.mean == 8.0
    assert (summary.num_ratings, summary.num_missing, summary.num_malformed) == (2, 1, 3)


def test_question_that_the_endpoint_refuses_is_missing(tmp_path: Path):
    """One question that is too long does not end the run; it is missing, with the reason."""

    def respond(received: Received, _: int) -> Behaviour:
        return fails(400, "too long") if "1" in received.question else says("[[5]]")

    with JudgeServer(respond) as server:
        ratings = _ratings(server, tmp_path / "a", 3)
    assert [r[0].value for r in ratings] == [5.0, None, 5.0]
    assert "too long" in ratings[1][0].refusal
    assert summarise(ratings).num_refused == 1


def test_judge_that_refuses_everything_is_an_error(tmp_path: Path):
    """Where no question is taken, the error says why instead of a mean of nothing."""
    with (
        JudgeServer(in_turn([], fails(400, "temperature is not supported"))) as server,
        pytest.raises(EndpointError, match=r"every question was refused; .*temperature is not"),
    ):
        _ratings(server, tmp_path / "a", 3)


def test_judge_that_never_rates_is_an_error(tmp_path: Path):
    """Without any rating there is no mean."""
    with JudgeServer(in_turn([], says("Lovely."))) as server:
        ratings = _ratings(server, tmp_path / "a", 2, max_re_asks=1)
    with pytest.raises(EndpointError, match=r"none of 2 judgments has a rating \(4 malformed"):
        summarise(ratings)


def test_repeated_judging_gives_the_drift_of_the_judge(tmp_path: Path):
    """Each repetition asks anew; the drift is the deviation between their means."""
    lock, asked = threading.Lock(), Counter[str]()

    def respond(received: Received, _: int) -> Behaviour:
        with lock:
            asked[received.question] += 1
            return says(f"[[{3 + asked[received.question] + int(received.question[-1])}]]")

    with JudgeServer(respond) as server:
        ratings = _ratings(server, tmp_path / "a", 2, repetitions=3, at_once=1)
    assert [[r.value for r in of_question] for of_question in ratings] == [[4, 5, 6], [5, 6, 7]]
    summary = summarise(ratings)
    assert summary.by_repetition == (4.5, 5.5, 6.5)
    assert summary.mean == 5.5
    assert summary.drift == 1.0
    assert summary.sampling_error == pytest.approx(statistics.stdev([5, 6]) / 2**0.5)
    assert summarise([[Rating(4.0, 0)]]).drift is None
    assert summarise([[Rating(4.0, 0)]]).sampling_error is None


def test_questions_under_way_are_bounded_and_equal_ones_asked_once(tmp_path: Path):
    """No more requests are under way than the endpoint allows."""
    with JudgeServer(in_turn([], says("[[5]]", delay_seconds=0.03))) as server:
        endpoint = Endpoint(url=server.url, model="judge", max_concurrency=3)
        with ChatClient(endpoint) as client, ExchangeStore(tmp_path / "a") as store:
            questions = _questions(12) * 2
            ratings = rate_all(client.complete, store, questions, _settings(judge=endpoint))
    assert len(ratings) == 24
    assert len(server.requests) == 12
    assert 2 <= server.max_at_once <= 3


def test_failing_endpoint_ends_the_run_and_the_next_goes_on(tmp_path: Path):
    """Stored answers stay when the endpoint fails, and only the others are asked later."""
    path = tmp_path / "a"
    with JudgeServer(in_turn([says("[[5]]")] * 4, fails(500))) as server:
        with pytest.raises(EndpointError, match="no answer in 2 attempts"):
            _ratings(server, path, 20, at_once=1)
        assert len(server.requests) == 6
    with JudgeServer(in_turn([], says("[[6]]"))) as server:
        ratings = _ratings(server, path, 20)
    assert [r[0].value for r in ratings] == [5.0] * 4 + [6.0] * 16
    assert sorted(r.question for r in server.requests) == sorted(
        f"question {i}" for i in range(4, 20)
    )


@pytest.mark.parametrize(
    ("name", "value", "least"), [("repetitions", 0, 1), ("max_re_asks", -1, 0)]
)
def test_judge_settings_refuse_what_makes_no_sense(name: str, value: int, least: int):
    """A wrong number is named with what is allowed."""
    with pytest.raises(ValueError, match=f"{name}: got {value}; .* {least} and up"):
        _settings(**{name: value})
