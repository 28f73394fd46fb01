"""The published ZIP implementation's behaviour, quirks included, at a fraction of its cost."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.codecs.deflate import DeflateMeasurer
from zip_pipeline.compression.sets import Framing, IndexedSet, worker_count
from zip_pipeline.compression.texts import TemporaryTexts, TextFile
from zip_pipeline.samples import Stage
from zip_pipeline.selection.candidates import Indices, picked_tokens, refuse_to_pick_nothing
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.ledger import (
    build_ledger,
    build_manifest,
    known_before,
    measure_ratios,
    picked_ids,
)
from zip_pipeline.selection.rounds import Ordering, ProgressHook, reference_ordering
from zip_pipeline.selection.run import Checkpoint, Fate, Progress, Run
from zip_pipeline.selection.select import Selection
from zip_pipeline.tables import TemporaryTable

# What the published code writes over the ratio of a sample that is out of the running.
_DROPPED = 1_000_000.0
_LEVEL = 9
_SELECTED, _PICKED = "selected", "picked"
FRAMING = Framing(b"[", b", ", b"]")


def reference_texts(records: Sequence[object]) -> list[bytes]:
    """Return each record as Python prints it in a list, in UTF-8, so ids and sources count."""
    return [repr(record).encode() for record in records]


class ReferenceSelection:
    """The published rounds: float32 ratios, ``torch.topk``, whole shortlists dropped.

    Deviation: where fewer than k1, k2 or k3 samples are left, those that are left are used
    (the published code fails or picks samples twice).

    Source: the published implementation of ZIP (USTC-StarTeam/ZIP).
    """

    def __init__(
        self,
        measurer: DeflateMeasurer,
        config: SelectionConfig,
        ordering: Ordering | None = None,
    ) -> None:
        self._measurer = measurer
        self._config = config
        self._lowest = ordering or reference_ordering()
        self._selected = measurer.new_set(_SELECTED)

    def start(self, run: Run) -> None:
        """Build the selected set from the picks of earlier rounds."""
        self._selected.add(np.array(run.picks, dtype=np.int64))

    def initial_state(self) -> NDArray[np.float32]:
        """Return R of each record alone, as the published code prints it in a list."""
        everyone = np.arange(len(self._measurer.texts))
        return self._ratios(self._measurer.new_set(_PICKED), everyone)

    def run_round(self, run: Run) -> bool:
        """Run one round; return False, with nothing done, when no sample is left."""
        num_left = int((run.pi < _DROPPED).sum())
        if not num_left:
            return False
        run.num_rounds += 1
        candidates = self._lowest(run.pi, min(self._config.k1, num_left))
        run.reach(candidates, Fate.CANDIDATE)
        ratios = self._ratios(self._selected, candidates)
        run.pi[candidates] = ratios
        shortlist = candidates[self._lowest(ratios, min(self._config.k2, len(candidates)))]
        run.reach(shortlist, Fate.SHORTLISTED)
        picks = self._fine(shortlist, run)
        run.pi[shortlist] = _DROPPED
        self._selected.add(np.array(picks, dtype=np.int64))
        return True

    def _fine(self, shortlist: Indices, run: Run) -> list[int]:
        picked = self._measurer.new_set(_PICKED)
        picks: list[int] = []
        ratios = np.full(len(shortlist), _DROPPED, dtype=np.float32)
        is_open = np.ones(len(shortlist), dtype=np.bool_)
        while len(picks) < min(self._config.k3, len(shortlist)):
            ratios[is_open] = self._ratios(picked, shortlist[is_open])
            position = int(self._lowest(ratios, 1)[0])
            index = int(shortlist[position])
            is_open[position], ratios[position] = False, _DROPPED
            run.pick(index)
            picks.append(index)
            picked.add(np.array([index]))
        return picks

    def _ratios(self, given: IndexedSet, indices: Indices) -> NDArray[np.float32]:
        return given.ratios_with(indices).astype(np.float32)


def run_reference(
    texts: TextFile,
    config: SelectionConfig,
    store: Checkpoint,
    *,
    workers: int = 0,
    progress: ProgressHook | None = None,
    ordering: Ordering | None = None,
) -> Run:
    """Return the finished run of the published algorithm over :func:`reference_texts`.

    Picks are added in whole rounds of k3, so the budget is overshot to a multiple of k3.
    """
    started = time.monotonic()
    with DeflateMeasurer(texts, workers, _LEVEL, FRAMING) as measurer:
        selection = ReferenceSelection(measurer, config, ordering)
        run = store.load() or Run.start(selection.initial_state())
        selection.start(run)
        while len(run.picks) < config.budget and selection.run_round(run):
            store.save(run)
            if progress:
                seconds = time.monotonic() - started
                num = len(run.picks)
                progress(Progress(run.num_rounds, num, num, config.budget, "samples", seconds))
    return run


def select_reference(
    records: Sequence[object],
    config: SelectionConfig,
    *,
    provenance: pl.DataFrame,
    stage: Stage = "sft",
    tokenizer: str = "tiny",
    workers: int = 0,
    progress: ProgressHook | None = None,
    checkpoint: Path | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Selection:
    """Select from raw records as the published implementation does; every row takes part.

    Args:
        records: the records as read from the files, keys in file order.
        config: with ``reference_compat``.
        provenance: ``sample_id``, ``batch``, ``source``, ``source_file``, ``source_row`` of
            each record.
        stage: what the manifest calls the records.
        tokenizer: counts the tokens of the picks.
        workers: number of processes, 0 for all cores.
        progress: called after each round.
        checkpoint: file to store progress in and to resume from; removed at the end.
        inputs: fingerprint of each input, for the manifest.
    """
    started = time.monotonic()
    workers = worker_count(workers)
    with TemporaryTexts.write([reference_texts(records)]) as texts:
        store = Checkpoint.of_texts(checkpoint, config, texts)
        settled = config.of_pool(len(records))
        refuse_to_pick_nothing(config, np.ones(len(records), np.int64))
        run = run_reference(texts, settled, store, workers=workers, progress=progress)
        tokens = picked_tokens(texts, run.picks, tokenizer)
        with DeflateMeasurer(texts, workers, _LEVEL, FRAMING) as measurer:
            alone = ReferenceSelection(measurer, config).initial_state()
        known = known_before(provenance, alone, texts.num_bytes, tokens)
        rows = build_ledger(known, run, None, None)
        ledger, picks = TemporaryTable(rows, texts.path.parent), np.array(run.picks, np.int64)
        manifest = build_manifest(
            stage,
            config,
            ledger.lazy(),
            picked_ids(ledger.lazy(), len(picks)),
            tokenizer=tokenizer,
            inputs=inputs or {},
            counts={"num_rows_read": len(records)},
            num_rounds=run.num_rounds,
            used=len(run.picks),
            budget=settled.budget,
        )
        manifest |= measure_ratios(picks, texts)
    manifest["seconds"] = {"select": round(time.monotonic() - started, 3)}
    store.remove()
    return Selection(picks, ledger, manifest)
