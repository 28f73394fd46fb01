"""The stored questions and answers of an evaluation, so that a killed run goes on."""

import fcntl
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from zip_pipeline.evaluation.chat_client import Reply
from zip_pipeline.evaluation.endpoint import Message
from zip_pipeline.storage import fingerprint

_BEGINNING = b'{"key": "'


class Responder(Protocol):
    """Whatever answers a conversation: :class:`ChatClient`, or a model in this process."""

    def complete(
        self, messages: Sequence[Message], *, temperature: float, max_tokens: int
    ) -> Reply:
        """Return the answer to a conversation."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One question, with all that its answer depends on.

    ``model`` names who is asked (for a trained model: with its version, so that two versions
    never share an answer); ``repetition`` tells repeated askings of the same apart.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    repetition: int = 0

    def key(self) -> str:
        """Return the content hash under which the answer is stored."""
        turns = json.dumps([sorted(message.items()) for message in self.messages])
        settings = f"{self.temperature!r} {self.max_tokens} {self.repetition}"
        return fingerprint([self.model, settings, turns])


class ExchangeStore:
    """Answers by content hash in a JSONL file, one line per answer; use it in a ``with`` block.

    Each answer is on disk before the next step uses it, so a run that is killed at any moment
    asks again only what was under way. A line that a killed writer left unfinished is cut off.

    Args:
        path: the file; it and its folders are made where missing.

    Raises:
        ValueError: another process writes the file, or a line in it is no stored answer.
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._replies)

    def _read(self) -> dict[str, Reply]:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
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
            return record["key"], Reply(record["text"], record["finish_reason"])
        except (ValueError, LookupError, TypeError):
            raise self._foreign(number) from None

    def _foreign(self, number: int) -> ValueError:
        return ValueError(
            f"{self._path}, line {number}: not a stored answer; move the file away to ask "
            "everything again"
        )

    def ask(self, responder: Responder, exchange: Exchange) -> Reply:
        """Return the stored answer, or ask for it and store it.

        Raises:
            EndpointError: the endpoint failed; nothing is stored.
        """
        key = exchange.key()
        with self._lock:
            known = self._replies.get(key)
        if known is not None:
            return known
        reply = responder.complete(
            exchange.messages, temperature=exchange.temperature, max_tokens=exchange.max_tokens
        )
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
