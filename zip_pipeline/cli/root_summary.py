"""What a data root holds after a run, in tables for people."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.console import Console
from rich.padding import Padding

from zip_pipeline.cli.console import new_table, styled
from zip_pipeline.cli.law_summary import show_law
from zip_pipeline.cli.summary import show_selection, words_of_counts
from zip_pipeline.pool.members import whole_members
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.storage import DataRoot
from zip_pipeline.stored_batches import batches_stay, scan_quarantine

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
        member.batch: {name: int(member.metadata[name]) for name in _COUNTS}
        for member in whole_members(root, stage)
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
    if reasons := _quarantine_reasons(root, stage):
        folder = root.path / "quarantine" / stage
        words = f"Quarantined: {words_of_counts(reasons)}; rows in {folder}"
        console.print(f"{words}\n", soft_wrap=True)


def _quarantine_reasons(root: DataRoot, stage: Stage) -> dict[str, int]:
    with batches_stay(root, stage):
        scans = [scan_quarantine(root, stage, member) for member in whole_members(root, stage)]
        reasons = pl.concat([scan.select("reason").collect() for scan in scans])["reason"]
    return dict(reasons.value_counts(sort=True).iter_rows())


def _show_version(console: Console, root: DataRoot, stage: Stage, before: int | None) -> None:
    store = root.versions(stage)
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
        store = root.versions(stage)
        numbers = store.numbers()
        if not numbers:
            continue
        if sample_id := _first_pick(root, stage, numbers[-1]):
            steps.append((f"zip-pipeline trace {sample_id}{option}", f"why this {stage} sample"))
        if len(numbers) > 1:
            pair = f"{numbers[-2]} {numbers[-1]}"
            command = f"zip-pipeline diff {pair} --stage {stage}{option}"
            steps.append((command, "what came in and what went out"))
    console.rule(styled(("Next", "bold")), align="left")
    for command, meaning in steps:
        console.print(Padding(styled((command, "cyan"), f"  {meaning}"), (0, 0, 0, 2)))


def _first_pick(root: DataRoot, stage: Stage, number: int) -> str | None:
    ledger = pl.scan_parquet(root.versions(stage).path(number) / "ledger.parquet")
    picks = ledger.filter(pl.col("rank") == 1).select("sample_id").collect()["sample_id"]
    return str(picks[0]) if len(picks) else None
