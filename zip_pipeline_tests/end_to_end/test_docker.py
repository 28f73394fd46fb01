"""The containers' configuration, against a real PostgreSQL and a real gRPC server."""

import json
import os
import re
import secrets
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.workspace.load import load_workspace_process_context_from_yaml_paths

from zip_pipeline.data_root import DataRoot
from zip_pipeline.defs.run_launcher import LocalRunLauncher
from zip_pipeline_tests.defs.graph import alpaca_rows
from zip_pipeline_tests.end_to_end.dev_server import DevServer
from zip_pipeline_tests.end_to_end.kills import check_data_root
from zip_pipeline_tests.end_to_end.services import (
    DOCKER,
    Service,
    compose,
    free_port,
    postgres,
    topology,
)

ROOT = DOCKER.parent


def test_compose_has_the_services_and_their_health_checks() -> None:
    """Database, code location, webserver and daemon, each with a health check."""
    services = compose()["services"]
    assert sorted(services) == ["code_location", "daemon", "postgres", "webserver"]
    assert all(service["healthcheck"]["test"] for service in services.values())
    for name in ("webserver", "daemon"):
        assert services[name]["depends_on"] == {"code_location": {"condition": "service_healthy"}}
    assert services["code_location"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_compose_publishes_ports_on_loopback_only() -> None:
    """No port is reachable from another machine."""
    ports = [p for service in compose()["services"].values() for p in service.get("ports", [])]
    assert ports == ["127.0.0.1:3000:3000"]


def test_compose_mounts_declared_volumes_and_the_data_volume() -> None:
    """Every named volume is declared; all Dagster services see data and compute logs."""
    found = compose()
    for name, service in found["services"].items():
        sources = [volume.rsplit(":", 1)[0] for volume in service["volumes"]]
        names = {re.sub(r"\$\{\w+:-(\w+)\}", r"\1", source) for source in sources}
        assert names <= set(found["volumes"])
        assert names == ({"postgres"} if name == "postgres" else {"data", "shared"})


def test_no_secret_stands_in_plain_text() -> None:
    """Every secret comes from the environment, and is demanded where it is missing."""
    environments = [service["environment"] for service in compose()["services"].values()]
    secret = re.compile("PASSWORD|SECRET|TOKEN|KEY")
    values = [v for env in environments for name, v in env.items() if secret.search(name)]
    assert len(values) == 4
    assert all(value.startswith("${DAGSTER_POSTGRES_PASSWORD:?") for value in values)
    storage = yaml.safe_load((DOCKER / "dagster.yaml").read_text())["storage"]
    assert storage["postgres"]["postgres_db"]["password"] == {"env": "DAGSTER_POSTGRES_PASSWORD"}


def test_image_is_built_from_files_that_exist_and_runs_as_no_root() -> None:
    """Every file copied into the image exists, is let through, and the user is not root."""
    build = compose()["services"]["webserver"]["build"]
    context = (DOCKER / build["context"]).resolve()
    assert context == ROOT
    lines = (context / build["dockerfile"]).read_text().splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    copied = [name for names in copies for name in names]
    assert copied == [
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "zip_pipeline",
        "docker/dagster.yaml",
        "docker/workspace.yaml",
    ]
    assert [name for name in copied if not (context / name).exists()] == []
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if "!" in line
    }
    assert set(copied) == allowed
    assert [line for line in lines if line.startswith("USER ")] == ["USER dagster"]
    assert sum("--constraint constraints.txt" in line for line in lines) == 2


@pytest.mark.server
def test_instance_keeps_history_in_postgres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The containers' dagster.yaml loads, stores a run in PostgreSQL and finds it again."""
    password = secrets.token_hex(8)

    @dg.asset
    def thing() -> None: ...

    with postgres(password) as server:
        for name, value in (server.variables | {"DAGSTER_SHARED_FOLDER": str(tmp_path)}).items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.from_config(str(DOCKER)) as instance:
            assert type(instance.run_storage).__module__.startswith("dagster_postgres")
            assert isinstance(instance.run_launcher, LocalRunLauncher)
            assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 2
            instance.add_dynamic_partitions("sft_batches", ["a.jsonl"])
            run_id = dg.materialize([thing], instance=instance).run_id
        with dg.DagsterInstance.from_config(str(DOCKER)) as instance:
            assert instance.get_dynamic_partitions("sft_batches") == ["a.jsonl"]
            run = instance.get_run_by_id(run_id)
            assert run is not None
            assert run.status == dg.DagsterRunStatus.SUCCESS


@pytest.mark.server
def test_workspace_loads_the_code_location_over_grpc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The containers' command serves the graph, their health check passes, and the workspace
    file of webserver and daemon finds it.
    """
    port = free_port()
    environment = os.environ | {
        "ZIP_PIPELINE_DATA": str(tmp_path),
        "HOME": str(tmp_path),
        "DAGSTER_HOME": str(tmp_path),
    }
    server = Service("code_location", environment, {"0.0.0.0": "127.0.0.1", "4000": str(port)})
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.wait()
        monkeypatch.setenv("DAGSTER_CODE_HOST", "127.0.0.1")
        monkeypatch.setenv("DAGSTER_CODE_PORT", str(port))
        workspace = str(DOCKER / "workspace.yaml")
        with (
            dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
            load_workspace_process_context_from_yaml_paths(instance, [workspace]) as process,
        ):
            context = process.create_request_context()
            assert context.code_location_names == ["zip_pipeline"]
            assert not context.has_code_location_error("zip_pipeline")
            keys = {key.to_user_string() for key in context.asset_graph.get_all_asset_keys()}
    names = ("raw_pool", "compression_state", "signals", "zip_subset", "loss_probe", "model")
    names += ("report",)
    of_stages = {f"{stage}/{name}" for stage in ("sft", "preference") for name in names}
    of_comparison = {
        f"comparison/{stage}{name}"
        for stage in ("", "preference/")
        for name in ("subset", "model", "result")
    }
    assert keys == of_stages | of_comparison | {"evaluation", "entropy_law"}


SELECTION = "[sft]\nstrategy = 'zip'\nbudget_samples = 120\nk2 = 100\nk3 = 1\n"
OUTAGE_SECONDS = 60
RUNS = "{ runsOrError { ... on Runs { results { runId status jobName } } } }"


def _drop(data: Path, name: str, num_rows: int, first: int = 0) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in alpaca_rows(num_rows, first=first))
    (data / "raw" / "sft" / name).write_text(rows)


def _unfinished(page: DevServer) -> list[dict[str, str]]:
    runs = page.query(RUNS)["runsOrError"]["results"]
    return [run for run in runs if run["status"] not in ("SUCCESS", "FAILURE", "CANCELED")]


# Runs a program of Dagster whose clock goes ahead by some seconds.
LATER = """
import datetime, runpy, sys, time
import dagster._time as clock
ahead = float(sys.argv[1])
sys.argv = sys.argv[2:]
now, tell = time.time, datetime.datetime.now
later = datetime.timedelta(seconds=ahead)
clock._mockable_get_current_timestamp = lambda: now() + ahead
clock._mockable_get_current_datetime = lambda: tell(datetime.timezone.utc) + later
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _until_two(seconds_before: float) -> str:
    """Return by how much a clock is to be moved so that it will be 02:00 UTC soon."""
    now = datetime.now(UTC)
    night = now.replace(hour=2, minute=0, second=0, microsecond=0)
    ahead = ((night - now).total_seconds() - seconds_before) % (24 * 3600)
    return f"{ahead:.0f}"


@pytest.mark.slow
@pytest.mark.server
def test_services_lose_nothing_when_each_dies_and_the_database_is_away(tmp_path: Path) -> None:
    """A drop, a night, then another drop: two versions, each made once, and no run that hangs.

    During the night's run the daemon and the webserver are killed and the database is away for a
    minute; during the second one the code location dies with it.
    """
    data = tmp_path / "data"
    (data / "raw" / "sft").mkdir(parents=True)
    (data / "zip_pipeline.toml").write_text(SELECTION)
    _drop(data, "a.jsonl", 1_500)
    root = DataRoot(data)
    checkpoints = data / "checkpoints" / "sft"

    def is_measured(page: DevServer, num: int) -> bool:
        return len(page.materializations("sft", "compression_state")) == num

    def begins(_: DevServer) -> bool:
        return bool(list(checkpoints.glob("[!.]*.npz")))

    def ends(page: DevServer, number: int) -> bool:
        return root["sft"].versions.numbers() == [*range(1, number + 1)] and not _unfinished(page)

    with topology(tmp_path, secrets.token_hex(8)) as services:
        services.wait("the first drop", lambda page: is_measured(page, 1), 120)
        services.daemon.kill()
        services.daemon.start(sys.executable, "-c", LATER, _until_two(seconds_before=30))
        services.wait("the night's run", begins, 180)
        services.daemon.kill()
        services.webserver.kill()
        services.database.stop()
        time.sleep(OUTAGE_SECONDS)
        services.database.start()
        services.wait("the first version", lambda page: ends(page, 1), 300)
        _drop(data, "b.jsonl", 200, first=5_000)
        services.wait("the second drop", lambda page: is_measured(page, 2), 120)
        services.page().launch("nightly_reselection", "sft/zip_subset")
        services.wait("the second run", begins, 120)
        services.code_location.kill()
        services.wait("the second version", lambda page: ends(page, 2), 300)
        batches = [m["partition"] for m in services.page().materializations("sft", "raw_pool")]
    assert sorted(batches) == ["a.jsonl", "b.jsonl"]
    assert root["sft"].versions.numbers() == [1, 2]
    assert not list(checkpoints.glob("[!.]*"))
    check_data_root(root)
