"""The containers' configuration, against a real PostgreSQL and a real gRPC server."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import ExitStack, suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import httpx
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.utils import parse_env_var
from dagster._core.workspace.load import load_workspace_process_context_from_yaml_paths
from dagster_docker import DockerRunLauncher
from dagster_docker.container_context import DockerContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from docker.models.containers import _create_container_args
from kubernetes import client

from zip_pipeline.data_root import DataRoot
from zip_pipeline.defs.run_launcher import LocalRunLauncher
from zip_pipeline.workflow.integrity import verify
from zip_pipeline_tests.defs.graph import Graph, alpaca_rows
from zip_pipeline_tests.end_to_end.dev_server import DevServer
from zip_pipeline_tests.end_to_end.docker_engine import DockerEngine
from zip_pipeline_tests.end_to_end.kills import check_data_root
from zip_pipeline_tests.end_to_end.services import (
    DOCKER,
    EMPTY_FOLDERS,
    Clock,
    Postgres,
    Service,
    as_process,
    compose,
    dockerfile,
    free_port,
    instance_settings,
    postgres,
    topology,
)
from zip_pipeline_tests.judge.judge_server import JudgeServer, garbles, in_turn

ROOT = DOCKER.parent


VOLUMES = {"data": "/data", "shared": "/opt/dagster/shared"}
OF_CODE = {"cache": "/home/dagster/.cache", "scratch": "/tmp"}


def interpolated(text: str, **variables: str) -> str:
    """Return a text of a compose file with its variables as given, or as their defaults."""
    return re.sub(
        r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", lambda m: variables.get(m[1], m[2] or ""), text
    )


def test_compose_files_are_valid() -> None:
    """Each file is what the compose specification allows."""
    files = sorted(DOCKER.glob("compose*.yaml"))
    assert len(files) == 3
    program = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*program, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_has_the_services_and_their_health_checks() -> None:
    """Each service has a health check, and waits for those that it needs to be healthy."""
    services = compose()["services"]
    before = {
        "postgres": None,
        "code_location": "postgres",
        "webserver": "code_location",
        "daemon": "code_location",
        "proxy": "webserver",
    }
    assert list(services) == list(before)
    for name, service in services.items():
        assert service["healthcheck"]["test"]
        if needed := before[name]:
            assert service["depends_on"] == {needed: {"condition": "service_healthy"}}
    assert [name for name, service in services.items() if "profiles" in service] == ["proxy"]


def test_every_container_is_confined() -> None:
    """It is not root, has no rights, writes to volumes and memory alone, and has its limits."""
    for name, service in compose()["services"].items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}
        writable = {volume.rsplit(":", 1)[1] for volume in service.get("volumes", [])}
        assert "/tmp" in {*writable, *service["tmpfs"]}
        user = service.get("user") or dockerfile("USER")[0]
        assert user == {"postgres": "postgres", "proxy": "101:101"}.get(name, "10001:10001")


def test_compose_publishes_ports_on_loopback_only() -> None:
    """No port is reachable from another machine, unless somebody says where the proxy listens."""
    found = compose()
    ports = [p for service in found["services"].values() for p in service.get("ports", [])]
    assert [interpolated(port) for port in ports] == ["127.0.0.1:3000:3000", "127.0.0.1:8443:8443"]
    assert found["networks"]["database"] == {"internal": True}
    assert found["services"]["postgres"]["networks"] == ["database"]


def test_compose_mounts_declared_volumes_and_the_data_volume() -> None:
    """Every named volume is declared; all Dagster services see data and compute logs."""
    found = compose()
    for name, service in found["services"].items():
        volumes = dict(interpolated(v).split(":", 1) for v in service["volumes"])
        if name == "proxy":
            assert volumes == {"./nginx.conf": "/etc/nginx/nginx.conf:ro"}
            continue
        own = OF_CODE if name == "code_location" else {}
        data = {"postgres": "/var/lib/postgresql/data"} if name == "postgres" else VOLUMES | own
        assert volumes == data
        assert set(volumes) <= set(found["volumes"])


def test_secrets_are_files_that_only_those_see_who_need_them() -> None:
    """No secret is in the environment or the files; each variable names one of the service's."""
    found = compose()
    secret = re.compile("PASSWORD|SECRET|TOKEN|KEY|WEBHOOK")
    for name, service in found["services"].items():
        named = {n: v for n, v in service.get("environment", {}).items() if secret.search(n)}
        assert all(variable.endswith("_FILE") for variable in named)
        if name != "proxy":
            assert sorted(named.values()) == sorted(f"/run/secrets/{s}" for s in service["secrets"])
    files = {name: interpolated(given["file"]) for name, given in found["secrets"].items()}
    assert files == {name: f"./secrets/{name}" for name in files}
    used = {name for service in found["services"].values() for name in service["secrets"]}
    assert used == set(files)
    assert "docker/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    keys = {"hf_token", "judge_key", "alerts_webhook"}
    for name in ("webserver", "daemon", "postgres", "proxy"):
        assert not keys & set(found["services"][name]["secrets"])


def test_containers_queue_watch_and_forget_as_a_machine_of_its_own_does() -> None:
    """Both instances differ in where things lie alone."""
    own = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    of_containers = yaml.safe_load(instance_settings())
    assert set(own) == set(of_containers)
    places = ("storage", "local_artifact_storage", "compute_logs")
    assert {name for name in own if own[name] != of_containers[name]} == set(places)


def test_dockerfile_passes_its_linter() -> None:
    """Hadolint has no complaint."""
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [linter, "--no-color", DOCKER / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_images_are_built_from_files_that_exist_and_run_as_no_root() -> None:
    """What is copied exists and is let through; final images have no tools and a fixed user."""
    build = compose()["services"]["webserver"]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    copies = [copy.split()[:-1] for copy in dockerfile("COPY")]
    copied = {name for names in copies if not names[0].startswith("--") for name in names}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    stages = [stage.split() for stage in dockerfile("FROM")]
    bases = {name: base for base, _, name in stages}
    assert (bases["code"], bases["trainer"]) == ("runtime", "runtime")
    assert bases["runtime"] == bases["build"]
    text = (DOCKER / "Dockerfile").read_text()
    runtime = text[text.index("AS runtime") :]
    assert not re.search("pip install|apt-get", runtime)
    assert dockerfile("USER") == ["10001:10001"]
    made = next(run for run in dockerfile("RUN") if "useradd" in run)
    assert [f for f in EMPTY_FOLDERS if f" /opt/dagster/{f} " not in made] == []
    targets = [build["target"], compose("compose.gpu.yaml")["services"]["code_location"]["build"]]
    assert targets == ["code", {"target": "trainer"}]


def test_images_say_what_they_are() -> None:
    """The labels are what the package says of itself, and the default command is compose's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (labels,) = dockerfile("LABEL")
    found = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', labels))
    own = {name: project[name] for name in ("description", "license")}
    assert found.pop("revision") == "$REVISION"
    assert found == {
        "title": project["name"],
        "description": own["description"],
        "licenses": own["license"],
    }
    service = compose()["services"]["code_location"]
    commands = [json.loads(command) for command in dockerfile("CMD")]
    assert commands == [service["command"]]
    (check,) = dockerfile("HEALTHCHECK")
    assert json.loads(check[check.index("[") :]) == service["healthcheck"]["test"][1:]


def test_the_torch_of_the_code_image_is_named_by_whoever_builds() -> None:
    """No index stands in the files; the image of the trainer has the default one's."""
    arguments = compose()["services"]["code_location"]["build"]["args"]
    assert interpolated(arguments["TORCH_INDEX"]) == ""
    installs = [run for run in dockerfile("RUN") if "pip install" in run]
    assert [("TORCH_INDEX" in run) for run in installs] == [True, False, False, False]
    assert 'pip install --no-deps --index-url "$TORCH_INDEX" torch;' in installs[0]


def test_runs_may_have_containers_of_their_own() -> None:
    """The launcher reads its settings; Docker's library takes them; they confine and mount."""
    service = compose("compose.runs.yaml")["services"]
    code = service["code_location"]["environment"]
    context = interpolated(
        code["DAGSTER_CONTAINER_CONTEXT"],
        ZIP_PIPELINE_DATA_VOLUME="/srv/data",
        ZIP_PIPELINE_SECRETS="/srv/secrets",
    )
    settings = yaml.safe_load(instance_settings("runs_in_containers.yaml"))["run_launcher"]
    assert (settings["module"], settings["class"]) == ("dagster_docker", "DockerRunLauncher")
    launcher = DockerRunLauncher(**settings["config"])
    found = DockerContainerContext.create_for_run(_Run(json.loads(context)), launcher)
    declared = compose()
    names = [f"zip_pipeline_{n}" for n in declared["services"]["code_location"]["networks"]]
    assert list(found.networks) == names
    options = dict(found.container_kwargs)
    assert options.pop("stop_timeout") == 30
    made = _create_container_args({"image": "any", "command": "any", "version": "1.50", **options})
    host = made["host_config"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Memory"]) == (True, ["ALL"], 8 << 30)
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    volumes = [f"zip_pipeline_{n}:{at}" for n, at in (VOLUMES | OF_CODE).items() if n != "data"]
    assert host["Binds"] == ["/srv/data:/data", *volumes, "/srv/secrets:/run/secrets:ro"]
    own = {*declared["volumes"]} - {"postgres"}
    assert own == {*VOLUMES, *OF_CODE}
    variables = dict(parse_env_var(v) for v in found.env_vars if "=" in v)
    of_code = declared["services"]["code_location"]["environment"]
    assert variables == {n: v for n, v in of_code.items() if n.endswith("_FILE")}
    of_daemon = set(declared["services"]["daemon"]["environment"]) | {"DAGSTER_HOME"}
    assert {v for v in found.env_vars if "=" not in v} <= of_daemon
    for name in ("webserver", "daemon", "code_location"):
        assert service[name]["environment"]["DAGSTER_HOME"] == "/opt/dagster/in_containers"
    assert "runs_in_containers.yaml > in_containers/dagster.yaml" in dockerfile("RUN")[-1]
    assert code["DAGSTER_CURRENT_IMAGE"] == declared["services"]["code_location"]["image"]


class _Run:
    """As much of a run as the launcher asks."""

    def __init__(self, container_context: dict[str, Any]) -> None:
        self.job_code_origin = self.repository_origin = self
        self.container_context = container_context


def test_helm_values_deploy_the_same() -> None:
    """Image, user, code, folders, instance and secrets are those of the containers."""
    values, declared = compose("helm-values.yaml"), compose()
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    service = declared["services"]["code_location"]
    pods = {"code": deployment} | {k: values[f"dagster{k}"] for k in ("Webserver", "Daemon")}
    for pod in pods.values():
        assert "{repository}:{tag}".format(**pod["image"]) == service["image"]
        user, group = map(int, dockerfile("USER")[0].split(":"))
        context = pod["podSecurityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (
            *(user, group, group),
        )
        assert pod["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in pod["resources"]["limits"]
        mounted = {mount["mountPath"] for mount in pod["volumeMounts"]}
        places = {*VOLUMES.values(), *OF_CODE.values(), "/run/secrets"}
        assert mounted == places if pod is deployment else mounted < places
        assert {m["name"] for m in pod["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert deployment["port"] == int(service["environment"]["DAGSTER_CODE_PORT"])
    assert deployment["dagsterApiGrpcArgs"] == service["command"][-2:]
    named = {n: v for n, v in service["environment"].items() if n.endswith("_FILE")}
    assert named.pop("DAGSTER_POSTGRES_PASSWORD_FILE")  # it comes from the chart
    assert named.items() <= deployment["env"].items()
    instance = yaml.safe_load(instance_settings())
    own = values["additionalInstanceConfig"]
    assert own == {name: instance[name] for name in own}
    logs = values["computeLogManager"]["config"]["customComputeLogManager"]
    assert logs == instance["compute_logs"]
    of_chart = {"storage", "telemetry", "compute_logs", "run_launcher", "run_coordinator"}
    assert set(instance) == set(own) | of_chart
    assert (
        values["postgresql"]["postgresqlScheme"]
        == (instance["storage"]["postgres"]["postgres_db"]["scheme"])
    )
    assert values["telemetry"] == instance["telemetry"]
    version = re.search("--version (\\S+)", (DOCKER / "helm-values.yaml").read_text())
    assert version is not None
    assert f"\ndagster=={version[1]}\n" in (ROOT / "constraints.txt").read_text()


def test_helm_values_are_what_kubernetes_takes() -> None:
    """Each part that the chart hands on has names and kinds of values that Kubernetes knows."""
    values = compose("helm-values.yaml")
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    for pod in (deployment, values["dagsterWebserver"], values["dagsterDaemon"]):
        container = {
            "name": "any",
            **{name: pod[name] for name in ("securityContext", "resources", "volumeMounts")},
            **({"readinessProbe": pod["readinessProbe"]} if "readinessProbe" in pod else {}),
        }
        spec = {
            "containers": [container],
            "volumes": pod["volumes"],
            "securityContext": pod["podSecurityContext"],
        }
        k8s_model_from_dict(client.V1PodSpec, k8s_snake_case_dict(client.V1PodSpec, spec))
    runs = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    made = UserDefinedDagsterK8sConfig(
        container_config=runs["containerConfig"],
        pod_spec_config=runs["podSpecConfig"],
        job_spec_config=runs["jobSpecConfig"],
    )
    assert made.container_config["security_context"]["read_only_root_filesystem"] is True
    assert made.pod_spec_config["security_context"]["run_as_user"] == 10001


@pytest.mark.server
def test_proxy_asks_for_a_login(tmp_path: Path) -> None:
    """Without a password nothing is answered, with it all is, and the password stays there."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("no nginx on this machine")
    headers: list[dict[str, str]] = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"page")

    make = ("-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2")
    key, certificate = tmp_path / "tls_key", tmp_path / "tls_certificate"
    openssl = ["openssl", "req", *make, "-keyout", key, "-out", certificate]
    subprocess.run(openssl, check=True, capture_output=True)
    hashing = subprocess.run(
        ["openssl", "passwd", "-6", "s3cret"], check=True, capture_output=True, text=True
    )
    (tmp_path / "logins").write_text(f"ada:{hashing.stdout}")
    port, page = free_port(), ThreadingHTTPServer(("127.0.0.1", 0), Page)
    text = (DOCKER / "nginx.conf").read_text()
    for old, new in {
        "/tmp/": f"{tmp_path}/",
        "/run/secrets": str(tmp_path),
        "listen 8443": f"listen 127.0.0.1:{port}",
        "http://webserver:3000": f"http://127.0.0.1:{page.server_port}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    # As root it would give its workers to another user, who cannot enter this folder.
    text = f"user root;\n{text}" if os.geteuid() == 0 else text
    (tmp_path / "nginx.conf").write_text(text)
    with ExitStack() as stack:
        stack.callback(page.server_close)
        Thread(target=page.serve_forever, daemon=True).start()
        stack.callback(page.shutdown)
        command = [nginx, "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-g", "daemon off;"]
        server = stack.enter_context(subprocess.Popen(command))
        stack.callback(server.terminate)
        client = stack.enter_context(
            httpx.Client(verify=False, base_url=f"https://127.0.0.1:{port}")
        )
        for _ in range(100):
            with suppress(httpx.TransportError):
                if client.get("/healthz").status_code == 204:
                    break
            assert server.poll() is None
            time.sleep(0.1)
        assert client.get("/").status_code == 401
        assert client.get("/graphql", auth=("ada", "wrong")).status_code == 401
        assert headers == []
        answer = client.get("/", auth=("ada", "s3cret"), headers={"Upgrade": "websocket"})
    assert (answer.status_code, answer.text) == (200, "page")
    (seen,) = headers
    assert "authorization" not in seen
    assert (seen["upgrade"], seen["connection"]) == ("websocket", "upgrade")


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
        (tmp_path / "dagster.yaml").write_text(instance_settings())
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            assert type(instance.run_storage).__module__.startswith("dagster_postgres")
            assert isinstance(instance.run_launcher, LocalRunLauncher)
            assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 2
            kept = instance.get_tick_retention_settings(InstigatorType.SENSOR)
            assert (kept[TickStatus.SKIPPED], kept[TickStatus.SUCCESS]) == (1, 30)
            kept = instance.get_tick_retention_settings(InstigatorType.SCHEDULE)
            assert kept[TickStatus.SUCCESS] == 365
            instance.add_dynamic_partitions("sft_batches", ["a.jsonl"])
            run_id = dg.materialize([thing], instance=instance).run_id
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            assert instance.get_dynamic_partitions("sft_batches") == ["a.jsonl"]
            run = instance.get_run_by_id(run_id)
            assert run is not None
            assert run.status == dg.DagsterRunStatus.SUCCESS


def _documented(program: str) -> list[str]:
    """Return the arguments with which the docs call a program of PostgreSQL."""
    text = (ROOT / "docs" / "operators.md").read_text()
    (line,) = re.findall(rf"^c exec -T postgres {program} (.+) [<>] history.dump$", text, re.M)
    return str(line).split()


@pytest.mark.server
def test_history_and_data_are_restored_from_a_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the documented commands: over what is there, and again; the next night finds no change."""
    home, data, restored = (tmp_path / name for name in ("home", "data", "restored"))
    home.mkdir()
    (home / "dagster.yaml").write_text(instance_settings())
    monkeypatch.setenv("DAGSTER_SHARED_FOLDER", str(home))

    def use(server: Postgres) -> None:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)

    def history() -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(home))

    with postgres(secrets.token_hex(8)) as server:
        use(server)
        with history() as instance:
            graph = Graph(instance, data)
            graph.drop("sft", "a.jsonl", alpaca_rows(30))
            assert graph.ingest("sft", "a.jsonl").success
            (data / "zip_pipeline.toml").write_text("[sft]\nbudget_samples = 5\n")
            assert graph.select("sft", {}).success
            runs = {run.run_id: run.status for run in instance.get_runs()}
        dump = server.run("pg_dump", *_documented("pg_dump"))
    archive = subprocess.run(
        ["tar", "-C", data, "--exclude", "./cache", "--exclude", "./checkpoints", "-cf", "-", "."],
        check=True,
        capture_output=True,
    ).stdout
    restored.mkdir()
    subprocess.run(["tar", "-C", restored, "-xf", "-"], check=True, input=archive)
    with postgres(secrets.token_hex(8)) as server:
        use(server)
        for _ in range(2):
            server.run("pg_restore", *_documented("pg_restore"), text=dump)
        with history() as instance:
            graph = Graph(instance, restored)
            assert len(runs) == 2
            assert {run.run_id: run.status for run in instance.get_runs()} == runs
            assert instance.get_dynamic_partitions("sft_batches") == ["a.jsonl"]
            assert graph.num_materializations("sft", "zip_subset") == 1
            assert graph.select("sft", {}).success
    found = verify(DataRoot(restored))
    assert (found.damages, DataRoot(restored)["sft"].versions.numbers()) == ([], [1])


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


WAITS = """
import threading, grpc, time, dagster._time as of_dagster
from concurrent.futures import ThreadPoolExecutor
print(time.time(), of_dagster.get_current_datetime().timestamp(), flush=True)
began = time.monotonic()
grpc.server(ThreadPoolExecutor()).start()
try:
    grpc.insecure_channel("127.0.0.1:9").unary_unary("/a/b")(b"", timeout=1, wait_for_ready=True)
except grpc.RpcError as error:
    print(error.code().name, time.monotonic() - began < 60, flush=True)
threading.Event().wait(3600)
print(time.time(), flush=True)
"""


def test_processes_tell_the_time_and_wait_by_the_clock_that_is_moved(tmp_path: Path) -> None:
    """Python's and Dagster's time go ahead, and an hour is over when the clock says so.

    Servers still start, and calls of them end, by the machine's time.
    """
    clock = Clock(tmp_path / "clock")
    clock.move_to_night(seconds_before=60)
    assert (clock.now() + timedelta(seconds=60)).strftime("%H:%M") == "02:00"
    command = [sys.executable, "-c", WAITS]
    environment = os.environ | clock.variables
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [float(word) for word in process.stdout.readline().split()]
        assert told == pytest.approx([clock.now().timestamp()] * 2, abs=20)
        assert process.stdout.readline().split() == ["DEADLINE_EXCEEDED", "True"]
        clock.move(3600)
        assert float(process.stdout.readline()) - told[0] >= 3600
        assert process.wait(20) == 0


SELECTION = "[sft]\nstrategy = 'zip'\nbudget_samples = 120\nk2 = 100\nk3 = 1\n"
OUTAGE_SECONDS = 60
RUNS = "{ runsOrError { ... on Runs { results { runId status jobName } } } }"


def _drop(data: Path, name: str, num_rows: int, first: int = 0) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in alpaca_rows(num_rows, first=first))
    (data / "raw" / "sft" / name).write_text(rows)


def _unfinished(page: DevServer) -> list[dict[str, str]]:
    runs = page.query(RUNS)["runsOrError"]["results"]
    return [run for run in runs if run["status"] not in ("SUCCESS", "FAILURE", "CANCELED")]


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
        services.clock.move_to_night(seconds_before=30)
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
    # The rest of the containers is mounted for reading only.
    home = tmp_path / "dagster"
    logs = {f"{name}.log" for name in ("code_location", "webserver", "daemon")}
    folders = {"shared", *EMPTY_FOLDERS}
    written = {path.name for path in home.iterdir()}
    assert written == {"dagster.yaml", "workspace.yaml"} | folders | logs
    assert [path for name in EMPTY_FOLDERS for path in (home / name).iterdir()] == []
    assert [path.name for path in (tmp_path / "user").iterdir()] == [".cache"]
    assert sorted(batches) == ["a.jsonl", "b.jsonl"]
    assert root["sft"].versions.numbers() == [1, 2]
    assert not list(checkpoints.glob("[!.]*"))
    check_data_root(root)


@pytest.mark.slow
@pytest.mark.server
def test_runs_in_containers_outlive_the_code_location(tmp_path: Path) -> None:
    """A run goes on without it; one whose container is killed is told of, and made again."""
    data, given = tmp_path / "data", tmp_path / "secrets"
    (data / "raw" / "sft").mkdir(parents=True)
    given.mkdir()
    (data / "zip_pipeline.toml").write_text(SELECTION)
    _drop(data, "a.jsonl", 1_500)
    root = DataRoot(data)
    checkpoints = data / "checkpoints" / "sft"
    of_runs = compose("compose.runs.yaml")["services"]["code_location"]["environment"]
    context = interpolated(
        of_runs["DAGSTER_CONTAINER_CONTEXT"],
        ZIP_PIPELINE_DATA_VOLUME=str(data),
        ZIP_PIPELINE_SECRETS=str(given),
    )

    def is_measured(page: DevServer, num: int) -> bool:
        return len(page.materializations("sft", "compression_state")) == num

    def begins(_: DevServer) -> bool:
        return bool(list(checkpoints.glob("[!.]*.npz")))

    def ends(page: DevServer, number: int) -> bool:
        return root["sft"].versions.numbers() == [*range(1, number + 1)] and not _unfinished(page)

    with ExitStack() as stack:
        webhook = stack.enter_context(JudgeServer(in_turn([], garbles(b"ok"))))
        (given / "alerts_webhook").write_text(f"{webhook.url}\n")
        engine = stack.enter_context(
            DockerEngine(lambda command, variables: as_process(command, variables, tmp_path))
        )
        services = stack.enter_context(
            topology(
                tmp_path,
                secrets.token_hex(8),
                "runs_in_containers.yaml",
                DOCKER_HOST=engine.address,
                DAGSTER_CURRENT_IMAGE=of_runs["DAGSTER_CURRENT_IMAGE"],
                DAGSTER_CONTAINER_CONTEXT=context,
            )
        )
        services.wait("the first drop", lambda page: is_measured(page, 1), 180)
        services.page().launch("nightly_reselection", "sft/zip_subset")
        services.wait("the first run", begins, 120)
        made = len(engine.containers)
        services.code_location.kill()
        services.wait("the first version", lambda page: ends(page, 1), 300)
        assert len(engine.containers) == made
        _drop(data, "b.jsonl", 200, first=5_000)
        services.wait("the second drop", lambda page: is_measured(page, 2), 180)
        killed = services.page().launch("nightly_reselection", "sft/zip_subset")
        services.wait("the second run", begins, 120)
        made = len(engine.containers)
        engine.containers[-1].send(signal.SIGKILL)
        services.wait("the second version", lambda page: ends(page, 2), 300)
        assert len(engine.containers) == made + 1
        services.wait("the alert", lambda _: bool(webhook.requests), 90)
    (text,) = [request.body["text"] for request in webhook.requests]
    assert text.startswith(f"zip_pipeline: Run {killed[:8]} (nightly_reselection) failed")
    assert text.endswith("; it is started again.")
    for container in engine.containers:
        assert container.made_of["Image"] == "zip_pipeline:code"
        assert container.made_of["HostConfig"]["ReadonlyRootfs"] is True
        assert container.networks == ["zip_pipeline_default", "zip_pipeline_database"]
        assert not any("PASSWORD=" in variable for variable in container.made_of["Env"])
    check_data_root(root)
