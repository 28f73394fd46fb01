"""Signals of a pool: measured once for each batch, stored, and read for a selection."""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import polars.selectors as cs

from zip_pipeline.chat_models import load_model, model_identity, prepare_environment
from zip_pipeline.data_root import StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.files import ROWS_PER_GROUP, fingerprint, scan_table, write_table
from zip_pipeline.pool.batches import batch_metadata, in_small_parts
from zip_pipeline.pool.pool import SelectionPool, StoredBatch
from zip_pipeline.samples import with_all_columns
from zip_pipeline.selection.candidates import MARKS_SCHEMA, Marks, SignalTables
from zip_pipeline.selection.config import SelectionConfig, stage_selection
from zip_pipeline.selection.run import about
from zip_pipeline.settings import Settings
from zip_pipeline.signals import (
    MARKS,
    MarkedPool,
    Measure,
    Signal,
    Tools,
    settings_of,
    signals,
)
from zip_pipeline.signals.embedding import VECTOR, EmbeddingSettings, embedder
from zip_pipeline.signals.tags import plain
from zip_pipeline.tables import Table, TemporaryTable, WholeTable, rows_in_parts, whole_of
from zip_pipeline.training.presets import (
    OWN_TEMPLATE,
    Preset,
    load_preset,
    preset_names,
    template_text,
    templated_tokenizer,
)
from zip_pipeline.workflow.sources import question_texts, target_samples

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Log = Callable[[str], object]
_SECONDS_BETWEEN_LOGS = 10.0


@dataclass(frozen=True)
class PresetModel:
    """The model of a preset, with its template."""

    preset: Preset

    @property
    def identity(self) -> str:
        """A hash of weights and template, or the commit on the hub and the template."""
        preset = self.preset
        template = template_text(preset.template, preset.source, preset.revision)
        return fingerprint([model_identity(preset.source, preset.revision), template])

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Return the tokenizer with the preset's template."""
        prepare_environment(offline=Path(self.preset.source).is_dir())
        return templated_tokenizer(self.preset.source, self.preset.revision, self.preset.template)

    def network(self) -> "PreTrainedModel":
        """Return the model in single precision."""
        return load_model(self.preset.source, self.preset.revision)


@cache
def preset_model(name: str) -> PresetModel:
    """Return the model of a preset, or of a folder, with the template that it brings.

    Raises:
        UserError: it is neither.
    """
    if Path(name).is_dir():
        return PresetModel(load_preset("tiny", {"model": name, "template": OWN_TEMPLATE}))
    if name not in preset_names() and not Path(name).is_file():
        raise UserError(
            f"model: got {name!r}; allowed are the presets {', '.join(preset_names())}, the path "
            "of one (a TOML file), and the folder of a model"
        )
    return PresetModel(load_preset(name))


@dataclass(frozen=True)
class WantedSignal:
    """A signal with its settings, for the samples of a stage and what is stored of them."""

    signal: Signal
    settings: Settings
    folder: StageFolder

    @property
    def tools(self) -> Tools:
        """What it can ask for."""
        folder = self.path("").parent
        return Tools(preset_model, folder, self.folder.root.path, question_texts)

    def path(self, batch: str) -> Path:
        """Return the table of a batch."""
        return self.folder.signal(self.signal.name, batch)

    @cached_property
    def identity(self) -> str:
        """What changes when the values of a sample do; a model's files are read for it once."""
        return self.signal.identity(self.settings, self.tools)


def wanted_signal(
    name: str, given: Mapping[str, Mapping[str, Any]], folder: StageFolder
) -> WantedSignal:
    """Return a signal as the configuration has it.

    Raises:
        UserError: there is none of that name, its settings are wrong, or it cannot measure samples
            of that stage.
    """
    signal = signals[name]
    if folder.stage not in signal.stages:
        raise UserError(
            f"signals: {name} measures {', '.join(signal.stages)}, not {folder.stage}; take a "
            "strategy that does without it"
        )
    return WantedSignal(signal, settings_of(name, given.get(name, {})), folder)


class Measuring:
    """Measures batches by one signal; what it needs is loaded when the first sample comes.

    Args:
        wanted: the signal; what is measured is stored in its folder, block by block, then by batch.
        log: told what it takes before it begins, and every ten seconds how far it is.
    """

    def __init__(self, wanted: WantedSignal, log: Log) -> None:
        self._wanted = wanted
        self._log = log
        self._identity = wanted.identity
        self._opened = ExitStack()
        self._measure: Measure | None = None
        self._num_left = self._num_done = 0
        self._started = self._told = 0.0

    def __enter__(self) -> "Measuring":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def tables(self, batches: Sequence[StoredBatch]) -> Iterator[pl.LazyFrame]:
        """Yield the signal of each sample of each batch, measured where it is not stored.

        The log tells where another model, or another way, measured before.
        """
        paths = (self._wanted.path(batch.name) for batch in batches)
        stored = [self._wanted.folder.metadata(path) for path in paths if path.exists()]
        before = {metadata.get("identity", "") for metadata in stored}
        for other in sorted(before - {self._identity}):
            self._log(
                f"Signal {self._wanted.signal.name}: was measured by {other}, now by "
                f"{self._identity}; what was measured by another counts no more"
            )
        self._num_left = sum(
            batch.num_samples
            for batch in batches
            if not self._is_known(batch, self._wanted.path(batch.name))
        )
        for batch in batches:
            yield self._table(batch)

    def pool_table(self, batches: Sequence[StoredBatch]) -> TemporaryTable:
        """Return the signal of each sample of the index, in a file; see :meth:`tables`."""
        parts = [self._wanted.signal.columns.to_frame().lazy()]
        for table, batch in zip(self.tables(batches), batches, strict=True):
            is_of_index = np.zeros(batch.num_samples, np.bool_)
            is_of_index[batch.positions] = True
            parts.append(table if is_of_index.all() else table.filter(pl.Series(is_of_index)))
        return TemporaryTable(parts, self._wanted.folder.root.cache)

    def _table(self, batch: StoredBatch) -> pl.LazyFrame:
        path, size = self._wanted.path(batch.name), self._wanted.signal.block
        if not self._is_known(batch, path):
            blocks = path.with_suffix(".blocks")
            starts = range(0, batch.num_samples, size)
            parts = [self._block(batch, blocks, start) for start in starts]
            table = scan_table(*parts) if parts else self._wanted.signal.columns.to_frame()
            self._wanted.folder.write(path, table, self._described(batch))
            shutil.rmtree(blocks, ignore_errors=True)
        self._wanted.folder.check(path)
        return scan_table(path)

    def _described(self, batch: StoredBatch) -> dict[str, str]:
        return {"pool_fingerprint": batch.fingerprint, "identity": self._identity}

    def _is_known(self, batch: StoredBatch, path: Path) -> bool:
        if not path.exists():
            return False
        return self._described(batch).items() <= self._wanted.folder.metadata(path).items()

    def _block(self, batch: StoredBatch, blocks: Path, start: int) -> Path:
        """Return the table of some samples, measured where no stopped run did."""
        path = blocks / f"{start:09d}.parquet"
        size = min(self._wanted.signal.block, batch.num_samples - start)
        if self._is_known(batch, path):
            self._num_left -= size
            return path
        measured = pl.concat(map(self.measure, batch.parts(start, start + size)))
        write_table(path, measured, self._described(batch))
        self._tell(size)
        return path

    def measure(self, samples: pl.DataFrame) -> pl.DataFrame:
        """Return the signal of each row of a pool table, measured now."""
        signal, settings = self._wanted.signal, self._wanted.settings
        if self._measure is None:
            cost = signal.cost(samples, max(self._num_left, samples.height), settings)
            words = f"{self._num_left or samples.height:,} samples to measure"
            self._log(f"Signal {signal.name}: {words}{f', {cost}' if cost else ''}")
            opening = signal.open(settings, self._wanted.folder.stage, self._wanted.tools)
            self._measure = self._opened.enter_context(opening)
            self._started = self._told = time.monotonic()
        rows = with_all_columns(samples.lazy(), self._wanted.folder.stage).collect()
        measured = self._measure(rows).cast(signal.columns)
        assert measured.height == samples.height, "one row per sample"
        return measured

    def _tell(self, num_samples: int) -> None:
        self._num_done += num_samples
        self._num_left -= num_samples
        now = time.monotonic()
        if self._num_left and now - self._told >= _SECONDS_BETWEEN_LOGS:
            self._told = now
            left = about((now - self._started) / self._num_done * self._num_left)
            of_all = f"{self._num_done:,} of {self._num_done + self._num_left:,} samples"
            self._log(f"Signal {self._wanted.signal.name}: {of_all}, {left} left")


@dataclass(frozen=True)
class Measured:
    """A signal of a batch: by what it was measured, and of how many samples nothing is known."""

    identity: str
    num_unknown: int


def measure_batch(folder: StageFolder, name: str, log: Log) -> dict[str, Measured]:
    """Measure a batch by every signal that the settings of its stage ask for, and store it.

    These are the tables ``[signals.NAME]`` and what the strategy needs. Settings that are wrong ask
    for none: they stop selections, not ingestions.

    Raises:
        UserError: what a signal needs is not there.
    """
    try:
        config = stage_selection(folder.root.path, folder.stage)
    except UserError as error:
        log(f"No signal is measured: {error}")
        return {}
    metadata = batch_metadata(folder, name)
    num_samples = int(metadata["num_samples"])
    path, every = folder.samples(name), np.arange(num_samples)
    batch = StoredBatch(name, metadata["fingerprint"], num_samples, path, every)
    found = {}
    for signal in sorted({*config.signals, *config.needed_signals}):
        if folder.stage not in signals[signal].stages:
            continue
        wanted = wanted_signal(signal, config.signals, folder)
        with Measuring(wanted, log) as measuring:
            (table,) = measuring.tables([batch])
        unknown = table.select(pl.any_horizontal(pl.all().is_null()).sum())
        num_unknown = unknown.collect(engine="streaming").item()
        found[signal] = Measured(wanted.identity, num_unknown)
    return found


def marked_held_out(
    samples: pl.DataFrame, config: SelectionConfig, folder: StageFolder, log: Log
) -> pl.DataFrame:
    """Return which samples that are kept for evaluation signals mark, measured now.

    Args:
        samples: rows of a pool table.
        config: names the signals that mark, with their settings.
        folder: of their stage.
        log: told what it takes, and how many are marked: they stay what they are kept for.

    Returns:
        ``sample_id`` and ``evidence``, a row for each sample that is marked.

    Raises:
        UserError: what a signal needs is not there.
    """
    found = [pl.DataFrame(schema={"sample_id": pl.String, "evidence": pl.String})]
    for wanted in _marking(config, folder):
        if not wanted.signal.checks_held_out or samples.is_empty():
            continue
        with Measuring(wanted, log) as measuring:
            told = pl.concat(map(measuring.measure, in_small_parts(samples)))
            marks = wanted.signal.marks(told, wanted.settings)
        marked = samples.select("sample_id", evidence=marks).drop_nulls("evidence")
        fate = wanted.signal.fate.replace("_", " ")
        if marked.height:
            log(
                f"Of the {samples.height:,} samples that are kept for evaluation {marked.height:,} "
                f"are {fate}; trace tells of each"
            )
        words = pl.concat_str(pl.lit(f"{fate}: "), "evidence").alias("evidence")
        found.append(marked.with_columns(words))
    return pl.concat(found).unique("sample_id", keep="first", maintain_order=True)


def signal_identities(config: SelectionConfig, folder: StageFolder) -> dict[str, str]:
    """Return what measures each signal that a strategy asks for; see :func:`wanted_signal`."""
    return {
        name: wanted_signal(name, config.signals, folder).identity for name in config.told_signals
    }


def mark_identities(config: SelectionConfig, folder: StageFolder) -> dict[str, str]:
    """Return what measures each signal that says which samples of the stage take no part."""
    return {wanted.signal.name: wanted.identity for wanted in _marking(config, folder)}


def _marking(config: SelectionConfig, folder: StageFolder) -> list[WantedSignal]:
    return [
        wanted_signal(name, config.signals, folder)
        for name in config.marking_signals
        if folder.stage in signals[name].stages
    ]


def pool_marks(
    pool: SelectionPool,
    config: SelectionConfig,
    folder: StageFolder,
    log: Log,
    quality: pl.Series | None,
) -> Marks | None:
    """Return which samples of the index take no part, None where no signal is asked.

    Of several signals that mark a sample the first by name decides.

    Raises:
        UserError: what a signal needs is not there, or its policy cannot be followed.
    """
    marking = _marking(config, folder)
    if not marking:
        return None
    scratch = folder.root.cache
    marked, by_source, told = [], {}, {}
    for wanted in marking:
        signal, name = wanted.signal, wanted.signal.name
        with Measuring(wanted, log) as measuring:
            table = measuring.pool_table(list(pool.batches()))
        of_pool = MarkedPool(
            folder.stage,
            pool.stored_index,
            table,
            pool.texts,
            pool.said,
            wanted.tools.folder,
            scratch,
            quality,
        )
        marks = _with_fates(signal.fate, signal.mark(of_pool, wanted.settings))
        marked.append(TemporaryTable([marks], scratch))
        counted = _counted(signal, pool.stored_index, table)
        if counted.height:
            by_source[name] = counted
        if type(signal).masked is not Signal.masked:
            told[name] = table

    def hide(told: Mapping[str, pl.DataFrame], rows: pl.DataFrame) -> pl.DataFrame:
        for wanted in marking:
            if wanted.signal.name in told:
                own = told[wanted.signal.name]
                rows = wanted.signal.masked(rows, own, wanted.settings, folder.stage)
        return rows

    identities = {wanted.signal.name: wanted.identity for wanted in marking}
    return Marks(identities, _firsts_of(marked, scratch), told, hide, by_source)


def _with_fates(fate: str, marks: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield marks with the fate of who has one, as ``MARKS_SCHEMA``."""
    yield MARKS_SCHEMA.to_frame()
    for part in marks:
        has_fate = pl.when(pl.col("evidence").is_not_null()).then(pl.lit(fate))
        yield part.cast(MARKS).select(has_fate.alias("fate"), "evidence", "other")


def _firsts_of(marked: Sequence[TemporaryTable], scratch: Path) -> TemporaryTable:
    """Return what the first of some tables says of each sample that it marks."""
    if len(marked) == 1:
        return marked[0]
    tables = [t.lazy().select(pl.all().name.prefix(f"{n} ")) for n, t in enumerate(marked)]
    columns = []
    for column in MARKS_SCHEMA:
        first: pl.Expr = pl.lit(None, pl.String)
        for n in reversed(range(len(marked))):
            is_marked = pl.col(f"{n} fate").is_not_null()
            first = pl.when(is_marked).then(pl.col(f"{n} {column}")).otherwise(first)
        columns.append(first.alias(column))
    return TemporaryTable([pl.concat(tables, how="horizontal").select(columns)], scratch)


def _counted(signal: Signal, index: WholeTable, table: WholeTable) -> pl.DataFrame:
    """Return what a signal told of all samples, counted by source."""
    found = pl.DataFrame()
    if type(signal).by_source is Signal.by_source:
        return found
    sources = index.lazy().select(pl.col("source").alias(_SOURCE))
    rows = pl.concat([sources, table.lazy()], how="horizontal")
    for part in rows.collect_batches(chunk_size=ROWS_PER_GROUP, maintain_order=True):
        own = signal.by_source(part[_SOURCE], part.drop(_SOURCE))
        if own.height:
            found = pl.concat([found, own]) if found.height else own
            words = found.select(~cs.numeric()).columns
            found = found.group_by(words).sum().sort(words)
    return found


# Unlike any column of a signal.
_SOURCE = " source"


def pool_signals(
    pool: SelectionPool,
    config: SelectionConfig,
    folder: StageFolder,
    log: Log,
    base: Path,
) -> SignalTables | None:
    """Return what a strategy asks for of each sample of the index, None where that is nothing.

    Args:
        pool: the pool.
        config: names the strategy, and the settings of its signals.
        folder: of the stage; what is measured is stored there.
        log: told what takes long.
        base: where the relative path of a target file starts.

    Raises:
        UserError: a signal cannot measure samples of this stage, or what it needs is not there.
    """
    if not config.needed_signals:
        return None
    found: dict[str, Table] = {}
    of_target: dict[str, pl.DataFrame] = {}
    identities: dict[str, str] = {}
    batches = list(pool.batches())
    for name in config.needed_signals:
        wanted = wanted_signal(name, config.signals, folder)
        identities[name] = wanted.identity
        with Measuring(wanted, log) as measuring:
            found[name] = measuring.pool_table(batches)
            if (target := config.heeded("target")) is not None:
                of_target[name] = measuring.measure(target_samples(base / target, folder.stage))
    if not config.embeds_tags:
        return SignalTables(identities, found, of_target)
    wanted = wanted_signal("embedding", config.signals, folder)
    identities["embedding"] = wanted.identity
    tags = _tag_vectors(found["tags"], wanted.settings)
    return SignalTables(identities, found, of_target, tags)


MOST_EMBEDDED_TAGS = 1 << 16


def _tag_vectors(table: Table, settings: Settings) -> pl.DataFrame:
    """Return each tag of some samples in its plain form, and its vector, by tag.

    Raises:
        UserError: there are too many different ones.
    """
    assert isinstance(settings, EmbeddingSettings), "the signal is ours"
    texts = pl.Series([], dtype=pl.String)
    for part in rows_in_parts(whole_of(table), "tags"):
        tags = plain(part["tags"].drop_nulls().explode().drop_nulls())
        texts = pl.concat([texts, tags]).unique().sort()
        if len(texts) > MOST_EMBEDDED_TAGS:
            raise UserError(
                f"signals: tags: field: more than {MOST_EMBEDDED_TAGS:,} different tags are too "
                "many to compare with one another; name a field of tags that samples share"
            )
    vectors = embedder(settings)(texts.to_list()).tolist() if len(texts) else []
    return pl.DataFrame({"tag": texts, "vector": pl.Series(vectors, dtype=VECTOR)})
