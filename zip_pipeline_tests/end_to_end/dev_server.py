"""A real `dg dev` over a temporary project, driven through GraphQL."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zip_pipeline_tests.processes import listeners, process_tree

ROOT = Path(__file__).parents[2]
START_TIMEOUT_SECONDS = 90
STOP_TIMEOUT_SECONDS = 20


def make_folder_of_its_own(folder: Path) -> None:
    """Lay out what a data root in a folder of its own needs: two files and the drop folders."""
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(ROOT / name, folder)
    for stage in ("sft", "preference"):
        (folder / "data" / "raw" / stage).mkdir(parents=True)


def make_project(folder: Path, changes: Mapping[str, str] | None = None) -> None:
    """Lay out a project like the repository: its configuration, the package, empty drop folders.

    Args:
        folder: where to; must exist.
        changes: texts to replace in ``dagster.yaml``.
    """
    make_folder_of_its_own(folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "zip_pipeline").symlink_to(ROOT / "zip_pipeline")
    settings = folder / "dagster.yaml"
    for old, new in (changes or {}).items():
        assert old in settings.read_text(), old
        settings.write_text(settings.read_text().replace(old, new))


class DevServer:
    """One running `dg dev`."""

    def __init__(self, url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.url = url
        self._process = process
        self._log = log

    def query(self, text: str, **variables: object) -> dict[str, Any]:
        """Return the data that a GraphQL query or mutation answers with."""
        body = json.dumps({"query": text, "variables": variables}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=30) as reply:
            answer = json.load(reply)
        assert "errors" not in answer, answer["errors"]
        assert isinstance(answer["data"], dict)
        return answer["data"]

    def wait(self, what: str, ask: Callable[[], Any], seconds: float = 60) -> Any:
        """Ask until the answer is true, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            assert self._process.poll() is None, f"dg dev ended:\n{self._log.read_text()}"
            with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                if answer := ask():
                    return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s for {what}:\n{self._log.read_text()}")
            time.sleep(0.25)

    def kill(self) -> None:
        """Kill the server with all its processes, as a power cut does."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def listeners(self) -> list[str]:
        """Return the addresses at which its processes listen, runs among them."""
        return listeners(process_tree(self._process.pid))

    def materializations(self, *key: str) -> list[dict[str, Any]]:
        """Return the materialisations of an asset, latest first: partition, run, metadata."""
        found = self.query(_MATERIALIZATIONS, key=list(key))["assetOrError"]
        return list(found.get("assetMaterializations", []))

    def launch(self, job: str, *assets: str) -> str:
        """Launch a job over some of its assets, as the UI does; return the run's id."""
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "zip_pipeline",
            "jobName": job,
            "assetSelection": [{"path": asset.split("/")} for asset in assets],
        }
        params = {"selector": selector, "runConfigData": "{}"}
        answer = self.query(_LAUNCH, params=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def run_status(self, run_id: str) -> str:
        """Return the status of a run."""
        return str(self.query(_RUN, id=run_id)["runOrError"]["status"])


_MATERIALIZATIONS = """
query Materializations($key: [String!]!) {
  assetOrError(assetKey: {path: $key}) {
    ... on Asset {
      assetMaterializations(limit: 100) {
        partition
        runId
        metadataEntries {
          label
          ... on IntMetadataEntry { intValue }
          ... on BoolMetadataEntry { boolValue }
          ... on FloatMetadataEntry { floatValue }
          ... on MarkdownMetadataEntry { mdStr }
        }
      }
    }
  }
}
"""
_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
_LOCATIONS = """
{ workspaceOrError { ... on Workspace {
    locationEntries { loadStatus locationOrLoadError { __typename } } } } }
"""


@contextmanager
def dev_server(folder: Path) -> Iterator[DevServer]:
    """Run `dg dev` in a project on a free loopback port until the block ends.

    Where there is no project but copies of its settings, a workspace file names the project.
    """
    port = _free_port()
    log = folder / "dg_dev.log"
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
    environment |= {"ZIP_PIPELINE_DATA": "data", "PYTHONUNBUFFERED": "1"}
    command = [str(Path(sys.executable).with_name("dg")), "dev"]
    if not (folder / "pyproject.toml").exists():
        command += ["-w", "workspace.yaml"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = DevServer(f"http://127.0.0.1:{port}", process, log)
    try:
        server.wait("the code location", lambda: _is_loaded(server), START_TIMEOUT_SECONDS)
        yield server
    finally:
        _stop(process)


def _is_loaded(server: DevServer) -> bool:
    entries = server.query(_LOCATIONS)["workspaceOrError"]["locationEntries"]
    loaded = [(e["locationOrLoadError"] or {}).get("__typename") for e in entries]
    return loaded == ["RepositoryLocation"]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Interrupt the server as Ctrl-C does, then kill what is left of its process group."""
    with suppress(ProcessLookupError):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
