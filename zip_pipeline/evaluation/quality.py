"""Q of a version, by whatever the data root has set for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from zip_pipeline.evaluation.chat_client import ChatClient
from zip_pipeline.evaluation.exchanges import ExchangeStore
from zip_pipeline.evaluation.quality_audit import (
    Quality,
    audit_quality,
    audit_settings,
    filter_pass_rate,
)
from zip_pipeline.evaluation.settings import QualityAuditSettings
from zip_pipeline.samples import Stage

STORE_FILE = "quality_audit.jsonl"


def quality_of(
    subset: pl.DataFrame,
    stage: Stage,
    settings: QualityAuditSettings | None,
    store_folder: Path,
    counts: Sequence[Mapping[str, str | int]],
) -> Quality:
    """Return how good a version's samples are: audited by a judge where one is set.

    Without a judge it is the share of the pool's rows that passed the filters.

    Args:
        subset: samples of the version.
        stage: ``sft`` or ``preference``.
        settings: who judges, from :func:`quality_audit_settings_of`; None for the filters.
        store_folder: where judgments are kept; one folder for all versions saves most questions.
        counts: ``num_rows_read`` and ``num_quarantined`` of each batch of the pool.

    Raises:
        ValueError: nothing was read, the subset is empty, or the judge's key is not set.
        EndpointError: the judge failed; what is stored stays, and a later call goes on.
    """
    if settings is None:
        num_rows = [int(count["num_rows_read"]) for count in counts]
        num_rejected = [int(count["num_quarantined"]) for count in counts]
        passed = [rows - bad for rows, bad in zip(num_rows, num_rejected, strict=True)]
        return filter_pass_rate(num_rows, passed)
    judge = settings.judge
    with ChatClient(judge) as client, ExchangeStore(store_folder / STORE_FILE) as store:
        return audit_quality(
            subset,
            stage,
            judge=client,
            settings=audit_settings(
                judge.model, repetitions=settings.repetitions, num_workers=judge.max_concurrency
            ),
            store=store,
            num_samples=settings.num_samples,
            seed=settings.seed,
        )
