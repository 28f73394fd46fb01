"""The whole graph without a server: ingest what is new, then select the subsets.

``python -m zip_pipeline.defs.headless [--data-root DIR]``
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from zip_pipeline.defs.code_location import code_location
from zip_pipeline.defs.drops import list_drops
from zip_pipeline.defs.ingested import is_ingested
from zip_pipeline.defs.jobs import RESELECTION, ingest_job_name
from zip_pipeline.defs.partitions import partitions_name, zip_subset_key
from zip_pipeline.defs.resources import default_data_root
from zip_pipeline.defs.run_launcher import LOCK_TAG, held_lock
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.storage import DataRoot, remove_leftovers

LOCK_FILE = ".run.lock"
INTERRUPTED = 130
_QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def open_instance(folder: Path) -> dg.DagsterInstance:
    """Return the instance that ``dg dev``, started in ``folder``, shows.

    That of DAGSTER_HOME where it is set, else that of ``folder/dagster.yaml``.

    Raises:
        ValueError: there is neither.
    """
    if os.environ.get("DAGSTER_HOME"):
        return dg.DagsterInstance.get()
    if not (folder / "dagster.yaml").exists():
        raise ValueError(
            f"{folder}: no dagster.yaml, so there is no place for the history; run this in the "
            "project's folder or set DAGSTER_HOME"
        )
    return dg.DagsterInstance.from_config(str(folder))


class HeadlessRun:
    """One pass over the graph: every new drop, then the subset of every stage with a pool."""

    def __init__(self, instance: dg.DagsterInstance, data_root: Path) -> None:
        self._instance = instance
        self._root = DataRoot(data_root)
        self._repository = code_location(data_root).get_repository_def()
        self.failures: list[str] = []

    def ingest(self, stage: Stage) -> int:
        """Ingest each drop not ingested as it looks now; return how many drops there are."""
        folder = self._root.raw(stage)
        drops = list_drops(folder)
        for name, reason in drops.unusable.items():
            self.failures.append(f"{folder}: {name!r} is no batch: {reason}; rename it")
        for batch, looks in drops.found.items():
            if is_ingested(self._instance, self._root, stage, batch, looks):
                continue
            self._instance.add_dynamic_partitions(partitions_name(stage), [batch])
            self._execute(ingest_job_name(stage), f"{stage} {batch}", {"partition_key": batch})
        return len(drops.found) + len(drops.unusable)

    def select(self) -> None:
        """Select the subset of each stage that has a pool, and check it."""
        for stage in STAGES:
            if self._root.batches(stage):
                key = zip_subset_key(stage)
                self._execute(RESELECTION, key.to_user_string(), {"asset_selection": [key]})

    def _execute(self, job_name: str, subject: str, what: dict[str, Any]) -> None:
        result = self._repository.get_job(job_name).execute_in_process(
            instance=self._instance,
            run_config=_QUIET,
            raise_on_error=False,
            tags={LOCK_TAG: str(_lock(self._root.path).resolve()), "dagster/max_retries": "0"},
            **what,
        )
        errors = _step_errors(result.all_node_events)
        if any(DagsterExecutionInterruptedError.__name__ in error for error in errors):
            raise KeyboardInterrupt
        problems = [*errors, *_failed_checks(result)]
        if not result.success and not problems:
            problems = ["failed"]
        self.failures += [f"{subject}: {problem}" for problem in problems]
        if not problems:
            print(f"{subject}: done", flush=True)


def run_graph(data_root: Path, working_folder: Path) -> list[str]:
    """Run the whole graph once over ``data_root``.

    Args:
        data_root: folder of drops, pool, state and versions.
        working_folder: holds the ``dagster.yaml`` of the instance that keeps the history.

    Returns:
        What failed, one line each; checks of severity WARN are no failure.

    Raises:
        ValueError: no instance, a wrong ``selection.toml``, or another run is at work.
    """
    with (
        open_instance(working_folder) as instance,
        held_lock(_lock(data_root)) as is_mine,
    ):
        if not is_mine:
            raise ValueError(f"{data_root}: another run is at work there; wait until it ends")
        remove_leftovers(DataRoot(data_root))
        run = HeadlessRun(instance, data_root)
        if not sum([run.ingest(stage) for stage in STAGES]):
            print(f"{data_root / 'raw'}: no drops", flush=True)
        run.select()
        return run.failures


def _lock(data_root: Path) -> Path:
    return data_root / LOCK_FILE


def _step_errors(events: Iterable[dg.DagsterEvent]) -> list[str]:
    errors = [event.step_failure_data.error for event in events if event.is_step_failure]
    causes = [(error.cause or error) for error in errors if error is not None]
    return [cause.message.strip() for cause in causes]


def _failed_checks(result: dg.ExecuteInProcessResult) -> list[str]:
    return [
        f"check {check.check_name} failed: {check.description or ''}"
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the graph; return 0, 1 when something failed (said on standard error), 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(description="Ingest all drops and select the subsets.")
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    data_root = parser.parse_args(arguments).data_root
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    try:
        failures = run_graph(data_root, Path.cwd())
    except ValueError as error:
        failures = [str(error)]
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        return INTERRUPTED
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
