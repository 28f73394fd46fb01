"""The same pool, budget and training through every strategy: which one is worth using here."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.fit import Relation, relations_table
from zip_pipeline.errors import UserError
from zip_pipeline.evaluation.diversity import diversity
from zip_pipeline.files import write_bytes, write_json, write_table
from zip_pipeline.pool.held_out import HeldOutSettings, is_held_out
from zip_pipeline.pool.pool import SelectionPool, open_selection_pool
from zip_pipeline.report.comparison import (
    WHERE,
    Measure,
    beside_second,
    comparison_figure,
    conclusion,
    law_figure,
    law_relations,
    law_table,
    overlap,
    overlap_table,
    picked_alone,
    shown_tables,
    summary,
    winner,
    words_of_skips,
)
from zip_pipeline.report.markdown import Shown, bullets, inert, markdown
from zip_pipeline.samples import Stage, contents_text
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import TOKEN_UNITS, SelectionConfig
from zip_pipeline.selection.select import select_candidates
from zip_pipeline.selection.strategies import strategies
from zip_pipeline.settings import MAX_NUMBER
from zip_pipeline.terminal_text import counted
from zip_pipeline.training import in_turn
from zip_pipeline.training.job import finished_training
from zip_pipeline.training.tokens import configured_tokens
from zip_pipeline.workflow.comparison_plan import Comparison, Log, open_comparison
from zip_pipeline.workflow.models import RunJobs
from zip_pipeline.workflow.qualities import qualities
from zip_pipeline.workflow.signals import pool_marks, pool_signals

R_CODEC = "deflate"
FIGURES = "figures.json"
"""What is known of a finished run; the last file that is written of it."""
_SKIPPED = "skipped.json"
_QUALITY = {"sample_id": pl.String, "Q": pl.Float64}
# The tenth of each source that a seed leaves out.
_LEFT_OUT = HeldOutSettings(share=0.1, min_source_samples=0, max_source_samples=MAX_NUMBER)
_LARGEST_GAP = 0.02
_TEXT_CHARACTERS = 200
_PROBE = "zip_pipeline.training.trainers.probe"
_EVALUATION = "zip_pipeline.evaluation.held_out"


def compare_subset(
    root: DataRoot,
    strategy: str,
    seed: int,
    changes: Mapping[str, Any] | None = None,
    log: Log = lambda _: None,
    *,
    stage: Stage = "sft",
) -> dict[str, Any]:
    """Select the subset of one strategy and seed, unless it is there; return its manifest.

    Every seed leaves out another tenth of the candidates, so that strategies without chance
    differ too.

    Returns:
        The manifest of the selection, or ``skipped``: the reason why it cannot be made.

    Raises:
        UserError: see :func:`open_comparison`; or the pool changed meanwhile.
    """
    return _subset(open_comparison(root, changes, log, stage=stage), strategy, seed, log)


def _subset(comparison: Comparison, strategy: str, seed: int, log: Log) -> dict[str, Any]:
    run = comparison.run(strategy, seed)
    if (run / "subset.json").exists():
        return _read(run / "subset.json")
    try:
        manifest = _select(comparison, strategy, seed, log)
    except _Skipped as error:
        manifest = {"skipped": str(error)}
        write_json(run / _SKIPPED, manifest)
    return manifest


class _Skipped(Exception):
    """A strategy cannot select, and why."""


@contextmanager
def _skipping() -> Iterator[None]:
    try:
        yield
    except (UserError, ModuleNotFoundError) as error:
        raise _Skipped(str(error)) from error


def _select(comparison: Comparison, name: str, seed: int, log: Log) -> dict[str, Any]:
    with _skipping():
        config, told = _config(comparison, name, seed)
    run, root = comparison.run(name, seed), comparison.root
    folder = root[comparison.stage]
    with open_selection_pool(folder) as pool:
        if dict(pool.fingerprints) != comparison.plan["pool"]:
            raise UserError("the pool changed since the comparison was opened; start it again")
        rows = _candidates(comparison, pool, seed)
        with _skipping():
            signals = pool_signals(pool, config, folder, log, root.path)
            quality = qualities(pool, config, root.path, signals)
            marks = pool_marks(pool, config, folder, log, quality)
        with TemporaryTexts.write(pool.texts.parts(rows), root.cache) as texts, _skipping():
            selection = select_candidates(
                Candidates(
                    pool.index[rows],
                    texts,
                    pool.state[rows],
                    told,
                    quality=None if quality is None else quality[rows],
                    signals=None if signals is None else signals.part(rows),
                    marks=None if marks is None else marks.part(rows),
                ),
                comparison.stage,
                config,
                tokenizer=configured_tokens(root.path).name,
                checkpoint=run / "selection",
            )
        picks = rows[selection.places]
        subset = pool.rows(picks.tolist())
        if marks is not None:
            subset = marks.masked(picks, subset)
    if subset.is_empty():
        raise _Skipped(f"it picked nothing within {config.budget:,} {config.unit}")
    (run / _SKIPPED).unlink(missing_ok=True)
    write_table(run / "subset.parquet", subset, {})
    write_json(run / "subset.json", selection.manifest)
    return selection.manifest


def _config(comparison: Comparison, name: str, seed: int) -> tuple[SelectionConfig, list[bytes]]:
    """Return what a strategy is asked for, and the texts of the target that it is told of."""
    strategy, _, mixture = name.partition("+")
    options: dict[str, Any] = {"strategy": strategy, "mixture": mixture or None, "seed": seed}
    options[f"budget_{comparison.settings.unit}"] = comparison.plan["budget"]
    options |= {n: comparison.plan[n] for n in ("quality", "signals") if n in comparison.plan}
    if not (comparison.settings.target and strategies[strategy].uses("target")):
        return SelectionConfig(**options), []
    path = comparison.held("target_told")
    config = SelectionConfig(**options, target=str(path))
    return config, texts_of(pl.read_parquet(path), comparison.stage)


def _candidates(comparison: Comparison, pool: SelectionPool, seed: int) -> NDArray[np.int64]:
    """Return the positions in the index of what may be picked with a seed."""
    index, plan = pool.index, comparison.plan
    is_left_out = is_held_out(index, _LEFT_OUT.model_copy(update={"seed": seed + 1}))
    is_left_out |= pool.state["num_tokens"] > plan["max_length"]
    is_left_out |= index["source"].is_in(plan["unseen_sources"])
    is_left_out |= index["sample_id"].is_in(comparison.held_ids.to_list())
    return np.flatnonzero(~is_left_out.to_numpy())


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def compare_model(
    root: DataRoot,
    strategy: str,
    seed: int,
    run_jobs: RunJobs,
    changes: Mapping[str, Any] | None = None,
    log: Log = lambda _: None,
    *,
    stage: Stage = "sft",
) -> dict[str, Any]:
    """Train, probe and evaluate on the subset of one strategy and seed; return the figures.

    The subset is selected where it is not there; what is done is not done again.

    Args:
        root: the data root.
        strategy: a STRATEGY or STRATEGY+MIXTURE.
        seed: of what is left out, of the selection and of the training.
        run_jobs: runs the processes.
        changes: settings that replace those of the stage's table.
        log: told what takes long.
        stage: of the pool and of the models.

    Returns:
        Losses and bits per byte of every set that is held out, R, L, diversity, amounts and
        seconds; or ``skipped``: the reason.
    """
    comparison = open_comparison(root, changes, log, stage=stage)
    run = comparison.run(strategy, seed)
    manifest = _subset(comparison, strategy, seed, log)
    if "skipped" in manifest or (run / FIGURES).exists():
        return manifest if "skipped" in manifest else _read(run / FIGURES)
    loss = _trained(comparison, run, seed, run_jobs)
    seconds = manifest["seconds"]
    figures = {
        "strategy": strategy,
        "seed": seed,
        **_losses(comparison, run),
        "R": manifest["compression_ratio"][R_CODEC],
        "L": loss["L"],
        **diversity(_texts(comparison.stage, run / "subset.parquet"), _reference(comparison)),
        "num_samples": manifest["num_picked"],
        **{f"num_{unit}": manifest[f"picked_{unit}"] for unit in TOKEN_UNITS},
        "selection_seconds": round(seconds["prepare"] + seconds["select"], 3),
    }
    write_json(run / FIGURES, figures)
    return figures


def _trained(comparison: Comparison, run: Path, seed: int, run_jobs: RunJobs) -> dict[str, Any]:
    """Run the processes of a run that have not finished; return what the probe found."""
    job = {
        "stage": comparison.stage,
        "subset": str(run / "subset.parquet"),
        "output": str(run),
        **{name: value for name, value in comparison.job.items() if name != "trainer"},
        "overrides": {**comparison.job["overrides"], "seed": seed},
    }
    steps: list[tuple[str, Mapping[Path, Mapping[str, Any]]]] = []
    if finished_training(run) is None:
        steps.append((comparison.trainer.module, {run / "job.json": job}))
    if not (run / "probe" / "loss.json").exists():
        steps.append((_PROBE, {run / "probe" / "job.json": job}))
    evaluations = {
        run / "evaluation" / f"{name}_job.json": {
            "model": str(run / "model"),
            "samples": str(comparison.held(name)),
            "stage": comparison.stage,
            "output": str(_loss_file(run, name)),
            "max_length": comparison.plan["max_length"],
        }
        for name in comparison.evaluated
        if not _loss_file(run, name).exists()
    }
    if evaluations:
        steps.append((_EVALUATION, evaluations))
    if steps:
        for path, content in chain.from_iterable(jobs.items() for _, jobs in steps):
            write_json(path, content)
        told = [{"module": module, "jobs": [*map(str, jobs)]} for module, jobs in steps]
        run_jobs(in_turn.MODULE, {run / "steps.json": {"steps": told}})
    return _read(run / "probe" / "loss.json")


def _loss_file(run: Path, name: str) -> Path:
    return run / "evaluation" / f"{name}.json"


def _losses(comparison: Comparison, run: Path) -> dict[str, float]:
    found = {name: _read(_loss_file(run, name)) for name in comparison.evaluated}
    return {
        f"{name}_{figure}": loss[figure]
        for name, loss in found.items()
        for figure in ("loss", "bits_per_byte", "accuracy")
        if loss.get(figure) is not None
    }


def _texts(stage: Stage, path: Path) -> list[str]:
    return pl.read_parquet(path).select(contents_text(stage))[:, 0].to_list()


def _reference(comparison: Comparison) -> list[str]:
    """Return texts of the pool that no strategy can have picked."""
    names = [name for name in comparison.evaluated if not name.startswith("target")]
    return [text for name in names for text in _texts(comparison.stage, comparison.held(name))]


@dataclass(frozen=True)
class ComparisonResult:
    """What a comparison comes to so far.

    Args:
        folder: of the files: runs, table, figures.
        stage: of the pool and of the models.
        measure: what it is decided by: ``target``, ``unseen`` or ``seen``.
        runs: one row per strategy and seed, with all figures: among them Z, the loss that decides,
            negated, and Q, the mean quality of the picks, null where it is unknown.
        table: one row per strategy, see :func:`.summary`.
        conclusion: the sentence to act on.
        skipped: by strategy and seed, why there is no run.
        certainty: how the winner stands to the second best, and how many samples say so.
        notes: what else to know.
        settings: the lines of zip_pipeline.toml that use the winner; empty where there is none yet.
        overlap: by how much each two strategies agree, see :func:`.overlap`.
        alone: samples that one strategy alone picked, ten of each: ``strategy``, ``sample_id``,
            ``source`` and the begin of the ``text``.
        relations: how Z, R and L hang together over the runs; none without scipy.
        figures: PNG by name, ``comparison`` and ``law``; none without matplotlib.
    """

    folder: Path
    stage: Stage
    measure: Measure
    runs: pl.DataFrame
    table: pl.DataFrame
    conclusion: str
    skipped: dict[str, str]
    certainty: list[str]
    notes: list[str]
    settings: str
    overlap: pl.DataFrame
    alone: pl.DataFrame
    relations: Sequence[Relation]
    figures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def shown(self) -> list[Shown]:
        """Header and cells of the tables for people."""
        tables = [*shown_tables(self.table, self.measure), overlap_table(self.overlap)]
        return [*tables, law_table(self.relations, self.measure)] if self.relations else tables


def compare_result(
    root: DataRoot, changes: Mapping[str, Any] | None = None, *, stage: Stage = "sft"
) -> ComparisonResult:
    """Return what the finished runs of the comparison come to, and write its files.

    Raises:
        UserError: see :func:`open_comparison`; or no run is finished.
    """
    comparison = open_comparison(root, changes, stage=stage)
    runs_folder = comparison.folder / "runs"
    figures = [_read(path) for path in sorted(runs_folder.glob(f"*/{FIGURES}"))]
    wanted = {
        f"{n}-{s}" for n in comparison.settings.names() for s in range(comparison.settings.seeds)
    }
    done = {f"{run['strategy']}-{run['seed']}" for run in figures}
    skipped = dict.fromkeys(sorted(wanted - done), "not run yet")
    skipped |= {
        p.parent.name: _read(p)["skipped"] for p in sorted(runs_folder.glob(f"*/{_SKIPPED}"))
    }
    if not figures:
        words = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise UserError(
            f"{comparison.folder}: no run is finished ({words}). Materialise partitions of the "
            f"comparison's model, or run zip-pipeline compare --stage {stage}"
        )
    runs = pl.DataFrame(figures, infer_schema_length=None).sort("strategy", "seed")
    measure: Measure = comparison.plan["measure"]
    picks = _picks(comparison, runs)
    quality, words = _quality(comparison, picks)
    runs = runs.with_columns(
        quality,
        mean_tokens=pl.col("num_tokens") / pl.col("num_samples"),
        Z=-pl.col(f"{measure}_loss"),
    )
    result = ComparisonResult(
        comparison.folder,
        stage,
        measure,
        runs,
        summary(runs),
        conclusion(runs, measure),
        skipped,
        [*_certainty(comparison, runs)],
        [*_notes(comparison, runs), words],
        _settings_of(comparison, winner(runs, measure)),
        overlap(picks),
        picked_alone(picks),
        # A library of the same extra as that of the figures.
        law_relations(runs) if find_spec("scipy") else (),
    )
    return _write(result)


def _picks(comparison: Comparison, runs: pl.DataFrame) -> pl.DataFrame:
    """Return the picks of the finished runs in pick order, with the begin of what they say."""
    text = contents_text(comparison.stage).str.slice(0, _TEXT_CHARACTERS).alias("text")
    found = [
        pl.read_parquet(comparison.run(name, seed) / "subset.parquet").select(
            pl.lit(name).alias("strategy"), pl.lit(seed).alias("seed"), "sample_id", "source", text
        )
        for name, seed in runs.select("strategy", "seed").iter_rows()
    ]
    return pl.concat(found)


def _quality(comparison: Comparison, picks: pl.DataFrame) -> tuple[pl.Series, str]:
    """Return Q, the mean quality of the picks of each run, and in words what it is of.

    Args:
        comparison: whose stage may name a quality, whatever the strategies select by.
        picks: see :func:`_picks`.
    """
    try:
        known, words = _known_quality(comparison)
    except (UserError, ModuleNotFoundError) as error:
        known, words = pl.DataFrame(schema=_QUALITY), f"Q is unknown: {error}."
    of_runs = picks.join(known, on="sample_id", how="left").group_by("strategy", "seed")
    return of_runs.agg(pl.mean("Q")).sort("strategy", "seed")["Q"], words


def _known_quality(comparison: Comparison) -> tuple[pl.DataFrame, str]:
    folder, plan = comparison.root[comparison.stage], comparison.plan
    if "quality" not in plan:
        raise UserError(
            f"[{comparison.stage}] names no quality, such as a number of the records or "
            "signals.judge.rating"
        )
    # By the quality alone, so that any number is one.
    named = {name: plan[name] for name in ("quality", "signals") if name in plan}
    config = SelectionConfig(strategy="score", budget_samples=1, **named)
    path = comparison.root.path
    stored = (folder.signal(name, b) for name in config.needed_signals for b in folder.batches())
    # A result must not pay a judge, or take hours.
    if not all(table.exists() for table in stored):
        raise UserError(f"{plan['quality']} was not measured of the whole pool yet")
    with open_selection_pool(folder) as pool:
        signals = pool_signals(pool, config, folder, lambda _: None, path)
        quality = qualities(pool, config, path, signals)
        assert quality is not None, "a quality is named"
        known = pool.index.select("sample_id", quality.cast(pl.Float64).alias("Q"))
    return known, f"Q is the mean of {plan['quality']} over the picks."


def _notes(comparison: Comparison, runs: pl.DataFrame) -> list[str]:
    plan, unit = comparison.plan, comparison.settings.unit
    words = unit.replace("_", " ")
    notes = [
        f"Each picked at most {plan['budget']:,} {words} of {plan['num_candidates']:,} candidates "
        f"less a tenth by seed; {plan['num_too_long']:,} samples above {plan['max_length']:,} "
        "tokens take no part.",
        f"Nothing is trained on: {', '.join(plan['unseen_sources']) or 'no source held out'}.",
    ]
    used = runs.group_by("strategy").agg(pl.mean(f"num_{unit}")).sort("strategy").rows()
    most = max(num for _, num in used)
    notes += [
        f"{name} picked {num:,.0f} {words}, {most:,.0f} others: it was trained on less."
        for name, num in used
        if num < (1 - _LARGEST_GAP) * most
    ]
    if "sft_model" in comparison.job:
        start = comparison.job["sft_model"]
        notes.append(
            f"Every model is trained by {comparison.trainer.name} from the SFT model {start}."
        )
    if comparison.is_tiny:
        notes.append(
            "The model is tiny, which knows the sample pool alone: on data of your own compare "
            "with the model that you train (preset in [training])."
        )
    if find_spec("matplotlib") is None:
        notes.append("No figure: matplotlib is missing (pip install 'zip-pipeline[dagster]').")
    return notes


def _certainty(comparison: Comparison, runs: pl.DataFrame) -> Iterator[str]:
    """Yield how the winner stands to the second, and how many samples say so."""
    measure: Measure = comparison.plan["measure"]
    second, num = beside_second(runs, measure), comparison.plan["num_held"]
    if second is not None:
        yield second
    yield (
        f"The loss {WHERE[measure]} is of {counted(num[measure], 'sample')}; the best was chosen "
        f"by {counted(num[f'{measure}_choice'], 'other')}."
    )


def _settings_of(comparison: Comparison, name: str | None) -> str:
    """Return the lines of zip_pipeline.toml by which the nightly run selects as a strategy does."""
    if name is None:
        return ""
    strategy, _, mixture = name.partition("+")
    values: dict[str, Any] = {"strategy": strategy, "mixture": mixture or None}
    values[f"budget_{comparison.settings.unit}"] = comparison.plan["budget"]
    if comparison.settings.target and strategies[strategy].uses("target"):
        values["target"] = comparison.settings.target
    # Strings and whole numbers of JSON are those of TOML.
    lines = (f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None)
    return "\n".join([f"[{comparison.stage}]", *lines])


def _write_figures(result: ComparisonResult) -> dict[str, bytes]:
    title = f"Comparison of strategies, {result.stage}"
    drawn = {"comparison": comparison_figure(result.runs, result.table, title)}
    if result.relations:
        drawn["law"] = law_figure(result.relations, result.measure, f"Entropy law, {result.stage}")
    pictures = {name: figure for name, figure in drawn.items() if figure is not None}
    for name, (figure, drawing) in pictures.items():
        write_bytes(result.folder / f"{name}.png", figure)
        write_bytes(result.folder / f"{name}.svg", drawing)
    return {name: figure for name, (figure, _) in pictures.items()}


def _csv(table: pl.DataFrame) -> bytes:
    """Return a table as CSV; an apostrophe keeps words from being run by a spreadsheet."""
    words = pl.col(pl.String).str.replace(r"^[=+\-@\t\r]", "'${0}")
    return table.with_columns(words).write_csv().encode()


def _write(result: ComparisonResult) -> ComparisonResult:
    """Write the files of a result, result.json last."""
    folder = result.folder
    if find_spec("matplotlib") is not None:
        result = replace(result, figures=_write_figures(result))
    lines = [*result.certainty, *words_of_skips(result.skipped), *result.notes]
    text = f"{inert(result.conclusion)}\n\n{markdown(result.shown)}\n{bullets(lines)}"
    if result.settings:
        text += f"\nIn zip_pipeline.toml:\n\n```toml\n{result.settings}\n```\n"
    write_bytes(folder / "comparison.md", text.encode())
    tables = {"table": result.table, "overlap": result.overlap, "alone": result.alone}
    if result.relations:
        tables["law"] = relations_table(result.relations)
    for name, table in tables.items():
        write_bytes(folder / f"{name}.csv", _csv(table))
    write_table(folder / "runs.parquet", result.runs, {})
    names = ("conclusion", "certainty", "measure", "skipped", "notes", "settings")
    told = {name: getattr(result, name) for name in names}
    write_json(folder / "result.json", {**told, "table": result.table.to_dicts()})
    return result
