"""Asking an endpoint that is busy, broken or confused."""

import gzip
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from zip_pipeline.errors import UserError
from zip_pipeline.judge.client import (
    ChatClient,
    Endpoint,
    EndpointError,
    Exchange,
    Reply,
    RequestRefused,
)
from zip_pipeline_tests.judge.judge_server import (
    Behaviour,
    JudgeServer,
    drops,
    fails,
    garbles,
    in_turn,
    says,
    trickles,
)

QUESTION = {"role": "user", "content": "How are you?"}
ASKED = Exchange(model="any", messages=(QUESTION,), temperature=0.5, max_tokens=7)
KEY = "sk-very-secret-123"


class Waits:
    """Stands in for sleeping: notes how long was waited in all."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        """Note the wait and return at once."""
        self.seconds.append(seconds)


def _ask(server: JudgeServer, waits: Callable[[float], None], **options: object) -> Reply:
    endpoint = Endpoint(url=server.url, model="judge", **options)  # type: ignore[arg-type]
    with ChatClient(endpoint, sleep=waits) as client:
        return client.complete(ASKED)


def test_client_speaks_the_protocol():
    """Model, messages, temperature and limit go out; text and reason of the end come back."""
    with JudgeServer(in_turn([], says("fine", finish_reason="length"))) as server:
        assert _ask(server, Waits()) == Reply("fine", "length")
        assert _ask(server, Waits(), token_limit_field="max_completion_tokens").text == "fine"
    first, second = server.requests
    assert first.path == "/v1/chat/completions"
    assert first.body == {
        "model": "judge",
        "messages": [QUESTION],
        "temperature": 0.5,
        "max_tokens": 7,
    }
    assert second.body["max_completion_tokens"] == 7
    assert "max_tokens" not in second.body
    assert "authorization" not in first.headers


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(fails(429), id="rate limit"),
        pytest.param(fails(500), id="server error"),
        pytest.param(fails(503), id="overloaded"),
        pytest.param(drops(), id="dropped connection"),
        pytest.param(garbles(b'{"choices": [{"mess'), id="malformed JSON"),
        pytest.param(garbles(b"\xff\xfe\x00"), id="no text at all"),
        pytest.param(garbles(b"[]"), id="other JSON"),
        pytest.param(garbles(b'{"choices": []}'), id="no choice"),
        pytest.param(garbles(b'{"choices": [{"message": {"content": 5}}]}'), id="no text"),
        pytest.param(garbles(b'{"choices":' + b"[" * 100_000), id="deep JSON"),
        pytest.param(garbles(b'{"choices": ' + b"1" * 10_000 + b"}"), id="long number"),
    ],
)
def test_client_tries_again_after_a_passing_failure(failure: Behaviour):
    """Two failures in turn are survived, with a wait that doubles and is spread by chance."""
    waits = Waits()
    with JudgeServer(in_turn([failure, failure], says("at last"))) as server:
        assert _ask(server, waits).text == "at last"
        assert len(server.requests) == 3
    assert len(waits.seconds) == 2
    assert 0.5 <= waits.seconds[0] <= 1.0
    assert 1.0 <= waits.seconds[1] <= 2.0


def test_client_gives_up_after_its_attempts():
    """After ``max_attempts`` failures the error says how many and what the last one was."""
    waits = Waits()
    with JudgeServer(in_turn([], fails(500, "on fire"))) as server:
        with pytest.raises(EndpointError, match=r"no answer in 3 attempts; .*HTTP 500: .*on fire"):
            _ask(server, waits, max_attempts=3)
        assert len(server.requests) == 3
    assert len(waits.seconds) == 2


def test_client_waits_as_long_as_it_is_asked_to():
    """``Retry-After`` in seconds is kept to in real time."""
    began = time.monotonic()
    with JudgeServer(in_turn([fails(429, Retry_After="0.4")], says("now"))) as server:
        assert _ask(server, time.sleep, backoff_seconds=0.01).text == "now"
    first, second = (request.at_seconds for request in server.requests)
    assert second - first >= 0.4
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        (90, 60, 91),
        (-90, 0, 1.1),
        ("soon", 0, 1.1),
        ("-5", 0, 1.1),
        ("nan", 0, 1.1),
        ("Fri, 01 Jan 2100 00:00:00 +99999999999999999999", 0, 1.1),
    ],
)
def test_client_reads_retry_after_as_date_and_survives_nonsense(
    header: str | int, least: float, most: float
):
    """A date so many seconds from now is understood, one in the past is no wait, and nonsense
    is ignored.
    """
    if isinstance(header, int):
        # Counted from the moment of the test, which may come minutes after its collection.
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=header), usegmt=True)
    waits = Waits()
    with JudgeServer(in_turn([fails(503, Retry_After=header)], says("now"))) as server:
        assert _ask(server, waits).text == "now"
    assert least <= max(waits.seconds) <= most


def test_client_does_not_wait_longer_than_its_limit():
    """An endpoint that asks for an hour is given up at once, with the remedy."""
    waits = Waits()
    with JudgeServer(in_turn([], fails(429, Retry_After="3600"))) as server:
        with pytest.raises(EndpointError, match=r"asks to wait 3600 s, .* = 120; run again later"):
            _ask(server, waits)
        assert len(server.requests) == 1
    assert waits.seconds == []


def test_client_does_not_repeat_what_cannot_work():
    """A wrong request, key, address or an empty account fails at once, with what to do."""
    for failure, kind, words in (
        (fails(400, "too long"), RequestRefused, "HTTP 400: .*too long"),
        (fails(401), EndpointError, "check the key in the environment variable"),
        (fails(404), EndpointError, "check url .* and the name of the model"),
        (fails(429, "insufficient_quota"), EndpointError, "HTTP 429.*insufficient_quota"),
        (fails(307, Location="http://127.0.0.1:1/"), EndpointError, "HTTP 307"),
    ):
        with JudgeServer(in_turn([], failure)) as server:
            with pytest.raises(EndpointError, match=words) as caught:
                _ask(server, Waits())
            assert type(caught.value) is kind
            assert len(server.requests) == 1


def test_client_times_out_on_silence():
    """An answer that does not come in time counts as a failed attempt."""
    slow = says("late", delay_seconds=0.6)
    with JudgeServer(in_turn([slow], says("quick"))) as server:
        assert _ask(server, Waits(), timeout_seconds=0.2).text == "quick"
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", id="body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Header: ", id="headers"),
    ],
)
def test_client_gives_up_an_answer_that_trickles(beginning: bytes):
    """The limit holds for an answer as a whole: bytes that keep coming do not put it off."""
    began = time.monotonic()
    with JudgeServer(in_turn([], trickles(beginning))) as server:
        with pytest.raises(EndpointError, match=r"no whole answer within timeout_seconds = 0\.3"):
            _ask(server, Waits(), timeout_seconds=0.3, max_attempts=2)
        assert len(server.requests) == 2
    assert time.monotonic() - began < 5


def test_half_a_character_in_an_answer_is_replaced():
    """JSON can hold what UTF-8 cannot; it could be neither sent back nor shown."""
    half = garbles(rb'{"choices": [{"message": {"content": "7 \ud83d\ude00 \ud83d"}}]}')
    with JudgeServer(in_turn([], half)) as server:
        assert _ask(server, Waits()).text == "7 \U0001f600 \ufffd"


def test_counts_of_tokens_that_are_none_are_not_told():
    """They are multiplied by prices, which numbers without end would break."""
    for num in ("-1", "1" * 400, "1.5", '"7"'):
        usage = f'"usage": {{"prompt_tokens": {num}, "completion_tokens": 3}}'
        body = f'{{"choices": [{{"message": {{"content": "7"}}}}], {usage}}}'
        with JudgeServer(in_turn([], garbles(body.encode()))) as server:
            assert _ask(server, Waits()) == Reply("7", "", None)


def test_client_says_when_nothing_listens():
    """Where no server is, the error names the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    endpoint = Endpoint(url=url, model="m", max_attempts=2)
    words = f"{url}: no answer in 2 attempts; .*ConnectError"
    with (
        ChatClient(endpoint, sleep=Waits()) as client,
        pytest.raises(EndpointError, match=words),
    ):
        client.complete(ASKED)


def test_key_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch):
    """The key is sent, and is in no representation and no error, though the server echoes it."""
    monkeypatch.setenv("ZIP_TEST_KEY", f" {KEY}\n")
    echo = fails(401, f"Incorrect API key provided: {KEY}")
    with JudgeServer(in_turn([says("yes")], echo)) as server:
        endpoint = Endpoint(url=server.url, model="judge", key_variable="ZIP_TEST_KEY")
        with ChatClient(endpoint, sleep=Waits()) as client:
            assert client.complete(ASKED).text == "yes"
            with pytest.raises(EndpointError) as caught:
                client.complete(ASKED)
            for shown in (str(caught.value), repr(client), repr(endpoint)):
                assert KEY not in shown
            assert "Incorrect API key provided: ***" in str(caught.value)
    assert [r.headers["authorization"] for r in server.requests] == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize(
    ("key", "told"),
    [
        pytest.param(KEY, KEY, id="as it is"),
        pytest.param("sk/very+secret", r"sk\/very\u002Bsecret", id="as JSON may write it"),
    ],
)
def test_key_in_what_is_no_completion_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str, told: str
):
    """An endpoint that repeats the request's headers as its answer does not give the key away."""
    monkeypatch.setenv("ZIP_TEST_KEY", key)
    echo = garbles(f'{{"authorization": "Bearer {told}"}}'.encode())
    with (
        JudgeServer(in_turn([], echo)) as server,
        pytest.raises(EndpointError, match=r"no chat completion: .*Bearer \*\*\*") as caught,
    ):
        _ask(server, Waits(), key_variable="ZIP_TEST_KEY", max_attempts=1)
    assert "secret" not in str(caught.value)


def test_word_that_is_no_secret_is_left_in_answers(monkeypatch: pytest.MonkeyPatch):
    """Local servers are given any word for a key, and answers hold such words."""
    monkeypatch.setenv("ZIP_TEST_KEY", "EMPTY")
    with JudgeServer(in_turn([], says("EMPTY, so [[0]]"))) as server:
        assert _ask(server, Waits(), key_variable="ZIP_TEST_KEY").text == "EMPTY, so [[0]]"


@pytest.mark.parametrize("key", [f"{KEY}\nsecond", f"{KEY}\u00e9"])
def test_key_that_no_header_may_hold_is_refused_unseen(monkeypatch: pytest.MonkeyPatch, key: str):
    """The HTTP library would refuse it as well, and repeat it."""
    monkeypatch.setenv("ZIP_TEST_KEY", key)
    endpoint = Endpoint(url="https://judge.example/v1", model="m", key_variable="ZIP_TEST_KEY")
    with pytest.raises(UserError, match="ZIP_TEST_KEY holds line ends or other signs") as caught:
        endpoint.key()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [200, 500])
def test_answer_without_end_is_not_read_to_it(status: int):
    """What is longer than any completion is given up at once, as is an error of that length."""
    endless = Behaviour(status=status, body=b" " * (5 << 20))
    with JudgeServer(in_turn([], endless)) as server:
        with pytest.raises(EndpointError, match=f"HTTP {status}, .* does not end within 4 MiB"):
            _ask(server, Waits())
        assert len(server.requests) == 1


def test_answer_is_never_unpacked():
    """No compression is asked for, and a small body that unpacks to a large one stays small."""
    body = gzip.compress(bytes(1 << 25))
    bomb = Behaviour(body=body, headers={"Content-Encoding": "gzip"})
    with JudgeServer(in_turn([], bomb)) as server:
        with pytest.raises(EndpointError, match=r"no chat completion: ['\"]\\x1f"):
            _ask(server, Waits(), max_attempts=1)
        assert server.requests[0].headers["accept-encoding"] == "identity"


def test_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch):
    """A missing variable is an error before anything is asked."""
    monkeypatch.delenv("ZIP_TEST_KEY", raising=False)
    endpoint = Endpoint(url="https://judge.example/v1", model="m", key_variable="ZIP_TEST_KEY")
    with pytest.raises(ValueError, match="environment variable ZIP_TEST_KEY is not set"):
        ChatClient(endpoint)


def test_key_is_not_sent_in_plain_text_to_another_machine(monkeypatch: pytest.MonkeyPatch):
    """Without https a key goes to this machine only."""
    monkeypatch.setenv("ZIP_TEST_KEY", KEY)
    endpoint = Endpoint(url="http://judge.example/v1", model="m", key_variable="ZIP_TEST_KEY")
    with pytest.raises(ValueError, match="is not encrypted") as caught:
        ChatClient(endpoint)
    assert KEY not in str(caught.value)
    assert Endpoint(url="http://judge.example/v1", model="m").key() == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "judge.example"}, "url: 'judge.example' is not allowed"),
        ({"url": "ftp://judge.example"}, "must be like https://host/v1"),
        ({"url": "me:sk-1@judge.example/v1?key=sk-1"}, "url: 'judge.example/v1' is not allowed"),
        ({"url": "https://me:sk-1@[judge/v1"}, r"url: '\[judge/v1' is not allowed"),
        ({"url": "https://judge.example:99999/v1"}, "url: 'https://judge.example:99999/v1' is not"),
        ({"url": "https://judge.example/v1\n"}, r"url: 'https://judge.example/v1\\n' is not"),
        ({"url": "https://me:sk-1@judge.example/v1"}, "judge.example has credentials"),
        ({"url": "https://judge.example/v1?key=sk-1"}, "judge.example has credentials"),
        ({"model": ""}, "model: empty"),
        ({"max_attempts": 0}, "max_attempts: got 0; allowed are whole numbers, 1 and up"),
    ],
)
def test_endpoint_refuses_what_cannot_be_asked(fields: dict[str, object], message: str):
    """A wrong address or limit is named, and a key in an address is not repeated."""
    given = {"url": "https://judge.example/v1", "model": "m"} | fields
    with pytest.raises(ValueError, match=message) as caught:
        Endpoint(**given)  # type: ignore[arg-type]
    assert "sk-1" not in str(caught.value)
