"""Fixtures that several test folders use."""

import json
import logging
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from zip_pipeline_tests.ingest.remote_servers import FileServer, GoogleBucket, Hub

# A busy machine is no fault of the code: no test of properties measures time.
settings.register_profile(
    "busy_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy_machine")


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Return the folder of real pools and reference picks, or skip where it is absent."""
    folder = Path(os.environ.get("ZIP_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "pools").is_dir():
        pytest.skip(f"no real pools at {folder}; set ZIP_SHARED to a folder that has them")
    return folder


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Return a web server on loopback; copies of its files go below ``tmp_path``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    with FileServer() as server:
        yield server


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Return a hub of datasets on loopback, the one that addresses of ``hf://`` mean."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    # Other tests of the process may have shut the hub out before the library was imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """Return the address of an S3-compatible server on loopback."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a client of the server with an empty bucket ``pool``."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    client = pytest.importorskip("boto3").client("s3")
    client.create_bucket(Bucket="pool")
    yield client
    for found in client.list_objects_v2(Bucket="pool").get("Contents", []):
        client.delete_object(Bucket="pool", Key=found["Key"])
    client.delete_bucket(Bucket="pool")


@pytest.fixture
def gs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleBucket]:
    """Return the empty bucket ``gs://pool``, on loopback."""
    with GoogleBucket() as bucket:
        key = tmp_path / "service_account.json"
        unused = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        key.write_text(json.dumps({"gcs_base_url": bucket.url, "disable_oauth": True, **unused}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(key))
        yield bucket


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one process begin with the files that wait for servers, the others with slow ones.

    Each gets an equal part of the list, then takes what others have left at the end of theirs:
    of quick tests, so that none waits for the last of another, which may take minutes.
    """
    for item in items:
        # What is traced takes an eighth longer, and quick tests run nearly every line.
        if item.get_closest_marker("slow"):
            item.add_marker("no_cover")
    num_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    waiting = [tests for tests in files if _any(tests, "browser", "server")]
    slow = [tests for tests in files if tests not in waiting and _any(tests, "slow")]
    quick = [test for tests in files if tests not in waiting + slow for test in tests]
    others = max(1, num_processes - 1)
    beginnings = [waiting, *(slow[process::others] for process in range(others))]
    if num_processes == 1:
        beginnings = [waiting + slow]
    size = -(-len(items) // num_processes)
    ordered: list[pytest.Item] = []
    for number, begun in enumerate(beginnings, start=1):
        ordered += [test for tests in begun for test in tests]
        num_more = max(0, size * number - len(ordered))
        ordered += quick[:num_more]
        del quick[:num_more]
    items[:] = ordered + quick


def _any(tests: list[pytest.Item], *names: str) -> bool:
    return any(test.get_closest_marker(name) for test in tests for name in names)
