"""Pool and configuration to a numbered version, and versions read back."""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from zip_pipeline.compression.state import TextTokens, TokenCounter
from zip_pipeline.data_root import StageFolder, remove_leftovers
from zip_pipeline.errors import UserError
from zip_pipeline.pool.batches import (
    counted_otherwise,
    in_parts,
    recount_tokens,
    stored_batches,
)
from zip_pipeline.pool.held_out import held_out_settings, read_held_out
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.process import return_freed_memory
from zip_pipeline.samples import TURN_COLUMNS, Stage, serialised_texts, with_all_columns
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import TOKEN_UNITS, SelectionConfig
from zip_pipeline.selection.ledger import target_facts
from zip_pipeline.selection.run import Progress
from zip_pipeline.selection.select import HERE, Cluster, select_candidates
from zip_pipeline.training.tokens import PresetTokens, configured_tokens
from zip_pipeline.workflow.qualities import qualities, score_fingerprint
from zip_pipeline.workflow.sharing import publish_version
from zip_pipeline.workflow.signals import (
    mark_identities,
    marked_held_out,
    pool_marks,
    pool_signals,
    signal_identities,
)
from zip_pipeline.workflow.sources import target_texts, trusted_texts

SECONDS_BETWEEN_PROGRESS = 10.0


@dataclass(frozen=True)
class StoredVersion:
    """A version of a subset, read back from disk."""

    stage: Stage
    number: int
    path: Path
    picks: pl.LazyFrame
    """The rows of the subset in pick order, yet to be read."""
    ledger: pl.DataFrame
    manifest: dict[str, Any]

    @cached_property
    def subset(self) -> pl.DataFrame:
        """The rows of the subset in pick order, all in memory."""
        return self.picks.collect()

    def texts(self) -> Iterator[pl.Series]:
        """Yield the serialised texts of the picks in pick order, some megabytes at a time."""
        said = with_all_columns(self.picks, self.stage).select(*TURN_COLUMNS[self.stage], "tools")
        path = self.path / "subset.parquet"
        return (serialised_texts(part, self.stage) for part in in_parts(said, path))


def read_version(folder: StageFolder, number: int) -> StoredVersion:
    """Return version ``number`` of a stage's subset.

    Raises:
        UserError: there is no such version, or a file of it is missing, damaged or changed.
    """
    store = folder.versions
    manifest = store.manifest(number)
    return StoredVersion(
        stage=folder.stage,
        number=number,
        path=store.path(number),
        picks=store.subset(number),
        ledger=store.ledger(number).collect(),
        manifest=manifest,
    )


def latest_version(folder: StageFolder) -> StoredVersion:
    """Return the latest version of a stage's subset.

    Raises:
        UserError: there is none yet.
    """
    number = folder.versions.latest()
    if number is None:
        raise UserError(
            f"{folder.stage}: no version yet; materialise {folder.stage}/zip_subset first"
        )
    return read_version(folder, number)


def current_version(folder: StageFolder, config: SelectionConfig) -> int | None:
    """Return the latest version if pool, held-out set and ``config`` are those it comes from.

    So must be the tokenizer and its template where the budget counts tokens.

    Raises:
        UserError: a batch is incomplete, or the file of held-out samples or ``zip_pipeline.toml``
            is wrong.
    """
    store = folder.versions
    number = store.latest()
    if number is None:
        return None
    manifest: dict[str, Any] = store.manifest(number)
    frozen = read_held_out(folder)
    is_current = (
        manifest["inputs"] == pool_inputs(folder)
        and (manifest.get("held_out") or {}).get("hash") == (frozen.hash if frozen else None)
        and manifest["config_fingerprint"] == config.fingerprint()
    )
    if config.unit in TOKEN_UNITS:
        tokens = configured_tokens(folder.root.path)
        is_current &= manifest.get("tokenizer_identity") == tokens.identity
    if is_current and (scores := score_fingerprint(config, folder.root.path)):
        is_current = manifest.get("score_fingerprint") == scores
    if is_current and (target := target_texts(config, folder.stage, folder.root.path)):
        is_current = manifest.get("target") == target_facts(target)
    if is_current and config.needed_signals:
        is_current = manifest.get("signals") == signal_identities(config, folder)
    if is_current and (marking := mark_identities(config, folder)):
        is_current = (manifest.get("marked") or {}).get("by") == marking
    if is_current and (trusted := trusted_texts(config, folder.stage, folder.root.path)):
        is_current = manifest.get("trusted") == target_facts(trusted)
    return number if is_current else None


def pool_inputs(folder: StageFolder) -> dict[str, str]:
    """Return the content fingerprint of every ingested batch, from metadata alone."""
    return {batch: data["fingerprint"] for batch, data in stored_batches(folder).items()}


def select_version(
    folder: StageFolder,
    config: SelectionConfig,
    log: Callable[[str], object],
    *,
    cluster: Cluster = HERE,
) -> int:
    """Select from the pool as it is, store the outcome as a new version, and return its number.

    Tokens are those of the model that ``[training]`` names. Where a stored state has others, they
    are counted anew, and the log tells.

    Raises:
        UserError: no batch is ingested, one lacks its compression state, or one is gone
            (:func:`.open_selection_pool`); the settings or the file of held-out samples are
            wrong; or the store fails (:func:`.publish_version`).
    """
    refuse_none(folder, folder.batches())
    return_freed_memory()
    remove_leftovers(folder.root)
    tokens = configured_tokens(folder.root.path)
    recount(folder, tokens, log)
    target = target_texts(config, folder.stage, folder.root.path)
    scores = score_fingerprint(config, folder.root.path)
    with open_selection_pool(folder, hold_out=held_out_settings(folder.root)) as pool:
        refuse_none(folder, pool.fingerprints)
        signals = pool_signals(pool, config, folder, log, folder.root.path)
        quality = qualities(pool, config, folder.root.path, signals)
        marks = pool_marks(pool, config, folder, log, quality)
        selection = select_candidates(
            Candidates(
                pool.stored_index,
                pool.texts,
                pool.state,
                target,
                lambda: pool.ngrams,
                quality,
                trusted_texts(config, folder.stage, folder.root.path),
                signals,
                marks=marks,
            ),
            folder.stage,
            config,
            tokenizer=tokens.name,
            progress=_ProgressLog(log),
            checkpoint=folder.checkpoints / f"{config.fingerprint()}.npz",
            duplicates=pool.duplicates,
            held_out=pool.held_out,
            inputs=pool.fingerprints,
            counts=pool.counts,
            cluster=cluster,
        )
        ledger = selection.lazy_ledger
        if marks is not None and pool.frozen is not None:
            told = marked_held_out(pool.frozen.samples, config, folder, log)
            ledger = ledger.update(
                told.lazy().with_columns(fate=pl.lit("held_out")), on=["sample_id", "fate"]
            )
        subset = pool.picked_rows(selection.places, selection.told_of_picks)
        if marks is not None and marks.told:
            of_picks = marks.told_of(selection.places)

            def masked(rows: pl.DataFrame) -> pl.DataFrame:
                # The record as it came stays in the version; what is trained on is masked.
                places = rows["rank"].to_numpy().astype(np.int64) - 1
                return of_picks.masked(places, rows).with_columns(rows["raw"])

            subset = subset.map(masked)
    frozen = pool.frozen.summary() if pool.frozen else None
    facts = {"held_out": frozen, "tokenizer_identity": tokens.identity, **pool.not_read}
    if scores is not None:
        facts["score_fingerprint"] = scores
    if folder.stage == "sft" and isinstance(tokens, PresetTokens):
        facts["cut"] = tokens_cut(ledger, tokens.preset.max_length)
    manifest = selection.manifest | facts | pool.origins
    number = publish_version(folder, subset, ledger, manifest, log)
    if number is None:
        return select_version(folder, config, log, cluster=cluster)
    return number


def tokens_cut(ledger: pl.LazyFrame, max_length: int) -> dict[str, int]:
    """Return how many picked conversations are longer than a trainer reads, and what they lose.

    Args:
        ledger: with ``num_tokens`` as the model reads them.
        max_length: tokens at which the preset cuts a conversation.
    """
    beyond = pl.col("num_tokens") - max_length
    cut = ledger.filter(beyond > 0, fate="picked").select(
        num_samples=pl.len(), num_tokens=beyond.sum()
    )
    return {"max_length": max_length, **cut.collect(engine="streaming").row(0, named=True)}


def recount(folder: StageFolder, tokens: TokenCounter, log: Callable[[str], object]) -> None:
    """Count the tokens of stored states anew where another tokenizer counted them."""
    if isinstance(tokens, TextTokens):
        log(
            f"Tokens are those of the plain text by {tokens.name}: to count what the model reads, "
            "transformers is needed (pip install 'zip-pipeline[train]')"
        )
    others = counted_otherwise(folder, tokens)
    if others:
        before = ", ".join(sorted(set(others.values())))
        log(
            f"Counting the tokens of {len(others):,} batches anew: they were counted by {before}, "
            f"now it is {tokens.name}"
        )
    for batch in others:
        recount_tokens(folder, batch, tokens)


class _ProgressLog:
    """Writes how far a selection has come to a log, every few seconds, and estimates at once."""

    def __init__(self, log: Callable[[str], object]) -> None:
        self._log = log
        self._last = -SECONDS_BETWEEN_PROGRESS
        self._phase = ""

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        is_new = progress.is_estimate or progress.phase != self._phase
        if not is_new and now - self._last < SECONDS_BETWEEN_PROGRESS:
            return
        self._last, self._phase = now, progress.phase
        self._log(progress.words())


def refuse_none(folder: StageFolder, batches: Collection[str]) -> None:
    """Raise UserError where there is no batch to select from."""
    if not batches:
        raise UserError(
            f"{folder.raw}: no batch of stage {folder.stage} is ingested; drop a file there, then "
            f"zip-pipeline run --until subset, or materialise {folder.stage}/raw_pool and "
            f"{folder.stage}/compression_state for its partition"
        )
