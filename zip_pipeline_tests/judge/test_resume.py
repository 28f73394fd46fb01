"""An evaluation that is killed goes on."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from zip_pipeline.judge.client import ChatClient, Endpoint, Exchange, ExchangeStore
from zip_pipeline.judge.ratings import JudgeSettings, Rating, rate_all
from zip_pipeline_tests.judge.judge_server import Behaviour, JudgeServer, Received, says

_RUN = """
    import sys
    from pathlib import Path
    from zip_pipeline.judge.client import ChatClient
    from zip_pipeline.judge.client import Endpoint
    from zip_pipeline.judge.client import Exchange, ExchangeStore
    from zip_pipeline.judge.ratings import JudgeSettings, rate_all

    questions = [[{"role": "user", "content": f"question {i}"}] for i in range(20)]
    endpoint = Endpoint(url=sys.argv[1], model="judge", max_concurrency=3)
    settings = JudgeSettings(judge=endpoint, low=1, high=10, repetitions=1)
    with ChatClient(endpoint) as client, ExchangeStore(Path(sys.argv[2])) as store:
        rate_all(client.complete, store, questions, settings)
"""


def test_killed_run_goes_on_and_asks_nothing_stored_again(tmp_path: Path):
    """After each kill -9 only questions without a stored answer are asked."""
    path = tmp_path / "a.jsonl"
    delayed = says("no rating", delay_seconds=0.03), says("[[7]]", delay_seconds=0.03)

    def respond(received: Received, _: int) -> Behaviour:
        return delayed[len(received.body["messages"]) > 1]

    stored: set[str] = set()
    with JudgeServer(respond) as server:
        for _ in range(2):
            before = len(server.requests)
            command = [sys.executable, "-c", textwrap.dedent(_RUN), server.url, str(path)]
            run = subprocess.Popen(command)
            deadline = time.monotonic() + 60
            while len(server.requests) < before + 9 and time.monotonic() < deadline:
                time.sleep(0.005)
            run.send_signal(signal.SIGKILL)
            assert run.wait(timeout=10) == -signal.SIGKILL
            time.sleep(0.1)  # what was sent before the kill arrives
            assert len(server.requests) >= before + 9
            assert not _keys(server.requests[before:]) & stored
            with ExchangeStore(path):  # cuts off what the kill left unfinished
                lines = path.read_text(encoding="utf-8").splitlines()
            # Of the nine or more questions at most the three under way are lost.
            assert len(lines) >= len(stored) + 6
            stored = {json.loads(line)["key"] for line in lines}
        before = len(server.requests)
        questions = [[{"role": "user", "content": f"question {i}"}] for i in range(20)]
        endpoint = Endpoint(url=server.url, model="judge")
        settings = JudgeSettings(judge=endpoint, low=1, high=10, repetitions=1)
        with ChatClient(endpoint) as client, ExchangeStore(path) as store:
            ratings = rate_all(client.complete, store, questions, settings)
        assert not _keys(server.requests[before:]) & stored
        assert len(server.requests) - before == 40 - len(stored)
    assert [r[0] for r in ratings] == [Rating(7.0, 1)] * 20


def _keys(requests: list[Received]) -> set[str]:
    """Return under which keys the answers to these requests are stored."""
    bodies = [request.body for request in requests]
    exchanges = [
        Exchange(
            model=body["model"],
            messages=tuple(body["messages"]),
            temperature=body["temperature"],
            max_tokens=body["max_tokens"],
        )
        for body in bodies
    ]
    return {exchange.key() for exchange in exchanges}
