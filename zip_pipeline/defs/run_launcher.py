"""Notices runs whose process is gone, so that a power cut does not block the queue for ever."""

import time
from functools import cached_property
from pathlib import Path

import dagster as dg
from dagster_shared.serdes import deserialize_value

from zip_pipeline.defs.private import (
    CanCancelExecutionRequest,
    CanCancelExecutionResult,
    CheckRunHealthResult,
    DagsterUserCodeUnreachableError,
    DefaultRunLauncher,
    WorkerStatus,
)
from zip_pipeline.files import is_locked

# On runs without a code server: the file that their process keeps locked while it lives. The UI
# hides what begins so, which says nothing to a person.
LOCK_TAG = ".dagster/zip_pipeline_lock"
_SERVER_TAG = ".dagster/grpc_info"
SECONDS_UNTIL_GONE = 30.0
"""for how long nobody must answer at a code server before its runs count as dead"""


class LocalRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher that can also tell whether a run's process still lives.

    With run monitoring on, a run that died together with its code server is marked as failed
    (and retried) instead of being counted as running. Dagster tries the retry once, and loses it
    where no code server is there, so one that is started again gets some time to come back.
    """

    @cached_property
    def _silent_since(self) -> dict[str, float]:
        """When the code server of each run was first found not to answer."""
        return {}

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether monitoring may ask for the health of runs."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the process of a started run lives; RUNNING where nothing can tell."""
        lock = run.tags.get(LOCK_TAG)
        if lock is not None:
            lives = is_locked(Path(lock))
        else:
            lives = _SERVER_TAG not in run.tags or self._server_has(run)
        if lives:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "the process of this run is gone")

    def _server_has(self, run: dg.DagsterRun) -> bool:
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:  # finished meanwhile
            return True
        try:
            reply = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
        except DagsterUserCodeUnreachableError:
            since = self._silent_since.setdefault(run.run_id, time.monotonic())
            return time.monotonic() - since < SECONDS_UNTIL_GONE
        self._silent_since.pop(run.run_id, None)
        return deserialize_value(reply, CanCancelExecutionResult).can_cancel
