"""The drop sensor: what it asks for, when, and what it says otherwise."""

import os
from pathlib import Path

import dagster as dg
import pytest

from zip_pipeline.defs import drops
from zip_pipeline.samples import Stage
from zip_pipeline_tests.defs.graph import Graph, alpaca_rows, pair_rows


@pytest.fixture
def graph(stored_graph: Graph) -> Graph:
    """Return the graph with an instance on disk: a sensor's context asks for one."""
    return stored_graph


class Ticks:
    """Runs one sensor tick after another, carrying the cursor as the daemon does."""

    def __init__(self, graph: Graph, stage: Stage = "sft") -> None:
        self._graph = graph
        self._stage: Stage = stage
        self._cursor: str | None = None

    def tick(self) -> dg.SensorResult:
        """Evaluate the sensor once."""
        context = dg.build_sensor_context(
            instance_ref=self._graph.instance.get_ref(),
            cursor=self._cursor,
            repository_def=self._graph.repository,
            resources=self._graph.resources,
        )
        with context:
            sensor = self._graph.repository.get_sensor_def(f"{self._stage}_drops")
            # Goes the daemon's way: keys, partitions and requests are checked.
            data = sensor.evaluate_tick(context)
        self._cursor = data.cursor
        return dg.SensorResult(
            run_requests=data.run_requests,
            skip_reason=data.skip_message or None,
            dynamic_partitions_requests=data.dynamic_partitions_requests,
        )

    def batches(self) -> list[str]:
        """Tick once and return the partitions asked for."""
        requests = self.tick().run_requests or []
        return [request.partition_key or "" for request in requests]

    def reason(self) -> str:
        """Tick once and return why nothing is asked for."""
        result = self.tick()
        assert not result.run_requests
        assert isinstance(result.skip_reason, dg.SkipReason)
        return result.skip_reason.skip_message or ""


def _touch(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


def test_sensor_asks_for_a_drop_that_looks_the_same_in_two_ticks(graph: Graph) -> None:
    """The first sight waits, the second asks once and adds the partition, the third is silent."""
    graph.drop("sft", "a.jsonl", alpaca_rows(2))
    ticks = Ticks(graph)
    folder = graph.root["sft"].raw
    assert ticks.reason() == f"{folder}: waiting until they stop changing: 'a.jsonl'"
    result = ticks.tick()
    (request,) = result.run_requests or []
    assert request.partition_key == "a.jsonl"
    assert (request.run_key or "").startswith("a.jsonl:")
    assert (request.run_key or "").endswith(":1")
    (added,) = result.dynamic_partitions_requests or []
    assert added.partitions_def_name == "sft_batches"
    assert list(added.partition_keys) == ["a.jsonl"]
    assert ticks.reason() == f"{folder}: 1 drops, none new or changed"


@pytest.mark.parametrize("done", ["nothing", "key added", "run requested", "batch written"])
def test_a_tick_whose_daemon_died_asks_again_for_the_same_run(graph: Graph, done: str) -> None:
    """The cursor is stored last: the tick comes again, and its run key tells the daemon so."""
    graph.drop("sft", "a.jsonl", alpaca_rows(2))
    ticks = Ticks(graph)
    ticks.tick()
    cursor = ticks._cursor
    (asked,) = ticks.tick().run_requests or []
    if done != "nothing":
        graph.instance.add_dynamic_partitions("sft_batches", ["a.jsonl"])
    if done == "run requested":
        tags = {"dagster/partition": "a.jsonl", "dagster/run_key": str(asked.run_key)}
        graph.instance.create_run_for_job(graph.repository.get_job("ingest_sft"), tags=tags)
    if done == "batch written":
        assert graph.ingest("sft", "a.jsonl").success
    ticks._cursor = cursor
    again = ticks.tick().run_requests or []
    # What is ingested by then needs no run.
    wanted = [] if done == "batch written" else [(asked.run_key, "a.jsonl")]
    assert [(request.run_key, request.partition_key) for request in again] == wanted
    assert [ticks.batches(), ticks.batches()] == [[], []]


def test_sensor_leaves_a_growing_file_alone(graph: Graph) -> None:
    """While a file grows from tick to tick it is not asked for; others are."""
    ticks = Ticks(graph)
    graph.drop("sft", "done.jsonl", alpaca_rows(2))
    asked = []
    for num_rows in (1, 2, 3, 3):
        graph.drop("sft", "growing.jsonl", alpaca_rows(num_rows))
        _touch(graph.root["sft"].raw / "growing.jsonl", 1000 + num_rows)
        asked.append(ticks.batches())
    assert asked == [[], ["done.jsonl"], [], ["growing.jsonl"]]


def test_sensor_asks_again_for_a_return_to_an_earlier_content(graph: Graph) -> None:
    """Content one, two and one again are three requests with three run keys."""
    ticks, keys = Ticks(graph), []
    for num_rows in (1, 2, 1):
        _touch(graph.drop("sft", "a.jsonl", alpaca_rows(num_rows)), num_rows)
        ticks.tick()
        keys += [request.run_key for request in ticks.tick().run_requests or []]
    assert len(set(keys)) == 3
    looks = [str(key).split(":")[1] for key in keys]
    assert looks[0] == looks[2] != looks[1]


def test_sensor_takes_a_changed_sidecar_as_a_change_of_its_batch(graph: Graph) -> None:
    """A sidecar is no batch of its own; writing, changing and removing it asks for its batch."""
    graph.drop("sft", "a.jsonl", alpaca_rows(2))
    sidecar = graph.root["sft"].raw / "a.jsonl.batch.toml"
    ticks = Ticks(graph)
    asked = [ticks.batches(), ticks.batches()]
    for text in ('source = "x"', 'source = "xyz"', None):
        sidecar.unlink(missing_ok=True) if text is None else sidecar.write_text(text)
        asked += [ticks.batches(), ticks.batches()]
    assert asked == [[], ["a.jsonl"]] * 4


def test_sensor_keeps_a_deleted_drop_in_the_pool_and_asks_when_it_returns(graph: Graph) -> None:
    """Deletion asks for nothing; another file under the name is asked for after two ticks."""
    path = graph.drop("sft", "a.jsonl", alpaca_rows(2))
    ticks = Ticks(graph)
    assert [ticks.batches(), ticks.batches()] == [[], ["a.jsonl"]]
    path.unlink()
    assert ticks.reason() == f"{path.parent}: nothing dropped yet"
    graph.drop("sft", "a.jsonl", alpaca_rows(3))
    assert [ticks.batches(), ticks.batches(), ticks.batches()] == [[], ["a.jsonl"], []]


def test_sensor_ignores_hidden_and_unfinished_entries(graph: Graph) -> None:
    """Only the finished name becomes a batch; an upload renamed into place is asked for."""
    part = graph.drop("sft", "a.jsonl.part", alpaca_rows(2))
    graph.drop("sft", ".hidden", alpaca_rows(2))
    ticks = Ticks(graph)
    assert [ticks.batches(), ticks.batches()] == [[], []]
    part.rename(part.with_name("a.jsonl"))
    assert [ticks.batches(), ticks.batches()] == [[], ["a.jsonl"]]


def test_sensor_warns_of_names_that_cannot_be_partitions(graph: Graph) -> None:
    """Such an entry is named in the reason, and the others go on."""
    graph.drop("sft", "a...b.jsonl", alpaca_rows(2))
    graph.drop("sft", "good.jsonl", alpaca_rows(2))
    ticks = Ticks(graph)
    assert "not ingested: 'a...b.jsonl' (the name contains '...'; rename it)" in ticks.reason()
    assert ticks.batches() == ["good.jsonl"]


def test_sensor_names_links_that_cannot_be_followed_or_may_not(
    graph: Graph, capfd: pytest.CaptureFixture[str]
) -> None:
    """A dead link and one out of the drop folder are named with the remedy; the others go on."""
    good = graph.drop("sft", "good.jsonl", alpaca_rows(2))
    good.with_name("dead.jsonl").symlink_to("gone.jsonl")
    good.with_name("hosts.jsonl").symlink_to("/etc/hosts")
    ticks = Ticks(graph)
    reason = ticks.reason()
    for words in (
        f"not ingested: 'dead.jsonl' ({good.parent}/dead.jsonl: the link to gone.jsonl leads",
        f"'hosts.jsonl' ({good.parent}/hosts.jsonl: the link leads out of {good.parent}, to",
    ):
        assert words in reason
    logged = capfd.readouterr().err
    assert "'dead.jsonl' is not ingested: " in logged
    assert "'hosts.jsonl' is not ingested: " in logged
    assert ticks.batches() == ["good.jsonl"]
    assert ticks.batches() == []
    assert "is not ingested" not in capfd.readouterr().err
    good.with_name("gone.jsonl").write_text(good.read_text())
    assert ticks.batches() == []
    assert ticks.batches() == ["dead.jsonl", "gone.jsonl"]


def test_sensor_asks_again_for_a_drop_whose_run_failed(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing changes it asks on and on; a run that goes well ends that."""
    monkeypatch.setattr(drops, "SECONDS_UNTIL_RETRY", (0.0, 0.0, 0.0))
    graph.drop("sft", "bad.jsonl", alpaca_rows(2))
    graph.drop("sft", "good.jsonl", alpaca_rows(2, first=2))
    sidecar = graph.root["sft"].raw / "bad.jsonl.batch.toml"
    sidecar.write_text('formt = "alpaca"')
    ticks, asked, keys = Ticks(graph), [], set()
    for _ in range(7):
        requests = ticks.tick().run_requests or []
        asked.append([request.partition_key for request in requests])
        keys |= {request.run_key for request in requests}
        for request in requests:
            graph.ingest("sft", request.partition_key or "")
    again = ["bad.jsonl"]
    assert asked == [[], ["bad.jsonl", "good.jsonl"], again, again, again, again, again]
    assert len(keys) == 7
    sidecar.unlink()
    assert [ticks.batches(), ticks.batches()] == [[], again]
    assert graph.ingest("sft", "bad.jsonl").success
    assert [ticks.batches(), ticks.batches()] == [[], []]


def test_sensor_leaves_a_failed_drop_alone_that_is_ingested_or_was_stopped(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person ingested otherwise or stopped is not asked for again; a run at work, later."""
    monkeypatch.setattr(drops, "SECONDS_UNTIL_RETRY", (0.0, 0.0, 0.0))
    graph.drop("sft", "a.jsonl", alpaca_rows(2))
    ticks = Ticks(graph)
    assert [ticks.batches(), ticks.batches()] == [[], ["a.jsonl"]]
    tags = {"dagster/partition": "a.jsonl"}
    run = graph.instance.create_run_for_job(
        graph.repository.get_job("ingest_sft"), tags=tags, status=dg.DagsterRunStatus.STARTED
    )
    assert [ticks.batches(), ticks.batches()] == [[], []]
    graph.instance.report_run_failed(run)
    assert ticks.batches() == ["a.jsonl"]
    graph.instance.create_run_for_job(
        graph.repository.get_job("ingest_sft"), tags=tags, status=dg.DagsterRunStatus.CANCELED
    )
    assert [ticks.batches(), ticks.batches()] == [[], []]


def test_sensor_says_when_there_is_no_folder(graph: Graph) -> None:
    """A missing drop folder is named with the remedy; an empty one is said to be empty."""
    ticks = Ticks(graph, "preference")
    folder = graph.root["preference"].raw
    assert ticks.reason() == f"{folder} does not exist; create it and drop a file there"
    folder.mkdir(parents=True)
    assert ticks.reason() == f"{folder}: nothing dropped yet"


def test_sensor_does_not_repeat_what_was_ingested_without_it(graph: Graph) -> None:
    """At first sight a drop that history and disk hold as it looks now is not asked for."""
    graph.drop("preference", "a.jsonl", pair_rows(2))
    assert graph.ingest("preference", "a.jsonl").success
    ticks = Ticks(graph, "preference")
    assert [ticks.batches() for _ in range(3)] == [[], [], []]
    graph.root["preference"].state("a.jsonl").unlink()
    again = Ticks(graph, "preference")
    assert [again.batches(), again.batches()] == [[], ["a.jsonl"]]


def test_sensor_spreads_many_drops_over_ticks(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick asks for a bounded number of drops; the next ticks ask for the rest, once each."""
    monkeypatch.setattr(drops, "MAX_DROPS_PER_TICK", 2)
    names = [f"{letter}.jsonl" for letter in "abcde"]
    for name in names:
        graph.drop("sft", name, alpaca_rows(1))
    ticks = Ticks(graph)
    asked = [ticks.batches() for _ in range(5)]
    assert asked == [[], names[:2], names[2:4], names[4:], []]


def test_sensors_run_by_default_every_five_seconds(graph: Graph) -> None:
    """Nobody has to switch them on."""
    for stage in ("sft", "preference"):
        sensor = graph.repository.get_sensor_def(f"{stage}_drops")
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
        assert sensor.minimum_interval_seconds == 5
        assert sensor.job_name == f"ingest_{stage}"
