"""An OpenAI-compatible endpoint: where it is, which model, and how patient to be with it."""

import os
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

Message: TypeAlias = dict[str, str]
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class EndpointError(RuntimeError):
    """The endpoint cannot be used: what is stored stays, and a later run goes on from there."""


class RequestRefused(EndpointError):
    """The endpoint works, but takes this one request as wrong (a text that is too long, say)."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where chat completions are asked for; holds the name of the key, never the key."""

    url: str
    """Base address, to which ``/chat/completions`` is added; mostly ends with ``/v1``."""
    model: str
    """Name of the model at the endpoint."""
    key_variable: str = ""
    """Name of the environment variable with the key; empty for an endpoint that wants none."""
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the endpoint calls the limit on an answer; newer models want the longer name."""
    connect_timeout_seconds: float = 10.0
    timeout_seconds: float = 180.0
    """Longest silence while an answer is awaited."""
    max_attempts: int = 6
    """How often one request is tried in all."""
    backoff_seconds: float = 1.0
    """Wait before the second attempt; it doubles with each further one."""
    max_wait_seconds: float = 120.0
    """Longest single wait; an endpoint that asks for a longer one is given up."""
    max_concurrency: int = 8
    """How many requests are under way at once."""

    def __post_init__(self) -> None:
        """Refuse an address that is none, or that has a key in it, and limits without sense."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"url: {self.url!r} is not allowed; must be like https://host/v1 or "
                "http://localhost:8000/v1"
            )
        if parts.username or parts.password or parts.query:
            raise ValueError(
                f"url: the address of {parts.hostname} has credentials or a query in it; give the "
                "key in an environment variable and name that in key_variable"
            )
        if not self.model:
            raise ValueError("model: empty; must be the name of a model at the endpoint")
        positive = ("connect_timeout_seconds", "timeout_seconds", "max_attempts", "max_concurrency")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)} is not allowed; must be above 0")

    def key(self) -> str:
        """Return the key from the environment, empty where the endpoint wants none.

        Raises:
            ValueError: the variable is not set, or the key would be sent in plain text to
                another machine.
        """
        if not self.key_variable:
            return ""
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise ValueError(
                f"the environment variable {self.key_variable} is not set; put the key of "
                f"{self.url} there, or leave key_variable empty if it wants none"
            )
        parts = urlsplit(self.url)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError(
                f"url: {self.url} is not encrypted, and the key would be readable on its way; "
                "use https, or leave key_variable empty"
            )
        return key
