"""A finished selection in tables for people."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from zip_pipeline.cli.console import (
    new_facts,
    new_table,
    styled,
    words_of_bytes,
    words_of_seconds,
)
from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.entropy_law.fit import relations
from zip_pipeline.entropy_law.table import figures_folder, is_blocked, read_versions
from zip_pipeline.files import scan_table
from zip_pipeline.pool.batches import whole_batches
from zip_pipeline.report.fates import num_by_fate, top_sources
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.selection.strategies import strategies


def show_selection(console: Console, manifest: Mapping[str, Any], ledger: pl.DataFrame) -> None:
    """Print what a selection read, picked and measured, and where its picks come from."""
    facts = new_facts()
    facts.add_row("Strategy", _strategy(manifest))
    facts.add_row("Rows read", words_of_rows(manifest))
    if reasons := manifest.get("quarantine_reasons"):
        facts.add_row("Quarantined", words_of_counts(reasons))
    facts.add_row("Picked", _picked(manifest))
    facts.add_row("Budget", _budget(manifest))
    if quotas := manifest.get("quotas"):
        facts.add_row("Quotas", words_of_quotas(quotas, manifest["budget"]["unit"]))
    facts.add_row("Left", words_of_counts(_left(ledger)))
    facts.add_row("R of pool", _ratios(manifest["pool_compression_ratio"]))
    facts.add_row("R of subset", _ratios(manifest["compression_ratio"]))
    facts.add_row("Time", _times(manifest["seconds"]))
    console.print(facts)
    show_sources(console, ledger)


def show_sources(console: Console, ledger: pl.DataFrame) -> None:
    """Print the sources with most picks beside their share of the pool."""
    table = new_table("top sources", "in pool", "picked", "share of pool", "share of subset")
    for row in top_sources(ledger).iter_rows(named=True):
        table.add_row(
            str(row["source"]),
            f"{row['num_pool']:,}",
            f"{row['num_picked']:,}",
            f"{row['pool_share']:.1%}",
            f"{row['subset_share']:.1%}",
        )
    console.print(table)


def words_of_rows(counts: Mapping[str, Any]) -> str:
    """Return the sum that must always hold."""
    num_held_out = counts.get("num_held_out", 0)
    held_out = f" + {num_held_out:,} held out" if num_held_out else ""
    return (
        f"{counts['num_rows_read']:,} = {counts['num_samples']:,} samples + "
        f"{counts['num_quarantined']:,} quarantined + {counts['num_duplicates']:,} duplicates"
        f"{held_out}"
    )


def words_of_counts(counts: Mapping[str, int]) -> str:
    """Return counted names, as in ``3 empty_answer, 1 bad_json``."""
    return ", ".join(f"{num:,} {name.replace('_', ' ')}" for name, num in counts.items())


def words_of_quotas(quotas: Mapping[str, Mapping[str, int]], unit: str) -> Text:
    """Return what each source used of what it may, and which minimum was not reached."""
    lines = []
    for source, quota in quotas.items():
        used, least = quota["used"], quota["minimum"]
        unmet = f"minimum {least:,} not reached" if used < least else ""
        unused = "nothing picked: is that its name?" if not used else ""
        warning = unmet or unused
        words = f"{source} {used:,} of at most {quota['maximum']:,} {unit}"
        lines.append(styled(words, ", " if warning else "", (warning, "yellow")))
    return Text("\n").join(lines)


def _strategy(manifest: Mapping[str, Any]) -> str:
    config = manifest["config"]
    strategy = config["strategy"]
    # What was selected by a plug-in that is not installed any more is described in full.
    if strategy in strategies.names() and not strategies[strategy].uses("k1"):
        seed = f", seed {config['seed']}" if strategies[strategy].uses("seed") else ""
        return f"{strategy}{seed}"
    rounds = f"k1 {config['k1']:,}, k2 {config['k2']:,}, k3 {config['k3']:,}"
    compat = ", as the published code does" if config["reference_compat"] else ""
    sharding = manifest.get("sharding")
    shards = f", in {sharding['num_shards']:,} shards" if sharding else ""
    codec = f"{config['codec']} level {config['level']}"
    return f"{config['strategy']}, {codec}, {rounds}{shards}{compat}"


def _picked(manifest: Mapping[str, Any]) -> Text:
    share = manifest["num_picked"] / max(manifest["num_samples"], 1)
    size = words_of_bytes(manifest["picked_bytes"])
    tokens = f"{manifest['picked_tokens']:,} tokens ({manifest['tokenizer']})"
    return styled(
        (f"{manifest['num_picked']:,} samples", "bold"), f" ({share:.1%}), {size}, {tokens}"
    )


def _budget(manifest: Mapping[str, Any]) -> str:
    budget = manifest["budget"]
    return f"{budget['value']:,} {budget['unit']}, {manifest['unused_budget']:,} unused"


def _left(ledger: pl.DataFrame) -> dict[str, int]:
    fates = num_by_fate(ledger)
    not_left = ("picked", "duplicate", "held_out")
    return {name: num for name, num in fates.items() if name not in not_left}


def _ratios(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{codec} {value:.2f}" for codec, value in ratios.items())


def _times(seconds: Mapping[str, float]) -> str:
    parts = ", ".join(f"{stage} {words_of_seconds(value)}" for stage, value in seconds.items())
    return f"{words_of_seconds(sum(seconds.values()))} ({parts})"


_NUM_VERSIONS = 10
_LEGEND = """\
R  redundancy: raw / compressed bytes of the subset, higher = more redundant
L  probe loss: mean loss of the first training steps, nats per token, higher = less consistent
Z  quality of the trained model, higher = better (a loss is negated); - where it is not trained
The law: Z falls as R and L rise. A version of which both rise is a risk, and is not trained.
"""


def show_law(console: Console, root: DataRoot) -> None:
    """Print R, L, Z and the verdict of the latest versions, and where the figures lie.

    Args:
        console: where to print.
        root: the data root.
    """
    table = read_versions(root).with_columns(blocked=is_blocked())
    if table.is_empty():
        return
    console.rule(styled(("entropy law", "bold")), align="left")
    console.print(_LEGEND)
    for stage in STAGES:
        rows = table.filter(pl.col("stage") == stage)
        if not rows.is_empty():
            _show_versions(console, stage, rows.tail(_NUM_VERSIONS))
            _show_relations(console, stage, table.drop("blocked"))
    figures = sorted(figures_folder(root).glob("*.png"))
    if figures:
        names = ", ".join(path.name for path in figures)
        console.print(f"Figures in {figures[0].parent}: {names}\n", soft_wrap=True)


def _show_versions(console: Console, stage: str, rows: pl.DataFrame) -> None:
    table = new_table(f"{stage} version", "strategy", "tokens", "R", "L", "Z", "verdict", left=1)
    for row in rows.iter_rows(named=True):
        table.add_row(
            str(row["version"]),
            row["strategy"],
            f"{row['num_tokens']:,}",
            *(_measure(row, name) for name in ("R", "L", "Z")),
            _verdict_words(row),
        )
    console.print(table)
    console.print(f"{rows['reason'][-1]}\n", soft_wrap=True)
    if rows["blocked"][-1]:
        console.print(
            f"To train it nevertheless, give a reason under `override` in the launchpad of "
            f"{stage}/model. What came in: the diff below.\n",
            soft_wrap=True,
        )


def _measure(row: dict[str, Any], name: str) -> str:
    value, spread = row[name], row[f"{name}_spread"]
    if value is None:
        return "-"
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"


def _verdict_words(row: dict[str, Any]) -> Text:
    words = str(row["verdict"]).replace("_", " ")
    if row["blocked"]:
        return styled((f"{words}: blocked", "bold red"))
    return styled(f"{words}, overridden" if row["override"] else words)


def _show_relations(console: Console, stage: str, table: pl.DataFrame) -> None:
    for relation in relations(table, stage):
        console.print(f"  {relation.y} over {relation.x}: {relation.note}")
    console.print()


_NUM_BATCHES = 20
_COUNTS = ("num_rows_read", "num_samples", "num_quarantined", "num_duplicates")


def show_data_root(
    console: Console, root: DataRoot, versions_before: Mapping[Stage, int | None]
) -> None:
    """Print batches, quarantine and the latest version of each stage, and what to do next.

    Args:
        console: where to print.
        root: the data root.
        versions_before: latest version of each stage before the run.
    """
    for stage in STAGES:
        console.rule(styled((stage, "bold")), align="left")
        _show_batches(console, root, stage)
        _show_version(console, root, stage, versions_before[stage])
    show_law(console, root)
    _show_next_steps(console, root)


def _show_batches(console: Console, root: DataRoot, stage: Stage) -> None:
    counts = {
        batch: {name: int(metadata[name]) for name in _COUNTS}
        for batch, metadata in whole_batches(root[stage]).items()
    }
    if not counts:
        console.print("No batch is ingested.\n")
        return
    table = new_table("batch", "rows read", "= samples", "+ quarantined", "+ duplicates inside")
    for batch in list(counts)[:_NUM_BATCHES]:
        table.add_row(batch, *(f"{counts[batch][name]:,}" for name in _COUNTS))
    if len(counts) > _NUM_BATCHES:
        table.add_row(f"… {len(counts) - _NUM_BATCHES} more batches")
    totals = (sum(count[name] for count in counts.values()) for name in _COUNTS)
    table.add_section()
    table.add_row(f"{len(counts)} batches", *(f"{total:,}" for total in totals), style="bold")
    console.print(table)
    if reasons := _quarantine_reasons(root[stage]):
        folder = root.path / "quarantine" / stage
        words = f"Quarantined: {words_of_counts(reasons)}; rows in {folder}"
        console.print(f"{words}\n", soft_wrap=True)


def _quarantine_reasons(folder: StageFolder) -> dict[str, int]:
    tables = [scan_table(folder.quarantine(batch)) for batch in whole_batches(folder)]
    reasons = pl.concat([table.select("reason").collect() for table in tables])["reason"]
    return dict(reasons.value_counts(sort=True).iter_rows())


def _show_version(console: Console, root: DataRoot, stage: Stage, before: int | None) -> None:
    store = root[stage].versions
    number = store.latest()
    if number is None:
        console.print("No version was selected yet.\n")
        return
    news = "unchanged" if number == before else "new"
    manifest: dict[str, Any] = store.manifest(number)
    console.print(styled((f"Version {number}", "bold"), f" ({news}), in {store.path(number)}"))
    ledger = pl.read_parquet(store.path(number) / "ledger.parquet")
    show_selection(console, manifest, ledger)


def _show_next_steps(console: Console, root: DataRoot) -> None:
    option = "" if str(root.path) == "data" else f" --data-root {root.path}"
    ui = "make ui" if str(root.path) == "data" else f"make ui DATA={root.path}"
    steps = [(ui, "the graph, all versions and their figures in the browser")]
    for stage in STAGES:
        store = root[stage].versions
        numbers = store.numbers()
        if not numbers:
            continue
        if sample_id := _first_pick(root[stage], numbers[-1]):
            steps.append((f"zip-pipeline trace {sample_id}{option}", f"why this {stage} sample"))
        if len(numbers) > 1:
            pair = f"{numbers[-2]} {numbers[-1]}"
            command = f"zip-pipeline diff {pair} --stage {stage}{option}"
            steps.append((command, "what came in and what went out"))
    console.rule(styled(("Next", "bold")), align="left")
    for command, meaning in steps:
        console.print(Padding(styled((command, "cyan"), f"  {meaning}"), (0, 0, 0, 2)))


def _first_pick(folder: StageFolder, number: int) -> str | None:
    ledger = pl.scan_parquet(folder.versions.path(number) / "ledger.parquet")
    picks = ledger.filter(pl.col("rank") == 1).select("sample_id").collect()["sample_id"]
    return str(picks[0]) if len(picks) else None
