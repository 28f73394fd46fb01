"""Asks an OpenAI-compatible endpoint, and stays polite when it is busy, broken or confused."""

import asyncio
import fcntl
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.settings import Settings

if TYPE_CHECKING:
    import httpx

Message: TypeAlias = dict[str, str]
# Lower case is left out so that a key, given in place of its variable, is noticed.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*|")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class EndpointError(RuntimeError):
    """The endpoint cannot be used: what is stored stays, and a later run goes on from there."""


class RequestRefused(EndpointError):
    """The endpoint works, but takes this one request as wrong (a text that is too long, say)."""


class Endpoint(Settings):
    """Where chat completions are asked for; holds the name of the key, never the key."""

    shows_texts = False

    url: str
    """Base address, to which ``/chat/completions`` is added; mostly ends with ``/v1``."""
    model: str
    """Name of the model at the endpoint."""
    key_variable: str = ""
    """Name of the environment variable with the key; empty for an endpoint that wants none."""
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the endpoint calls the limit on an answer; newer models want the longer name."""
    connect_timeout_seconds: float = Field(default=10.0, gt=0)
    timeout_seconds: float = Field(default=180.0, gt=0)
    """Longest wait for a whole answer, however its parts come."""
    max_attempts: int = Field(default=6, ge=1)
    """How often one request is tried in all."""
    backoff_seconds: float = Field(default=1.0, ge=0)
    """Wait before the second attempt; it doubles with each further one."""
    max_wait_seconds: float = Field(default=120.0, ge=0)
    """Longest single wait; an endpoint that asks for a longer one is given up."""
    max_concurrency: int = Field(default=8, ge=1)
    """How many requests are under way at once."""

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        """Refuse an address that is none, or that has a key in it, and a key for its variable."""
        try:
            parts = urlsplit(self.url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url or not self.url.isprintable() or " " in self.url:
            # Without what may be a key: where there is no scheme, the parts cannot be told.
            shown = re.split(r"[?#]", self.url.rpartition("@")[2])[0]
            raise UserError(
                f"url: {shown!r} is not allowed; must be like https://host/v1 or "
                "http://localhost:8000/v1"
            )
        if parts.username or parts.password or parts.query:
            raise UserError(
                f"url: the address of {parts.hostname} has credentials or a query in it; give the "
                "key in an environment variable and name that in key_variable"
            )
        if not self.model:
            raise UserError("model: empty; must be the name of a model at the endpoint")
        if not _VARIABLE.fullmatch(self.key_variable):
            # Not shown: it may be the key itself.
            raise UserError(
                "key_variable: not the name of an environment variable; allowed are A to Z, 0 to 9 "
                "and _. Put the key in a variable and give its name here"
            )
        return self

    def key(self) -> str:
        """Return the key from the environment, empty where the endpoint wants none.

        Raises:
            UserError: the variable is not set, or the key would be sent in plain text to
                another machine.
        """
        if not self.key_variable:
            return ""
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise UserError(
                f"the environment variable {self.key_variable} is not set; put the key of "
                f"{self.url} there, or leave key_variable empty if it wants none"
            )
        if not (key.isascii() and key.isprintable()):
            raise UserError(
                f"the environment variable {self.key_variable} holds line ends or other signs that "
                "no key has; put nothing but the key there"
            )
        parts = urlsplit(self.url)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise UserError(
                f"url: {self.url} is not encrypted, and the key would be readable on its way; "
                "use https, or leave key_variable empty"
            )
        return key


_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_REFUSED = frozenset({400, 413, 422})
_REMEDIES = {
    401: "check the key in the environment variable that key_variable names",
    403: "check the rights of the key",
    404: "check url (it mostly ends with /v1) and the name of the model",
}
_NUM_BODY_CHARACTERS = 300
# Parsed it may take twenty times as much, for each request under way.
_MAX_BODY_BYTES = 1 << 22
_MAX_TOKENS = 1 << 40
# Endpoints that want no key are given a word, such as EMPTY, which answers may hold.
_LEAST_SECRET = 8
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Reply:
    """What the endpoint answered: the text, and why it ended (``stop``, ``length``, ...)."""

    text: str
    finish_reason: str
    num_tokens: tuple[int, int] | None = None
    """of question and answer, as the endpoint counts them; None where it does not tell"""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One question, with all that its answer depends on.

    ``model`` names who is asked (for a trained model: with its version, so that two versions
    never share an answer); ``repetition`` tells repeated askings of the same apart.
    """

    model: str
    messages: tuple[Message, ...]
    """``role`` and ``content`` of each turn"""
    temperature: float
    """of the sampling; 0 for the likeliest answer"""
    max_tokens: int
    """most tokens of the answer"""
    repetition: int = 0

    def key(self) -> str:
        """Return the content hash under which the answer is stored."""
        turns = json.dumps([sorted(message.items()) for message in self.messages])
        settings = f"{self.temperature!r} {self.max_tokens} {self.repetition}"
        return fingerprint([self.model, settings, turns])


# Whatever answers: a client, or a model in this process.
Responder: TypeAlias = Callable[[Exchange], Reply]


class _Transient(Exception):
    """An attempt failed in a way that the next may not."""

    def __init__(self, words: str, wait_seconds: float = 0.0) -> None:
        super().__init__(words)
        self.wait_seconds = wait_seconds


class ChatClient(AbstractContextManager["ChatClient"]):
    """A client that many threads share; use it in a ``with`` block.

    Rate limits (429), server errors, timeouts, lost connections and answers that are no chat
    completion are tried again after a wait that doubles and is spread by chance, and no sooner
    than ``Retry-After`` asks. When the endpoint asks one request to wait, all wait.

    Args:
        endpoint: where to ask.
        sleep: how to wait; replaced in tests.
    """

    def __init__(self, endpoint: Endpoint, *, sleep: Callable[[float], None] = time.sleep) -> None:
        import httpx

        self.endpoint = endpoint
        self._key = endpoint.key()
        self._sleep = sleep
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._open = ExitStack()
        # Its timeouts begin anew with each byte; a clock for a whole answer takes an event loop.
        self._http = httpx.AsyncClient(
            # What comes compressed could be a thousand times as large as what was read.
            headers={"Accept-Encoding": "identity"}
            | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            timeout=httpx.Timeout(None, connect=endpoint.connect_timeout_seconds),
            limits=httpx.Limits(max_connections=endpoint.max_concurrency),
        )

    def __enter__(self) -> Self:
        from anyio.from_thread import start_blocking_portal  # which httpx is built on

        self._portal = self._open.enter_context(start_blocking_portal())
        self._open.callback(self._portal.call, self._http.aclose)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def complete(self, exchange: Exchange) -> Reply:
        """Return the endpoint's answer.

        Raises:
            RequestRefused: the endpoint takes this request as wrong; others may do.
            EndpointError: it refused the key or model, or failed in every attempt.
        """
        body = {
            "model": self.endpoint.model,
            "messages": exchange.messages,
            "temperature": exchange.temperature,
            self.endpoint.token_limit_field: exchange.max_tokens,
        }
        for attempt in range(1, self.endpoint.max_attempts + 1):
            with self._lock:
                wait_seconds = self._not_before - time.monotonic()
            if wait_seconds > 0:
                self._sleep(wait_seconds)
            try:
                return self._attempt(body)
            except _Transient as failure:
                last = failure
            if attempt < self.endpoint.max_attempts:
                self._postpone(attempt, last)
        raise EndpointError(
            f"{self.endpoint.url}: no answer in {attempt} attempts; the last: {last}"
        )

    def _postpone(self, attempt: int, failure: _Transient) -> None:
        limit = self.endpoint.max_wait_seconds
        if failure.wait_seconds > limit:
            raise EndpointError(
                f"{self.endpoint.url}: asks to wait {failure.wait_seconds:.0f} s, more than "
                f"max_wait_seconds = {limit:.0f}; run again later, what is stored is not asked "
                "again"
            )
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + failure.wait_seconds)
        wait = min(limit, self.endpoint.backoff_seconds * 2 ** (attempt - 1))
        # Spread, so that requests that failed together do not come back together.
        self._sleep(wait * random.uniform(0.5, 1.0))

    def _attempt(self, body: dict[str, Any]) -> Reply:
        import httpx

        try:
            response, text = self._portal.call(self._post, body)
        except TimeoutError:
            limit = self.endpoint.timeout_seconds
            raise _Transient(f"no whole answer within timeout_seconds = {limit:g}") from None
        except httpx.RequestError as error:
            name = type(error).__name__
            raise _Transient(self._without_key(f"{name}: {error}")) from None
        if response.status_code != httpx.codes.OK:
            raise self._failure(response, text)
        return _reply(text)

    async def _post(self, body: dict[str, Any]) -> "tuple[httpx.Response, str]":
        """Return a response and its body, without the key that an endpoint may repeat in it."""
        url = f"{self.endpoint.url.rstrip('/')}/chat/completions"
        content = bytearray()
        async with (
            asyncio.timeout(self.endpoint.timeout_seconds),
            self._http.stream("POST", url, json=body) as response,
        ):
            async for part in response.aiter_raw():
                content += part
                if len(content) > _MAX_BODY_BYTES:
                    raise EndpointError(
                        f"{self.endpoint.url}: HTTP {response.status_code}, and the answer does "
                        f"not end within {_MAX_BODY_BYTES >> 20} MiB, so it is no chat completion; "
                        "check url (it mostly ends with /v1)"
                    )
        return response, self._without_key(content.decode("utf-8", "replace"))

    def _failure(self, response: "httpx.Response", text: str) -> Exception:
        status = response.status_code
        words = f"HTTP {status}: {text[:_NUM_BODY_CHARACTERS]}"
        # An account without money answers 429 for ever.
        if status in _RETRIED and "insufficient_quota" not in text:
            return _Transient(words, _wait_seconds(response.headers.get("Retry-After", "")))
        if status in _REFUSED:
            return RequestRefused(f"{self.endpoint.url}: {words}")
        remedy = _REMEDIES.get(status, "see what the endpoint says")
        return EndpointError(f"{self.endpoint.url}: {words}; {remedy}")

    def _without_key(self, text: str) -> str:
        """Return a text without the key, however JSON writes it."""
        if len(self._key) < _LEAST_SECRET:
            return text
        signs = (rf"(?:\\?{re.escape(sign)}|\\u00(?i:{ord(sign):02x}))" for sign in self._key)
        return re.sub("".join(signs), "***", text)


def _reply(body: str) -> Reply:
    """Return the answer in a body; what is no chat completion counts as a failed attempt."""
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        text = choice["message"]["content"]
        finish_reason = choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        excerpt = body[:_NUM_BODY_CHARACTERS]
        raise _Transient(f"the answer is no chat completion: {excerpt!r}") from None
    if text is not None and not isinstance(text, str):
        raise _Transient(f"the answer's content is no text: {text!r:.{_NUM_BODY_CHARACTERS}}")
    finish_reason = finish_reason if isinstance(finish_reason, str) else ""
    return Reply(_whole(text or ""), _whole(finish_reason), _num_tokens(completion.get("usage")))


def _whole(text: str) -> str:
    """Return a text without halves of surrogate pairs: it may have to be sent, as UTF-8."""
    return _SURROGATES.sub("\ufffd", text)


def _num_tokens(usage: object) -> tuple[int, int] | None:
    values = usage if isinstance(usage, dict) else {}
    asked, said = (values.get(f"{name}_tokens") for name in ("prompt", "completion"))
    if isinstance(asked, int) and isinstance(said, int) and min(asked, said) >= 0:
        return (asked, said) if max(asked, said) < _MAX_TOKENS else None
    return None


def _wait_seconds(retry_after: str) -> float:
    """Return the wait that a header asks for: seconds, or a date; 0 for what is neither."""
    with suppress(ValueError):
        return max(0.0, float(retry_after))
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    return 0.0


_BEGINNING = b'{"key": "'


class ExchangeStore(AbstractContextManager["ExchangeStore"]):
    """Answers by content hash in a JSONL file, one line per answer; use it in a ``with`` block.

    Each answer is on disk before the next step uses it, so a run that is killed at any moment
    asks again only what was under way. A line that a killed writer left unfinished is cut off.

    Args:
        path: the file; it and its folders are made where missing.

    Raises:
        UserError: another process writes the file, or a line in it is no stored answer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._replies = self._read()
        except BaseException:
            self._file.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._replies)

    def _read(self) -> dict[str, Reply]:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self._path}: another run writes this file; wait for its end, or name another"
            ) from None
        self._file.seek(0)
        content = self._file.read()
        complete = content.rfind(b"\n") + 1
        lines = content[:complete].splitlines()
        replies = dict(self._parsed(number, line) for number, line in enumerate(lines, start=1))
        # A killed writer leaves the beginning of a record; anything else is not ours to cut off.
        rest = content[complete:]
        if rest[: len(_BEGINNING)] != _BEGINNING[: len(rest)]:
            raise self._foreign(len(lines) + 1)
        self._file.truncate(complete)
        return replies

    def _parsed(self, number: int, line: bytes) -> tuple[str, Reply]:
        try:
            record: dict[str, Any] = json.loads(line)
            # Earlier releases stored halves of surrogate pairs.
            return record["key"], Reply(_whole(record["text"]), record["finish_reason"])
        except (ValueError, LookupError, TypeError):
            raise self._foreign(number) from None

    def _foreign(self, number: int) -> UserError:
        return UserError(
            f"{self._path}, line {number}: not a stored answer; move the file away to ask "
            "everything again"
        )

    def ask(self, responder: Responder, exchange: Exchange) -> Reply:
        """Return the stored answer, or ask for it and store it.

        Raises:
            EndpointError: the endpoint failed; nothing is stored.
        """
        key = exchange.key()
        known = self._replies.get(key)
        if known is not None:
            return known
        reply = responder(exchange)
        self._write(key, exchange, reply)
        return reply

    def _write(self, key: str, exchange: Exchange, reply: Reply) -> None:
        record = {
            "key": key,
            "model": exchange.model,
            "repetition": exchange.repetition,
            "temperature": exchange.temperature,
            "question": exchange.messages[-1]["content"],
            "text": reply.text,
            "finish_reason": reply.finish_reason,
        }
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._replies[key] = reply
