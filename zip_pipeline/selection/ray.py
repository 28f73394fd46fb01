"""Shards on a Ray cluster: one started here, or one that runs at an address."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from zip_pipeline.compression.sets import worker_count
from zip_pipeline.errors import UserError
from zip_pipeline.selection.shards import Runner, ShardOutcome, ShardTask, Tick, select_shard

LOCAL = "local"
# How often a shard is started again when its process or its node is lost.
MAX_RETRIES = 3
_SECONDS_BETWEEN_TICKS = 0.5
_CONNECT_SECONDS = 10.0
_MAY_HAVE_OTHER_NODES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# Ray's least: shards travel as files, only outcomes as objects.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024


def ray_runner(address: str, workers: int) -> Runner:
    """Return what runs shard tasks on a Ray cluster, one core each.

    Args:
        address: ``local`` starts a cluster on this machine, on loopback, that ends with the
            tasks; else the address of one that runs, as ``ray.init`` takes it. Its nodes need
            this package and its codecs in the same versions, and the folder of the shards.
        workers: cores of a cluster that is started here, 0 for all.

    Raises:
        UserError: Ray is not installed, or nobody listens at the address.
    """
    ray = _import_ray(address)
    # Before anything is written for the cluster.
    try:
        _check_reachable(address)
    except OSError as error:
        raise _unusable(address, error) from error

    def run(tasks: Sequence[ShardTask], tick: Tick) -> list[ShardOutcome]:
        with _connected(ray, address, worker_count(workers)):
            return _run(ray, tasks, tick)

    return run


def _run(
    ray: Any,  # noqa: ANN401
    tasks: Sequence[ShardTask],
    tick: Tick,
) -> list[ShardOutcome]:
    remote = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(select_shard)
    references = [remote.remote(replace(task, workers=1)) for task in tasks]
    pending = list(references)
    while pending:
        _, pending = ray.wait(pending, num_returns=len(pending), timeout=_SECONDS_BETWEEN_TICKS)
        tick()
    return [_outcome(ray, task, ref) for task, ref in zip(tasks, references, strict=True)]


def _outcome(ray: Any, task: ShardTask, reference: Any) -> ShardOutcome:  # noqa: ANN401
    try:
        outcome = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # What select_shard raised there, as it would have been raised here.
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise RuntimeError(
            f"shard {task.number}: lost on the Ray cluster {1 + MAX_RETRIES} times "
            f"({type(error).__name__}), perhaps for want of memory; give more shards"
        ) from error
    assert isinstance(outcome, ShardOutcome)
    return outcome


@contextmanager
def _connected(ray: Any, address: str, num_cores: int) -> Iterator[None]:  # noqa: ANN401
    """Connect to a cluster, and let go of it; a connection that is there already stays."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {
            "num_cpus": num_cores,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unusable(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _unusable(address: str, error: Exception) -> UserError:
    return UserError(
        f"Ray cluster: got address {address!r}, which cannot be used ({error}); give "
        f"{LOCAL!r} to start one here, or the address of one that runs, as HOST:6379"
    )


def _check_reachable(address: str) -> None:
    """Raise OSError at once where nobody listens: Ray would try for ten minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


def _import_ray(address: str) -> Any:  # noqa: ANN401
    if address == LOCAL:
        # Read at import. Without it Ray takes 127.0.0.1 for the machine's address to others, and
        # listens on every interface.
        os.environ.setdefault(_MAY_HAVE_OTHER_NODES, "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "Ray cluster: Ray is not installed; install it with pip install 'zip-pipeline[ray]', "
            "or select without it: the shards are then done one after another"
        ) from error
    return ray
