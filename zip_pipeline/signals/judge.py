"""Signal ``judge``: how good a judge finds a sample, asked at an endpoint."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import polars as pl
from pydantic import Field

from zip_pipeline.errors import UserError, require
from zip_pipeline.judge.client import (
    ChatClient,
    Endpoint,
    EndpointError,
    Exchange,
    ExchangeStore,
    Reply,
    Responder,
)
from zip_pipeline.judge.ratings import (
    AUDIT_PROMPT,
    JudgeSettings,
    audit_question,
    conversation_of,
    rate_all,
)
from zip_pipeline.samples import Stage
from zip_pipeline.settings import Settings
from zip_pipeline.signals import Measure, Signal, Tools

_MAX_TOKENS = 512
_MILLION = 1_000_000


class JudgeSignalSettings(Settings):
    """Who judges, and what it may cost: the table ``[signals.judge]``."""

    shows_texts = False

    endpoint: Endpoint | None = Field(
        default=None,
        description="Where the judge is asked: url, model, key_variable and more, as of the judge "
        "in [quality_audit].",
    )
    max_cost: float = Field(
        default=0.0,
        ge=0,
        description="Most that one run may cost, in the currency of the prices; 0 for no limit.",
    )
    price_asked: float = Field(
        default=0.0, ge=0, description="Price of a million tokens of questions."
    )
    price_said: float = Field(
        default=0.0, ge=0, description="Price of a million tokens of answers."
    )


class Judge(Signal):
    """The rating of the last answer as training data, 0 to 5; null where the judge gave none.

    The question is that of the quality audit. Answers are kept by what they answer, so none is
    paid for twice, and a run that was stopped goes on.

    Source: AlpaGasus (arXiv 2307.08701), ratings from 0 to 5.
    Deviation: own prompt; whole conversations.
    """

    name = "judge"
    description = "how good a language model at an endpoint finds the answer, 0 to 5"
    settings = JudgeSignalSettings
    columns = pl.Schema({"rating": pl.Float64})
    block: ClassVar[int] = 64

    def identity(self, settings: JudgeSignalSettings, tools: Tools) -> str:
        """Return the judge's model and the prompt."""
        return f"judge {_endpoint(settings).model}, prompt {AUDIT_PROMPT}"

    def cost(self, example: pl.DataFrame, num_samples: int, settings: Any) -> str:  # noqa: ANN401
        """Return the most that it can cost, without what is repeated."""
        stage: Stage = "sft" if "turns" in example.columns else "preference"
        questions = [audit_question(conversation_of(row, stage)) for row in example.to_dicts()]
        most = [_most(sum(len(m["content"].encode()) for m in q), settings) for q in questions]
        if not sum(most):
            return f"by {_endpoint(settings).model}, without a price"
        limit = f", of which {settings.max_cost:,.2f} may be spent" if settings.max_cost else ""
        whole = sum(most) / len(most) * num_samples
        return f"by {_endpoint(settings).model}, at most {whole:,.2f}{limit}"

    @contextmanager
    def open(self, settings: JudgeSignalSettings, stage: Stage, tools: Tools) -> Iterator[Measure]:
        """Connect to the judge, and open the file of its answers."""
        require("httpx", "signal judge")
        endpoint = _endpoint(settings)
        asked = JudgeSettings(judge=endpoint, low=0, high=5, repetitions=1, max_tokens=_MAX_TOKENS)
        path = tools.folder / "answers.jsonl"
        with ChatClient(endpoint) as client, ExchangeStore(path) as store:
            purse = _Purse(client.complete, settings)

            def measure(samples: pl.DataFrame) -> pl.DataFrame:
                rows = samples.to_dicts()
                questions = [audit_question(conversation_of(row, stage)) for row in rows]
                try:
                    ratings = rate_all(purse.ask, store, questions, asked)
                except EndpointError as error:
                    raise UserError(
                        f"signals: judge: {error}. What was answered is kept; select again to go on"
                    ) from error
                values = [of_sample[0].value for of_sample in ratings]
                return pl.DataFrame({"rating": values}, schema=self.columns)

            yield measure


def _endpoint(settings: JudgeSignalSettings) -> Endpoint:
    if settings.endpoint is None:
        raise UserError(
            "signals: judge: endpoint: none is given; name url and model in a table "
            "[signals.judge.endpoint] of zip_pipeline.toml"
        )
    return settings.endpoint


def _most(num_bytes: int, settings: JudgeSignalSettings) -> float:
    """Return the most that a question of so many bytes can cost: a token is a byte or more."""
    return (num_bytes * settings.price_asked + _MAX_TOKENS * settings.price_said) / _MILLION


class _Purse:
    """Asks as long as the answer cannot cost more than what is left.

    What an answer may cost at most is set aside before it is asked for; then counts what the
    endpoint says that it took, where it says so.
    """

    def __init__(self, responder: Responder, settings: JudgeSignalSettings) -> None:
        self._responder = responder
        self._settings = settings
        self._lock = threading.Lock()
        self._spent = 0.0

    def ask(self, exchange: Exchange) -> Reply:
        """Return the answer.

        Raises:
            UserError: it may cost more than what is left.
        """
        settings = self._settings
        most = _most(sum(len(m["content"].encode()) for m in exchange.messages), settings)
        with self._lock:
            if settings.max_cost and self._spent + most > settings.max_cost:
                raise UserError(
                    f"signals: judge: max_cost: {self._spent:,.2f} of {settings.max_cost:,.2f} are "
                    "spent, and the next question may cost more than what is left. What was "
                    "answered is kept; select again to go on, or raise it"
                )
            self._spent += most
        reply = self._responder(exchange)
        if reply.num_tokens is not None:
            asked, said = reply.num_tokens
            took = (asked * settings.price_asked + said * settings.price_said) / _MILLION
            with self._lock:
                self._spent += took - most
        return reply


SIGNAL = Judge()
