"""A finished selection in tables for people."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.console import Console
from rich.text import Text

from zip_pipeline.cli.console import (
    new_facts,
    new_table,
    styled,
    words_of_bytes,
    words_of_seconds,
)
from zip_pipeline.report.tables import num_by_fate, top_sources


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
    if config["strategy"] == "random":
        return f"random, seed {config['seed']}"
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
