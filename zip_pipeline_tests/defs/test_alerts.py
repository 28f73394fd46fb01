"""What the webhook is told, and what becomes of an address that fails."""

import logging
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from zip_pipeline.defs import alerts
from zip_pipeline.defs.alerts import WEBHOOK_VARIABLE, alert_sensors, tell, webhook_of
from zip_pipeline.defs.automation import RESELECTION, as_written_key
from zip_pipeline.defs.private import DagsterRunReaction
from zip_pipeline.errors import UserError
from zip_pipeline.settings import SETTINGS_FILE
from zip_pipeline_tests.defs.graph import QUIET, Graph, alpaca_rows
from zip_pipeline_tests.judge.judge_server import (
    Behaviour,
    JudgeServer,
    drops,
    fails,
    garbles,
    in_turn,
    trickles,
)


def tick(graph: Graph, result: dg.ExecuteInProcessResult) -> object:
    """Let the sensor of a run's end see it; return what becomes of the tick."""
    failed, checked = alert_sensors()
    event = None if result.success else result.get_run_failure_event()
    context = dg.build_run_status_sensor_context(
        sensor_name="alerts",
        dagster_event=event or result.get_run_success_event(),
        dagster_instance=graph.instance,
        dagster_run=result.dagster_run,
        resources=graph.resources,
    )
    return checked(context) if event is None else failed(context.for_run_failure())


def told(graph: Graph, result: dg.ExecuteInProcessResult) -> list[str]:
    """Return what a webhook is told of a run."""
    with JudgeServer(in_turn([], garbles(b"ok"))) as server:
        (graph.path / SETTINGS_FILE).write_text(f'[alerts]\nwebhook = "{server.url}/hook?a=b"\n')
        assert tick(graph, result) is None
    assert {request.path for request in server.requests} <= {"/v1/hook?a=b"}
    assert all(list(request.body) == ["text"] for request in server.requests)
    return [request.body["text"] for request in server.requests]


def test_failed_run_is_told_without_words_of_the_data(graph: Graph) -> None:
    """Job, drop and step are named, a name calls nobody, and the error's own words stay here."""
    name = "<!channel>.jsonl"
    graph.drop("sft", name, alpaca_rows(1))
    (graph.root["sft"].raw / f"{name}.batch.toml").write_text("secret = 1\n")
    result = graph.ingest("sft", name)
    assert not result.success
    (text,) = told(graph, result)
    run_id = result.run_id[:8]
    batch = "`&lt;!channel&gt;.jsonl`"
    assert text == f"zip_pipeline: Run {run_id} (ingest_sft of {batch}) failed at sft/raw_pool."


def test_damage_that_a_night_finds_is_told(graph: Graph) -> None:
    """Its run does not fail, and where all is as it was written nobody is told anything."""
    graph.drop("sft", "a.jsonl", alpaca_rows(9))
    assert graph.ingest("sft", "a.jsonl").success
    assert graph.select("sft").success

    def night() -> dg.ExecuteInProcessResult:
        job = graph.repository.get_job(RESELECTION)
        checks = job.get_subset(asset_check_selection={as_written_key("sft")})
        return checks.execute_in_process(instance=graph.instance, run_config=QUIET)

    assert told(graph, night()) == []
    path = graph.root["sft"].versions.path(1) / "ledger.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    result = night()
    assert result.success
    assert told(graph, result) == [
        f"zip_pipeline: Files of sft are not as they were written, by run {result.run_id[:8]} "
        "(nightly_reselection); zip-pipeline verify names them and the remedy."
    ]


def test_address_that_cannot_be_read_fails_the_tick_in_one_sentence(graph: Graph) -> None:
    """Without a traceback, and with what nobody was told."""

    @dg.op
    def work() -> None:
        raise dg.Failure("quoted words of a sample")

    @dg.job
    def failing() -> None:
        work()

    path = graph.path / SETTINGS_FILE
    path.write_text('[alerts]\nwebhook = "https://host/s3cret\n')
    result = failing.execute_in_process(instance=graph.instance, raise_on_error=False)
    reaction = tick(graph, result)
    assert isinstance(reaction, DagsterRunReaction)
    assert reaction.error is not None
    words = str(reaction.error.message)
    assert words.startswith(f"{path}: ")
    assert words.endswith(f"Nobody was told: Run {result.run_id[:8]} (failing) failed at work.")
    assert (reaction.error.stack, "s3cret" in words) == ([], False)


@pytest.mark.parametrize("again", [True, False])
def test_run_that_is_started_again_is_told_so(
    again: bool, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster marks the run some time after the sensor can see that it failed."""

    @dg.op
    def work() -> None:
        raise dg.Failure("quoted words of a sample")

    @dg.job
    def job() -> None:
        work()

    result = job.execute_in_process(instance=graph.instance, raise_on_error=False)
    monkeypatch.setattr(dg.DagsterInstance, "run_retries_enabled", True)
    tag = {"dagster/will_retry": str(again).lower()}
    marking = threading.Timer(0.5, graph.instance.add_run_tags, [result.run_id, tag])
    marking.start()
    (text,) = told(graph, result)
    marking.join()
    end = "; it is started again" if again else ""
    assert text.endswith(f"(job) failed at work{end}.")


def test_nobody_is_told_where_no_webhook_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable goes before the table; without both there is none."""
    assert webhook_of(tmp_path) == ""
    (tmp_path / SETTINGS_FILE).write_text('[alerts]\nwebhook = "https://host/a"\n')
    assert webhook_of(tmp_path) == "https://host/a"
    monkeypatch.setenv(WEBHOOK_VARIABLE, "https://host/b")
    assert webhook_of(tmp_path) == "https://host/b"


def test_wrong_address_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever knows the address can write there."""
    (tmp_path / SETTINGS_FILE).write_text('[alerts]\nwebhook = "hooks.example/s3cret"\n')
    with pytest.raises(UserError) as of_table:
        webhook_of(tmp_path)
    monkeypatch.setenv(WEBHOOK_VARIABLE, "ftp://host/s3cret")
    with pytest.raises(UserError) as of_variable:
        webhook_of(tmp_path)
    remedy = "webhook: not an address; it must be like https://host/path"
    assert str(of_table.value) == f"{tmp_path / SETTINGS_FILE}: [alerts] {remedy}"
    assert str(of_variable.value) == f"{WEBHOOK_VARIABLE}: {remedy}"


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        (fails(500), "answered HTTP 500"),
        (fails(302, Location="/v1/other"), "answered HTTP 302"),
        (drops(), None),
        (trickles(b"HTTP/1.1 200 OK\r\nA: "), "no answer within 2 s"),
        (trickles(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"), None),
        (garbles(b"x" * 5_000_000), None),
        (trickles(b"no HTTP\r\n\r\n"), "not reached (RemoteProtocolError)"),
    ],
)
def test_address_that_fails_raises_nothing_and_leads_nowhere(
    behaviour: Behaviour,
    problem: str | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has some seconds for its status; what else it answers is left alone."""
    monkeypatch.setattr(alerts, "SECONDS_TO_ANSWER", 2.0)
    begin = time.monotonic()
    with JudgeServer(in_turn([], behaviour)) as server, caplog.at_level(logging.WARNING):
        tell(f"{server.url}/s3cret", "Run 1 failed.")
        assert time.monotonic() - begin < 9
    assert len(server.requests) == 1
    if problem is None:
        assert not caplog.records
    else:
        (record,) = caplog.records
        assert record.getMessage().startswith(f"[alerts] webhook: {problem}, so nobody was told")
        assert "s3cret" not in record.getMessage()


def test_failing_address_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Again only after it has worked meanwhile."""
    with JudgeServer(in_turn([fails(500), fails(500), garbles(b"")], fails(500))) as server:
        seen = []
        for _ in range(4):
            tell(server.url, "Run 1 failed.")
            seen.append(len(caplog.records))
    assert seen == [1, 1, 1, 2]
    tell(f"{server.url}/gone", "Run 1 failed.")
    assert "not reached (ConnectError)" in caplog.records[-1].getMessage()
