"""What we need of Dagster that it does not promise: checked with the version that is pinned."""

from dagster._core.definitions.run_request import DagsterRunReaction
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.errors import (
    DagsterAssetCheckFailedError,
    DagsterPipesExecutionError,
    DagsterUserCodeUnreachableError,
)
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster_shared.error import SerializableErrorInfo

__all__ = [
    "BulkActionStatus",
    "BulkActionsFilter",
    "CanCancelExecutionRequest",
    "CanCancelExecutionResult",
    "CheckRunHealthResult",
    "DagsterAssetCheckFailedError",
    "DagsterPipesExecutionError",
    "DagsterRunReaction",
    "DagsterUserCodeUnreachableError",
    "DefaultRunLauncher",
    "NOT_FINISHED_STATUSES",
    "RegisteredCodeLocationOrigin",
    "RemoteJobOrigin",
    "RemoteRepositoryOrigin",
    "SerializableErrorInfo",
    "UnresolvedAssetJobDefinition",
    "WorkerStatus",
]
