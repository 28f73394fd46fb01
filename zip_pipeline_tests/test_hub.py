"""What a hub that does not answer does to those who ask it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from zip_pipeline import hub
from zip_pipeline.chat_models import load_tokenizer
from zip_pipeline.errors import UserError
from zip_pipeline_tests.cli.commands import call_badly
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl

_MOST_SECONDS = 30


@pytest.fixture(params=["closed", "silent"])
def unreachable(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Give the address of a hub at which nobody listens, or listens without ever answering."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "_SECONDS", 0.5)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield address


@pytest.mark.server
def test_an_unreachable_hub_is_told_in_seconds(tmp_path: Path, unreachable: str) -> None:
    """A tokenizer, a dataset and a model: one line with the address that was asked."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(8))
    end = ("-o", tmp_path / "o.jsonl", "--budget-tokens", "100")
    words = f"the hub does not answer at {unreachable}, and the files are not in its cache here; "
    started = time.monotonic()
    line = call_badly("select", source, "--tokenizer", "org/name", *end)
    assert line.startswith(f"--tokenizer: cannot load 'org/name' ({words}")
    pytest.importorskip("huggingface_hub")
    line = call_badly("select", "--from", "hf://datasets/org/name@main", *end)
    assert line == f"hf://datasets/org/name@main: {words}check the network and HF_ENDPOINT"
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match=r"cannot load 'org/name' at revision main \(the hub does"):
        load_tokenizer("org/name", "main")
    assert time.monotonic() - started < _MOST_SECONDS


@pytest.mark.server
@pytest.mark.parametrize("beginning", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_hub_that_says_no_end_of_nonsense_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    """Bytes that keep coming do not put off the end of the wait."""
    monkeypatch.setattr(hub, "_SECONDS", 0.5)
    for name in hub._OFFLINE:
        monkeypatch.delenv(name, raising=False)
    ended = threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(beginning)
            while not ended.wait(0.02):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=trickle)
        thread.start()
        started = time.monotonic()
        assert not hub.hub_answers()
        assert time.monotonic() - started < 5
        ended.set()
        thread.join()


@pytest.mark.server
def test_a_password_of_the_endpoint_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreachable: str
) -> None:
    """The line names the address without it."""
    monkeypatch.setenv("HF_ENDPOINT", unreachable.replace("//", "//me:pass-word@"))
    end = ("-o", tmp_path / "o.jsonl", "--budget-samples", "1")
    line = call_badly("select", "--from", "hf://datasets/a/b", *end)
    assert line.startswith(f"hf://datasets/a/b: the hub does not answer at {unreachable}, and")


def test_words_of_a_library_lose_what_is_secret() -> None:
    """Addresses stay, without what stands before @ and behind ?."""
    words = (
        "403 for url: https://me:p@ss@h.co/x?X-Sig=ab%2Fc&a=b, with Bearer hf_abc . Is it so? "
        "hf_abcdefghij (s3://b/a?b)"
    )
    assert hub.without_secrets(words) == (
        "403 for url: https://h.co/x?… with  . Is it so?  (s3://b/a?b)"
    )


def test_who_is_told_not_to_ask_the_hub_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library answers at once then."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.hub_answers()
