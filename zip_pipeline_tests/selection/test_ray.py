"""Shards on a real Ray cluster: the same picks, whoever is killed, and nothing left behind."""

import builtins
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import Cluster
from zip_pipeline_tests.processes import is_loopback, processes_with
from zip_pipeline_tests.selection.pools import numbered_pool
from zip_pipeline_tests.selection.test_shards import K, select_sharded

CONFIG = SelectionConfig(strategy="long_range", budget_samples=60, num_shards=3, **K)
LOCAL = Cluster("local")
# Read when Ray is imported: a cluster of one node that nobody else can reach.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
os.environ.update(LOOPBACK_ONLY)
pytest.importorskip("ray", reason="the extra 'ray' is not installed")


def _wait_until_gone(name: str) -> None:
    deadline = time.monotonic() + 20
    while left := processes_with(name):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_local_cluster_selects_as_one_process_does() -> None:
    """Same picks, ledger and manifest as without Ray; the cluster ends with the selection."""
    pool = numbered_pool(300)
    here = select_sharded(pool, CONFIG)
    there = select_sharded(pool, CONFIG, cluster=LOCAL, workers=2)
    assert there.picks == here.picks
    assert there.ledger.equals(here.ledger)
    times = ("seconds", "created_at")
    assert {k: v for k, v in there.manifest.items() if k not in times} == {
        k: v for k, v in here.manifest.items() if k not in times
    }
    _wait_until_gone("ray::")
    _wait_until_gone("gcs_server")


_LISTENERS = """
import os
import zip_pipeline.selection.select as cluster
from zip_pipeline_tests.processes import listeners, process_tree

found = []
cluster._run = lambda ray, tasks, tick: found.extend(listeners(process_tree(os.getpid()))) or []
cluster.ray_runner("local", 1)([], lambda: None)
print(*found)
"""


@pytest.mark.slow
def test_a_local_cluster_listens_on_loopback_only() -> None:
    """Nobody on the network can give it something to run."""
    environment = {k: v for k, v in os.environ.items() if k not in LOOPBACK_ONLY}
    done = subprocess.run(
        [sys.executable, "-c", _LISTENERS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    # The scheduler of the cluster, its node and its worker.
    assert len(found) >= 3
    assert [address for address in found if not is_loopback(address)] == []


@pytest.mark.slow
def test_a_killed_worker_costs_its_shard_and_no_pick(tmp_path: Path) -> None:
    """The shard of a process that was killed is taken up by another one from its checkpoint."""
    pool = numbered_pool(4000)
    config = SelectionConfig(strategy="zip", budget_samples=300, num_shards=2, k1=700, k2=20, k3=4)
    expected = select_sharded(pool, config).picks
    killed: list[int] = []

    def kill_one() -> None:
        while not list(tmp_path.rglob("checkpoint.npz")):
            time.sleep(0.02)
        victims = processes_with("ray::select_shard")
        os.kill(victims[0], signal.SIGKILL)
        killed.append(victims[0])

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    cluster = Cluster("local", tmp_path / "shards")
    assert select_sharded(pool, config, cluster=cluster, workers=2).picks == expected
    assert len(killed) == 1


@pytest.fixture
def head() -> Iterator[str]:
    """Start a Ray head node on loopback and return its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=1",
        "--include-dashboard=false", "--disable-usage-stats",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < deadline, "the head node did not start"
            time.sleep(0.2)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


@pytest.mark.slow
def test_a_running_cluster_at_an_address_is_used_and_left_running(head: str) -> None:
    """The same picks from somebody else's cluster, twice, and it goes on."""
    pool = numbered_pool(300)
    expected = select_sharded(pool, CONFIG).picks
    for _ in range(2):
        assert select_sharded(pool, CONFIG, cluster=Cluster(head)).picks == expected


def test_an_address_without_a_cluster_is_refused(tmp_path: Path) -> None:
    """The error names the address and the ways out, before a shard is written."""
    with pytest.raises(
        ValueError, match=r"address 'nowhere:1', which cannot be used.*give 'local'"
    ):
        select_sharded(numbered_pool(300), CONFIG, cluster=Cluster("nowhere:1", tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_ray_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the message says how to install it and what works without it."""
    original = builtins.__import__

    def without_ray(name: str, *arguments, **options):
        if name == "ray":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(ValueError, match=r"not installed; install it with .*zip-pipeline\[ray\]"):
        select_sharded(numbered_pool(300), CONFIG, cluster=LOCAL)
