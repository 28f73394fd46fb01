"""What stands for Docker's engine: containers are processes of this machine."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from zip_pipeline_tests.loopback import LoopbackServer

# Turns command and variables of a container into those of a process.
AsProcess = Callable[[list[str], dict[str, str]], tuple[list[str], dict[str, str]]]


@dataclass
class Container:
    """A container: what it was made of, and its process once it is started."""

    number: str
    made_of: dict[str, Any]
    networks: list[str]
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def is_gone(self) -> bool:
        """Whether it ended, for then it is removed at once, as ``auto_remove`` asks."""
        return self.process is not None and self.process.poll() is not None

    def send(self, number: int) -> None:
        """Send a signal to all its processes, and wait for their end."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)
            self.process.wait(30)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: "DockerEngine"

    def _answer(self, status: int, value: object = None) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _do(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0].split("/")
        answer = self.engine.answer(path[2:] if path[1].startswith("v1") else path[1:], content)
        self._answer(*answer)

    do_GET = do_POST = _do

    def log_message(self, *_: object) -> None:
        """Stay silent."""


class DockerEngine(LoopbackServer):
    """As much of the engine's API as a run launcher asks; use it in a ``with`` block."""

    def __init__(self, as_process: AsProcess) -> None:
        self._as_process = as_process
        self.containers: list[Container] = []
        super().__init__(type("Handler", (_Handler,), {"engine": self}))
        self.address = f"tcp://127.0.0.1:{self.port}"

    def answer(self, path: list[str], content: bytes) -> tuple[int, Any]:
        """Return status and body for a request."""
        match path:
            case ["version"]:
                return 200, {"ApiVersion": "1.50"}
            case ["networks", name]:
                return 200, {"Id": name, "Name": name}
            case ["networks", name, "connect"]:
                self._container(json.loads(content)["Container"]).networks.append(name)
                return 200, None
            case ["containers", "create"]:
                asked = json.loads(content)
                first = asked["HostConfig"]["NetworkMode"]
                made = Container(f"{len(self.containers):012d}", asked, [first])
                self.containers.append(made)
                return 201, {"Id": made.number, "Warnings": []}
            case ["containers", number, "json"] if not self._container(number).is_gone:
                status = "running" if self._container(number).process else "created"
                return 200, {"Id": number, "State": {"Status": status}}
            case ["containers", number, "start"]:
                self._start(self._container(number))
                return 204, None
            case ["containers", number, "stop"]:
                self._container(number).send(signal.SIGTERM)
                return 204, None
        return 404, {"message": f"No such container: {path}"}

    def _container(self, number: str) -> Container:
        return self.containers[int(number)]

    def _start(self, container: Container) -> None:
        variables = dict(one.split("=", 1) for one in container.made_of["Env"])
        command, environment = self._as_process(container.made_of["Cmd"], variables)
        container.process = subprocess.Popen(command, env=environment, start_new_session=True)

    def stop(self) -> None:
        """Kill what the containers still do, too."""
        super().stop()
        for container in self.containers:
            container.send(signal.SIGKILL)
