"""Asks an OpenAI-compatible endpoint, and stays polite when it is busy, broken or confused."""

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from zip_pipeline.evaluation.endpoint import Endpoint, EndpointError, Message, RequestRefused

if TYPE_CHECKING:
    import httpx

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_REFUSED = frozenset({400, 413, 422})
_REMEDIES = {
    401: "check the key in the environment variable that key_variable names",
    403: "check the rights of the key",
    404: "check url (it mostly ends with /v1) and the name of the model",
}
_NUM_BODY_CHARACTERS = 300


@dataclass(frozen=True)
class Reply:
    """What the endpoint answered: the text, and why it ended (``stop``, ``length``, ...)."""

    text: str
    finish_reason: str


class _Transient(Exception):
    """An attempt failed in a way that the next may not."""

    def __init__(self, words: str, wait_seconds: float | None = None) -> None:
        super().__init__(words)
        self.wait_seconds = wait_seconds


class ChatClient:
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
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(
                endpoint.timeout_seconds, connect=endpoint.connect_timeout_seconds, pool=None
            ),
            limits=httpx.Limits(max_connections=endpoint.max_concurrency),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def complete(
        self, messages: Sequence[Message], *, temperature: float, max_tokens: int
    ) -> Reply:
        """Return the endpoint's answer to a conversation.

        Args:
            messages: ``role`` and ``content`` of each turn.
            temperature: of the sampling; 0 for the likeliest answer.
            max_tokens: most tokens of the answer.

        Raises:
            RequestRefused: the endpoint takes this request as wrong; others may do.
            EndpointError: it refused the key or model, or failed in every attempt.
        """
        body = {
            "model": self.endpoint.model,
            "messages": list(messages),
            "temperature": temperature,
            self.endpoint.token_limit_field: max_tokens,
        }
        last = self.endpoint.max_attempts
        for attempt in range(1, last + 1):
            self._wait_until_allowed()
            try:
                return self._attempt(body)
            except _Transient as failure:
                if attempt == last:
                    raise EndpointError(
                        f"{self.endpoint.url}: no answer in {last} attempts; the last: {failure}"
                    ) from None
                self._postpone(attempt, failure)
        raise AssertionError("max_attempts is above 0")

    def _wait_until_allowed(self) -> None:
        with self._lock:
            wait_seconds = self._not_before - time.monotonic()
        if wait_seconds > 0:
            self._sleep(wait_seconds)

    def _postpone(self, attempt: int, failure: _Transient) -> None:
        limit = self.endpoint.max_wait_seconds
        asked = failure.wait_seconds or 0.0
        if asked > limit:
            raise EndpointError(
                f"{self.endpoint.url}: asks to wait {asked:.0f} s, more than max_wait_seconds = "
                f"{limit:.0f}; run again later, what is stored is not asked again"
            )
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + asked)
        wait = min(limit, self.endpoint.backoff_seconds * 2 ** (attempt - 1))
        # Spread, so that requests that failed together do not come back together.
        self._sleep(wait * random.uniform(0.5, 1.0))

    def _attempt(self, body: dict[str, Any]) -> Reply:
        import httpx

        try:
            response = self._http.post(
                f"{self.endpoint.url.rstrip('/')}/chat/completions", json=body
            )
        except httpx.RequestError as error:
            name = type(error).__name__
            raise _Transient(self._without_key(f"{name}: {error}")) from None
        if response.status_code != httpx.codes.OK:
            raise self._failure(response)
        return _reply(response)

    def _failure(self, response: "httpx.Response") -> Exception:
        status = response.status_code
        words = f"HTTP {status}: {self._without_key(response.text)[:_NUM_BODY_CHARACTERS]}"
        # An account without money answers 429 for ever.
        if status in _RETRIED and "insufficient_quota" not in response.text:
            return _Transient(words, _retry_after_seconds(response.headers.get("Retry-After")))
        if status in _REFUSED:
            return RequestRefused(f"{self.endpoint.url}: {words}")
        remedy = _REMEDIES.get(status, "see what the endpoint says")
        return EndpointError(f"{self.endpoint.url}: {words}; {remedy}")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _reply(response: "httpx.Response") -> Reply:
    """Return the answer in a response; what is no chat completion counts as a failed attempt."""
    try:
        choice = json.loads(response.content)["choices"][0]
        text = choice["message"]["content"]
        finish_reason = choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError):
        excerpt = response.text[:_NUM_BODY_CHARACTERS]
        raise _Transient(f"the answer is no chat completion: {excerpt!r}") from None
    if text is not None and not isinstance(text, str):
        raise _Transient(f"the answer's content is no text: {text!r:.{_NUM_BODY_CHARACTERS}}")
    return Reply(text or "", finish_reason if isinstance(finish_reason, str) else "")


def _retry_after_seconds(header: str | None) -> float | None:
    """Return the wait that a ``Retry-After`` header asks for: seconds, or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header).timestamp()
    except ValueError:
        return None
    return max(0.0, moment - time.time())
