"""Stored questions and answers."""

import json
from pathlib import Path

import pytest

from zip_pipeline.judge.client import EndpointError, Exchange, ExchangeStore, Reply


class Echo:
    """Answers with the question and its count, or fails."""

    def __init__(self) -> None:
        self.count = 0
        self.fails = False

    def __call__(self, exchange: Exchange) -> Reply:
        """Count and answer."""
        self.count += 1
        if self.fails:
            raise EndpointError("down")
        return Reply(f"{exchange.messages[-1]['content']} {self.count}\r\u2028\n", "stop")


def _exchange(text: str = "hello", **fields: object) -> Exchange:
    given: dict[str, object] = {"model": "m", "temperature": 0.0, "max_tokens": 5} | fields
    return Exchange(messages=({"role": "user", "content": text},), **given)  # type: ignore[arg-type]


def test_store_asks_once_and_remembers(tmp_path: Path):
    """A question is asked once, in this run and in later ones."""
    echo = Echo()
    path = tmp_path / "new" / "answers.jsonl"
    with ExchangeStore(path) as store:
        first = store.ask(echo, _exchange())
        assert store.ask(echo, _exchange()) == first
    with ExchangeStore(path) as store:
        assert len(store) == 1
        assert store.ask(echo, _exchange()) == first == Reply("hello 1\r\u2028\n", "stop")
    assert echo.count == 1


@pytest.mark.parametrize(
    "other",
    [
        _exchange("bye"),
        _exchange(model="n"),
        _exchange(temperature=0.1),
        _exchange(max_tokens=6),
        _exchange(repetition=1),
    ],
)
def test_store_tells_questions_apart(tmp_path: Path, other: Exchange):
    """Text, model, temperature, limit and repetition all make another question."""
    echo = Echo()
    with ExchangeStore(tmp_path / "a.jsonl") as store:
        assert store.ask(echo, _exchange()) != store.ask(echo, other)
    assert echo.count == 2


def test_store_keeps_nothing_of_a_failure(tmp_path: Path):
    """A question whose asking failed is asked again."""
    echo = Echo()
    echo.fails = True
    with ExchangeStore(tmp_path / "a.jsonl") as store:
        with pytest.raises(EndpointError):
            store.ask(echo, _exchange())
        echo.fails = False
        assert store.ask(echo, _exchange()).text.startswith("hello 2")


@pytest.mark.parametrize("num_bytes_cut", [1, 10, 60])
def test_store_survives_a_line_cut_short(tmp_path: Path, num_bytes_cut: int):
    """What a killed writer left of a line is cut off, and the lines before it count."""
    path = tmp_path / "a.jsonl"
    echo = Echo()
    with ExchangeStore(path) as store:
        for text in ("one", "two"):
            store.ask(echo, _exchange(text))
    path.write_bytes(path.read_bytes()[:-num_bytes_cut])
    with ExchangeStore(path) as store:
        assert len(store) == 1
        store.ask(echo, _exchange("one"))
        store.ask(echo, _exchange("two"))
    assert echo.count == 3
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["question"] for line in lines] == ["one", "two"]


def test_store_replaces_half_a_character(tmp_path: Path):
    """Earlier releases stored what cannot be sent, so every later run would fail on it."""
    path = tmp_path / "a.jsonl"
    with ExchangeStore(path) as store:
        store.ask(lambda _: Reply("half \ud83d", "stop"), _exchange())
    with ExchangeStore(path) as store:
        assert store.ask(Echo(), _exchange()) == Reply("half \ufffd", "stop")


def test_store_names_a_line_that_is_no_answer(tmp_path: Path):
    """A complete line of something else is an error with file and line, and the file stays."""
    path = tmp_path / "a.jsonl"
    with ExchangeStore(path) as store:
        store.ask(Echo(), _exchange())
    path.write_bytes(path.read_bytes() + b'{"key": 1}\n')
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: not a stored answer"):
        ExchangeStore(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"my notes, no line feed", b'{"keys": []}'])
def test_store_leaves_a_file_of_somebody_else_alone(tmp_path: Path, content: bytes):
    """What is no beginning of a stored answer is not cut off as one."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.txt, line 1: not a stored answer"):
        ExchangeStore(path)
    assert path.read_bytes() == content


def test_store_is_written_by_one_run_at_a_time(tmp_path: Path):
    """A second run on the same file is refused while the first is at work."""
    path = tmp_path / "a.jsonl"
    with ExchangeStore(path), pytest.raises(ValueError, match="another run writes this file"):
        ExchangeStore(path)
    with ExchangeStore(path) as store:
        assert len(store) == 0
