"""A small HTTP server on loopback that speaks the chat completions protocol, and misbehaves.

What it answers is a function of the request, so a test scripts errors by count or by content.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any

from zip_pipeline_tests.loopback import LoopbackServer


@dataclass(frozen=True)
class Behaviour:
    """What the server does with one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drops: bool = False
    delay_seconds: float = 0.0
    trickle: bytes | None = None
    """what is sent instead, and then one more byte again and again until the client hangs up"""


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at_seconds: float

    @property
    def question(self) -> str:
        """The last message."""
        return self.body["messages"][-1]["content"]


Respond = Callable[[Received, int], Behaviour]


def says(text: str | None, *, finish_reason: str = "stop", delay_seconds: float = 0) -> Behaviour:
    """Answer with a chat completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    body = {"object": "chat.completion", "choices": [choice]}
    return Behaviour(body=json.dumps(body).encode(), delay_seconds=delay_seconds)


def fails(status: int, text: str = "no", **headers: str) -> Behaviour:
    """Answer with an error; ``Retry_After="1"`` sets that header."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"error": {"message": text}}).encode()
    return Behaviour(status=status, body=body, headers=names)


def drops() -> Behaviour:
    """Close the connection in the middle of the answer."""
    return Behaviour(drops=True)


def trickles(beginning: bytes) -> Behaviour:
    """Begin an answer and never end it, though a byte comes every few milliseconds."""
    return Behaviour(trickle=beginning)


def garbles(body: bytes) -> Behaviour:
    """Answer with these bytes and a status that says all is well."""
    return Behaviour(body=body)


def in_turn(behaviours: Iterable[Behaviour], then: Behaviour) -> Respond:
    """Do one after the other, and then always the last."""
    listed = list(behaviours)
    return lambda _, count: listed[count] if count < len(listed) else then


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    judge_server: "JudgeServer"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        received = Received(self.path, json.loads(content), headers, time.monotonic())
        with self.judge_server.counted(received) as behaviour:
            time.sleep(behaviour.delay_seconds)
            self._answer(behaviour)

    def _trickle(self, beginning: bytes) -> None:
        self.close_connection = True
        with suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(beginning)
            while not self.judge_server.is_stopped.wait(0.02):
                self.wfile.write(b"x")

    def _answer(self, behaviour: Behaviour) -> None:
        if behaviour.trickle is not None:
            self._trickle(behaviour.trickle)
            return
        self.send_response(behaviour.status)
        self.send_header("Content-Type", "application/json")
        for name, value in behaviour.headers.items():
            self.send_header(name, value)
        length = len(behaviour.body) + (100 if behaviour.drops else 0)
        self.send_header("Content-Length", str(length))
        try:
            self.end_headers()
            self.wfile.write(behaviour.body)
        except (BrokenPipeError, ConnectionResetError):  # the client was killed
            self.close_connection = True
        if behaviour.drops:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Stay silent."""


class JudgeServer(LoopbackServer):
    """The running server; use it in a ``with`` block, at whose end it stops.

    ``requests`` are all that came; ``max_at_once`` says how many were ever under way together.
    """

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self.is_stopped = threading.Event()
        self._lock = threading.Lock()
        self.requests: list[Received] = []
        self._at_once = 0
        self.max_at_once = 0
        super().__init__(type("Handler", (_Handler,), {"judge_server": self}))
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def counted(self, received: Received) -> "_Counted":
        """Note a request, and return what to do with it for as long as it is under way."""
        return _Counted(self, received)

    def begin(self, received: Received) -> Behaviour:
        """Note the begin of a request."""
        with self._lock:
            count = len(self.requests)
            self.requests.append(received)
            self._at_once += 1
            self.max_at_once = max(self.max_at_once, self._at_once)
        return self._respond(received, count)

    def end(self) -> None:
        """Note the end of a request."""
        with self._lock:
            self._at_once -= 1

    def stop(self) -> None:
        """Let who waits for an answer go as well."""
        self.is_stopped.set()
        super().stop()


class _Counted:
    def __init__(self, server: JudgeServer, received: Received) -> None:
        self._server = server
        self._received = received

    def __enter__(self) -> Behaviour:
        return self._server.begin(self._received)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.end()
