"""Tells a webhook which runs and nightly checks failed, and which versions the law blocks."""

import asyncio
import html
import logging
import os
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import dagster as dg
from pydantic import Field, model_validator

from zip_pipeline.defs.automation import reselection_job
from zip_pipeline.defs.drops import PARTITION_TAG
from zip_pipeline.defs.keys import AS_WRITTEN_CHECK, RISK_CHECK
from zip_pipeline.defs.private import (
    DagsterAssetCheckFailedError,
    DagsterRunReaction,
    SerializableErrorInfo,
)
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.errors import UserError
from zip_pipeline.report.markdown import inert
from zip_pipeline.settings import Settings, read_settings

SENSOR, NIGHT_SENSOR = "alerts", "alerts_of_nights"
WEBHOOK_VARIABLE = "ZIP_PIPELINE_ALERTS_WEBHOOK"
SECONDS_TO_ANSWER = 10.0
_SECONDS_TO_MARK = 10.0
_WILL_RETRY_TAG = "dagster/will_retry"


class AlertSettings(Settings):
    """Who is told of failures: the table ``[alerts]``."""

    shows_texts = False  # whoever knows the address can write there

    webhook: str = Field(
        default="",
        description="The address that gets a JSON object with a text, as the incoming webhooks of "
        "Slack and Mattermost take it; the variable ZIP_PIPELINE_ALERTS_WEBHOOK goes before it.",
    )

    @model_validator(mode="after")
    def _is_address(self) -> Self:
        try:
            parts = urlsplit(self.webhook)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_address = False
        if self.webhook and not is_address:
            raise UserError("webhook: not an address; it must be like https://host/path")
        return self


def webhook_of(data_root: Path) -> str:
    """Return the address to tell, empty where there is none.

    Raises:
        UserError: it is none, or ``zip_pipeline.toml`` is wrong.
    """
    if given := os.environ.get(WEBHOOK_VARIABLE, "").strip():
        try:
            return AlertSettings(webhook=given).webhook
        except UserError as error:
            raise UserError(f"{WEBHOOK_VARIABLE}: {error}") from None
    return read_settings(data_root, "alerts", AlertSettings).webhook


def alert_sensors() -> list[dg.SensorDefinition]:
    """Return the sensors that tell of runs that failed, and of nights whose checks alone did."""

    @dg.run_failure_sensor(
        name=SENSOR,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the webhook of [alerts] which runs failed, and which versions the "
        "entropy law blocks. Does nothing where no webhook is named.",
    )
    def failed_runs(
        context: dg.RunFailureSensorContext, data_root: DataRootResource
    ) -> DagsterRunReaction | None:
        return _tell_of(context, data_root, chain(_failed_checks(context), _failure(context)))

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name=NIGHT_SENSOR,
        monitored_jobs=[reselection_job()],
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the webhook of [alerts] which checks of a night failed though its run "
        "did not, as where files are not as they were written.",
    )
    def failed_checks(
        context: dg.RunStatusSensorContext, data_root: DataRootResource
    ) -> DagsterRunReaction | None:
        return _tell_of(context, data_root, _failed_checks(context))

    return [failed_runs, failed_checks]


def _tell_of(
    context: dg.RunStatusSensorContext, data_root: DataRootResource, sentences: Iterator[str]
) -> DagsterRunReaction | None:
    """Tell the webhook; where it cannot be known, the tick fails and says what nobody was told."""
    try:
        webhook = webhook_of(data_root.root.path)
    except UserError as error:
        if text := " ".join(sentences):
            # Raised, it would come with a traceback.
            told = SerializableErrorInfo(f"{error}. Nobody was told: {text}", [], None)
            return DagsterRunReaction(context.dagster_run, told)
    else:
        if webhook and (text := " ".join(sentences)):
            tell(webhook, text)
    return None


def _failed_checks(context: dg.RunStatusSensorContext) -> Iterator[str]:
    """Say which checks failed by names and numbers alone: their messages repeat words of data."""
    run = context.dagster_run
    evaluations = context.instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    )
    for record in evaluations.records:
        check = record.event_log_entry.get_dagster_event().asset_check_evaluation_data
        if check.passed or check.severity != dg.AssetCheckSeverity.ERROR:
            continue
        stage = check.asset_key.path[0]
        if check.check_name == RISK_CHECK:
            number = check.metadata["version"].value
            yield f"The entropy law blocks {stage} version {number}: {check.description}"
        elif check.check_name == AS_WRITTEN_CHECK:
            yield (
                f"Files of {stage} are not as they were written, by run {run.run_id[:8]} "
                f"({run.job_name}); zip-pipeline verify names them and the remedy."
            )
        else:
            asset = check.asset_key.to_user_string()
            yield (
                f"The check {check.check_name} of {asset} failed in run {run.run_id[:8]} "
                f"({run.job_name}), which says why."
            )


def _failure(context: dg.RunFailureSensorContext) -> Iterator[str]:
    """Say where a run failed, unless all that it failed by is a version that the law blocks."""
    run = context.dagster_run
    failures = {
        event.step_key: event.step_failure_data.error for event in context.get_step_failure_events()
    }
    steps = [
        str(step).replace("__", "/")
        for step, error in failures.items()
        if error is None or error.cls_name != DagsterAssetCheckFailedError.__name__
    ]
    if steps or not failures:
        # Slack takes <!channel> for a call to everybody.
        batch = html.escape(inert(run.tags.get(PARTITION_TAG, "")), quote=False)
        of = f" of {batch}" if batch else ""
        at = f" at {', '.join(steps)}" if steps else ", as its process is gone or could not start"
        again = "; it is started again" if _is_started_again(context) else ""
        yield f"Run {run.run_id[:8]} ({run.job_name}{of}) failed{at}{again}."


def _is_started_again(context: dg.RunFailureSensorContext) -> bool:
    """Dagster stores a failure first, and whether it tries again only some time after."""
    run, ends = context.dagster_run, time.monotonic() + _SECONDS_TO_MARK
    while context.instance.run_retries_enabled and _WILL_RETRY_TAG not in run.tags:
        if time.monotonic() > ends:
            break
        time.sleep(0.2)
        run = context.instance.get_run_by_id(run.run_id) or run
    return run.tags.get(_WILL_RETRY_TAG) == "true"


_failing: set[str] = set()


def tell(webhook: str, text: str) -> None:
    """Post a text; that an address fails is logged when it begins to, and nothing is raised."""
    problem = asyncio.run(_post(webhook, f"zip_pipeline: {text}"))
    if not problem:
        _failing.discard(webhook)
    elif webhook not in _failing:
        _failing.add(webhook)
        logging.getLogger(__name__).warning(
            f"[alerts] webhook: {problem}, so nobody was told: {text} Correct the address or its "
            "server; until then this is not said again"
        )


async def _post(webhook: str, text: str) -> str:
    """Return why an address does not take a text, empty where it does; never the address."""
    import httpx

    try:
        async with (
            asyncio.timeout(SECONDS_TO_ANSWER),
            httpx.AsyncClient(timeout=None) as client,
            # What it answers is not read, and it leads nowhere else.
            client.stream("POST", webhook, json={"text": text}) as response,
        ):
            return "" if response.is_success else f"answered HTTP {response.status_code}"
    except TimeoutError:
        return f"no answer within {SECONDS_TO_ANSWER:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return f"not reached ({type(error).__name__})"
