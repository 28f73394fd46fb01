"""The services of docker/compose.yaml as plain processes of this machine, on loopback."""

import json
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from zip_pipeline_tests.end_to_end.dev_server import DevServer

DOCKER = Path(__file__).parents[2] / "docker"
START_SECONDS = 120
EMPTY_FOLDERS = ("logs", ".logs_queue")
"""What Dagster makes in its home, and the image does before it."""
_STOP_SECONDS = 20


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """Return docker/compose.yaml, or another file beside it."""
    found: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text())
    return found


def instance_settings(runs: str = "runs_here.yaml") -> str:
    """Return the dagster.yaml that the image makes of its parts."""
    return (DOCKER / "dagster.yaml").read_text() + (DOCKER / runs).read_text()


def dockerfile(instruction: str) -> list[str]:
    """Return the arguments of every instruction of a kind in the Dockerfile, each on one line."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [line.split(" ", 1)[1] for line in lines if line.startswith(f"{instruction} ")]


def free_port() -> int:
    """Return a port of loopback at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _postgres_binaries() -> Path:
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    pytest.skip("no PostgreSQL server: neither initdb on the path nor in /usr/lib/postgresql")


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server on a free port of loopback."""

    binaries: Path
    folder: Path
    user: str | None
    port: int
    password: str

    def run(self, program: str, *arguments: str, text: bytes = b"") -> bytes:
        """Run one of its programs, as its user; return what it printed.

        Args:
            program: its name.
            arguments: of the command line.
            text: what it reads.
        """
        # A service that it starts must not keep a pipe of ours open.
        with tempfile.TemporaryFile() as output:
            subprocess.run(
                [str(self.binaries / program), *arguments],
                user=self.user,
                cwd=self.folder,
                check=True,
                timeout=60,
                input=text,
                stdout=output,
                env=os.environ
                | {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGPASSWORD": self.password},
            )
            output.seek(0)
            return output.read()

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        log = str(self.folder / "log")
        self.run("pg_ctl", "-D", self._cluster, "-o", options, "-l", log, "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it, at once unless told otherwise."""
        self.run("pg_ctl", "-D", self._cluster, "-m", mode, "stop")

    @property
    def _cluster(self) -> str:
        return str(self.folder / "cluster")

    @property
    def variables(self) -> dict[str, str]:
        """What docker/dagster.yaml reads of the environment."""
        return {
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(self.port),
            "DAGSTER_POSTGRES_USER": "dagster",
            "DAGSTER_POSTGRES_DB": "dagster",
            "DAGSTER_POSTGRES_PASSWORD": self.password,
        }


@contextmanager
def postgres(password: str) -> Iterator[Postgres]:
    """Run a PostgreSQL server until the block ends."""
    binaries = _postgres_binaries()
    # The server refuses to run as root, and its user cannot enter root's tmp_path.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="zip_pipeline_postgres_"))
    try:
        secret = folder / "password"
        secret.write_text(password)
        if user:
            for path in (folder, secret):
                shutil.chown(path, user)
        server = Postgres(binaries, folder, user, free_port(), password)
        login = ("--username=dagster", "--auth=scram-sha-256", f"--pwfile={secret}")
        server.run("initdb", "-D", str(folder / "cluster"), "--no-sync", *login)
        server.start()
        try:
            server.run("createdb", "--username=dagster", "dagster")
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Clock:
    """The time of Python processes, which goes ahead of this machine's and is moved on at will.

    Whatever waits in them for an event waits by it. Files and the database have the machine's time.

    Args:
        file: holds by how many seconds it goes ahead.
    """

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._ahead = memoryview(mmap.mmap(opened.fileno(), 8)).cast("d")
        path = [str(Path(__file__).parent / "clock"), os.environ.get("PYTHONPATH", "")]
        self.variables = {"PYTHONPATH": os.pathsep.join(path), "MOVED_CLOCK": str(file)}

    def now(self) -> datetime:
        """Return what it says."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead[0])

    def move(self, seconds: float) -> None:
        """Move it on; it never goes back."""
        self._ahead[0] += seconds

    def move_to_night(self, seconds_before: float = 0) -> None:
        """Move it on to the next 02:00 UTC, or to shortly before."""
        night = self.now().replace(hour=2, minute=0, second=0, microsecond=0)
        left = (night - self.now()).total_seconds() - seconds_before
        self.move(left % (24 * 3600))


class Service:
    """One service of the compose file, started again by hand as its restart policy would.

    Args:
        name: in the compose file.
        environment: of the process.
        words: what stands here for words of its commands, as other ports.
    """

    def __init__(self, name: str, environment: Mapping[str, str], words: Mapping[str, str]) -> None:
        self._declared = compose()["services"][name]
        self._environment = dict(environment)
        self._words = words
        self.log_file = Path(environment["DAGSTER_HOME"]) / f"{name}.log"
        self.name = name
        self.start()

    def _command(self, declared: list[str]) -> list[str]:
        folder = Path(sys.executable).parent
        changed = declared
        for word, own in self._words.items():
            changed = [part.replace(word, own) for part in changed]
        return [str(folder / changed[0]), *changed[1:]]

    def start(self) -> None:
        """Start it through the image's entry point."""
        assert self._declared["restart"] == "unless-stopped"
        (entry_point,) = dockerfile("ENTRYPOINT")
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *self._command(json.loads(entry_point)),
                    *self._command(self._declared["command"]),
                ],
                env=self._environment,
                cwd=self._environment["DAGSTER_HOME"],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_healthy(self) -> bool:
        """Return whether it lives and its health check passes."""
        assert self.process.poll() is None, f"{self.name} ended:\n{self.log()}"
        kind, *check = self._declared["healthcheck"]["test"]
        assert kind == "CMD"
        return not subprocess.run(
            self._command(check),
            env=self._environment,
            timeout=START_SECONDS,
            check=False,
            capture_output=True,
        ).returncode

    def wait(self) -> None:
        """Wait until it is healthy."""
        deadline = time.monotonic() + START_SECONDS
        while not self.is_healthy():
            assert time.monotonic() < deadline, f"{self.name} is not healthy:\n{self.log()}"
            time.sleep(0.5)

    def kill(self) -> None:
        """Kill it with all that it started, as a container is."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Stop it as ``docker stop`` does."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log(self) -> str:
        """Return what it printed of late."""
        return self.log_file.read_text(errors="replace")[-5_000:]


@dataclass(frozen=True)
class Topology:
    """All services of the compose file, in the order in which they depend on one another."""

    clock: Clock
    database: Postgres
    code_location: Service
    webserver: Service
    daemon: Service
    url: str

    def revive(self) -> None:
        """Start what has ended by itself again, as the restart policy does."""
        for service in (self.code_location, self.webserver, self.daemon):
            if service.process.poll() is not None:
                service.start()

    def page(self) -> DevServer:
        """Return what asks the webserver."""
        return DevServer(self.url, self.webserver.process, self.webserver.log_file)

    def wait(self, what: str, ask: Callable[[DevServer], Any], seconds: float) -> None:
        """Wait until the webserver's answer is true; whatever ends meanwhile is started again."""
        deadline = time.monotonic() + seconds
        while True:
            self.revive()
            with suppress(OSError):
                if ask(self.page()):
                    return
            logs = "\n".join(s.log() for s in (self.code_location, self.daemon))
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}:\n{logs}"
            time.sleep(0.5)


def as_process(
    command: list[str], variables: Mapping[str, str], folder: Path
) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of a container of the image, as those of a process.

    What it has of this machine's variables is what a process cannot do without.

    Args:
        command: of the container, without the image's entry point.
        variables: of the container.
        folder: of the topology.
    """
    (entry_point,) = dockerfile("ENTRYPOINT")
    python = str(Path(sys.executable).parent / json.loads(entry_point)[0])
    user = folder / "user"
    of_image = {
        "HOME": str(user),
        "MPLCONFIGDIR": str(user / ".cache" / "matplotlib"),
        "ZIP_PIPELINE_DATA": str(folder / "data"),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    mounted = {
        name: value.replace("/run/secrets", str(folder / "secrets"))
        for name, value in variables.items()
    }
    return [python, *json.loads(entry_point)[1:], *command], of_image | mounted


@contextmanager
def topology(
    folder: Path,
    password: str,
    runs: str = "runs_here.yaml",
    definitions: str = "zip_pipeline.definitions",
    **variables: str,
) -> Iterator[Topology]:
    """Run the services over ``folder/data`` until the block ends.

    Files and commands are those of docker/; ports are free ones, and the daemon looks for dead runs
    every two seconds.

    Args:
        folder: where all of it lies; secrets that are there already stay.
        password: of the database.
        runs: which file says how runs are launched.
        definitions: the module of the code location.
        variables: further ones of all services.
    """
    home, user, given = (folder / name for name in ("dagster", "user", "secrets"))
    of_image = (home / name for name in ("shared", *EMPTY_FOLDERS))
    for place in (*of_image, user / ".cache", given):
        place.mkdir(parents=True, exist_ok=True)
    for name in compose()["secrets"]:
        (given / name).touch()
    (given / "postgres_password").write_text(f"{password}\n")
    settings, old = instance_settings(runs), "poll_interval_seconds: 30"
    assert old in settings
    (home / "dagster.yaml").write_text(settings.replace(old, "poll_interval_seconds: 2"))
    shutil.copy(DOCKER / "workspace.yaml", home)
    code, page = str(free_port()), str(free_port())
    words = {"0.0.0.0": "127.0.0.1", "4000": code, "3000": page, "127.0.0.1:3000": page}
    words["zip_pipeline.definitions"] = definitions
    clock = Clock(folder / "clock")
    with ExitStack() as stack:
        database = stack.enter_context(postgres(password))
        own = database.variables
        # It has to come from its file.
        del own["DAGSTER_POSTGRES_PASSWORD"]
        own |= clock.variables | {
            "HOME": str(user),
            "MPLCONFIGDIR": str(user / ".cache" / "matplotlib"),
            "DAGSTER_HOME": str(home),
            "DAGSTER_CODE_HOST": "127.0.0.1",
            "DAGSTER_CODE_PORT": code,
            "DAGSTER_SHARED_FOLDER": str(home / "shared"),
            "ZIP_PIPELINE_DATA": str(folder / "data"),
            "ZIP_PIPELINE_TIMEZONE": "UTC",
        }
        services = []
        for name in ("code_location", "webserver", "daemon"):
            declared = {
                name: str(value).replace("/run/secrets", str(given))
                for name, value in compose()["services"][name]["environment"].items()
            }
            services.append(Service(name, os.environ | declared | own | variables, words))
            stack.callback(services[-1].stop)
            services[-1].wait()
        yield Topology(clock, database, *services, f"http://127.0.0.1:{page}")
