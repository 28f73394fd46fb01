"""The graph over a temporary data root, with a real instance behind it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from zip_pipeline.data_root import DataRoot
from zip_pipeline.defs.automation import RESELECTION, ingest_job_name
from zip_pipeline.defs.code_location import code_location
from zip_pipeline.defs.keys import partitions_name, zip_subset_key
from zip_pipeline.defs.resources import DataRootResource, RayClusterResource
from zip_pipeline.samples import Stage

QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SMALL = {
    "strategy": "zip",
    **{"budget_tokens": None, "budget_samples": 5, "k1": 20, "k2": 6, "k3": 3},
}


def alpaca_rows(num_rows: int, first: int = 0) -> list[dict[str, str]]:
    """Return distinct rows: a question and an answer around running numbers."""
    return [
        {
            "instruction": f"What is {n} plus {n * n}?",
            "output": f"{n} plus {n * n} is {n + n * n}, " + "and so on " * (n % 4),
        }
        for n in range(first, first + num_rows)
    ]


def pair_rows(num_rows: int) -> list[dict[str, str]]:
    """Return distinct preference rows."""
    return [
        {"prompt": f"Count to {n}.", "chosen": " ".join(map(str, range(n + 1))), "rejected": "No."}
        for n in range(1, num_rows + 1)
    ]


class Graph:
    """A data root, an instance, and the means to do what a user does in the UI."""

    def __init__(self, instance: dg.DagsterInstance, path: Path) -> None:
        self.instance = instance
        self.path = path
        self.root = DataRoot(path)
        self.resources = {
            "data_root": DataRootResource(path=str(path)),
            "ray_cluster": RayClusterResource(),
        }
        self.repository = code_location(path).get_repository_def()

    def drop(self, stage: Stage, name: str, rows: list[Any]) -> Path:
        """Write rows as JSONL into the drop folder."""
        path = self.root[stage].raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def ingest(self, stage: Stage, batch: str) -> dg.ExecuteInProcessResult:
        """Materialise the two partitions of a drop."""
        self.instance.add_dynamic_partitions(partitions_name(stage), [batch])
        return self._execute(ingest_job_name(stage), QUIET, partition_key=batch)

    def select(
        self, stage: Stage, config: Mapping[str, Any] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Materialise the subset of a stage, with its checks."""
        key = zip_subset_key(stage)
        ops = {key.to_python_identifier(): {"config": dict(SMALL if config is None else config)}}
        return self._execute(RESELECTION, QUIET | {"ops": ops}, asset_selection=[key])

    def _execute(
        self, job_name: str, run_config: Mapping[str, Any], **selection: Any
    ) -> dg.ExecuteInProcessResult:
        job = self.repository.get_job(job_name)
        return job.execute_in_process(
            instance=self.instance, run_config=run_config, raise_on_error=False, **selection
        )

    def num_materializations(self, stage: Stage, name: str, batch: str | None = None) -> int:
        """Return how often an asset, or one partition of it, was materialised."""
        wanted = dg.AssetRecordsFilter(
            asset_key=dg.AssetKey([stage, name]), asset_partitions=[batch] if batch else None
        )
        return len(self.instance.fetch_materializations(wanted, limit=1000).records)


def metadata_of(result: dg.ExecuteInProcessResult, *key: str) -> dict[str, Any]:
    """Return the metadata values with which a run materialised an asset."""
    assert result.success, error_of(result)
    (event,) = result.asset_materializations_for_node("__".join(key))
    return {name: value.value for name, value in event.metadata.items()}


def data_version_of(result: dg.ExecuteInProcessResult, *key: str) -> str:
    """Return the data version with which a run materialised an asset."""
    (event,) = result.asset_materializations_for_node("__".join(key))
    assert event.tags is not None
    return event.tags["dagster/data_version"]


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Return which checks of a run passed, by name."""
    return {check.check_name: check.passed for check in result.get_asset_check_evaluations()}


def error_of(result: dg.ExecuteInProcessResult) -> str:
    """Return the message of the error that ended a run."""
    (event,) = [event for event in result.all_node_events if event.is_step_failure]
    error = event.step_failure_data.error
    assert error is not None
    return (error.cause or error).message.strip()
