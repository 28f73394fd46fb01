"""Q of a version, by whatever the data root has set for it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from pydantic import Field

from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.judge.client import ChatClient, Endpoint, ExchangeStore
from zip_pipeline.judge.ratings import (
    AUDIT_PROMPT,
    MAX_CHARACTERS,
    JudgeSettings,
    audit_question,
    conversation_of,
    rate_all,
    summarise,
)
from zip_pipeline.samples import Stage, with_all_columns
from zip_pipeline.settings import Settings, read_settings, read_table

STORE_FILE = "quality_audit.jsonl"


@dataclass(frozen=True)
class Quality:
    """Q with its spread (one standard error), and how it was measured.

    ``num_samples`` counts what was looked at: samples judged, or rows read. ``Q_spread`` is
    None where one sample says nothing about it.
    """

    Q: float
    Q_spread: float | None
    Q_name: str
    num_samples: int
    num_missing: int = 0
    num_malformed: int = 0
    num_cut: int = 0


class QualityAuditSettings(Settings):
    """Who judges how many samples of a version: the table ``[quality_audit]``."""

    shows_texts = False

    judge: Endpoint
    num_samples: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0)
    """of the drawn samples"""
    repetitions: int = Field(default=1, ge=1)
    """how often each sample is judged"""


def quality_audit_settings_of(data_root: Path) -> QualityAuditSettings | None:
    """Return what the table [quality_audit] says, None where there is none.

    Raises:
        UserError: see :func:`.read_settings`.
    """
    if read_table(data_root, "quality_audit") is None:
        return None
    return read_settings(data_root, "quality_audit", QualityAuditSettings)


def audit_sample(subset: pl.DataFrame, num_samples: int, seed: int) -> pl.DataFrame:
    """Return the seeded random sample of a subset that is judged.

    The samples with the lowest hash of seed and sample id: whatever the order of the rows, and
    largely the same samples for two versions that overlap, so that their Q differs by what
    changed, and judgments of before are found in the store.

    All of them where there are fewer than ``num_samples``.

    Raises:
        UserError: the subset is empty or ``num_samples`` is below 1.
    """
    if num_samples < 1 or subset.is_empty():
        raise UserError(
            f"a sample of {num_samples} of {subset.height} samples cannot be judged; both must "
            "be 1 or more"
        )
    order = [fingerprint([str(seed), sample_id]) for sample_id in subset["sample_id"]]
    drawn = subset.with_columns(pl.Series("_order", order)).sort("_order")
    return drawn.head(num_samples).drop("_order")


def audit_quality(
    subset: pl.DataFrame, stage: Stage, settings: QualityAuditSettings, store_folder: Path
) -> Quality:
    """Return how a judge rates a seeded sample of a subset: mean of 0 to 5, higher = better.

    Of a preference pair the chosen answer is judged; an answer that is rated undesirable is not.
    The spread joins the standard error over samples with the judge's drift, where it is asked
    repeatedly.

    Judgments are kept in ``store_folder``; one folder for all versions saves most questions.

    Raises:
        UserError: the subset is empty, or the judge's key is not set.
        EndpointError: the judge failed or gave no rating at all; what is stored stays.

    Source: AlpaGasus (arXiv 2307.08701), ratings from 0 to 5.
    Deviation: own prompt; whole conversations.
    """
    whole = with_all_columns(subset.lazy(), stage).collect()
    if stage == "preference":
        whole = whole.filter(pl.col("chosen").list.len() > 0)
    rows = audit_sample(whole, settings.num_samples, settings.seed).to_dicts()
    texts = [conversation_of(row, stage) for row in rows]
    judge = settings.judge
    asked = JudgeSettings(
        judge=judge, low=0, high=5, repetitions=settings.repetitions, max_tokens=512
    )
    with ChatClient(judge) as client, ExchangeStore(store_folder / STORE_FILE) as store:
        prompts = [audit_question(text) for text in texts]
        summary = summarise(rate_all(client.complete, store, prompts, asked))
    spread = summary.sampling_error
    if spread is not None and summary.drift is not None:
        spread = math.hypot(spread, summary.drift)
    return Quality(
        Q=summary.mean,
        Q_spread=spread,
        Q_name=f"judge {judge.model}, prompt {AUDIT_PROMPT}",
        num_samples=len(rows),
        num_missing=summary.num_missing,
        num_malformed=summary.num_malformed,
        num_cut=sum(len(text) > MAX_CHARACTERS for text in texts),
    )


def filter_pass_rate(batches: Sequence[tuple[int, int]]) -> Quality:
    """Return the share of rows that pass the filters: Q where no judge is set, 0 to 1.

    A duplicate passes: redundancy is what R measures, and must not look like a change of Q.
    The rows of a batch fail together, so the spread is the standard error of a ratio over
    batches; it is at least that of independent rows.

    Args:
        batches: of each batch the rows read, and the rows that were not rejected.

    Raises:
        UserError: nothing was read, or more rows passed than were read.

    Source: Cochran, Sampling Techniques, section 6.3 (ratio estimator).
    """
    total = sum(rows for rows, _ in batches)
    total_passed = sum(passed for _, passed in batches)
    if total == 0 or any(not 0 <= passed <= rows for rows, passed in batches):
        raise UserError(
            f"no pass rate from rows {[rows for rows, _ in batches]} and passed rows "
            f"{[passed for _, passed in batches]}; something must be read, and no more may pass "
            "than was read"
        )
    share = total_passed / total
    # One row more on each side, so that a pool without a rejected row is not taken as exact.
    smoothed = (total_passed + 1) / (total + 2)
    variance = smoothed * (1 - smoothed) / total
    num = len(batches)
    if num > 1:
        squares = math.fsum((passed - share * rows) ** 2 for rows, passed in batches)
        variance = max(variance, num / (num - 1) * squares / total**2)
    return Quality(share, math.sqrt(variance), "filter pass rate", total)


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
        stage: of the samples.
        settings: who judges, from :func:`quality_audit_settings_of`; None for the filters.
        store_folder: see :func:`audit_quality`.
        counts: ``num_rows_read`` and ``num_quarantined`` of each batch of the pool.

    Raises:
        UserError: nothing was read, the subset is empty, or the judge's key is not set.
        EndpointError: the judge failed; what is stored stays, and a later call goes on.
    """
    if settings is not None:
        return audit_quality(subset, stage, settings, store_folder)
    batches = [(int(count["num_rows_read"]), int(count["num_quarantined"])) for count in counts]
    return filter_pass_rate([(rows, rows - rejected) for rows, rejected in batches])
