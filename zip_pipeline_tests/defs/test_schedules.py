"""The nightly schedule: which stages it selects, and why not the others."""

from datetime import datetime
from typing import Any

import dagster as dg
import pytest

from zip_pipeline.defs import law
from zip_pipeline.defs.automation import reselection_schedule
from zip_pipeline.entropy_law.table import upsert_version, versions_path
from zip_pipeline_tests.defs.graph import Graph, alpaca_rows, error_of, metadata_of, pair_rows
from zip_pipeline_tests.defs.trained_roots import FakeProbe

SMALL_TOML = "[sft]\nbudget_samples = 5\n[preference]\nbudget_samples = 2\n"


@pytest.fixture(autouse=True)
def probe(monkeypatch: pytest.MonkeyPatch) -> FakeProbe:
    """Put a fake in the place of the probe's process."""
    fake = FakeProbe()
    monkeypatch.setattr(law, "run_modules", fake)
    return fake


def _tick(graph: Graph) -> dg.RunRequest | str:
    """Evaluate the schedule once; return the request to select, or why nothing is done."""
    requests = _requests(graph)
    return requests if isinstance(requests, str) else requests[0]


def _requests(graph: Graph) -> list[dg.RunRequest] | str:
    context = dg.build_schedule_context(
        instance=graph.instance,
        repository_def=graph.repository,
        resources=graph.resources,
        scheduled_execution_time=datetime(2026, 1, 5, 2),
    )
    with context:
        data = graph.repository.get_schedule_def("nightly_reselection").evaluate_tick(context)
    if not data.run_requests:
        return data.skip_message or ""
    return list(data.run_requests)


def _checked(request: dg.RunRequest | str) -> list[str]:
    """Return the checks that a request runs by themselves."""
    assert isinstance(request, dg.RunRequest), request
    return [key.to_user_string() for key in request.asset_check_keys or []]


def _selected(request: dg.RunRequest | str) -> list[str]:
    assert isinstance(request, dg.RunRequest), request
    return [key.to_user_string() for key in request.asset_selection or []]


def _run(
    graph: Graph, request: dg.RunRequest | str, raise_on_error: bool = True
) -> dg.ExecuteInProcessResult:
    assert isinstance(request, dg.RunRequest), request
    return graph.repository.get_job("nightly_reselection").execute_in_process(
        instance=graph.instance,
        run_config=request.run_config,
        asset_selection=list(request.asset_selection or []),
        raise_on_error=raise_on_error,
    )


def _fill(graph: Graph) -> None:
    (graph.path / "zip_pipeline.toml").write_text(SMALL_TOML)
    graph.drop("sft", "a.jsonl", alpaca_rows(12))
    graph.drop("preference", "b.jsonl", pair_rows(6))
    assert graph.ingest("sft", "a.jsonl").success
    assert graph.ingest("preference", "b.jsonl").success


def test_schedule_skips_an_empty_pool_and_says_so(graph: Graph) -> None:
    """Without any batch there is nothing to select in either stage."""
    assert _tick(graph) == "sft: the pool is empty; preference: the pool is empty"


def test_schedule_selects_nothing_when_nothing_changed(graph: Graph) -> None:
    """After a night's versions the next night looks at their files alone."""
    _fill(graph)
    request = _tick(graph)
    assert _selected(request) == [
        "sft/zip_subset",
        "sft/loss_probe",
        "preference/zip_subset",
        "preference/loss_probe",
    ]
    result = _run(graph, request)
    assert metadata_of(result, "sft", "zip_subset")["num_picked"] == 5
    assert metadata_of(result, "preference", "zip_subset")["num_picked"] == 2
    assert len(result.get_asset_check_evaluations()) == 8
    (quiet,) = _requests(graph)
    assert _selected(quiet) == []
    assert _checked(quiet) == ["sft/zip_subset:as_written", "preference/zip_subset:as_written"]


def test_quiet_night_checks_all_files(graph: Graph) -> None:
    """The check names the file that was changed, and fails; nothing is selected."""
    _fill(graph)
    _run(graph, _tick(graph))
    ledger = graph.root["sft"].versions.path(1) / "ledger.parquet"
    ledger.write_bytes(ledger.read_bytes()[:-1])
    request = _tick(graph)
    assert isinstance(request, dg.RunRequest)
    job = graph.repository.get_job("nightly_reselection")
    only = job.get_subset(asset_check_selection=set(request.asset_check_keys or ()))
    result = only.execute_in_process(instance=graph.instance, run_config=request.run_config)
    found = {e.asset_key.path[0]: e for e in result.get_asset_check_evaluations()}
    assert (found["sft"].passed, found["preference"].passed) == (False, True)
    assert f"{ledger}: was changed since it was written; restore" in str(found["sft"].description)
    assert graph.root["sft"].versions.numbers() == [1]


def test_schedule_selects_only_the_stage_whose_pool_changed(graph: Graph) -> None:
    """A new batch in one stage leaves the other alone; re-ingesting the same file changes none."""
    _fill(graph)
    _run(graph, _tick(graph))
    assert graph.ingest("sft", "a.jsonl").success
    assert _selected(_tick(graph)) == []
    graph.drop("preference", "c.jsonl", pair_rows(8))
    assert graph.ingest("preference", "c.jsonl").success
    selection, check = _requests(graph)
    assert _selected(selection) == ["preference/zip_subset", "preference/loss_probe"]
    assert _checked(check) == ["sft/zip_subset:as_written"]


def test_schedule_selects_a_stage_whose_configuration_changed(graph: Graph) -> None:
    """What the file says by now counts, not what it said at loading, in tick and run."""
    _fill(graph)
    _run(graph, _tick(graph))
    (graph.path / "zip_pipeline.toml").write_text(SMALL_TOML.replace("= 5", "= 7"))
    request = _tick(graph)
    assert _selected(request) == ["sft/zip_subset", "sft/loss_probe"]
    assert metadata_of(_run(graph, request), "sft", "zip_subset")["num_picked"] == 7
    assert _selected(_tick(graph)) == []


def test_schedule_probes_a_version_without_verdict(graph: Graph, probe: FakeProbe) -> None:
    """A version whose probe failed is probed the next night; its subset stays as it is."""
    _fill(graph)
    _run(graph, _tick(graph))
    versions_path(graph.root).unlink()
    upsert_version(graph.root, {"stage": "preference", "version": 1, "verdict": "first"})
    request = _tick(graph)
    assert _selected(request) == ["sft/zip_subset", "sft/loss_probe"]
    assert metadata_of(_run(graph, request), "sft", "zip_subset")["reused"] is True
    assert _selected(_tick(graph)) == []


def test_schedule_takes_the_training_file_as_it_is(graph: Graph, probe: FakeProbe) -> None:
    """What the file says reaches the probe. A wrong table fails the selection: it counts tokens."""
    _fill(graph)
    file = graph.path / "zip_pipeline.toml"
    file.write_text(f"{SMALL_TOML}[training]\noverrides = {{seed = 3}}\n")
    _run(graph, _tick(graph))
    assert probe.jobs[0]["overrides"] == {"seed": 3}
    file.write_text(f"{SMALL_TOML.replace('= 5', '= 7')}[training]\nsteps = 3\n")
    result = _run(graph, _tick(graph), raise_on_error=False)
    assert "zip_pipeline.toml: [training] steps: unknown" in error_of(result)
    assert graph.root["sft"].versions.numbers() == [1]


def test_schedule_fails_on_a_wrong_defaults_file(graph: Graph) -> None:
    """A mistake in zip_pipeline.toml is an error of the tick that names the file."""
    _fill(graph)
    (graph.path / "zip_pipeline.toml").write_text("[sft]\nk1 = 0\n")
    with pytest.raises(Exception, match="evaluation of schedule") as caught:
        _tick(graph)
    assert "zip_pipeline.toml: [sft] k1: got 0; allowed are whole numbers, 1 and up" in str(
        caught.value.__cause__
    )


@pytest.mark.parametrize(("zone", "expected"), [(None, "UTC"), ("Europe/Vienna", "Europe/Vienna")])
def test_schedule_runs_at_two_in_its_time_zone(
    monkeypatch: pytest.MonkeyPatch, zone: str | None, expected: str
) -> None:
    """02:00 in ZIP_PIPELINE_TIMEZONE, UTC by default; nobody has to switch it on."""
    monkeypatch.delenv("ZIP_PIPELINE_TIMEZONE", raising=False)
    if zone:
        monkeypatch.setenv("ZIP_PIPELINE_TIMEZONE", zone)
    schedule: Any = reselection_schedule()
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 2 * * *", expected)
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
