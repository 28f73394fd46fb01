"""Tells a webhook which runs failed, and which versions the entropy law blocks."""

import asyncio
import html
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import dagster as dg
from pydantic import Field, model_validator

from zip_pipeline.defs.drops import PARTITION_TAG
from zip_pipeline.defs.keys import RISK_CHECK
from zip_pipeline.defs.private import DagsterAssetCheckFailedError
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.errors import UserError
from zip_pipeline.report.markdown import inert
from zip_pipeline.settings import Settings, read_settings

SENSOR = "alerts"
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


def alert_sensor() -> dg.SensorDefinition:
    """Return the sensor that tells of failed runs, by whatever they failed."""

    @dg.run_failure_sensor(
        name=SENSOR,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the webhook of [alerts] which runs failed, and which versions the "
        "entropy law blocks. Does nothing where no webhook is named.",
    )
    def sensor(context: dg.RunFailureSensorContext, data_root: DataRootResource) -> None:
        if webhook := webhook_of(data_root.root.path):
            tell(webhook, " ".join(_sentences(context)))

    return sensor


def _sentences(context: dg.RunFailureSensorContext) -> Iterator[str]:
    """Say what failed by names and numbers alone: messages of errors repeat words of the data."""
    run, blocked = context.dagster_run, False
    evaluations = context.instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    )
    for record in evaluations.records:
        check = record.event_log_entry.get_dagster_event().asset_check_evaluation_data
        if check.check_name == RISK_CHECK and not check.passed:
            blocked = True
            stage, number = check.asset_key.path[0], check.metadata["version"].value
            yield f"The entropy law blocks {stage} version {number}: {check.description}"
    failures = {
        event.step_key: event.step_failure_data.error for event in context.get_step_failure_events()
    }
    steps = [
        str(step).replace("__", "/")
        for step, error in failures.items()
        if error is None or error.cls_name != DagsterAssetCheckFailedError.__name__
    ]
    if steps or not blocked:
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
