"""The containers' configuration, against a real PostgreSQL and a real gRPC server."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.workspace.load import load_workspace_process_context_from_yaml_paths

from zip_pipeline.defs.run_launcher import LocalRunLauncher

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
GRPC_TIMEOUT_SECONDS = 60
DAGSTER = Path(sys.executable).with_name("dagster")


def _compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_compose_has_the_services_and_their_health_checks() -> None:
    """Database, code location, webserver and daemon, each with a health check."""
    services = _compose()["services"]
    assert sorted(services) == ["code_location", "daemon", "postgres", "webserver"]
    assert all(service["healthcheck"]["test"] for service in services.values())
    for name in ("webserver", "daemon"):
        assert services[name]["depends_on"] == {"code_location": {"condition": "service_healthy"}}
    assert services["code_location"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_compose_publishes_ports_on_loopback_only() -> None:
    """No port is reachable from another machine."""
    ports = [p for service in _compose()["services"].values() for p in service.get("ports", [])]
    assert ports == ["127.0.0.1:3000:3000"]


def test_compose_mounts_declared_volumes_and_the_data_volume() -> None:
    """Every named volume is declared; all Dagster services see data and compute logs."""
    compose = _compose()
    for name, service in compose["services"].items():
        sources = [volume.rsplit(":", 1)[0] for volume in service["volumes"]]
        names = {re.sub(r"\$\{\w+:-(\w+)\}", r"\1", source) for source in sources}
        assert names <= set(compose["volumes"])
        assert names == ({"postgres"} if name == "postgres" else {"data", "shared"})


def test_no_secret_stands_in_plain_text() -> None:
    """Every secret comes from the environment, and is demanded where it is missing."""
    environments = [service["environment"] for service in _compose()["services"].values()]
    secret = re.compile("PASSWORD|SECRET|TOKEN|KEY")
    values = [v for env in environments for name, v in env.items() if secret.search(name)]
    assert len(values) == 4
    assert all(value.startswith("${DAGSTER_POSTGRES_PASSWORD:?") for value in values)
    storage = yaml.safe_load((DOCKER / "dagster.yaml").read_text())["storage"]
    assert storage["postgres"]["postgres_db"]["password"] == {"env": "DAGSTER_POSTGRES_PASSWORD"}


def test_image_is_built_from_files_that_exist_and_runs_as_no_root() -> None:
    """Every file copied into the image exists, is let through, and the user is not root."""
    build = _compose()["services"]["webserver"]["build"]
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


def _postgres_binaries() -> Path:
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    pytest.skip("no PostgreSQL server: neither initdb on the path nor in /usr/lib/postgresql")


@contextmanager
def _postgres(password: str) -> Iterator[int]:
    """Run a PostgreSQL server on a free loopback port; yield the port."""
    binaries = _postgres_binaries()
    # The server refuses to run as root, and its user cannot enter root's tmp_path.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="zip_pipeline_postgres_"))
    try:
        (folder / "password").write_text(password)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        cluster, port = str(folder / "cluster"), _free_port()

        def run(program: str, *arguments: str) -> None:
            command = [str(binaries / program), *arguments]
            subprocess.run(
                command, user=user, cwd=folder, check=True, timeout=60, stdout=subprocess.DEVNULL
            )

        login = ("--username=dagster", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}")
        run("initdb", "-D", cluster, "--no-sync", *login)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
        run("pg_ctl", "-D", cluster, "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            yield port
        finally:
            run("pg_ctl", "-D", cluster, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.server
def test_instance_keeps_history_in_postgres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The containers' dagster.yaml loads, stores a run in PostgreSQL and finds it again."""
    password = secrets.token_hex(8)

    @dg.asset
    def thing() -> None: ...

    with _postgres(password) as port:
        environment = {
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(port),
            "DAGSTER_POSTGRES_USER": "dagster",
            "DAGSTER_POSTGRES_DB": "postgres",
            "DAGSTER_POSTGRES_PASSWORD": password,
            "DAGSTER_SHARED_FOLDER": str(tmp_path),
        }
        for name, value in environment.items():
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


@contextmanager
def _code_server(command: list[str], environment: Mapping[str, str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, env=dict(environment), cwd=environment["HOME"])
    try:
        deadline = time.monotonic() + GRPC_TIMEOUT_SECONDS
        while True:
            assert process.poll() is None, f"{command} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"no server on port {port}"
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.server
def test_workspace_loads_the_code_location_over_grpc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The containers' command serves the graph, their health check passes, and the workspace
    file of webserver and daemon finds it.
    """
    services, port = _compose()["services"], _free_port()
    places = {"dagster": str(DAGSTER), "0.0.0.0": "127.0.0.1", "4000": str(port)}
    command = [places.get(word, word) for word in services["code_location"]["command"]]
    check = services["code_location"]["healthcheck"]["test"]
    assert check[0] == "CMD"
    environment = os.environ | {"ZIP_PIPELINE_DATA": str(tmp_path), "HOME": str(tmp_path)}
    with _code_server(command, environment, port):
        health = [places.get(word, word) for word in check[1:]]
        assert subprocess.run(health, timeout=60, check=False).returncode == 0
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
